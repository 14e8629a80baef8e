"""What a reward process is, and the keys that several of them share."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from pydantic import model_validator

from rmft.bayes.prior import Prior
from rmft.errors import ConfigError
from rmft.reading import Config
from rmft.types import FloatArray, RewardTable, Shown


@runtime_checkable
class RewardProcess(Protocol):
    """Where rewards come from. A user's own class needs these three, and may be `StatesPrior` and `Shows`."""

    def draw(self, generator: np.random.Generator, horizon: int, num_arms: int) -> RewardTable:
        """One problem's table, (horizon, num_arms). All its luck comes from `generator`."""
        ...

    @property
    def reward_range(self) -> tuple[float, float]:
        """(low, high) that holds every reward it can draw; infinite where unbounded. Told to policies."""
        ...

    def variation_budget(self, horizon: int, num_arms: int) -> float:
        """An upper bound on V_T = sum_{t>=2} max_a |mu_t(a) - mu_{t-1}(a)|; 0 when means are fixed.

        Source: Besbes, Gur and Zeevi (2014), eq. 1.
        """
        ...


@runtime_checkable
class StatesPrior(Protocol):
    """A reward process that can say what its means are drawn from, so that optimal play is known."""

    def prior(self) -> Prior | None:
        """The law of its means, if these rest and it is one of `rmft.bayes.prior`; else None."""
        ...


@runtime_checkable
class Shows(Protocol):
    """A reward process of contextual bandits: its tables have `observations`, shown before every decision."""

    @property
    def shown(self) -> Shown:
        """The names of what is shown."""
        ...


class Bounded(Config):
    """The keys `low` and `high`: the interval that means, and bounded rewards, lie in."""

    low: float = 0.0
    high: float = 1.0

    @model_validator(mode="after")
    def _low_below_high(self) -> Bounded:
        if not self.low < self.high:
            raise ConfigError(f"found low {self.low} and high {self.high}; expected low < high.")
        return self

    @property
    def reward_range(self) -> tuple[float, float]:
        return self.low, self.high

    @property
    def width(self) -> float:
        """high - low, the most that a mean can move in a round."""
        return self.high - self.low

    def uniform(self, generator: np.random.Generator, *shape: int) -> FloatArray:
        """Numbers of `shape`, uniform on [low, high)."""
        return self.low + self.width * generator.random(shape)


def best_at_random(generator: np.random.Generator, num_arms: int, middle: float, gap: float) -> FloatArray:
    """(num_arms,) means: one arm, at random, has middle + gap/2 and the others middle - gap/2.

    Source: Krishnamurthy et al. (2024), "Can large language models explore in-context?", sec. 2.
    """
    means = np.full(num_arms, middle - gap / 2)
    means[generator.integers(num_arms)] = middle + gap / 2
    return means


def given_means(means: tuple[float, ...], num_arms: int) -> FloatArray:
    """(num_arms,) the means that were given. Raises ConfigError when they are not one per arm."""
    if len(means) != num_arms:
        raise ConfigError(f"means lists {len(means)} numbers; expected one per arm, {num_arms}.")
    return np.array(means)
