"""Trajectories in words as tokens, with what the loss asks of each: the ids that were read and sampled.

Nothing is rendered again: the ids are those of the rollout. The loss of a trajectory is

    - sum_j coefficient_j x log p(target_j | the tokens up to position_j)
    + sum_d mass_d x log sum_{i in legal_d} p(i | the tokens up to decision d),

over targets j, the sampled tokens of each round by the round's weight, and the anchor's; and over decisions
d that were one token among legal ones, so that those are compared among each other, as when sampled.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from rmft.errors import TrainingError
from rmft.selection import kept
from rmft.types import Example, FloatArray, Histories, IntArray, Turn


@dataclass(frozen=True, slots=True, eq=False)
class Written:
    """One trajectory as tokens, cut after the last one that a target looks at.

    ids: (n,). opening: with how many of them, at least 1, all trajectories of its group begin. positions:
    (m,), the index of the token after which each target is predicted. targets: (m,) ids. coefficients:
    (m,). decisions: (d,), the index of the token after which each decision is made. legal: (d, K) ids.
    masses: (d,). count: how many sampled tokens have a weight.
    """

    ids: IntArray
    opening: int
    positions: IntArray
    targets: IntArray
    coefficients: FloatArray
    decisions: IntArray
    legal: IntArray
    masses: FloatArray
    count: int
    temperature: float = 1.0


def written(example: Example, anchor: float, form: float) -> list[list[Written]]:
    """The trajectories of which anything is learned, those that are told the same words together.

    A sampled token counts by its round's weight. anchor: times the cross-entropy to what was sampled from:
    to all of the decision's probabilities where it was one token of an arm each (`Turn.legal`), else to
    the sampled token, which is the same on average. Such a decision counts by `arm_weights` where there are
    some. form: times minus the log of the probability that a decision is a legal one at all. Raises
    TrainingError when there are no tokens.
    """
    histories = example.trajectories.histories
    groups: dict[tuple[int, int], list[Written]] = {}
    for row in kept(example.weights):
        one = _trajectory(example, int(row), anchor, form)
        if len(one.targets):
            groups.setdefault((int(histories.words.seeds[row]), int(one.ids[0])), []).append(one)
    return [_with_opening(group) for group in groups.values()]


def _with_opening(group: list[Written]) -> list[Written]:
    shortest = min(len(one.ids) for one in group)
    same = np.all([one.ids[:shortest] == group[0].ids[:shortest] for one in group], axis=0)
    opening = int(np.append(same, False).argmin())
    return [replace(one, opening=opening) for one in group]


def _trajectory(example: Example, row: int, anchor: float, form: float) -> Written:
    histories, every = example.trajectories.histories, example.arm_weights
    ids: list[IntArray] = []
    asked: list[tuple[IntArray, IntArray, FloatArray]] = []
    decided: list[tuple[int, IntArray, float]] = []
    length = count = 0
    for index, (turns, weight) in enumerate(
        zip(histories.words.turns, example.weights[row].tolist(), strict=True)
    ):
        own, sampled = _sampled(turns[row])
        if not length and 0 in sampled:
            raise TrainingError("A trajectory's first token was sampled after nothing; expected a prompt.")
        if len(sampled) and (weight or anchor):
            shares = np.full(len(sampled), weight + anchor)
            legal = turns[row].legal
            if legal is not None:
                decision = length + int(sampled[-1]) - 1
                if anchor or every is not None:
                    shares[-1] = weight if every is None else 0.0
                    arms = np.zeros(len(legal)) if every is None else every[row, index]
                    if anchor:
                        arms = arms + anchor * _drawn_from(histories)[row, index]
                    asked.append((np.full(len(legal), decision), legal, arms))
                mass = weight + anchor if every is None else float(arms.sum())
                decided.append((decision, legal, mass - form))
            asked.append((length + sampled - 1, own[sampled], shares))
            count += len(sampled) if weight else 0
        length += len(own)
        ids.append(own)
    positions, targets, coefficients = (np.concatenate(each) for each in zip(*asked, strict=True))
    some = coefficients != 0
    end = int(positions[some].max(initial=0)) + 1
    return Written(
        np.concatenate(ids)[:end],
        1,
        positions[some],
        targets[some],
        coefficients[some],
        np.array([place for place, _, _ in decided], dtype=np.int64),
        np.stack([legal for _, legal, _ in decided]) if decided else np.zeros((0, 0), dtype=np.int64),
        np.array([mass for _, _, mass in decided]),
        count,
        example.temperature,
    )


def _sampled(turn: Turn) -> tuple[IntArray, IntArray]:
    """A turn's ids, and where among them the sampled ones are."""
    if turn.ids is None or turn.log_probabilities is None:
        raise TrainingError(
            "A turn has no token ids with log probabilities: it was not played by a model in this process, "
            "and nothing can be trained on it."
        )
    return turn.ids, np.flatnonzero(np.isfinite(turn.log_probabilities))


def _drawn_from(histories: Histories) -> FloatArray:
    if histories.probabilities is None:
        raise TrainingError("training.anchor needs the probabilities that decisions were drawn from.")
    return histories.probabilities


def batches(
    groups: list[list[Written]], batch_size: int, epochs: int, shuffle: np.random.Generator
) -> Iterator[list[Written]]:
    """Batches of `batch_size` trajectories: each epoch the groups, and the rows of each, in a new order."""
    for _ in range(epochs):
        order = [groups[index] for index in shuffle.permutation(len(groups))]
        rows = [group[index] for group in order for index in shuffle.permutation(len(group))]
        for start in range(0, len(rows), batch_size):
            yield rows[start : start + batch_size]


def passes(batch: list[Written], tokens_at_once: int) -> list[list[list[Written]]]:
    """A batch in forward passes of at most `tokens_at_once` tokens each, as groups of the same opening.

    An opening is read once per group. A trajectory longer than `tokens_at_once` is a pass of its own.
    """
    by_opening: dict[bytes, list[Written]] = {}
    for one in batch:
        by_opening.setdefault(one.ids[: one.opening].tobytes(), []).append(one)
    found: list[list[list[Written]]] = []
    room = 0
    for group in by_opening.values():
        going_on = False
        for one in sorted(group, key=lambda each: len(each.ids)):
            if (len(one.ids) - one.opening * going_on) > room:
                found.append([])
                room, going_on = tokens_at_once, False
            if not going_on:
                found[-1].append([])
            found[-1][-1].append(one)
            room -= len(one.ids) - one.opening * going_on
            going_on = True
    return found
