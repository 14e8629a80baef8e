"""A language model in this process, which reads and writes in batches; a `TokenEngine`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from rmft.errors import ConfigError
from rmft.generators.cache import ATTENTION, RowCache
from rmft.generators.tokens import Ends, Written, append_to
from rmft.types import FloatArray, IntArray

TOKENS_AT_ONCE = 4096  # in one pass: bounds the memory of activations
BLOCK = 256  # tokens of a vocabulary whose probabilities are summed together


class LocalEngine:
    """Implements `TokenEngine` with a model in this process.

    memory_gb: of a session's key-value cache. ready: called before a session begins, for a model that is
    shared and may have another adapter by then.
    """

    sessions_at_once = 1

    def __init__(
        self, model: PreTrainedModel, memory_gb: float, ready: Callable[[], None] = lambda: None
    ) -> None:
        self.model, self._memory_gb, self._ready = model, memory_gb, ready
        self.context, self.stop_ids = context_limit(model), end_tokens(model)

    def rows_at_once(self, max_tokens: int) -> int:
        """See `TokenEngine`."""
        needed = max_tokens * bytes_per_token(self.model) / 1e9
        rows = int(self._memory_gb / needed)
        if rows < 1:
            raise ConfigError(
                f"One rollout of {max_tokens} tokens needs {needed:.1g} GB of key-value cache; "
                f"policy.memory_gb is {self._memory_gb:g}. Raise it or shorten the horizon."
            )
        return rows

    def session(self, num_rows: int, max_tokens: int) -> Session:
        """See `TokenEngine`."""
        self._ready()
        return Session(self.model, num_rows, max_tokens)


class Session:
    """Implements `TokenSession` with a model in this process, whose keys and values it keeps.

    The last token that was chosen or written may not be read yet: that happens at the next call.
    max_tokens: as many as a row may ever have. Raises ConfigError when a row gets longer than max_tokens, or
    max_tokens is more than the model reads.
    """

    def __init__(self, model: PreTrainedModel, num_rows: int, max_tokens: int) -> None:
        limit = context_limit(model)
        if max_tokens > limit:
            raise ConfigError(
                f"A row of {max_tokens:,} tokens is asked for, but the model reads {limit:,} at most. "
                "Shorten the horizon, the wording or the reasoning, or take a model with a longer context."
            )
        head = head_of(model)
        self._model, self._head = model, head
        self._softcap: float | None = getattr(model.config, "final_logit_softcapping", None)
        self._cache = RowCache(num_rows, max_tokens, model.device)
        self._hidden = torch.zeros(num_rows, head.in_features, dtype=model.dtype, device=model.device)
        # Rows with equal ids have read identical tokens, so one of them is computed and the others copied.
        self._prefix_id = np.zeros(num_rows, dtype=np.int64)
        self._last_prefix_id = 0
        self.ids: list[list[int]] = [[] for _ in range(num_rows)]

    def read(self, told: Sequence[Sequence[int]]) -> None:
        """Append told[i] to row i, and read all that is not read yet in one pass."""
        append_to(self.ids, told)
        self._catch_up()

    @torch.inference_mode()
    def choose(
        self, legal: IntArray, uniforms: FloatArray, temperature: float = 1.0
    ) -> tuple[IntArray, FloatArray, FloatArray]:
        """See `TokenSession`."""
        self._catch_up()
        rows = len(self.ids)
        legal = np.broadcast_to(legal, (rows, legal.shape[-1]))
        index = torch.tensor(legal, device=self._hidden.device)
        logits = torch.einsum("bd,bcd->bc", self._hidden.float(), self._head.weight[index].float())
        if self._head.bias is not None:
            logits = logits + self._head.bias[index].float()
        picks, logprobs, probabilities = _sample(self._capped(logits), uniforms, temperature)
        ids = legal[np.arange(rows), picks]
        for row, token in zip(self.ids, ids.tolist(), strict=True):
            row.append(token)
        return ids, logprobs, probabilities.numpy(force=True)

    @torch.inference_mode()
    def write(
        self,
        budget: int,
        ends: Ends,
        uniforms: FloatArray,
        temperature: float = 1.0,
        marks: Sequence[str] = (),  # noqa: ARG002
    ) -> list[Written]:
        """See `TokenSession`."""
        wrote = [Written() for _ in self.ids]
        active = list(range(len(wrote)))
        for step in range(budget):
            if not active:
                break
            self._catch_up()
            rows = np.array(active)
            logits = self._capped(self._head(self._hidden[torch.from_numpy(rows)]).float())
            tokens, logprobs = _sample_token(logits, uniforms[rows, step], temperature)
            for row, token, logprob in zip(rows.tolist(), tokens.tolist(), logprobs.tolist(), strict=True):
                one = wrote[row]
                if one.add(token, logprob, ends([*one.ids, token])):
                    self.ids[row].append(token)
            active = [row for row in active if not wrote[row].ended]
        return wrote

    def rewind(self, row: int, length: int) -> None:
        """Forget all of a row's tokens but the first `length`; it is then like any that has read these."""
        ids, lengths = self.ids[row], self._cache.lengths
        del ids[length:]
        if length < lengths[row]:
            alike = (other for other in np.flatnonzero(lengths == length) if self.ids[other][:length] == ids)
            other = next(alike, None)
            self._last_prefix_id += other is None
            self._prefix_id[row] = self._last_prefix_id if other is None else self._prefix_id[other]
            lengths[row] = length

    @property
    def max_tokens(self) -> int:
        """As many as a row may ever have."""
        return self._cache.max_tokens

    @torch.inference_mode()
    def widen(self, max_tokens: int) -> None:
        """Let rows get as long as this, which is no less than before."""
        self._cache.widen(max_tokens)

    @torch.inference_mode()
    def logits(self, rows: IntArray) -> Tensor:
        """Of the next token of each of `rows`, (n, V), float32; to go on, `read` what was made of them."""
        self._catch_up()
        index = torch.from_numpy(rows).to(self._hidden.device)
        return self._capped(self._head(self._hidden[index]).float())

    @torch.inference_mode()
    def _catch_up(self) -> None:
        """Read every row's unread tokens. Rows that hold the same ones are computed once, then copied."""
        lengths = self._cache.lengths
        groups: dict[tuple[int, tuple[int, ...]], list[int]] = {}
        for row, ids in enumerate(self.ids):
            if len(ids) > self._cache.max_tokens:
                raise ConfigError(
                    f"A row has {len(ids):,} tokens, more than the {self._cache.max_tokens:,} made room for."
                )
            if new := tuple(ids[lengths[row] :]):
                groups.setdefault((int(self._prefix_id[row]), new), []).append(row)
        todo = [(rows, new) for (_, new), rows in groups.items()]
        while todo:
            size, now = 0, list[tuple[list[int], tuple[int, ...]]]()
            while todo and (not now or size + len(todo[0][1]) <= TOKENS_AT_ONCE):
                now.append(todo.pop(0))
                size += len(now[-1][1])
            self._pass(now)

    def _pass(self, groups: list[tuple[list[int], tuple[int, ...]]]) -> None:
        """Read the same new tokens into the rows of each group, computing its first row only."""
        firsts = np.array([rows[0] for rows, _ in groups])
        counts = np.array([len(new) for _, new in groups])
        starts = self._cache.lengths[firsts]
        device = self._hidden.device
        positions = self._cache.begin(firsts, counts)
        tokens = torch.tensor([token for _, new in groups for token in new], device=device)
        with _row_attention(self._model):
            read = self._model.base_model(
                input_ids=tokens[None], position_ids=positions[None], use_cache=False, rmft_rows=self._cache
            )
        hidden = read.last_hidden_state[0, torch.from_numpy(np.cumsum(counts) - 1).to(device)]
        for (rows, new), start, last in zip(groups, starts.tolist(), hidden, strict=True):
            if len(rows) > 1:
                self._cache.copy(rows[0], rows[1:], start, start + len(new))
            self._hidden[torch.tensor(rows, device=device)] = last
            self._last_prefix_id += 1
            self._prefix_id[rows] = self._last_prefix_id

    def _capped(self, logits: Tensor) -> Tensor:
        return logits if self._softcap is None else torch.tanh(logits / self._softcap) * self._softcap


