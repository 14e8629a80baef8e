"""What may be known of the arms before round 1: the law that a reward process draws its means from.

Arms are exchangeable: any order of them is equally likely. K = num_arms, T = horizon, mu = an arm's mean. A
reward process states its prior, where it has one of these, by a method `prior()`; a user's own may too.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import integrate, special, stats

from rmft.types import FloatArray

MIN_LIKELIHOOD = 1e-12  # of a reward that can't be, so that no posterior divides 0 by 0


@dataclass(frozen=True, slots=True)
class OneGoodArm:
    """Rewards are 0 or 1. One arm, at random, pays 1 with probability `high`, the others with `low`."""

    high: float
    low: float

    def means(self, pulls: Sequence[FloatArray], successes: Sequence[FloatArray]) -> list[FloatArray]:
        """Every arm's posterior mean, from arrays that broadcast, one of each kind per arm."""
        high, low = np.clip([self.high, self.low], MIN_LIKELIHOOD, 1 - MIN_LIKELIHOOD)
        won, lost = np.log(high / low), np.log((1 - high) / (1 - low))
        logs = [won * s + lost * (n - s) for n, s in zip(pulls, successes, strict=True)]
        highest = logs[0]
        for each in logs[1:]:
            highest = np.maximum(highest, each)
        weights = [np.exp(each - highest) for each in logs]
        whole = sum(weights[1:], weights[0])
        return [self.low + (self.high - self.low) * weight / whole for weight in weights]

    def best_mean(self, num_arms: int) -> float:
        """E max_a mu(a)."""
        return self.high if num_arms else self.low

    def best_total(self, horizon: int, num_arms: int) -> float:
        """E max_a sum_t r_t(a)."""
        totals = np.arange(horizon)
        others = stats.binom.cdf(totals, horizon, self.low) ** (num_arms - 1)
        return float((1 - stats.binom.cdf(totals, horizon, self.high) * others).sum())

    def leader_mean(self, num_rounds: int, num_arms: int) -> float:
        """E mu of the arm with the largest total after so many rounds, all rewards seen; ties at random."""
        totals = np.arange(num_rounds + 1)
        below = stats.binom.cdf(totals - 1, num_rounds, self.low)
        up_to = stats.binom.cdf(totals, num_rounds, self.low)
        ahead = sum(up_to**i * below ** (num_arms - 1 - i) for i in range(num_arms)) / num_arms
        good_leads = stats.binom.pmf(totals, num_rounds, self.high) @ ahead
        return float(self.low + (self.high - self.low) * good_leads)


class _Independent(ABC):
    """Rewards are 0 or 1; every arm's mean is drawn by itself from one law, which subclasses give."""

    __slots__ = ()

    @abstractmethod
    def mean(self, pulls: FloatArray, successes: FloatArray) -> FloatArray:
        """An arm's posterior mean."""

    @abstractmethod
    def best_mean(self, num_arms: int) -> float:
        """E max_a mu(a)."""

    @abstractmethod
    def cdf_of_total(self, totals: FloatArray, num_rounds: int) -> FloatArray:
        """The chance that an arm's total over so many rounds is at most `totals`."""

    def means(self, pulls: Sequence[FloatArray], successes: Sequence[FloatArray]) -> list[FloatArray]:
        """As `OneGoodArm.means`."""
        return [self.mean(n, s) for n, s in zip(pulls, successes, strict=True)]

    def best_total(self, horizon: int, num_arms: int) -> float:
        """As `OneGoodArm.best_total`."""
        return float((1 - self.cdf_of_total(np.arange(float(horizon)), horizon) ** num_arms).sum())

    def leader_mean(self, num_rounds: int, num_arms: int) -> float:
        """As `OneGoodArm.leader_mean`."""
        totals = np.arange(num_rounds + 1.0)
        leads = np.diff(self.cdf_of_total(totals, num_rounds) ** num_arms, prepend=0.0)
        return float(leads @ self.mean(np.full_like(totals, num_rounds), totals))


