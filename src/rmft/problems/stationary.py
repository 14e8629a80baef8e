"""Reward processes whose means are fixed: Bernoulli, listed means, Gaussian and uniform rewards."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from rmft.bayes.prior import BetaArms, ListedArms, NormalArms, OneGoodArm, Prior
from rmft.errors import ConfigError
from rmft.problems.noise import bernoulli, gaussian, truncated_gaussian
from rmft.problems.process import Bounded, best_at_random, given_means
from rmft.reading import Config
from rmft.types import FloatArray, RewardTable

Positive = Annotated[float, Field(gt=0)]


class Bernoulli(Config):
    """Rewards 0 or 1.

    means: "uniform", each arm's own drawn from U[0, 1], or one probability per arm. gap: instead of
    means, the best arm, at random, has .5 + gap/2 and the others .5 - gap/2. beta: instead of means, each
    arm's own is drawn from Beta(a, b).
    """

    kind: Literal["bernoulli"] = "bernoulli"
    means: Literal["uniform"] | tuple[float, ...] = "uniform"
    gap: float | None = Field(default=None, gt=0, le=1)
    beta: tuple[Positive, Positive] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Bernoulli:
        if sum((self.means != "uniform", self.gap is not None, self.beta is not None)) > 1:
            raise ConfigError("found more than one of means, gap and beta; give one of them.")
        if self.means == "uniform":
            return self
        if not all(0 <= mean <= 1 for mean in self.means):
            raise ConfigError(f"found means {list(self.means)}; expected probabilities from 0 to 1.")
        return self

    @property
    def reward_range(self) -> tuple[float, float]:
        return 0.0, 1.0

    def variation_budget(self, horizon: int, num_arms: int) -> float:  # noqa: ARG002
        return 0.0

    def draw(self, generator: np.random.Generator, horizon: int, num_arms: int) -> RewardTable:
        if self.gap is not None:
            means = best_at_random(generator, num_arms, 0.5, self.gap)
        elif self.beta is not None:
            means = generator.beta(*self.beta, size=num_arms)
        elif self.means == "uniform":
            means = generator.random(num_arms)
        else:
            means = given_means(self.means, num_arms)
        return bernoulli(generator, np.tile(means, (horizon, 1)), 0.0, 1.0)

    def prior(self) -> Prior | None:
        if self.gap is not None:
            return OneGoodArm(0.5 + self.gap / 2, 0.5 - self.gap / 2)
        if self.beta is not None:
            return BetaArms(*self.beta)
        return BetaArms() if self.means == "uniform" else None


class ListedMeans(Config):
    """Rewards 0 or 1; every arm's mean is one of a few, whatever the others' are.

    means: what an arm's may be, each a probability. shares: how likely each is; they sum to 1. With three
    means exploring pays: an arm that does better than most is not let go of until it is known that another
    does better yet.
    """

    kind: Literal["listed_means"] = "listed_means"
    means: tuple[Annotated[float, Field(ge=0, le=1)], ...] = Field(min_length=2)
    shares: tuple[Positive, ...]

    @model_validator(mode="after")
    def _consistent(self) -> ListedMeans:
        if len(self.shares) != len(self.means) or abs(sum(self.shares) - 1) > 1e-9:
            raise ConfigError(
                f"found shares {list(self.shares)}; expected {len(self.means)} that sum to 1, one for each "
                "of means."
            )
        if len(set(self.means)) < len(self.means):
            raise ConfigError(f"found means {list(self.means)}; expected different ones.")
        return self

    @property
    def reward_range(self) -> tuple[float, float]:
        return 0.0, 1.0

    def variation_budget(self, horizon: int, num_arms: int) -> float:  # noqa: ARG002
        return 0.0

    def draw(self, generator: np.random.Generator, horizon: int, num_arms: int) -> RewardTable:
        means = generator.choice(self.means, size=num_arms, p=self.shares)
        return bernoulli(generator, np.tile(means, (horizon, 1)), 0.0, 1.0)

    def prior(self) -> Prior:
        return ListedArms(self.means, self.shares)


class Gaussian(Config):
    """Normal rewards of standard deviation noise_std around each arm's mean.

    means: "normal", each arm's own drawn from N(mean, mean_std^2), or one number per arm. gap: instead
    of means, the best arm, at random, has mean + gap/2 and the others mean - gap/2. low, high:
    rewards are truncated to them; expected rewards are the truncated law's.
    """

    kind: Literal["gaussian"] = "gaussian"
    means: Literal["normal"] | tuple[float, ...] = "normal"
    mean: float = 0.0
    mean_std: float = Field(default=1.0, ge=0)
    gap: float | None = Field(default=None, gt=0)
    noise_std: float = Field(default=1.0, gt=0)
    low: float | None = None
    high: float | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Gaussian:
        if self.means != "normal" and self.gap is not None:
            raise ConfigError("found both means and gap; give one of them.")
        low, high = self.reward_range
        if not low < high:
            raise ConfigError(f"found low {low} and high {high}; expected low < high.")
        return self

    @property
    def reward_range(self) -> tuple[float, float]:
        return (
            -math.inf if self.low is None else self.low,
            math.inf if self.high is None else self.high,
        )

    def variation_budget(self, horizon: int, num_arms: int) -> float:  # noqa: ARG002
        return 0.0

    def draw(self, generator: np.random.Generator, horizon: int, num_arms: int) -> RewardTable:
        means = np.tile(self._means(generator, num_arms), (horizon, 1))
        if self.low is None and self.high is None:
            return gaussian(generator, means, self.noise_std)
        return truncated_gaussian(generator, means, self.noise_std, *self.reward_range)

    def prior(self) -> Prior | None:
        if self.gap is not None or self.means != "normal" or np.isfinite(self.reward_range).any():
            return None
        return NormalArms(self.mean, self.mean_std, self.noise_std)

    def _means(self, generator: np.random.Generator, num_arms: int) -> FloatArray:
        if self.gap is not None:
            return best_at_random(generator, num_arms, self.mean, self.gap)
        if self.means == "normal":
            return self.mean + self.mean_std * generator.standard_normal(num_arms)
        return given_means(self.means, num_arms)


class Uniform(Bounded):
    """Every reward of every round uniform on [low, high]: no arm is better, but hindsight has a best.

    Source: Park et al. (2025), "Do LLM agents have regret?", the uniform loss sequences.
    """

    kind: Literal["uniform"] = "uniform"

    def variation_budget(self, horizon: int, num_arms: int) -> float:  # noqa: ARG002
        return 0.0

    def draw(self, generator: np.random.Generator, horizon: int, num_arms: int) -> RewardTable:
        middle = np.full((horizon, num_arms), (self.low + self.high) / 2)
        return RewardTable(self.uniform(generator, horizon, num_arms), middle)
