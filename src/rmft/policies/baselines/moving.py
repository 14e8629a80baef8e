"""Optimism and sampling that forget, for bandits whose means move."""

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from rmft.policies.baselines.base import IndexPolicy, NonNegative
from rmft.policies.baselines.indices import BayesUCB, upper_confidence
from rmft.policies.baselines.sampling import beta_samples
from rmft.policies.baselines.statistics import counts_and_sums, windowed_counts_and_sums
from rmft.streams import Streams
from rmft.types import Feedback, FloatArray, Histories

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