def _sample(logits: Tensor, uniforms: FloatArray, temperature: float) -> tuple[IntArray, FloatArray, Tensor]:
    """Inverse CDF: indices (B,), their log probabilities (B,), and all probabilities (B, C)."""
    if logits.device.type == "mps":  # which has no float64
        logits = logits.cpu()
    probabilities = logits.double().div_(temperature).softmax(dim=-1)
    edges = probabilities.cumsum(dim=-1)
    draws = torch.tensor(uniforms, device=edges.device)[:, None] * edges[:, -1:]
    picks = torch.searchsorted(edges, draws, right=True).clamp_(max=edges.shape[1] - 1)
    logs = probabilities.gather(1, picks).log()
    return picks[:, 0].numpy(force=True), logs[:, 0].numpy(force=True), probabilities


def _sample_token(logits: Tensor, uniforms: FloatArray, temperature: float) -> tuple[IntArray, FloatArray]:
    """Inverse CDF over a vocabulary: indices (B,), their log probabilities (B,).

    Cumulative sums of all of it would take a third of a token's time: they are made over blocks, and within
    the block that was drawn.
    """
    probabilities = (logits / temperature if temperature != 1 else logits).softmax(dim=-1)
    rows, size = probabilities.shape
    blocks = F.pad(probabilities, (0, -size % BLOCK)).view(rows, -1, BLOCK)
    edges = blocks.sum(dim=-1).cpu().double().cumsum(dim=-1)
    draws = torch.from_numpy(uniforms)[:, None] * edges[:, -1:]
    block = torch.searchsorted(edges, draws, right=True).clamp_(max=edges.shape[1] - 1)
    within = blocks.gather(1, block[:, :, None].expand(-1, -1, BLOCK).to(blocks.device))[:, 0]
    within = within.cpu().double().cumsum(dim=-1)
    left = torch.minimum(draws - F.pad(edges, (1, 0)).gather(1, block), within[:, -1:] * (1 - 1e-9))
    picks = block * BLOCK + torch.searchsorted(within, left, right=True)
    logs = (probabilities.gather(1, picks.to(probabilities.device)).cpu().double() / edges[:, -1:]).log()
    return picks[:, 0].numpy(), logs[:, 0].numpy()


