"""Many trajectories in one row of tokens without padding, their common opening read once.

A group is laid out as its opening, then what each of its trajectories has beyond it. Everything in a model
that works token by token needs to know nothing of this; attention does, and `attend` is what stands in its
place: a token sees the opening of its group and what came before it in its own trajectory.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AttentionInterface, PreTrainedConfig, PreTrainedModel

from rmft.training.tokens import Written

ATTENTION = "rmft_packed"
LAYERS = {"full_attention", "sliding_attention"}


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Where a group lies: its opening from `start`, `opening` tokens, then (n, C) the `rest`'s indices.

    real: (n, C), where `rest` is a token; it is padded by repeating an index at the end. None: everywhere.
    """

    start: int
    opening: int
    rest: Tensor
    real: Tensor | None

    @property
    def end(self) -> int:
        size = self.rest.numel() if self.real is None else int(self.real.sum())
        return self.start + self.opening + size


@dataclass(frozen=True, slots=True, eq=False)
class Packed:
    """Trajectories in one row of N tokens, and the loss asked of them.

    ids, position_ids: (1, N). asked: (1, N) bool, after which tokens anything is predicted, S of them.
    rows: (m,), of 0..S-1, with targets (m,) and coefficients (m,); see `rmft.training.tokens`.
    """

    ids: Tensor
    position_ids: Tensor
    groups: list[Group]
    asked: Tensor
    rows: Tensor
    targets: Tensor
    coefficients: Tensor


def pack(groups: list[list[Written]], device: torch.device) -> Packed:
    """Lay out one forward pass. All of a group's trajectories have the same opening."""
    ids, places, laid, at, targets, coefficients = [], [], [], [], [], []
    start = 0
    for group in groups:
        opening = group[0].opening
        ids.append(torch.from_numpy(group[0].ids[:opening]))
        places.append(torch.arange(opening))
        end, rests = start + opening, []
        for one in group:
            rest = len(one.ids) - opening
            ids.append(torch.from_numpy(one.ids[opening:]))
            places.append(torch.arange(opening, len(one.ids)))
            rests.append(torch.arange(end, end + rest))
            positions = torch.from_numpy(one.positions)
            at.append(torch.where(positions < opening, start + positions, end + positions - opening))
            targets.append(torch.from_numpy(one.targets))
            coefficients.append(torch.from_numpy(one.coefficients))
            end += rest
        laid.append(_group(start, opening, rests))
        start = end
    found, rows = torch.cat(at).unique(return_inverse=True)
    asked = torch.zeros(1, start, dtype=torch.bool)
    asked[0, found] = True
    return Packed(
        torch.cat(ids).unsqueeze(0).to(device),
        torch.cat(places).unsqueeze(0).to(device),
        [
            Group(g.start, g.opening, g.rest.to(device), g.real if g.real is None else g.real.to(device))
            for g in laid
        ],
        asked.to(device),
        rows.to(device),
        torch.cat(targets).to(device),
        torch.cat(coefficients).float().to(device),
    )


def _group(start: int, opening: int, rests: list[Tensor]) -> Group:
    rests = [rest for rest in rests if len(rest)]
    if not rests:
        return Group(start, opening, torch.zeros(0, 0, dtype=torch.int64), None)
    longest = max(len(rest) for rest in rests)
    if all(len(rest) == longest for rest in rests):
        return Group(start, opening, torch.stack(rests), None)
    padded = torch.stack(
        [functional.pad(rest, (0, longest - len(rest)), value=int(rest[-1])) for rest in rests]
    )
    real = torch.tensor([[place < len(rest) for place in range(longest)] for rest in rests])
    return Group(start, opening, padded, real)


def can_pack(config: PreTrainedConfig, model: PreTrainedModel) -> bool:
    """Whether tokens meet in attention only, and that can be replaced: not so in recurrent layers."""
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    return kinds <= LAYERS and bool(model._supports_attention_backend)


def attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    packed_groups: list[Group],
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: object,
) -> tuple[Tensor, None]:
    """Attention of one row of packed tokens. query: (1, H, N, D); key, value: (1, H', N, D). (1, N, H, D)."""
    parts = []
    for group in packed_groups:
        first = slice(group.start, group.start + group.opening)
        q, k, v = query[:, :, first], key[:, :, first], value[:, :, first]
        parts.append(_attention(q, k, v, scaling, sliding_window, softcap)[0].transpose(0, 1))
        if group.rest.numel():
            n, longest = group.rest.shape
            own = [each[0, :, group.rest].transpose(0, 1) for each in (query, key, value)]
            seen_k, seen_v = (
                torch.cat([shared.expand(n, -1, -1, -1), each], dim=2)
                for shared, each in zip((k, v), own[1:], strict=True)
            )
            out = _attention(own[0], seen_k, seen_v, scaling, sliding_window, softcap).transpose(1, 2)
            parts.append(out.flatten(0, 1) if group.real is None else out[group.real])
    return torch.cat(parts).unsqueeze(0), None


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scaling: float | None,
    window: int | None,
    softcap: float | None,
) -> Tensor:
    """Causal attention of the last of `key`'s places. query: (n, H, Q, D); key, value: (n, H', Q + P, D)."""
    num_queries, num_keys = query.shape[2], key.shape[2]
    times = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(times, dim=1), value.repeat_interleave(times, dim=1)
    places = torch.arange(num_keys, device=query.device)
    behind = places[num_keys - num_queries :, None] - places
    seen = behind >= 0 if window is None else (behind >= 0) & (behind < window)
    if softcap is None:
        return functional.scaled_dot_product_attention(query, key, value, attn_mask=seen, scale=scaling)
    scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    scores = (softcap * torch.tanh(scores / softcap)).masked_fill(~seen, float("-inf"))
    return scores.softmax(dim=-1, dtype=torch.float32).to(query.dtype) @ value


AttentionInterface.register(ATTENTION, attend)
