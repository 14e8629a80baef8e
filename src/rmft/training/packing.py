"""Many trajectories in one row of tokens: no padding, and what they begin with in common read once.

A group, trajectories of one problem, is laid out as a tree: its opening, then what follows, where two
trajectories share their tokens for as long as they are the same. What in a model works token by token
needs to know nothing of this. Attention does, and `attend` stands in its place: a token sees what came
before it in its own trajectory.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AttentionInterface

from rmft.training.tokens import Written

ATTENTION = "rmft_packed"


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Where n trajectories lie in the row: their opening at `first`, the rest at `rest`, (n, C).

    Shorter ones are padded at the end. own: (n, C), true once for every token after the opening, in the
    row's order: at the first trajectory that has it.
    """

    first: slice
    rest: Tensor
    own: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Packed:
    """One forward pass: N tokens in a row, and the loss asked of them.

    ids, position_ids: (1, N). asked: (1, N) bool, the S tokens after which anything is predicted.
    at: (m,), of 0..S-1, with targets (m,) and coefficients (m,); decisions: (d,), of 0..S-1, with legal
    (d, K), -1 where there is none, and masses (d,); see `rmft.training.tokens`.
    """

    ids: Tensor
    position_ids: Tensor
    groups: list[Group]
    asked: Tensor
    at: Tensor
    targets: Tensor
    coefficients: Tensor
    decisions: Tensor
    legal: Tensor
    masses: Tensor
    temperature: float


def pack(groups: list[list[Written]], device: torch.device) -> Packed:
    """Lay out one forward pass. All of a group's trajectories have the same opening."""
    ids: list[int] = []
    places: list[int] = []
    pad = torch.nn.utils.rnn.pad_sequence
    laid, at, deciding = [], [], []
    legal: list[Tensor] = []
    for group in groups:
        start, opening = len(ids), group[0].opening
        ids += group[0].ids[:opening].tolist()
        places += range(opening)
        after: dict[tuple[int, int], int] = {}
        paths, owned = [], []
        for one in group:
            path, first = [start + opening - 1], len(ids)
            for place, token in enumerate(one.ids[opening:].tolist(), opening):
                path.append(after.setdefault((path[-1], token), len(ids)))
                if path[-1] == len(ids):
                    ids.append(token)
                    places.append(place)
            whole = torch.tensor([*range(start, path[0]), *path])
            at.append(whole[torch.from_numpy(one.positions)])
            deciding.append(whole[torch.from_numpy(one.decisions)])
            legal += [torch.from_numpy(ids_of_arms) for ids_of_arms in one.legal]
            paths.append(whole[opening:])
            owned.append(whole[opening:] >= first)
        rest, own = pad(paths, batch_first=True, padding_value=start), pad(owned, batch_first=True)
        laid.append(Group(slice(start, start + opening), rest.to(device), own.to(device)))
    found, index = torch.unique(torch.cat(at), return_inverse=True)
    asked = torch.zeros(1, len(ids), dtype=torch.bool)
    asked[0, found] = True
    rows = [one for group in groups for one in group]
    return Packed(
        torch.tensor([ids], device=device),
        torch.tensor([places], device=device),
        laid,
        asked.to(device),
        index.to(device),
        torch.cat([torch.from_numpy(one.targets) for one in rows]).to(device),
        torch.cat([torch.from_numpy(one.coefficients) for one in rows]).float().to(device),
        torch.searchsorted(found, torch.cat(deciding)).to(device),
        (pad(legal, batch_first=True, padding_value=-1) if legal else torch.zeros(0, 0).long()).to(device),
        torch.cat([torch.from_numpy(one.masses) for one in rows]).float().to(device),
        rows[0].temperature,
    )


def attend(
    module: torch.nn.Module,  # noqa: ARG001  these arguments are transformers' own
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,  # noqa: ARG001
    packed: list[Group],
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: object,
) -> tuple[Tensor, None]:
    """Causal attention within each trajectory. query: (1, H, N, D); key, value: (1, H', N, D).

    Returns (1, N, H, D). sliding_window: how many tokens back are seen. softcap: bounds the scores.
    """
    parts = []
    for group in packed:
        q, k, v = (each[:, :, group.first] for each in (query, key, value))
        out = _causal(q, k, v, scaling, sliding_window, softcap)
        parts.append(out[0].transpose(0, 1))
        if group.rest.numel():
            rest = [each[0, :, group.rest].transpose(0, 1) for each in (query, key, value)]
            seen = [
                torch.cat([shared.expand(len(group.rest), -1, -1, -1), each], dim=2)
                for shared, each in zip((k, v), rest[1:], strict=True)
            ]
            out = _causal(rest[0], seen[0], seen[1], scaling, sliding_window, softcap)
            parts.append(out.transpose(1, 2)[group.own])
    return torch.cat(parts).unsqueeze(0), None


def _causal(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scaling: float | None,
    window: int | None,
    softcap: float | None,
) -> Tensor:
    """Attention of the last Q places. query: (n, H, Q, D); key and value: (n, H', P + Q, D)."""
    times = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(times, dim=1), value.repeat_interleave(times, dim=1)
    places = torch.arange(key.shape[2], device=query.device)
    behind = places[-query.shape[2] :, None] - places
    seen = (behind >= 0) & (behind < (window or len(places)))
    if softcap is None:
        return functional.scaled_dot_product_attention(query, key, value, attn_mask=seen, scale=scaling)
    scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    scores = (softcap * torch.tanh(scores / softcap)).masked_fill(~seen, float("-inf"))
    return scores.softmax(dim=-1, dtype=torch.float32).to(query.dtype) @ value


AttentionInterface.register(ATTENTION, attend)
