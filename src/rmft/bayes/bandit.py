"""Optimal play of a Bernoulli bandit whose prior is known, by exact dynamic programming.

A state is how often each arm was played and paid. Arms are exchangeable, so that states are kept for sorted
pull counts n_1 >= ... >= n_K alone: one array over the successes, (n_1 + 1, ..., n_K + 1), for each, worked
out from the last round back. With V the reward that is still to be had, m_i an arm's posterior mean and e_i
one pull more of it,

    Q_i(n, s) = m_i (1 + V(n + e_i, s + e_i)) + (1 - m_i) V(n + e_i, s),    V = max_i Q_i.

Source: Lattimore and Szepesvari (2020), Bandit Algorithms, sec. 35.1 (the Bayesian optimal policy).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from rmft.bayes.prior import BernoulliPrior
from rmft.types import FloatArray, IntArray

MAX_STATES = 1_000_000_000
MAX_HORIZON, MAX_ARMS = 1_000, 32
PRECISE_UP_TO = 50_000_000  # states: above it values have 32 bits, which leaves an error below 1e-4

Pulls = tuple[int, ...]
Choices = dict[Pulls, NDArray[np.int8]]
Combine = Callable[[list[FloatArray], list[FloatArray]], FloatArray]


@lru_cache(maxsize=256)
def num_states(horizon: int, num_arms: int) -> float:
    """How many states there are before round T's decision and earlier; infinite beyond what is counted."""
    if horizon > MAX_HORIZON or num_arms > MAX_ARMS:
        return float("inf")
    weights = np.zeros((num_arms + 1, horizon))  # by number of arms played, and rounds
    weights[0, 0] = 1
    for pulls in range(1, horizon):
        for arms in range(1, num_arms + 1):
            weights[arms, pulls:] += (pulls + 1) * weights[arms - 1, :-pulls]
    return float(weights.sum())


@lru_cache(maxsize=64)
def optimal_reward(prior: BernoulliPrior, horizon: int, num_arms: int) -> float:
    """The expected total reward of optimal play."""
    return _worked_out(prior, horizon, num_arms, lambda values, _: _highest(values))


@lru_cache(maxsize=64)
def greedy_reward(prior: BernoulliPrior, horizon: int, num_arms: int) -> float:
    """The expected total reward of playing the arm of the highest posterior mean, ties at random."""
    return _worked_out(prior, horizon, num_arms, _of_greedy)


@lru_cache(maxsize=1)
def optimal_choices(prior: BernoulliPrior, horizon: int, num_arms: int) -> Choices:
    """For sorted pull counts, an optimal arm's place in that order by successes; a byte for every state."""
    choices: Choices = {}
    _worked_out(prior, horizon, num_arms, lambda values, _: _highest(values), choices)
    return choices


def choose(choices: Choices, pulls: IntArray, successes: IntArray) -> NDArray[np.bool_]:
    """(B, K) the arms that optimal play chooses among: those that were played and paid as often as it.

    pulls, successes: (B, K).
    """
    order = np.argsort(-pulls, axis=1, kind="stable")
    ordered = np.take_along_axis(pulls, order, axis=1)
    paid = np.take_along_axis(successes, order, axis=1)
    groups, group_of = np.unique(ordered, axis=0, return_inverse=True)
    place = np.empty(len(pulls), dtype=np.int64)
    for number, group in enumerate(groups.tolist()):
        rows = np.flatnonzero(group_of.reshape(-1) == number)
        place[rows] = choices[tuple(group)][tuple(paid[rows].T)]
    arm = np.take_along_axis(order, place[:, None], axis=1)
    alike = (pulls == np.take_along_axis(pulls, arm, axis=1)) & (
        successes == np.take_along_axis(successes, arm, axis=1)
    )
    return np.asarray(alike)


def _worked_out(
    prior: BernoulliPrior, horizon: int, num_arms: int, combine: Combine, choices: Choices | None = None
) -> float:
    """The expected total reward, by backward induction; `choices` gains the best arm of every state.

    combine: from all arms' Q and posterior means to V.
    """
    precise = num_states(horizon, num_arms) <= PRECISE_UP_TO
    later: dict[Pulls, FloatArray] = {}
    for played in range(horizon - 1, -1, -1):
        now: dict[Pulls, FloatArray] = {}
        for pulls in _sorted_pulls(played, num_arms, played):
            values, means = _values(prior, pulls, later, np.float64 if precise else np.float32)
            now[pulls] = combine(values, means)
            if choices is not None:
                choices[pulls] = _first_best(values)
        later = now
    return float(later[(0,) * num_arms].item())


def _values(
    prior: BernoulliPrior, pulls: Pulls, later: dict[Pulls, FloatArray], dtype: type[np.floating]
) -> tuple[list[FloatArray], list[FloatArray]]:
    """Every arm's Q and posterior mean by successes, as arrays that broadcast."""
    num_arms = len(pulls)
    successes = [
        np.arange(n + 1.0).reshape([-1 if axis == arm else 1 for axis in range(num_arms)])
        for arm, n in enumerate(pulls)
    ]
    means = [np.asarray(mean, dtype=dtype) for mean in prior.means([np.array(n) for n in pulls], successes)]
    if not later:
        return means, means
    values: list[FloatArray] = []
    for arm, n in enumerate(pulls):
        first = pulls.index(n)
        if first < arm:  # of arms that were played equally often one tells all
            values.append(np.swapaxes(values[first], first, arm))
            continue
        after = later[(*pulls[:arm], n + 1, *pulls[arm + 1 :])]
        lost, won = (after[(slice(None),) * arm + (part,)] for part in (slice(-1), slice(1, None)))
        value = won - lost
        value += 1
        value *= means[arm]
        value += lost
        values.append(value)
    return values, means


def _sorted_pulls(played: int, num_arms: int, most: int) -> Iterator[Pulls]:
    """Every way to have played `num_arms` arms so many times in all, none more than `most`, descending."""
    if num_arms == 1:
        yield from [(played,)] if played <= most else []
        return
    for n in range(min(played, most), -(-played // num_arms) - 1, -1):
        for rest in _sorted_pulls(played - n, num_arms - 1, n):
            yield (n, *rest)


def _highest(values: list[FloatArray]) -> FloatArray:
    best = np.array(np.broadcast_arrays(*values)[0])
    for value in values[1:]:
        np.maximum(best, value, out=best)
    return best


def _first_best(values: list[FloatArray]) -> NDArray[np.int8]:
    """The first arm whose value is highest, to within rounding."""
    nearly = _highest(values)
    nearly -= 1e-9 if nearly.dtype == np.float64 else 1e-5
    arms = np.zeros(nearly.shape, dtype=np.int8)
    for arm in range(len(values) - 1, -1, -1):
        arms[np.broadcast_to(values[arm] >= nearly, arms.shape)] = arm
    return arms


def _of_greedy(values: list[FloatArray], means: list[FloatArray]) -> FloatArray:
    """The value of an arm at random among those of the highest posterior mean."""
    nearly = _highest(means) - (1e-9 if means[0].dtype == np.float64 else 1e-6)
    chosen = [mean >= nearly for mean in means]
    total = sum(value * among for value, among in zip(values, chosen, strict=True))
    return np.asarray(total / sum(among.astype(nearly.dtype) for among in chosen))
