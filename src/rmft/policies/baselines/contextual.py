"""Contextual baselines: three ways to explore by a ridge regression (`rmft.policies.regression`)."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import numpy as np

from rmft.errors import ConfigError
from rmft.policies.baselines.base import Baseline, NonNegative, Positive, Share, best_arms
from rmft.policies.regression import Regression, inputs, regression_of, size_of
from rmft.rollout import MAX_CELLS, rows_of_arrays
from rmft.streams import Streams
from rmft.types import Decisions, Feedback, FloatArray, Histories, Rules

JITTER = 1e-12  # keeps a factor of A^-1 real where rounding has made it a little less than positive


class LinearPolicy(Baseline):
    """Plays the arm of the highest index, made of the regressions. ridge: > 0. Ties at random."""

    feedback: ClassVar[Feedback | None] = "bandit"
    contextual: ClassVar[bool] = True

    ridge: Positive = 1.0

    def rows_at_once(self, rules: Rules) -> int:
        """See `Policy`; the regressions are most of what is remembered."""
        return max(1, min(rows_of_arrays(rules), MAX_CELLS // size_of(rules, num_ridges=1)))

    def decide(self, histories: Histories, streams: Streams) -> Decisions:
        """Arms (B,). Raises ConfigError when the baseline does not suit the rules, or nothing was shown."""
        rules = histories.rules
        self.check(rules)
        shown = histories.shown(histories.num_rounds)
        if shown is None:
            raise ConfigError(f"The baseline '{self.label}' has been shown nothing; observe() comes first.")
        regression, z = regression_of(histories, self.ridge), inputs(shown, rules)
        return Decisions(best_arms(self.index(regression, z, streams), streams))

    @abstractmethod
    def index(self, regression: Regression, z: FloatArray, streams: Streams) -> FloatArray:
        """(B, K) from z (B, K, n)."""


class LinUCB(LinearPolicy):
    """mean + coefficient * width.

    coefficient: >= 0, the source's alpha. Source: Li et al. (2010), "A contextual-bandit approach to
    personalized news article recommendation", algorithm 1; of one regression for all arms Chu et al. (2011),
    "Contextual bandits with linear payoff functions", algorithm 1.
    """

    label: ClassVar[str] = "linucb"

    coefficient: NonNegative = 1.0

    def index(self, regression: Regression, z: FloatArray, streams: Streams) -> FloatArray:  # noqa: ARG002
        return (regression.means(z) + self.coefficient * regression.widths(z))[..., 0]


class LinearThompson(LinearPolicy):
    """z . theta of one draw of theta from N(theta, scale^2 A^-1).

    Where every arm has a regression of its own, that is N(mean, scale^2 width^2) for each. scale: >= 0, the
    source's v. Source: Agrawal and Goyal (2013), "Thompson sampling for contextual bandits with linear
    payoffs", algorithm 1.
    """

    label: ClassVar[str] = "linear-thompson"

    scale: NonNegative = 0.5

    def index(self, regression: Regression, z: FloatArray, streams: Streams) -> FloatArray:
        count, _, width = regression.theta.shape[1:]
        if count > 1:
            spread = self.scale * regression.widths(z)[..., 0]
            return np.asarray(regression.means(z)[..., 0] + spread * streams.normal(count))
        inverse = regression.inverse[:, 0, 0]
        factor = np.linalg.cholesky((inverse + inverse.swapaxes(1, 2)) / 2 + JITTER * np.eye(width))
        drawn = regression.theta[:, 0, 0] + self.scale * (factor @ streams.normal(width)[:, :, None])[:, :, 0]
        return np.asarray((z @ drawn[:, :, None])[:, :, 0])


class LinearEpsilonGreedy(LinearPolicy):
    """The highest mean; with probability epsilon an arm at random.

    Source: Langford and Zhang (2008), "The epoch-greedy algorithm", in its form with a constant epsilon.
    """

    label: ClassVar[str] = "linear-epsilon-greedy"

    epsilon: Share = 0.1

    def index(self, regression: Regression, z: FloatArray, streams: Streams) -> FloatArray:
        draws = streams.uniform(1 + z.shape[1])
        return np.where(draws[:, :1] < self.epsilon, draws[:, 1:], regression.means(z)[..., 0])
