"""Prefix-tree packing: many trajectories in one row of tokens, without padding.

A group, trajectories of one problem, is laid out as a tree: two trajectories share their tokens for as long
as they are the same, so the prompt that all have is read once. What in a model works token by token needs no
change. Attention does, and `attend` stands in its place: a token sees what came before it in its own
trajectory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import AttentionInterface

from rmft.training.tokens import TokenSequence

ATTENTION = "rmft_packed"


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Where n trajectories lie in the row: their prefix at `first`, the rest at `rest`, (n, C).

    Shorter ones are padded at the end. own: (n, C), true once for every token after the prefix, in the
    row's order: at the first trajectory that has it.
    """

    first: slice
    rest: Tensor
    own: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Packed:
    """One forward pass: N tokens in a row, and what the objective asks of it (see `TokenSequence`).

    ids, position_ids: (1, N). predicting: (1, N) bool, the S tokens after which anything is predicted.
    token_at: (m,), of 0..S-1, with targets, token_advantages, token_shares, token_logprobs (m,). decision_at:
    (d,), of 0..S-1, with legal (d, K), -1 where a decision has fewer answers, weights and behaviour (d, K), 0
    there. token_reference (m,) and reference (d, K), where the objective holds to one.
    """

    ids: Tensor
    position_ids: Tensor
    groups: list[Group]
    predicting: Tensor
    token_at: Tensor
    targets: Tensor
    token_advantages: Tensor
    token_shares: Tensor
    token_logprobs: Tensor
    decision_at: Tensor
    legal: Tensor
    weights: Tensor
    behaviour: Tensor | None
    temperature: float
    token_reference: Tensor | None = None
    reference: Tensor | None = None


def pack(groups: list[list[TokenSequence]], device: torch.device) -> Packed:
    """Lay out one forward pass. All of a group's trajectories have the same prefix."""
    ids: list[int] = []
    positions: list[int] = []
    pad = torch.nn.utils.rnn.pad_sequence
    laid, token_at, decision_at = [], [], []
    for group in groups:
        start, prefix = len(ids), group[0].prefix
        ids += group[0].ids[:prefix].tolist()
        positions += range(prefix)
        # The tree: a node is a place in the row, reached from the node before it by a token. Each trajectory
        # walks down from the prefix's last token, and adds to the row what no trajectory before it had.
        children: dict[tuple[int, int], int] = {}
        paths, owned = [], []
        for one in group:
            path, first = [start + prefix - 1], len(ids)
            for position, token in enumerate(one.ids[prefix:].tolist(), prefix):
                path.append(children.setdefault((path[-1], token), len(ids)))
                if path[-1] == len(ids):
                    ids.append(token)
                    positions.append(position)
            whole = torch.tensor([*range(start, path[0]), *path])
            token_at.append(whole[torch.from_numpy(one.token_positions)])
            decision_at.append(whole[torch.from_numpy(one.decision_positions)])
            paths.append(whole[prefix:])
            owned.append(whole[prefix:] >= first)
        rest, own = pad(paths, batch_first=True, padding_value=start), pad(owned, batch_first=True)
        laid.append(Group(slice(start, start + prefix), rest.to(device), own.to(device)))
    places, inverse = torch.unique(torch.cat([*token_at, *decision_at]), return_inverse=True)
    predicting = torch.zeros(1, len(ids), dtype=torch.bool)
    predicting[0, places] = True
    rows = [one for group in groups for one in group]
    num_tokens = sum(map(len, token_at))
    behaviour = [one.behaviour for one in rows if one.behaviour is not None]
    token_reference = [one.token_reference for one in rows if one.token_reference is not None]
    reference = [one.reference for one in rows if one.reference is not None]

    def joined(arrays: Sequence[np.ndarray]) -> Tensor:
        tensor = torch.cat([torch.from_numpy(array) for array in arrays])
        return (tensor if tensor.dtype == torch.long else tensor.float()).to(device)

    def padded(arrays: Sequence[np.ndarray], value: float) -> Tensor:
        width = max(array.shape[1] for array in arrays)
        wide = [np.pad(a, ((0, 0), (0, width - a.shape[1])), constant_values=value) for a in arrays]
        return joined(wide)

    return Packed(
        ids=torch.tensor([ids], device=device),
        position_ids=torch.tensor([positions], device=device),
        groups=laid,
        predicting=predicting.to(device),
        token_at=inverse[:num_tokens].to(device),
        targets=joined([one.targets for one in rows]),
        token_advantages=joined([one.token_advantages for one in rows]),
        token_shares=joined([one.token_shares for one in rows]),
        token_logprobs=joined([one.token_logprobs for one in rows]),
        decision_at=inverse[num_tokens:].to(device),
        legal=padded([one.legal for one in rows], -1),
        weights=padded([one.weights for one in rows], 0),
        behaviour=padded(behaviour, 0) if len(behaviour) == len(rows) else None,
        temperature=rows[0].temperature,
        token_reference=joined(token_reference) if len(token_reference) == len(rows) else None,
        reference=padded(reference, 0) if len(reference) == len(rows) else None,
    )


def attend(
    module: torch.nn.Module,  # noqa: ARG001  these arguments are transformers' own
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,  # noqa: ARG001
    rmft_groups: list[Group],  # a name that no model has for an argument of its own
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: object,
) -> tuple[Tensor, None]:
    """Causal attention within each trajectory. query: (1, H, N, D); key, value: (1, H', N, D).

    Returns (1, N, H, D). sliding_window: how many tokens back are seen. softcap: bounds the scores.
    """
    parts = []
    for group in rmft_groups:
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
        attend_to = partial(functional.scaled_dot_product_attention, attn_mask=seen, scale=scaling)
        if query.device.type != "cpu":
            return attend_to(query, key, value)
        with torch.autocast("cpu", enabled=False):  # its gradient in bfloat16 takes 3 times as long there
            return attend_to(query.float(), key.float(), value.float()).to(query.dtype)
    scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    scores = (softcap * torch.tanh(scores / softcap)).masked_fill(~seen, float("-inf"))
    return scores.softmax(dim=-1, dtype=torch.float32).to(query.dtype) @ value


AttentionInterface.register(ATTENTION, attend)