@contextmanager
def _row_attention(model: PreTrainedModel) -> Iterator[None]:
    """The model attends through its rows' cache within, and as before afterwards."""
    own = model.config._attn_implementation
    model.config._attn_implementation = ATTENTION
    try:
        yield
    finally:
        model.config._attn_implementation = own


def head_of(model: PreTrainedModel) -> nn.Linear:
    """The linear layer from hidden states to logits. Raises ConfigError when there is none."""
    head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    if not isinstance(head, nn.Linear):
        raise ConfigError(
            f"A {type(model).__name__} has no linear layer that gives logits; it can't be played."
        )
    return head


def context_limit(model: PreTrainedModel) -> int:
    """How many tokens of context the model reads exactly as it was trained to.

    Its positions; its sliding window where it has one, as all of a row is kept in view; and where the
    embedding of positions changes with length (as in Phi-3.5), the length at which it does.
    """
    config = model.config
    limits = [config.max_position_embeddings]
    window = getattr(config, "sliding_window", None)
    limits += [window] if window else []
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type") == "longrope":
        limits += [rope.get("original_max_position_embeddings") or config.original_max_position_embeddings]
    return int(min(limits))


def end_tokens(model: PreTrainedModel) -> list[int]:
    """The tokens that end a text, as the model's generation config lists them."""
    named = model.generation_config.eos_token_id if model.generation_config else None
    return [] if named is None else [named] if isinstance(named, int) else list(named)


def bytes_per_token(model: PreTrainedModel) -> int:
    """Of the keys and values of one token in one row, over all layers."""
    config = model.config
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(2 * config.num_hidden_layers * config.num_key_value_heads * width * model.dtype.itemsize)
