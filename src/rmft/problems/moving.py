"""Reward processes whose means move: trends, switches and drift, each under a choice of noise."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from rmft.errors import ConfigError
from rmft.problems.noise import bernoulli, gaussian, truncated_gaussian
from rmft.problems.process import Bounded
from rmft.types import FloatArray, RewardTable

ROUNDING = 1 - 1e-12  # keeps a sum of T floats below the budget that it equals in exact arithmetic


class Moving(Bounded):
    """Means on [low, high] that move, and what is paid around them.

    noise: "bernoulli", low or high, with the mean as expectation; "gaussian", unbounded noise of
    standard deviation noise_std; "truncated-gaussian", the same given that it falls on [low, high];
    "none", the means themselves.
    """

    noise: Literal["bernoulli", "gaussian", "truncated-gaussian", "none"] = "bernoulli"
    noise_std: float = Field(default=1.0, gt=0)

    @property
    def reward_range(self) -> tuple[float, float]:
        return (-math.inf, math.inf) if self.noise == "gaussian" else (self.low, self.high)

    def draw(self, generator: np.random.Generator, horizon: int, num_arms: int) -> RewardTable:
        means = self.means(generator, horizon, num_arms)
        if self.noise == "bernoulli":
            return bernoulli(generator, means, self.low, self.high)
        if self.noise == "gaussian":
            return gaussian(generator, means, self.noise_std)
        if self.noise == "truncated-gaussian":
            return truncated_gaussian(generator, means, self.noise_std, self.low, self.high)
        return RewardTable(means, means)

    @abstractmethod
    def means(self, generator: np.random.Generator, horizon: int, num_arms: int) -> FloatArray:
        """(horizon, num_arms) the mean of every arm in every round, before noise."""


class LinearTrend(Moving):
    """Every arm's mean goes in a straight line from one number to another, both uniform on [low, high].

    Source: Park et al. (2025), "Do LLM agents have regret?", losses with a linear trend.
    """

    kind: Literal["linear_trend"] = "linear_trend"

    def variation_budget(self, horizon: int, num_arms: int) -> float:  # noqa: ARG002
        return self.width if horizon > 1 else 0.0

    def means(self, generator: np.random.Generator, horizon: int, num_arms: int) -> FloatArray:
        start, end = self.uniform(generator, num_arms), self.uniform(generator, num_arms)
        return start + (end - start) * np.linspace(0, 1, horizon)[:, None]


class SineTrend(Moving):
    """Every arm's mean is a sine around the middle, its phase and number of cycles its own.

    cycles: (least, most) per horizon, drawn uniformly. amplitude: in reward; (high - low) / 2 unless
    given, and never more. Source: Park et al. (2025), losses with a sine trend.
    """

    kind: Literal["sine_trend"] = "sine_trend"
    cycles: tuple[float, float] = (0.5, 2.0)
    amplitude: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _fits(self) -> SineTrend:
        if not 0 < self.cycles[0] <= self.cycles[1]:
            raise ConfigError(f"found cycles {list(self.cycles)}; expected 0 < least <= most.")
        if self.swing > self.width / 2:
            raise ConfigError(
                f"found amplitude {self.swing}; expected at most {self.width / 2}, (high - low)/2."
            )
        return self

    @property
    def swing(self) -> float:
        """How far a mean goes from the middle, in reward."""
        return self.width / 2 if self.amplitude is None else self.amplitude

    def variation_budget(self, horizon: int, num_arms: int) -> float:  # noqa: ARG002
        """One step of angle x moves a sine by at most 2 sin(x/2), and by 2 from x = pi on."""
        step = min(2 * math.pi * self.cycles[1] / horizon, math.pi)
        return (horizon - 1) * self.swing * 2 * math.sin(step / 2)

    def means(self, generator: np.random.Generator, horizon: int, num_arms: int) -> FloatArray:
        cycles = generator.uniform(*self.cycles, size=num_arms)
        phase = generator.random(num_arms)
        share = np.arange(horizon)[:, None] / horizon
        middle = (self.low + self.high) / 2
        path = middle + self.swing * np.sin(2 * math.pi * (cycles * share + phase))
        return np.clip(path, self.low, self.high)  # rounding alone can leave the interval


class AbruptSwitches(Moving):
    """At random rounds all means are drawn anew, uniform on [low, high]; in between they rest.

    Give one of num_switches, at distinct rounds, and rate_per_horizon: in every round but the first
    a switch with probability rate_per_horizon / horizon, at most 1. mean_std: when given, means are
    drawn from N((low + high)/2, mean_std^2) instead, which needs gaussian noise. gap: when given, the
    best arm's mean is (low + high + gap)/2 and the others' (low + high - gap)/2, and every switch makes
    another arm the best, at random.
    Source: Garivier and Moulines (2011), "On upper-confidence bound policies for switching bandits".
    """

    kind: Literal["abrupt_switches"] = "abrupt_switches"
    num_switches: int | None = Field(default=None, ge=0)
    rate_per_horizon: float | None = Field(default=None, ge=0)
    mean_std: float | None = Field(default=None, gt=0)
    gap: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _consistent(self) -> AbruptSwitches:
        if self.gap is not None and (self.mean_std is not None or self.gap > self.width):
            raise ConfigError(
                f"found gap {self.gap} with mean_std {self.mean_std}; expected a gap of at most "
                f"{self.width}, (high - low), and no mean_std."
            )
        if (self.num_switches is None) == (self.rate_per_horizon is None):
            raise ConfigError("expected exactly one of num_switches and rate_per_horizon.")
        if self.mean_std is not None and self.noise != "gaussian":
            raise ConfigError(f"mean_std leaves [low, high]; expected noise: gaussian, found {self.noise}.")
        return self

    def variation_budget(self, horizon: int, num_arms: int) -> float:  # noqa: ARG002
        most = horizon - 1 if self.num_switches is None else self.num_switches
        if most == 0 or self.rate_per_horizon == 0:
            return 0.0
        if self.gap is not None:
            return most * self.gap
        return math.inf if self.mean_std is not None else most * self.width

    def means(self, generator: np.random.Generator, horizon: int, num_arms: int) -> FloatArray:
        switched = self._switched(generator, horizon)
        shape = int(switched.sum()) + 1, num_arms
        if self.gap is not None:
            levels = self._gaps(generator, *shape, self.gap)
        elif self.mean_std is None:
            levels = self.uniform(generator, *shape)
        else:
            levels = (self.low + self.high) / 2 + self.mean_std * generator.standard_normal(shape)
        return np.asarray(levels[np.cumsum(switched)])

    def _gaps(self, generator: np.random.Generator, times: int, num_arms: int, gap: float) -> FloatArray:
        best = generator.integers(num_arms) + np.cumsum(generator.integers(1, num_arms, size=times))
        levels = np.full((times, num_arms), (self.low + self.high - gap) / 2)
        levels[np.arange(times), best % num_arms] += gap
        return levels

    def _switched(self, generator: np.random.Generator, horizon: int) -> NDArray[np.bool_]:
        """(horizon,) whether the means are drawn anew before the round; never before the first."""
        switched = np.zeros(horizon, dtype=bool)
        if self.num_switches is not None:
            if self.num_switches >= horizon:
                raise ConfigError(
                    f"found {self.num_switches} switches; a horizon of {horizon} has room for {horizon - 1}."
                )
            switched[1 + generator.choice(horizon - 1, self.num_switches, replace=False)] = True
        elif self.rate_per_horizon is not None:
            switched[1:] = generator.random(horizon - 1) * horizon < self.rate_per_horizon
        return switched


class Drift(Moving):
    """A random walk of all means, reflected at low and high, from a start uniform on [low, high].

    budget: what the walk spends before reflection, sum_{t>=2} max_a |step_t(a)|, in reward.
    Reflection never lengthens a step, so V_T <= budget. Source: the drift within a variation budget of
    Besbes, Gur and Zeevi (2014).
    """

    kind: Literal["drift"] = "drift"
    budget: float = Field(gt=0)

    def variation_budget(self, horizon: int, num_arms: int) -> float:  # noqa: ARG002
        return self.budget if horizon > 1 else 0.0

    def means(self, generator: np.random.Generator, horizon: int, num_arms: int) -> FloatArray:
        steps = np.zeros((horizon, num_arms))
        steps[1:] = generator.standard_normal((horizon - 1, num_arms))
        spent = np.abs(steps).max(axis=1).sum()
        if spent > 0:
            steps *= self.budget / spent * ROUNDING
        walk = self.uniform(generator, num_arms) + np.cumsum(steps, axis=0) - self.low
        folded = np.abs((walk + self.width) % (2 * self.width) - self.width)
        return np.clip(self.low + folded, self.low, self.high)
