"""Trajectories in words as token sequences, with what the objective asks of each (`rmft.training.objective`).

Nothing is rendered again: the ids are those of the rollout. A round's sampled tokens are, where the decision
was one token out of the legal answers, free tokens and that decision, else free tokens only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from rmft.errors import TrainingError
from rmft.types import FloatArray, IntArray, TrainingBatch, Turn


@dataclass(frozen=True, slots=True, eq=False)
class TokenSequence:
    """One trajectory as tokens, cut after the last one that anything is predicted from.

    ids: (n,). prefix: with how many of them, at least 1, all trajectories of its group begin.
    Free tokens: token_positions (m,), the index of the token after which each is predicted; targets (m,) ids;
    token_advantages (m,); token_logprobs (m,) under the behaviour policy.
    Decisions: decision_positions (d,); legal (d, K) ids; weights (d, K), the coefficients of their log
    probabilities among each other; behaviour (d, K), the probabilities they were drawn from, or None.
    num_tokens: how many sampled tokens are in the loss. temperature: what divided the logits in sampling.
    """

    ids: IntArray
    prefix: int
    token_positions: IntArray
    targets: IntArray
    token_advantages: FloatArray
    token_logprobs: FloatArray
    decision_positions: IntArray
    legal: IntArray
    weights: FloatArray
    behaviour: FloatArray | None
    num_tokens: int
    temperature: float = 1.0

    @staticmethod
    def of_tokens(ids: IntArray, prefix: int, places: IntArray) -> TokenSequence:
        """Tokens `ids` of which those at `places` (m,) are imitated: written freely, each of advantage 1."""
        nothing = np.zeros((0, 0))
        return TokenSequence(
            ids=ids[: places[-1]],
            prefix=prefix,
            token_positions=places - 1,
            targets=ids[places],
            token_advantages=np.ones(len(places)),
            token_logprobs=np.zeros(len(places)),
            decision_positions=np.zeros(0, dtype=np.int64),
            legal=nothing.astype(np.int64),
            weights=nothing,
            behaviour=None,
            num_tokens=len(places),
        )


def token_sequences(batch: TrainingBatch) -> list[list[TokenSequence]]:
    """The trajectories of which anything is learned, those with the same prompt together.

    Raises TrainingError when there are no tokens.
    """
    histories = batch.trajectories.histories
    groups: dict[tuple[int, int], list[TokenSequence]] = {}
    for row in batch.kept:
        one = _sequence(batch, int(row))
        if one.num_tokens:
            groups.setdefault((int(histories.words.seeds[row]), int(one.ids[0])), []).append(one)
    return [_with_prefix(group) for group in groups.values()]


def _with_prefix(group: list[TokenSequence]) -> list[TokenSequence]:
    shortest = min(len(one.ids) for one in group)
    same = np.all([one.ids[:shortest] == group[0].ids[:shortest] for one in group], axis=0)
    prefix = int(np.append(same, False).argmin())
    return [replace(one, prefix=prefix) for one in group]


def _sequence(batch: TrainingBatch, row: int) -> TokenSequence:
    histories = batch.trajectories.histories
    num_arms = histories.rules.num_arms
    ids: list[IntArray] = []
    places: list[int] = []  # of the free tokens, each with its advantage and log probability
    advantages: list[float] = []
    logprobs: list[float] = []
    decisions: list[int] = []
    legal: list[IntArray] = []
    weights: list[FloatArray] = []
    rounds: list[int] = []
    length = 0
    for index, turns in enumerate(histories.words.turns):
        turn, advantage = turns[row], float(batch.advantages[row, index])
        own, sampled = _sampled(turn)
        if not length and 0 in sampled:
            raise TrainingError("A trajectory's first token was sampled after nothing; expected a prompt.")
        if batch.mask[row, index] and len(sampled):
            free = sampled
            if turn.legal is not None:
                free = sampled[:-1]
                decisions.append(length + int(sampled[-1]))
                legal.append(turn.legal)
                weights.append(_weights(batch, row, index, turn.legal == own[sampled[-1]]))
                rounds.append(index)
            assert turn.logprobs is not None
            places += (length + free).tolist()
            advantages += [advantage] * len(free)
            logprobs += turn.logprobs[free].tolist()
        length += len(own)
        ids.append(own)
    whole = np.concatenate(ids)
    stated = histories.probabilities
    return TokenSequence(
        ids=whole[: max([*places, *decisions], default=1)],
        prefix=1,
        token_positions=np.array(places, dtype=np.int64) - 1,
        targets=whole[places].astype(np.int64),
        token_advantages=np.array(advantages),
        token_logprobs=np.array(logprobs),
        decision_positions=np.array(decisions, dtype=np.int64) - 1,
        legal=np.stack(legal) if legal else np.zeros((0, num_arms), dtype=np.int64),
        weights=np.stack(weights) if weights else np.zeros((0, num_arms)),
        behaviour=None if stated is None else stated[row, rounds],
        num_tokens=len(places) + len(decisions),
        temperature=batch.temperature,
    )


def _weights(batch: TrainingBatch, row: int, index: int, decided: np.ndarray) -> FloatArray:
    """(K,) the coefficient of every arm's log probability in one round."""
    if batch.action_targets is not None:
        return np.asarray(batch.action_targets[row, index])
    return np.where(decided, batch.advantages[row, index], 0.0)


def _sampled(turn: Turn) -> tuple[IntArray, IntArray]:
    """A turn's ids, and where among them the sampled ones are."""
    if turn.ids is None or turn.logprobs is None:
        raise TrainingError(
            "A turn has no token ids with log probabilities: it was not played by a model in this process, "
            "and nothing can be trained on it."
        )
    return turn.ids, np.flatnonzero(np.isfinite(turn.logprobs))


def batches(
    groups: list[list[TokenSequence]], batch_size: int, epochs: int, shuffle: np.random.Generator
) -> Iterator[list[TokenSequence]]:
    """Batches of `batch_size` trajectories: each epoch the groups, and the rows of each, in a new order."""
    for _ in range(epochs):
        order = [groups[index] for index in shuffle.permutation(len(groups))]
        rows = [group[index] for group in order for index in shuffle.permutation(len(group))]
        for start in range(0, len(rows), batch_size):
            yield rows[start : start + batch_size]


def passes(batch: list[TokenSequence], tokens_at_once: int) -> list[list[list[TokenSequence]]]:
    """A batch in forward passes of at most `tokens_at_once` tokens each, as groups of the same prefix.

    A prefix is read once per group. A trajectory longer than `tokens_at_once` is a pass of its own.
    """
    by_prefix: dict[bytes, list[TokenSequence]] = {}
    for one in batch:
        by_prefix.setdefault(one.ids[: one.prefix].tobytes(), []).append(one)
    found: list[list[list[TokenSequence]]] = []
    room = 0
    for group in by_prefix.values():
        going_on = False
        for one in sorted(group, key=lambda each: len(each.ids)):
            if (len(one.ids) - one.prefix * going_on) > room:
                found.append([])
                room, going_on = tokens_at_once, False
            if not going_on:
                found[-1].append([])
            found[-1][-1].append(one)
            room -= len(one.ids) - one.prefix * going_on
            going_on = True
    return found
