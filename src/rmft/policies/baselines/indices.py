"""Greedy play and the optimism family: a mean, plus something for not knowing it.

An arm that was never tried has index +inf, so every arm is tried once first, in random order
(optimistic greedy and Bayes-UCB have a prior instead). t is the number of rounds played so far.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field
from scipy import special

from rmft.policies.baselines.base import IndexPolicy, NonNegative, Positive, ProbabilityPolicy, Share
from rmft.policies.baselines.statistics import counts_and_sums, on_distinct
from rmft.streams import Streams
from rmft.types import Feedback, FloatArray, Histories

TINY = 1e-300


def upper_confidence(counts: FloatArray, sums: FloatArray, coefficient: float, log_time: float) -> FloatArray:
    """mean + coefficient * sqrt(log_time / count), +inf where the count is 0."""
    some = np.maximum(counts, TINY)
    bound = sums / some
    if coefficient > 0:
        bound += coefficient * np.sqrt(log_time / some)
    return np.where(counts > 0, bound, np.inf)


class Greedy(IndexPolicy):
    """The arm of the highest empirical mean, every arm once first."""

    label: ClassVar[str] = "greedy"
    feedback: ClassVar[Feedback | None] = "bandit"

    def index(self, histories: Histories, streams: Streams) -> FloatArray:  # noqa: ARG002
        return upper_confidence(*counts_and_sums(histories), coefficient=0, log_time=0)


class OptimisticGreedy(IndexPolicy):
    """Greedy on (sum + s) / (count + s + f): s imagined rewards of 1 and f of 0 for every arm.

    pseudo_successes, pseudo_failures: s > 0 and f >= 0; the mean of a Beta(s, f) prior's posterior, so
    s > f is optimism. (1, 0) starts every arm at the highest reward there is, and the default (3, 1) at
    0.75, to which failures do less harm. Source: Sutton and Barto (2018), Reinforcement Learning,
    section 2.6 (optimistic initial values).
    """

    label: ClassVar[str] = "optimistic-greedy"
    feedback: ClassVar[Feedback | None] = "bandit"
    bounded: ClassVar[bool] = True

    pseudo_successes: Positive = 3.0
    pseudo_failures: NonNegative = 1.0

    def index(self, histories: Histories, streams: Streams) -> FloatArray:  # noqa: ARG002
        counts, sums = counts_and_sums(histories)
        imagined = self.pseudo_successes + self.pseudo_failures
        return (sums + self.pseudo_successes) / (counts + imagined)


class EpsilonGreedy(ProbabilityPolicy):
    """Greedy with probability 1 - epsilon, else an arm uniformly at random.

    epsilon: on [0, 1]. Source: Sutton and Barto (2018), section 2.2. An untried arm counts as best.
    """

    label: ClassVar[str] = "epsilon-greedy"
    feedback: ClassVar[Feedback | None] = "bandit"

    epsilon: Share = 0.1

    def probabilities(self, histories: Histories) -> FloatArray:
        index = upper_confidence(*counts_and_sums(histories), coefficient=0, log_time=0)
        by_arm = np.ascontiguousarray(index.T)
        best = by_arm == by_arm.max(axis=0)
        return np.asarray((1 - self.epsilon) / best.sum(axis=0) * best + self.epsilon / len(best)).T


class UCB(IndexPolicy):
    """mean + coefficient * sqrt(ln t / count): UCB1 with the width of its bound left open.

    coefficient: >= 0; the default 0.4 is near the best for Bernoulli arms over short horizons. Source:
    Auer, Cesa-Bianchi and Fischer (2002), "Finite-time analysis of the multiarmed bandit problem".
    """

    label: ClassVar[str] = "ucb"
    feedback: ClassVar[Feedback | None] = "bandit"

    coefficient: NonNegative = 0.4

    def index(self, histories: Histories, streams: Streams) -> FloatArray:  # noqa: ARG002
        counts, sums = counts_and_sums(histories)
        return upper_confidence(counts, sums, self.coefficient, np.log(max(histories.num_rounds, 1)))


class UCB1(UCB):
    """mean + sqrt(2 ln t / count): `ucb` as published in Auer et al. (2002), figure 1."""

    label: ClassVar[str] = "ucb1"

    coefficient: NonNegative = float(np.sqrt(2))


class WinStayLoseShift(ProbabilityPolicy):
    """The arm played last, if its normalized reward was above `aspiration`; else another one at random.

    aspiration: on [0, 1]. Source: Robbins (1952), "Some aspects of the sequential design of experiments",
    section 3.
    """

    label: ClassVar[str] = "win-stay"
    feedback: ClassVar[Feedback | None] = "bandit"
    bounded: ClassVar[bool] = True

    aspiration: Share = 0.5

    def probabilities(self, histories: Histories) -> FloatArray:
        num_arms = histories.rules.num_arms
        if not histories.num_rounds:
            return np.full((histories.size, num_arms), 1 / num_arms)
        last = histories.round(histories.num_rounds - 1)
        won = histories.rules.normalize(last.rewards)[:, None] > self.aspiration
        return np.where(won, last.played, (1 - last.played) / (num_arms - 1))


def bernoulli_upper_bound(mean: FloatArray, budget: FloatArray) -> FloatArray:
    """The largest q on [mean, 1] with kl(mean, q) <= budget, by 40 bisections (to 1e-12).

    kl(p, q) = p ln(p/q) + (1-p) ln((1-p)/(1-q)), the divergence between Bernoulli means.
    """
    low, high = mean.copy(), np.ones_like(mean)
    for _ in range(40):
        middle = (low + high) / 2
        divergence = special.rel_entr(mean, middle) + special.rel_entr(1 - mean, 1 - middle)
        inside = divergence <= budget
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    return low


class KLUCB(IndexPolicy):
    """The largest mean q with count * kl(mean, q) <= ln t + c ln ln t.

    c: >= 0; 0 is what the source recommends in practice. Source: Garivier and Cappé (2011), "The
    KL-UCB algorithm for bounded stochastic bandits and beyond", algorithm 1.
    """

    label: ClassVar[str] = "kl-ucb"
    feedback: ClassVar[Feedback | None] = "bandit"
    bounded: ClassVar[bool] = True

    c: NonNegative = 0.0

    def index(self, histories: Histories, streams: Streams) -> FloatArray:  # noqa: ARG002
        log_time = np.log(max(histories.num_rounds, 1))
        budget = log_time + self.c * max(np.log(max(log_time, TINY)), 0.0)

        def bound(counts: FloatArray, sums: FloatArray) -> FloatArray:
            some = np.maximum(counts, TINY)
            mean = np.clip(sums / some, 0, 1)
            return np.where(counts > 0, bernoulli_upper_bound(mean, budget / some), np.inf)

        return on_distinct(bound, *counts_and_sums(histories))


class BayesUCB(IndexPolicy):
    """A quantile of every arm's Beta(1 + sum, 1 + count - sum) posterior.

    quantile: on (0, 1), or None for the source's 1 - 1/t with t the round about to be played, from 1.
    Rewards between 0 and 1 update the posterior in part. Source: Kaufmann, Cappé and Garivier (2012),
    "On Bayesian upper confidence bounds for bandit problems", algorithm 1.
    """

    label: ClassVar[str] = "bayes-ucb"
    feedback: ClassVar[Feedback | None] = "bandit"
    bounded: ClassVar[bool] = True

    quantile: Annotated[float, Field(gt=0, lt=1)] | None = 0.9

    def index(self, histories: Histories, streams: Streams) -> FloatArray:  # noqa: ARG002
        return self.bound(histories, *counts_and_sums(histories))

    def bound(self, histories: Histories, counts: FloatArray, sums: FloatArray) -> FloatArray:
        """(B, K) the quantile of the posterior after `counts` plays that paid `sums`."""
        quantile = 1 - 1 / (histories.num_rounds + 1) if self.quantile is None else self.quantile

        def of_posterior(counts: FloatArray, sums: FloatArray) -> FloatArray:
            return np.asarray(special.betaincinv(1 + sums, 1 + counts - sums, quantile))

        return on_distinct(of_posterior, counts, sums)
