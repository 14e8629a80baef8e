"""Optimism and sampling that forget, for bandits whose means move."""

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field
from scipy import special

from rmft.policies.baselines.base import IndexPolicy, NonNegative
from rmft.policies.baselines.indices import BayesUCB, upper_confidence
from rmft.policies.baselines.sampling import beta_samples
from rmft.policies.baselines.statistics import counts_and_sums, windowed_counts_and_sums
from rmft.streams import Streams
from rmft.types import Feedback, FloatArray, Histories, Round

Discount = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]


class DiscountedUCB(IndexPolicy):
    """mean + coefficient * sqrt(ln n / count), with counts and sums that fade by `discount` per round.

    n is the sum of the faded counts. discount: on (0, 1], 1 is `ucb`. coefficient: >= 0; the source's
    2 B sqrt(xi). Source: Garivier and Moulines (2011), "On upper-confidence bound policies for switching
    bandit problems", section 2.1.
    """

    label: ClassVar[str] = "discounted-ucb"
    feedback: ClassVar[Feedback | None] = "bandit"

    discount: Discount = 0.9
    coefficient: NonNegative = 0.4

    def index(self, histories: Histories, streams: Streams) -> FloatArray:  # noqa: ARG002
        counts, sums = counts_and_sums(histories, self.discount)
        steps, fade = histories.num_rounds, self.discount
        total = steps if fade == 1 else (1 - fade**steps) / (1 - fade)
        return upper_confidence(counts, sums, self.coefficient, max(np.log(max(total, 1)), 0.0))


class SlidingWindowUCB(IndexPolicy):
    """UCB of the last `window` rounds, t being at most the window; an arm not played in it comes first.

    window: >= 1 rounds. coefficient: >= 0; the source's B sqrt(xi). Source: Garivier and Moulines (2011),
    section 2.2.
    """

    label: ClassVar[str] = "sliding-window-ucb"
    feedback: ClassVar[Feedback | None] = "bandit"

    window: Annotated[int, Field(ge=1)] = 20
    coefficient: NonNegative = 0.4

    def index(self, histories: Histories, streams: Streams) -> FloatArray:  # noqa: ARG002
        counts, sums = windowed_counts_and_sums(histories, self.window)
        seen = min(max(histories.num_rounds, 1), self.window)
        return upper_confidence(counts, sums, self.coefficient, np.log(seen))


class DiscountedThompson(IndexPolicy):
    """Thompson sampling whose successes and failures fade by `discount` per round, its prior not.

    discount: on (0, 1], 1 is Thompson sampling. Source: Raj and Kalyani (2017), "Taming non-stationary
    bandits: a Bayesian approach", algorithm 1.
    """

    label: ClassVar[str] = "discounted-thompson"
    feedback: ClassVar[Feedback | None] = "bandit"
    continuous: ClassVar[bool] = True
    bounded: ClassVar[bool] = True

    discount: Discount = 0.9

    def index(self, histories: Histories, streams: Streams) -> FloatArray:
        counts, sums = counts_and_sums(histories, self.discount)
        return beta_samples(sums, counts, streams)


class DiscountedBayesUCB(BayesUCB):
    """A quantile of every arm's Beta posterior whose successes and failures fade, its prior not.

    discount: on (0, 1], 1 is `bayes-ucb`. Source: this project's own combination of Kaufmann et al. (2012)
    and Raj and Kalyani (2017), as a rival that is harder to beat than either.
    """

    label: ClassVar[str] = "discounted-bayes-ucb"

    discount: Discount = 0.95

    def index(self, histories: Histories, streams: Streams) -> FloatArray:  # noqa: ARG002
        counts, sums = counts_and_sums(histories, self.discount)
        return self.bound(histories, counts, np.clip(sums, 0, counts))


class Runs:
    """What a change filter believes: the means of all arms were drawn anew in round s, for every s so far.

    beliefs: (B, t + 1), rows summing to 1. counts, sums: (B, t + 1, K), what each arm was played and paid
    since s. Both have room for T + 1 rounds; `active` are those that there are.
    """

    def __init__(self, histories: Histories) -> None:
        rules = histories.rules
        self._beliefs = np.zeros((histories.size, rules.horizon + 1))
        self._beliefs[:, 0] = 1
        self._counts = np.zeros((*self._beliefs.shape, rules.num_arms))
        self._sums = np.zeros_like(self._counts)
        self.active = 1

    @property
    def beliefs(self) -> FloatArray:
        return self._beliefs[:, : self.active]

    @property
    def counts(self) -> FloatArray:
        return self._counts[:, : self.active]

    @property
    def sums(self) -> FloatArray:
        return self._sums[:, : self.active]

    def learn(self, played: FloatArray, paid: FloatArray, rate: float) -> None:
        """A round: played (B, K), one-hot; paid (B,) on [0, 1]; then a change with probability `rate`."""
        counts = np.einsum("bsk,bk->bs", self.counts, played)
        mean = (1 + np.einsum("bsk,bk->bs", self.sums, played)) / (2 + counts)
        likelihood = mean ** paid[:, None] * (1 - mean) ** (1 - paid[:, None])
        after = self.beliefs * likelihood
        self._beliefs[:, : self.active] = (1 - rate) * after / after.sum(axis=1, keepdims=True)
        self._counts[:, : self.active] += played[:, None]
        self._sums[:, : self.active] += (played * paid[:, None])[:, None]
        self._beliefs[:, self.active] = rate
        self.active += 1


class ChangeFilter(IndexPolicy):
    """Bayes-UCB on what is believed of the last change: the exact filter of means that are redrawn at `rate`.

    In every round all means are drawn anew, uniform on [0, 1], with probability `rate`. The beliefs on when
    that last was are exact for Bernoulli rewards; an arm's mixture of Beta posteriors is taken as the one
    Beta law of the same mean and variance, of which the index is a quantile. quantile: on (0, 1). Source:
    Mellor and Shapiro (2013), "Thompson sampling in switching environments with Bayesian online change
    detection", global switching with a known rate; a quantile in place of a draw.
    """

    label: ClassVar[str] = "change-filter"
    feedback: ClassVar[Feedback | None] = "bandit"
    bounded: ClassVar[bool] = True

    rate: Annotated[float, Field(gt=0, lt=1)] = 0.04
    quantile: Annotated[float, Field(gt=0, lt=1)] = 0.8

    def index(self, histories: Histories, streams: Streams) -> FloatArray:  # noqa: ARG002
        def step(runs: Runs, last: Round) -> Runs:
            runs.learn(last.played, histories.rules.normalize(last.rewards), self.rate)
            return runs

        runs = histories.fold(("change filter", self.rate), lambda: Runs(histories), step)
        of_run = (1 + runs.sums) / (2 + runs.counts)
        mean = np.einsum("bs,bsk->bk", runs.beliefs, of_run)
        second = np.einsum("bs,bsk->bk", runs.beliefs, of_run * (2 + runs.sums) / (3 + runs.counts))
        total = (mean - second) / (second - mean**2)  # alpha + beta of the Beta law with these moments
        return np.asarray(special.betaincinv(mean * total, (1 - mean) * total, self.quantile))