@dataclass(frozen=True, slots=True)
class BetaArms(_Independent):
    """Rewards are 0 or 1; every arm's mean is from Beta(a, b), by itself. Beta(1, 1) is uniform."""

    a: float = 1.0
    b: float = 1.0

    def mean(self, pulls: FloatArray, successes: FloatArray) -> FloatArray:
        return np.asarray((self.a + successes) / (self.a + self.b + pulls))

    def best_mean(self, num_arms: int) -> float:
        above = integrate.quad(lambda x: 1 - special.betainc(self.a, self.b, x) ** num_arms, 0, 1, limit=500)
        return float(above[0])

    def cdf_of_total(self, totals: FloatArray, num_rounds: int) -> FloatArray:
        return np.asarray(stats.betabinom.cdf(totals, num_rounds, self.a, self.b))


@dataclass(frozen=True, slots=True)
class ListedArms(_Independent):
    """Rewards are 0 or 1; every arm's mean is one of `values`, by itself, with these probabilities."""

    values: tuple[float, ...]
    probabilities: tuple[float, ...]

    def mean(self, pulls: FloatArray, successes: FloatArray) -> FloatArray:
        failures = np.asarray(pulls - successes)[..., None]
        values = np.clip(self.values, MIN_LIKELIHOOD, 1 - MIN_LIKELIHOOD)
        logs = np.log(values) * np.asarray(successes)[..., None] + np.log1p(-values) * failures
        weights = np.exp(logs - logs.max(axis=-1, keepdims=True)) * self.probabilities
        return np.asarray(weights @ np.array(self.values) / weights.sum(axis=-1))

    def best_mean(self, num_arms: int) -> float:
        values = np.array(self.values)
        order = np.argsort(values)
        at_most = np.cumsum(np.array(self.probabilities)[order]) ** num_arms
        return float(np.diff(at_most, prepend=0.0) @ values[order])

    def cdf_of_total(self, totals: FloatArray, num_rounds: int) -> FloatArray:
        each = stats.binom.cdf(np.asarray(totals)[..., None], num_rounds, self.values)
        return np.asarray(each @ np.array(self.probabilities))


@dataclass(frozen=True, slots=True)
class NormalArms:
    """Rewards are from N(mu, noise_std^2); every arm's mu is from N(mean, mean_std^2), by itself."""

    mean: float
    mean_std: float
    noise_std: float

    def best_mean(self, num_arms: int) -> float:
        """E max_a mu(a)."""
        return self.mean + self.mean_std * best_normal(num_arms)

    def best_total(self, horizon: int, num_arms: int) -> float:
        """E max_a sum_t r_t(a)."""
        return horizon * self.mean + self._std_of_total(horizon) * best_normal(num_arms)

    def leader_mean(self, num_rounds: int, num_arms: int) -> float:
        """As `OneGoodArm.leader_mean`: the regression of mu on the total, at the largest total."""
        if not num_rounds:
            return self.mean
        covariance = num_rounds * self.mean_std**2
        return self.mean + covariance / self._std_of_total(num_rounds) * best_normal(num_arms)

    def _std_of_total(self, num_rounds: int) -> float:
        return math.hypot(num_rounds * self.mean_std, math.sqrt(num_rounds) * self.noise_std)


def best_normal(count: int) -> float:
    """The expected largest of `count` standard normal numbers."""

    def density(x: float) -> float:
        return float(x * count * stats.norm.pdf(x) * special.ndtr(x) ** (count - 1))

    return float(integrate.quad(density, -9, 9)[0])


BernoulliPrior = OneGoodArm | BetaArms | ListedArms
Prior = OneGoodArm | BetaArms | ListedArms | NormalArms
PRIORS = (OneGoodArm, BetaArms, ListedArms, NormalArms)
