"""What the baselines remember of a history: sums over its rounds, folded one round at a time.

Rewards are normalized by the rules: on [0, 1] when their range is finite, as they are when not.
The arrays returned are the fold's own state: read them, never write to them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from rmft.types import FloatArray, Histories, Round

CountsAndSums = tuple[FloatArray, FloatArray]


def _zeros(histories: Histories) -> FloatArray:
    return np.zeros((histories.size, histories.rules.num_arms))


def counts_and_sums(histories: Histories, discount: float = 1.0) -> CountsAndSums:
    """N_t(a) and the sum of the rewards of arm a, each (B, K), from bandit feedback.

    discount: what a round weighs is multiplied by this in every later round (1 forgets nothing).
    """

    def start() -> CountsAndSums:
        return _zeros(histories), _zeros(histories)

    def step(state: CountsAndSums, last: Round) -> CountsAndSums:
        counts, sums = state
        if discount < 1:
            counts *= discount
            sums *= discount
        counts += last.played
        sums += last.played * histories.rules.normalize(last.rewards)[:, None]
        return state

    return histories.fold(("counts and sums", discount), start, step)


def windowed_counts_and_sums(histories: Histories, window: int) -> CountsAndSums:
    """As `counts_and_sums`, of the last `window` rounds only."""

    def start() -> CountsAndSums:
        return _zeros(histories), _zeros(histories)

    def step(state: CountsAndSums, last: Round) -> CountsAndSums:
        counts, sums = state
        counts += last.played
        sums += last.played * histories.rules.normalize(last.rewards)[:, None]
        if last.index >= window:
            gone = histories.round(last.index - window)
            counts -= gone.played
            sums -= gone.played * histories.rules.normalize(gone.rewards)[:, None]
        return state

    return histories.fold(("windowed counts and sums", window), start, step)


def cumulative_rewards(histories: Histories, discount: float = 1.0) -> FloatArray:
    """(B, K) the sum of every arm's rewards so far, from full information.

    discount: as in `counts_and_sums`.
    """

    def step(sums: FloatArray, last: Round) -> FloatArray:
        if discount < 1:
            sums *= discount
        sums += histories.rules.normalize(last.rewards)
        return sums

    return histories.fold(("cumulative rewards", discount), lambda: _zeros(histories), step)


def on_distinct(
    function: Callable[[FloatArray, FloatArray], FloatArray], counts: FloatArray, sums: FloatArray
) -> FloatArray:
    """function(counts, sums), worked out once per distinct pair where all of them are whole numbers.

    Binary rewards visit few pairs (at most (t + 1)(t + 2) / 2 after t rounds, however large the
    batch), so a costly function of them is nearly free.
    """
    size = int(counts.max(initial=0)) + 1
    codes = (counts * size + sums).astype(np.int64)
    whole = (codes == counts * size + sums).all() and (counts == np.floor(counts)).all()
    if not whole or sums.min(initial=0) < 0 or (sums > counts).any() or size * size > 50 * counts.size:
        return function(counts, sums)
    seen = np.zeros(size * size, dtype=np.bool_)
    seen[codes] = True
    distinct = np.flatnonzero(seen)
    values = np.empty(len(seen))
    values[distinct] = function((distinct // size).astype(float), (distinct % size).astype(float))
    return values[codes]
