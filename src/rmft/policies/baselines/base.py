"""What every baseline is: a frozen, checked set of parameters that decides from the history.

Two kinds. An `IndexPolicy` gives every arm a number and plays the highest; a `ProbabilityPolicy`
gives every arm a probability. The rule for ties is here, and nowhere else.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from rmft.errors import ConfigError
from rmft.rollout import rows_of_arrays
from rmft.streams import Streams
from rmft.types import Decisions, Feedback, FloatArray, Histories, IntArray, Rules

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


def best_arms(index: FloatArray, streams: Streams) -> IntArray:
    """(B,) the arm of the highest index (B, K); exact ties are broken uniformly at random.

    One uniform number per row and round, whether or not there is a tie, so that the luck of later
    rounds does not depend on earlier ties. Worked out arm by arm, (K, B): numpy is slow along a short
    last axis.
    """
    by_arm = np.ascontiguousarray(index.T)
    ties = np.cumsum(by_arm == by_arm.max(axis=0), axis=0)
    draws = streams.uniform()[:, 0] * ties[-1]
    return np.asarray((draws >= ties).sum(axis=0), dtype=np.int64)


class Baseline(BaseModel):
    """A known algorithm. Its fields are its parameters, in units of normalized reward."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: ClassVar[str]
    feedback: ClassVar[Feedback | None]
    """The feedback that it is made for; None for both."""
    bounded: ClassVar[bool] = False
    """Whether it needs rewards of a known, finite range."""
    contextual: ClassVar[bool] = False
    """Whether it needs numbers that are shown before the decision."""
    max_concurrency: ClassVar[int] = 1

    @property
    def name(self) -> str:
        """The spec that makes it again, such as `ucb` or `ucb(coefficient=0.5)`."""
        changed = self.model_dump(exclude_defaults=True)
        inside = ", ".join(f"{key}={value}" for key, value in changed.items())
        return f"{self.label}({inside})" if inside else self.label

    def rows_at_once(self, rules: Rules) -> int:
        """See `Policy`."""
        return rows_of_arrays(rules)

    @classmethod
    def suits(cls, rules: Rules) -> bool:
        """Whether it can be played under `rules`."""
        bounded = bool(np.isfinite(rules.reward_range).all())
        shown = rules.shown.num_inputs > 0 or not cls.contextual
        return cls.feedback in (None, rules.feedback) and (bounded or not cls.bounded) and shown

    @abstractmethod
    def decide(self, histories: Histories, streams: Streams) -> Decisions:
        """See `Policy`."""

    def check(self, rules: Rules) -> None:
        """Raises ConfigError when it cannot be played under `rules`."""
        if self.feedback not in (None, rules.feedback):
            raise ConfigError(
                f"The baseline '{self.label}' needs {self.feedback} feedback; this problem gives "
                f"{rules.feedback}. Choose one that suits it: see 'rmft baselines'."
            )
        if self.contextual and not rules.shown.num_inputs:
            raise ConfigError(
                f"The baseline '{self.label}' needs numbers that are shown before the decision; this problem "
                "shows none. Choose another: see 'rmft baselines'."
            )
        if not self.suits(rules):
            raise ConfigError(
                f"The baseline '{self.label}' needs rewards of a finite range; found {rules.reward_range}. "
                "Give the reward process a range, or choose another: see 'rmft baselines'."
            )


class Informed(ABC):
    """A baseline that is told more than a history: of what problems are drawn, or what training showed."""

    name: ClassVar[str]
    summary: ClassVar[str]
    source: ClassVar[str]
    max_concurrency = 1

    def rows_at_once(self, rules: Rules) -> int:
        """See `Policy`."""
        return rows_of_arrays(rules)

    @abstractmethod
    def decide(self, histories: Histories, streams: Streams) -> Decisions:
        """See `Policy`."""


class IndexPolicy(Baseline):
    """Plays the arm whose index is highest; ties by `best_arms`."""

    continuous: ClassVar[bool] = False
    """Whether the index is drawn from continuous distributions, so that ties have probability 0."""

    @abstractmethod
    def index(self, histories: Histories, streams: Streams) -> FloatArray:
        """(B, K), +inf for an arm that must be tried first."""

    def decide(self, histories: Histories, streams: Streams) -> Decisions:
        """Arms (B,). Raises ConfigError when the baseline does not suit the rules."""
        self.check(histories.rules)
        index = self.index(histories, streams)
        return Decisions(arms=index.argmax(axis=1) if self.continuous else best_arms(index, streams))


class ProbabilityPolicy(Baseline):
    """Plays a distribution: itself under full information, an arm drawn from it under bandit feedback."""

    @abstractmethod
    def probabilities(self, histories: Histories) -> FloatArray:
        """(B, K), non-negative, rows summing to 1."""

    def decide(self, histories: Histories, streams: Streams) -> Decisions:
        """Probabilities (B, K), with arms (B,) drawn from them under bandit feedback.

        Raises ConfigError when the baseline does not suit the rules.
        """
        self.check(histories.rules)
        probabilities = self.probabilities(histories)
        if histories.rules.feedback == "full":
            return Decisions(probabilities=probabilities)
        return Decisions(arms=streams.choose(probabilities), probabilities=probabilities)
