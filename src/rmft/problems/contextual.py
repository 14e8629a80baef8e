"""Contextual bandits: a round shows numbers before the decision, and expected rewards follow from them."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Annotated, Literal

import numpy as np
from pydantic import Field
from scipy.special import expit

from rmft.errors import ConfigError
from rmft.problems.noise import bernoulli, gaussian
from rmft.reading import Config
from rmft.types import FloatArray, Observation, RewardTable, Shown

Positive = Annotated[float, Field(gt=0)]


class Contextual(Config):
    """Scores that are linear in standard normal numbers, which are drawn anew in every round.

    num_numbers: d. shows: "numbers", d of the round, x_t, and every arm has weights w_a of its own, score
    x_t.w_a; or "features", d of every arm, f_ta, and one w is for all, score f_ta.w. weights: "normal", drawn
    for every problem from N(0, weight_std^2 / d), so that scores have standard deviation weight_std; or those
    of every arm, K rows of d numbers (of features one row). Source: Li et al. (2010), "A contextual-bandit
    approach to personalized news article recommendation", section 2.
    """

    num_numbers: int = Field(default=5, ge=1, le=1_000)
    shows: Literal["numbers", "features"] = "numbers"
    weights: Literal["normal"] | tuple[tuple[float, ...], ...] = "normal"
    weight_std: Positive = 1.0

    @property
    def shown(self) -> Shown:
        names = tuple(f"x{number}" for number in range(1, self.num_numbers + 1))
        return Shown(numbers=names) if self.shows == "numbers" else Shown(features=names)

    def variation_budget(self, horizon: int, num_arms: int) -> float:  # noqa: ARG002
        """The numbers of a round have no bound, so neither has what expected rewards move by."""
        return math.inf if horizon > 1 else 0.0

    def draw(self, generator: np.random.Generator, horizon: int, num_arms: int) -> RewardTable:
        weights = self._weights(generator, num_arms)
        if self.shows == "numbers":
            shown = Observation(numbers=generator.standard_normal((horizon, self.num_numbers)))
            assert shown.numbers is not None
            scores = shown.numbers @ weights.T
        else:
            shown = Observation(features=generator.standard_normal((horizon, num_arms, self.num_numbers)))
            assert shown.features is not None
            scores = shown.features @ weights[0]
        drawn = self.pay(generator, scores)
        return RewardTable(drawn.rewards, drawn.expected_rewards, shown)

    @abstractmethod
    def pay(self, generator: np.random.Generator, scores: FloatArray) -> RewardTable:
        """What scores (T, K) pay."""

    def _weights(self, generator: np.random.Generator, num_arms: int) -> FloatArray:
        """(K, d), or (1, d) of features. Raises ConfigError when those given are not of this shape."""
        rows = num_arms if self.shows == "numbers" else 1
        if self.weights == "normal":
            std = self.weight_std / math.sqrt(self.num_numbers)
            return std * generator.standard_normal((rows, self.num_numbers))
        lengths = [len(row) for row in self.weights]
        if lengths != [self.num_numbers] * rows:
            raise ConfigError(f"found weights with rows of {lengths}; expected {rows} of {self.num_numbers}.")
        return np.array(self.weights)


class Linear(Contextual):
    """Rewards around the score itself, with normal noise of standard deviation noise_std."""

    kind: Literal["linear"] = "linear"
    noise_std: Positive = 0.5

    @property
    def reward_range(self) -> tuple[float, float]:
        return -math.inf, math.inf

    def pay(self, generator: np.random.Generator, scores: FloatArray) -> RewardTable:
        return gaussian(generator, scores, self.noise_std)


class Logistic(Contextual):
    """Rewards 0 or 1; an arm pays 1 with probability 1 / (1 + exp(-bias - score))."""

    kind: Literal["logistic"] = "logistic"
    weight_std: Positive = 3.0
    bias: float = 0.0

    @property
    def reward_range(self) -> tuple[float, float]:
        return 0.0, 1.0

    def variation_budget(self, horizon: int, num_arms: int) -> float:  # noqa: ARG002
        """Each round may move an arm from 0 to 1."""
        return float(horizon - 1)

    def pay(self, generator: np.random.Generator, scores: FloatArray) -> RewardTable:
        return bernoulli(generator, expit(self.bias + scores), 0.0, 1.0)
