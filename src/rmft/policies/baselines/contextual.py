"""Contextual baselines: ridge regression of rewards on what is shown, and three ways to explore by it.

z_ta, (n,), is what is shown on arm a in round t: the d numbers of the round, then the m numbers of the arm.
With A_a = ridge I + sum z z^T and b_a = sum z r over the rounds in which arm a was played,

    theta_a = A_a^-1 b_a,    mean_ta = z_ta . theta_a,    width_ta = sqrt(z_ta^T A_a^-1 z_ta)

Where only numbers of arms are shown, all rounds are of one regression, A and theta. A^-1 and theta are kept
up round by round (Sherman and Morrison 1950), for the whole batch at once.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rmft.errors import ConfigError
from rmft.policies.baselines.base import Baseline, NonNegative, Positive, Share, best_arms
from rmft.rollout import MAX_CELLS, rows_of_arrays
from rmft.streams import Streams
from rmft.types import Decisions, Feedback, FloatArray, Histories, Observation, Round, Rules

JITTER = 1e-12  # keeps a factor of A^-1 real where rounding has made it a little less than positive


@dataclass
class Ridge:
    """inverse: (B, M, n, n), of each regression's A; theta: (B, M, n). M is K, or 1 where arms share one."""

    inverse: FloatArray
    theta: FloatArray


def shared(rules: Rules) -> bool:
    """Whether all arms are of one regression."""
    return not rules.shown.numbers


def inputs(shown: Observation, rules: Rules) -> FloatArray:
    """(B, K, n) z_ta of one round."""
    size = len(shown.arrays()[0])
    parts = [] if shown.features is None else [shown.features]
    if shown.numbers is not None:
        wide = (size, rules.num_arms, shown.numbers.shape[-1])
        parts.insert(0, np.broadcast_to(shown.numbers[:, None], wide))
    return np.concatenate(parts, axis=-1)


def regression(histories: Histories, ridge: float) -> Ridge:
    """The regressions after the rounds so far; the fold's own state, not to be written to."""
    rules, size = histories.rules, histories.size
    rows = np.arange(size)

    def start() -> Ridge:
        count, width = 1 if shared(rules) else rules.num_arms, rules.shown.num_inputs
        inverse = np.broadcast_to(np.eye(width) / ridge, (size, count, width, width)).copy()
        return Ridge(inverse, np.zeros((size, count, width)))

    def step(state: Ridge, last: Round) -> Ridge:
        z = inputs(Observation(last.observations, last.features), rules)[rows, last.arms]
        z = z * (last.arms >= 0)[:, None]  # nothing is learned from a round without a decision
        at = rows, np.zeros_like(last.arms) if shared(rules) else last.arms
        inverse, theta = state.inverse[at], state.theta[at]
        gain = (inverse @ z[:, :, None])[:, :, 0]
        gain_over = gain / (1 + (z * gain).sum(axis=1, keepdims=True))
        error = rules.normalize(last.rewards) - (z * theta).sum(axis=1)
        state.inverse[at] = inverse - gain_over[:, :, None] * gain[:, None]
        state.theta[at] = theta + gain_over * error[:, None]
        return state

    return histories.fold(("ridge regression", ridge), start, step)


class LinearPolicy(Baseline):
    """Plays the arm of the highest index, made of the regressions. ridge: > 0. Ties at random."""

    feedback: ClassVar[Feedback | None] = "bandit"
    contextual: ClassVar[bool] = True

    ridge: Positive = 1.0

    def rows_at_once(self, rules: Rules) -> int:
        """See `Policy`; the regressions are most of what is remembered."""
        cells = (1 if shared(rules) else rules.num_arms) * max(rules.shown.num_inputs, 1) ** 2
        return max(1, min(rows_of_arrays(rules), MAX_CELLS // cells))

    def decide(self, histories: Histories, streams: Streams) -> Decisions:
        """Arms (B,). Raises ConfigError when the baseline does not suit the rules, or nothing was shown."""
        rules = histories.rules
        self.check(rules)
        shown = histories.shown(histories.num_rounds)
        if shown is None:
            raise ConfigError(f"The baseline '{self.label}' has been shown nothing; observe() comes first.")
        state, z = regression(histories, self.ridge), inputs(shown, rules)
        return Decisions(best_arms(self.index(state, z, streams), streams))

    @abstractmethod
    def index(self, state: Ridge, z: FloatArray, streams: Streams) -> FloatArray:
        """(B, K) from z (B, K, n)."""


def means(state: Ridge, z: FloatArray) -> FloatArray:
    """(B, K) mean_ta."""
    return np.asarray((z * state.theta).sum(axis=-1))


def widths(state: Ridge, z: FloatArray) -> FloatArray:
    """(B, K) width_ta."""
    squared = ((state.inverse @ z[..., None])[..., 0] * z).sum(axis=-1)
    return np.asarray(np.sqrt(np.maximum(squared, 0)))


class LinUCB(LinearPolicy):
    """mean + coefficient * width.

    coefficient: >= 0, the source's alpha. Source: Li et al. (2010), "A contextual-bandit approach to
    personalized news article recommendation", algorithm 1; of one regression for all arms Chu et al. (2011),
    "Contextual bandits with linear payoff functions", algorithm 1.
    """

    label: ClassVar[str] = "linucb"

    coefficient: NonNegative = 1.0

    def index(self, state: Ridge, z: FloatArray, streams: Streams) -> FloatArray:  # noqa: ARG002
        return means(state, z) + self.coefficient * widths(state, z)


class LinearThompson(LinearPolicy):
    """z . theta of one draw of theta from N(theta, scale^2 A^-1).

    Where every arm has a regression of its own, that is N(mean, scale^2 width^2) for each. scale: >= 0, the
    source's v. Source: Agrawal and Goyal (2013), "Thompson sampling for contextual bandits with linear
    payoffs", algorithm 1.
    """

    label: ClassVar[str] = "linear-thompson"

    scale: NonNegative = 0.5

    def index(self, state: Ridge, z: FloatArray, streams: Streams) -> FloatArray:
        count, width = state.theta.shape[1:]
        if count > 1:
            return means(state, z) + self.scale * widths(state, z) * streams.normal(count)
        inverse = state.inverse[:, 0]
        factor = np.linalg.cholesky((inverse + inverse.swapaxes(1, 2)) / 2 + JITTER * np.eye(width))
        drawn = state.theta[:, 0] + self.scale * (factor @ streams.normal(width)[:, :, None])[:, :, 0]
        return np.asarray((z @ drawn[:, :, None])[:, :, 0])


class LinearEpsilonGreedy(LinearPolicy):
    """The highest mean; with probability epsilon an arm at random.

    Source: Langford and Zhang (2008), "The epoch-greedy algorithm", in its form with a constant epsilon.
    """

    label: ClassVar[str] = "linear-epsilon-greedy"

    epsilon: Share = 0.1

    def index(self, state: Ridge, z: FloatArray, streams: Streams) -> FloatArray:
        draws = streams.uniform(1 + z.shape[1])
        return np.where(draws[:, :1] < self.epsilon, draws[:, 1:], means(state, z))
