"""Exponential weights on estimated rewards, for bandit rewards that nothing is assumed about."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
from scipy import special

from rmft.policies.baselines.base import Positive, ProbabilityPolicy, Share
from rmft.types import Feedback, FloatArray, Histories, Round

WeightsAndProbabilities = tuple[FloatArray, FloatArray]


def exp3_probabilities(histories: Histories, exploration: float, restart_every: int) -> FloatArray:
    """(B, K) of Exp3, its weights forgotten before every `restart_every`-th round.

    p = (1 - g) softmax(log w) + g / K; after playing arm a, log w(a) += (g / K) reward / p(a).
    """
    num_arms, normalize = histories.rules.num_arms, histories.rules.normalize

    def start() -> WeightsAndProbabilities:
        shape = (histories.size, num_arms)
        return np.zeros(shape), np.full(shape, 1 / num_arms)

    def step(state: WeightsAndProbabilities, last: Round) -> WeightsAndProbabilities:
        log_weights, probabilities = state
        if (last.index + 1) % restart_every == 0:
            return start()
        estimates = last.played * normalize(last.rewards)[:, None] / np.maximum(probabilities, 1e-300)
        log_weights = log_weights + exploration / num_arms * estimates
        mixed = (1 - exploration) * special.softmax(log_weights, axis=1) + exploration / num_arms
        return log_weights, mixed

    return histories.fold(("exp3", exploration, restart_every), start, step)[1]


def tuned_exploration(num_arms: int, horizon: int) -> float:
    """g = min(1, sqrt(K ln K / ((e - 1) horizon))), Auer et al. (2002), corollary 3.2."""
    return min(1.0, math.sqrt(num_arms * math.log(num_arms) / ((math.e - 1) * horizon)))


class Exp3(ProbabilityPolicy):
    """Exponential weights on importance-weighted rewards, mixed with uniform play.

    exploration: the share g of uniform play, on [0, 1], or None for the one tuned to the horizon.
    Source: Auer, Cesa-Bianchi, Freund and Schapire (2002), "The nonstochastic multiarmed bandit
    problem", figure 1.
    """

    label: ClassVar[str] = "exp3"
    feedback: ClassVar[Feedback | None] = "bandit"
    bounded: ClassVar[bool] = True

    exploration: Share | None = None

    def probabilities(self, histories: Histories) -> FloatArray:
        rules = histories.rules
        tuned = tuned_exploration(rules.num_arms, rules.horizon)
        exploration = tuned if self.exploration is None else self.exploration
        return exp3_probabilities(histories, exploration, rules.horizon + 1)


class Rexp3(ProbabilityPolicy):
    """Exp3 started afresh every D = ceil((K ln K)^(1/3) (T / V)^(2/3)) rounds and tuned to D.

    variation_budget: V > 0, how far the means may move in all, in units of normalized reward. Source:
    Besbes, Gur and Zeevi (2014), "Stochastic multi-armed-bandit problem with non-stationary rewards",
    theorem 2.
    """

    label: ClassVar[str] = "rexp3"
    feedback: ClassVar[Feedback | None] = "bandit"
    bounded: ClassVar[bool] = True

    variation_budget: Positive = 1.0

    def probabilities(self, histories: Histories) -> FloatArray:
        num_arms, horizon = histories.rules.num_arms, histories.rules.horizon
        rounds = (num_arms * math.log(num_arms)) ** (1 / 3) * (horizon / self.variation_budget) ** (2 / 3)
        restart_every = min(math.ceil(rounds), horizon)
        return exp3_probabilities(histories, tuned_exploration(num_arms, restart_every), restart_every)
