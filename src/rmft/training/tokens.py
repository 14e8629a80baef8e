"""Trajectories in words as tokens, with what the loss asks of each: the ids that were read and sampled.

Nothing is rendered again: the ids are those of the rollout. The loss of a trajectory is

    - sum_j coefficient_j x log p(target_j | the tokens up to position_j),

over targets j: the sampled tokens of each round by the round's weight, and the anchor's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from rmft.errors import TrainingError
from rmft.selection import kept
from rmft.types import Example, FloatArray, Histories, IntArray, Turn


@dataclass(frozen=True, slots=True, eq=False)
class Written:
    """One trajectory as tokens, cut after the last one that a target looks at.

    ids: (n,). opening: how many of them came before the first sampled one. positions: (m,), the index of
    the token after which each target is predicted. targets: (m,) ids. coefficients: (m,). count: how many
    sampled tokens have a weight.
    """

    ids: IntArray
    opening: int
    positions: IntArray
    targets: IntArray
    coefficients: FloatArray
    count: int


def written(example: Example, anchor: float) -> list[list[Written]]:
    """The trajectories of which anything is learned, those of the same opening (a problem's) together.

    anchor: as in `TrainingConfig`. Raises TrainingError when a trajectory was not sampled as tokens.
    """
    histories = example.trajectories.histories
    groups: dict[bytes, list[Written]] = {}
    for row in kept(example.weights):
        one = _trajectory(histories, int(row), example.weights[row], anchor)
        if len(one.targets):
            groups.setdefault(one.ids[: one.opening].tobytes(), []).append(one)
    return list(groups.values())


def _trajectory(histories: Histories, row: int, weights: FloatArray, anchor: float) -> Written:
    ids, positions, targets, coefficients = [], [], [], []
    length = opening = count = 0
    for index, turns in enumerate(histories.turns):
        turn, weight = turns[row], float(weights[index])
        told, sampled = _sampled(turn)
        if index == 0:
            opening = int(sampled[0]) if len(sampled) else len(told)
        if len(sampled) and length + sampled[0] == 0:
            raise TrainingError(
                "The first token of a trajectory was sampled, after nothing; expected a prompt."
            )
        legal = turn.legal if anchor and len(sampled) else None
        if weight or anchor:
            share = np.full(len(sampled), weight + anchor)
            if legal is not None:
                share[-1] = weight
            positions.append(length + sampled - 1)
            targets.append(told[sampled])
            coefficients.append(share)
        if legal is not None:
            if histories.drawn_from is None:
                raise TrainingError("training.anchor needs the probabilities that decisions were drawn from.")
            positions.append(np.full(len(legal), length + sampled[-1] - 1))
            targets.append(legal)
            coefficients.append(anchor * histories.drawn_from[row, index])
        count += len(sampled) if weight else 0
        length += len(told)
        ids.append(told)
    flat, share = np.concatenate(positions), np.concatenate(coefficients)
    asked = share != 0
    end = int(flat[asked].max()) + 1 if asked.any() else opening
    return Written(
        np.concatenate(ids)[:end], opening, flat[asked], np.concatenate(targets)[asked], share[asked], count
    )


def _sampled(turn: Turn) -> tuple[IntArray, IntArray]:
    """A turn's ids, and where among them the sampled ones are."""
    if turn.ids is None or turn.log_probabilities is None:
        raise TrainingError(
            "A trajectory has no token ids with log probabilities: it was not played by a local model, so none "
            "can be trained on it."
        )
    return turn.ids, np.flatnonzero(np.isfinite(turn.log_probabilities))


def batches(
    groups: list[list[Written]], batch_size: int, epochs: int, shuffle: np.random.Generator
) -> Iterator[list[Written]]:
    """Batches of `batch_size` trajectories; each epoch the groups, and the rows of each, in a new order."""
    for _ in range(epochs):
        order = [groups[index] for index in shuffle.permutation(len(groups))]
        rows = [group[index] for group in order for index in shuffle.permutation(len(group))]
        for start in range(0, len(rows), batch_size):
            yield rows[start : start + batch_size]


def passes(batch: list[Written], tokens_at_once: int, *, shared: bool) -> list[list[list[Written]]]:
    """A batch in forward passes of at most `tokens_at_once` tokens, as groups that have their opening in common.

    shared: an opening is read once per group; otherwise every row is a group of its own. A trajectory that
    is longer is a pass of its own.
    """
    by_opening: dict[bytes, list[Written]] = {}
    for number, one in enumerate(batch):
        key = one.ids[: one.opening].tobytes() if shared else number.to_bytes(8, "big")
        by_opening.setdefault(key, []).append(one)
    found: list[list[list[Written]]] = []
    room = 0
    for group in by_opening.values():
        new = True
        for one in sorted(group, key=lambda each: len(each.ids)):
            cost = len(one.ids) if new else len(one.ids) - one.opening
            if cost > room:
                found.append([])
                room, new = tokens_at_once, True
            room -= len(one.ids) if new else cost
            found[-1] += [[one]] if new else []
            if not new:
                found[-1][-1].append(one)
            new = False
    return found
