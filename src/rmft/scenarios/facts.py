"""What there is to tell, before a style gives it words. Nothing here is hidden from a policy."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rmft.scenarios.contexts import Context
from rmft.scenarios.wording import Wording
from rmft.types import Rules


@dataclass(frozen=True, slots=True)
class Facts:
    """What a problem is about. options: (label, name) in the order in which they are listed.

    described: the same with what else there is to say about each beside its name.
    """

    context: Context
    rules: Rules
    wording: Wording
    options: tuple[tuple[str, str], ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels in the order in which they are listed."""
        return tuple(label for label, _ in self.options)

    @property
    def described(self) -> tuple[tuple[str, str], ...]:
        about = dict(self.context.descriptions)
        return tuple(
            (label, f"{name}: {about[name]}" if name in about else name) for label, name in self.options
        )

    @property
    def shows(self) -> bool:
        """Whether something is told before each round."""
        return bool(self.rules.shown)

    @property
    def mixes(self) -> bool:
        """Whether a decision is a distribution."""
        return self.wording.answer == "distribution"

    @property
    def scaled(self) -> bool:
        """Whether rewards are told on a scale from 0 to 10, which needs bounds."""
        low, high = self.rules.reward_range
        return self.wording.rewards == "scaled" and math.isfinite(high - low)

    @property
    def ranked(self) -> bool:
        """Whether the options whose rewards are told are named in the order of their totals."""
        return self.wording.history == "ranked" and self.rules.feedback == "full"

    @property
    def weights(self) -> str:
        """The shape of an answer that is a distribution."""
        return " ".join(f"{label}=?" for label in self.labels)


@dataclass(frozen=True, slots=True)
class Tally:
    """What has been seen of one option so far: how many rewards, and their mean (0 of none).

    bonus: what UCB1 adds to the mean of an option that was tried, where the wording asks for it.
    """

    label: str
    count: int
    mean: float
    bonus: float | None = None


@dataclass(frozen=True, slots=True)
class News:
    """What is told after a round. `summary` is empty unless the wording asks for it.

    num_rounds: how many are over. chosen: the label played; None where a distribution was. earned: what
    the decision brought: the arm's reward, or the mean over the distribution. rewards: (label, reward)
    of every option, as listed, under full information; empty in a bandit. shown: what is told before the
    coming round, "" where nothing is.
    """

    num_rounds: int
    chosen: str | None
    earned: float
    rewards: tuple[tuple[str, float], ...]
    summary: tuple[Tally, ...]
    shown: str = ""
