"""The keys and values of a batch of rows, written in place, and attention over them.

Rows are read packed: the new tokens of all rows one after the other, with no padding between them, so
that a model's linear layers compute nothing in vain. Only attention looks at rows, one run of
neighbouring rows at a time, in the part of the cache that they fill. Nothing is ever copied or
concatenated.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface

from rmft.types import IntArray

ATTENTION = "rmft_rows"
"""The name of `attend` among the attention functions of transformers."""


@dataclass(frozen=True)
class _Run:
    """Neighbouring rows in one pass: which, and where their tokens lie in the packed ones."""

    rows: slice
    tokens: slice
    num_rows: int
    longest: int  # new tokens of the row that has most
    filled: int  # tokens of the row that has most, new ones included
    mask: Tensor | None  # (rows, 1, longest, filled), True where a query sees a key; None: all do
    padded: Tensor | None  # (rows * longest), which packed token stands there; None: no padding
    packed: Tensor | None  # (tokens), where each packed token stands among the padded ones


class RowCache:
    """Keys and values (rows, heads, max_tokens, head width) of every layer, and the passes that fill it.

    lengths: (num_rows,), how many tokens of each row are in it.
    """

    def __init__(self, num_rows: int, max_tokens: int, device: torch.device) -> None:
        self.num_rows, self.max_tokens, self.device = num_rows, max_tokens, device
        self.lengths = np.zeros(num_rows, dtype=np.int64)
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}
        self._fresh = slice(0, 0)  # the columns that this pass is the first to reach
        self._runs: list[_Run] = []
        self._slots: dict[int, Tensor] = {}
        self._places = (np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))

    def begin(self, rows: IntArray, counts: IntArray) -> Tensor:
        """Start a pass in which rows[i] (ascending) gets counts[i] >= 1 tokens: their positions (N,)."""
        starts = self.lengths[rows]
        firsts = np.cumsum(counts) - counts
        positions = np.arange(counts.sum()) - np.repeat(firsts - starts, counts)
        self._places = (np.repeat(rows, counts), positions)
        self._slots = {}
        edges = [0, *(np.flatnonzero(np.diff(rows) != 1) + 1), len(rows)]
        self._runs = [
            self._run(rows[a:b], counts[a:b], starts[a:b], int(firsts[a]))
            for a, b in itertools.pairwise(edges)
        ]
        self.lengths[rows] += counts
        self._fresh = slice(self._fresh.stop, max(self._fresh.stop, int(self.lengths[rows].max())))
        return torch.from_numpy(positions).to(self.device)

    def _run(self, rows: IntArray, counts: IntArray, starts: IntArray, first: int) -> _Run:
        """How neighbouring rows attend: `counts` new tokens after `starts` old ones, from `first` on."""
        longest, filled = int(counts.max()), int((starts + counts).max())
        mask = padded = packed = None
        # A mask is needed where a query must not see a key: later new tokens, or columns beyond a shorter
        # row. One token each in rows of equal length sees all of them, which is fastest.
        if longest > 1 or (starts + counts).min() < filled:
            sees = starts[:, None] + np.arange(longest)  # the last position that each query sees
            seen = np.arange(filled) <= sees[:, :, None]
            mask = torch.from_numpy(seen[:, None]).to(self.device)
        # Attention wants a rectangle (rows, longest). A row with fewer new tokens repeats its last one
        # (`padded`), and what comes out is taken back from places that are no repetition (`packed`).
        if counts.min() < longest:
            columns = np.arange(longest)
            offsets = (np.cumsum(counts) - counts)[:, None]
            padded = torch.from_numpy(offsets + np.minimum(columns, counts[:, None] - 1)).to(self.device)
            packed = torch.from_numpy(np.flatnonzero(columns < counts[:, None])).to(self.device)
            padded = padded.flatten()
        return _Run(
            rows=slice(int(rows[0]), int(rows[-1]) + 1),
            tokens=slice(first, first + int(counts.sum())),
            num_rows=len(rows),
            longest=longest,
            filled=filled,
            mask=mask,
            padded=padded,
            packed=packed,
        )

    def attend(
        self,
        layer: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scaling: float | None,
        softcap: float | None,
    ) -> Tensor:
        """Write a pass's keys and values, and attend to all that their rows hold.

        query: (N, H, width); key, value: (N, heads, width), packed. Returns (N, H, width of values).
        """
        keys, values = self._layer(layer, key, value)
        keys[:, :, self._fresh].zero_()  # a masked key's share is 0 x the value: that must be finite
        values[:, :, self._fresh].zero_()
        slots = self._slots_of(key.shape[1])
        keys.view(-1, key.shape[-1]).index_copy_(0, slots, key.flatten(0, 1))
        values.view(-1, value.shape[-1]).index_copy_(0, slots, value.flatten(0, 1))
        out = query.new_empty(*query.shape[:2], value.shape[-1])
        for run in self._runs:
            asked = query[run.tokens]
            if run.padded is not None:
                asked = asked[run.padded]
            asked = asked.view(run.num_rows, run.longest, *asked.shape[1:]).transpose(1, 2)
            seen_keys, seen_values = keys[run.rows, :, : run.filled], values[run.rows, :, : run.filled]
            if softcap is None:
                found = F.scaled_dot_product_attention(
                    asked, seen_keys, seen_values, attn_mask=run.mask, scale=scaling, enable_gqa=True
                )
            else:
                found = _capped_attention(asked, seen_keys, seen_values, run.mask, scaling, softcap)
            found = found.transpose(1, 2).flatten(0, 1)
            out[run.tokens] = found if run.packed is None else found[run.packed]
        return out

    def copy(self, source: int, targets: Sequence[int], first: int, last: int) -> None:
        """Give `targets` the tokens [first, last) of row `source`; they must hold the same ones before."""
        rows = torch.tensor(targets, device=self.device)
        for layer in self._layers.values():
            for tensor in layer:
                tensor[rows, :, first:last] = tensor[source, :, first:last]
        self.lengths[list(targets)] = last

    def widen(self, max_tokens: int) -> None:
        """Make room for rows of so many tokens, which are no fewer than now."""
        for number, tensors in self._layers.items():
            keys, values = (
                tensor.new_empty(*tensor.shape[:2], max_tokens, tensor.shape[-1]) for tensor in tensors
            )
            for wide, tensor in ((keys, tensors[0]), (values, tensors[1])):
                wide[:, :, : self._fresh.stop] = tensor[:, :, : self._fresh.stop]
            self._layers[number] = keys, values
        self.max_tokens = max_tokens

    def _layer(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        if layer not in self._layers:
            shape = (self.num_rows, key.shape[1], self.max_tokens)
            self._layers[layer] = (
                key.new_empty(*shape, key.shape[-1]),
                value.new_empty(*shape, value.shape[-1]),
            )
        return self._layers[layer]

    def _slots_of(self, heads: int) -> Tensor:
        if heads not in self._slots:
            rows, positions = self._places
            slots = (rows[:, None] * heads + np.arange(heads)) * self.max_tokens + positions[:, None]
            self._slots[heads] = torch.from_numpy(slots.flatten()).to(self.device)
        return self._slots[heads]


def _capped_attention(
    query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scaling: float | None, softcap: float
) -> Tensor:
    """Attention with scores held within +-softcap by a tanh (Gemma 2), query heads grouped by key head."""
    rows, _, asked, width = query.shape
    grouped = query.reshape(rows, keys.shape[1], -1, asked, width)
    scores = grouped @ keys.unsqueeze(2).transpose(-1, -2) * (scaling or width**-0.5)
    scores = torch.tanh(scores / softcap) * softcap
    if mask is not None:
        scores = scores.masked_fill(~mask.unsqueeze(1), -torch.inf)
    found = scores.softmax(dim=-1, dtype=torch.float32).to(values.dtype) @ values.unsqueeze(2)
    return found.flatten(1, 2)


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,  # noqa: ARG001
    *,
    rmft_rows: RowCache,  # a name of our own: models have arguments named `cache`
    scaling: float | None = None,
    softcap: float | None = None,
    **_: object,
) -> tuple[Tensor, None]:
    """`RowCache.attend` as transformers calls it: query, key, value (1, heads, N, width), packed."""
    layer = module.layer_idx
    assert isinstance(layer, int)
    query, key, value = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    return rmft_rows.attend(layer, query, key, value, scaling, softcap).unsqueeze(0), None


AttentionInterface.register(ATTENTION, attend)
