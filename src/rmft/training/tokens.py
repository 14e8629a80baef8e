"""Trajectories in words as token sequences, with what the objective asks of each (`rmft.training.objective`).

Nothing is rendered again: the ids are those of the rollout. A round's sampled tokens are its reasoning, with
what ended it, and its decision: one token out of the legal answers, or the digits of a distribution, which
are free tokens like those of reasoning.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from rmft.errors import TrainingError
from rmft.training.config import LocalTraining
from rmft.types import FloatArray, IntArray, TrainingBatch, Turn

PLAIN = LocalTraining()


@dataclass(frozen=True, slots=True, eq=False)
class TokenSequence:
    """One trajectory as tokens, cut after the last one that anything is predicted from.

    ids: (n,). prefix: with how many of them, at least 1, all trajectories of its group begin.
    Free tokens: token_positions (m,), the index of the token after which each is predicted; targets (m,) ids;
    token_advantages (m,); token_shares (m,), how much each counts; token_logprobs (m,) under the behaviour
    policy.
    Decisions: decision_positions (d,); legal (d, K) ids; weights (d, K), the coefficients of their log
    probabilities among each other; behaviour (d, K), the probabilities they were drawn from, or None.
    norm: what it adds to the number that the loss is divided by, of sampled tokens or of rounds, in the loss.
    temperature: what divided the logits in sampling.
    Where the objective holds to a reference: token_reference (m,) and reference (d, K), log probabilities.
    """

    ids: IntArray
    prefix: int
    token_positions: IntArray
    targets: IntArray
    token_advantages: FloatArray
    token_shares: FloatArray
    token_logprobs: FloatArray
    decision_positions: IntArray
    legal: IntArray
    weights: FloatArray
    behaviour: FloatArray | None
    norm: int
    temperature: float = 1.0
    token_reference: FloatArray | None = None
    reference: FloatArray | None = None

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
            token_shares=np.ones(len(places)),
            token_logprobs=np.zeros(len(places)),
            decision_positions=np.zeros(0, dtype=np.int64),
            legal=nothing.astype(np.int64),
            weights=nothing,
            behaviour=None,
            norm=len(places),
        )


def token_sequences(batch: TrainingBatch, training: LocalTraining = PLAIN) -> list[list[TokenSequence]]:
    """The trajectories of which anything is learned, those with the same prompt together.

    training: whose `loss_aggregation` and `mask_truncated_completions` say how much a token counts. Raises
    TrainingError when there are no tokens.
    """
    histories = batch.trajectories.histories
    groups: dict[tuple[int, int], list[TokenSequence]] = {}
    for row in batch.kept:
        one = _sequence(batch, int(row), training)
        if one.norm:
            groups.setdefault((int(histories.words.seeds[row]), int(one.ids[0])), []).append(one)
    return [_with_prefix(group) for group in groups.values()]


def _with_prefix(group: list[TokenSequence]) -> list[TokenSequence]:
    shortest = min(len(one.ids) for one in group)
    same = np.all([one.ids[:shortest] == group[0].ids[:shortest] for one in group], axis=0)
    prefix = int(np.append(same, False).argmin())
    return [replace(one, prefix=prefix) for one in group]


def _sequence(batch: TrainingBatch, row: int, training: LocalTraining) -> TokenSequence:
    histories = batch.trajectories.histories
    num_arms = histories.rules.num_arms
    ids: list[IntArray] = []
    places: list[int] = []  # of the free tokens, each with its advantage and log probability
    advantages: list[float] = []
    shares: list[float] = []
    logprobs: list[float] = []
    decisions: list[int] = []
    legal: list[IntArray] = []
    weights: list[FloatArray] = []
    rounds: list[int] = []
    by_round = training.loss_aggregation == "round_mean"
    length = learned = 0
    for index, turns in enumerate(histories.words.turns):
        turn, advantage = turns[row], float(batch.advantages[row, index])
        own, sampled = _sampled(turn)
        if not length and 0 in sampled:
            raise TrainingError("A trajectory's first token was sampled after nothing; expected a prompt.")
        if batch.mask[row, index] and len(sampled):
            decided = 1 if turn.legal is not None else num_arms  # tokens of the decision: a letter, or digits
            free, reasoned = sampled, max(len(sampled) - decided, 0)
            if turn.cut and training.mask_truncated_completions:
                free, reasoned = sampled[reasoned:], 0
            if turn.legal is not None:
                free = free[:-1]
                decisions.append(length + int(sampled[-1]))
                legal.append(turn.legal)
                weights.append(_weights(batch, row, index, turn.legal == own[sampled[-1]]))
                rounds.append(index)
            assert turn.logprobs is not None
            places += (length + free).tolist()
            advantages += [advantage] * len(free)
            each = 1 / reasoned if by_round and reasoned else 1.0
            shares += [each] * reasoned + [1.0] * (len(free) - reasoned)
            learned += 1
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
        token_shares=np.array(shares),
        token_logprobs=np.array(logprobs),
        decision_positions=np.array(decisions, dtype=np.int64) - 1,
        legal=np.stack(legal) if legal else np.zeros((0, num_arms), dtype=np.int64),
        weights=np.stack(weights) if weights else np.zeros((0, num_arms)),
        behaviour=None if stated is None else stated[row, rounds],
        norm=learned if by_round else len(places) + len(decisions),
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
