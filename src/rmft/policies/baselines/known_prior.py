"""Baselines that know what the means were drawn from: optimal play, and greedy play on the posterior."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

import numpy as np

from rmft.bayes.bandit import choose, optimal_choices
from rmft.bayes.optimum import refusal
from rmft.bayes.prior import NormalArms, Prior
from rmft.errors import ConfigError
from rmft.policies.baselines.base import Informed, best_arms
from rmft.policies.baselines.statistics import counts_and_sums, cumulative_rewards
from rmft.streams import Streams
from rmft.types import Decisions, FloatArray, Histories, Rules

Priors = Mapping[Rules, Prior | None]
"""What the means of the problems with these rules are drawn from; None where that is not known."""


class KnowsPrior(Informed):
    """Plays by the prior of the problems that have a history's rules. Ties at random.

    Only what is told of problems tells them apart, so problems of one shape have one prior.
    """

    def __init__(self, priors: Priors) -> None:
        self.priors = priors

    @classmethod
    @abstractmethod
    def refusal(cls, rules: Rules, prior: Prior | None) -> str | None:
        """Why it can't be played here; None where it can."""

    def decide(self, histories: Histories, streams: Streams) -> Decisions:
        """Arms (B,). Raises ConfigError where it can't be played."""
        prior = self.priors.get(histories.rules)
        if (why := self.refusal(histories.rules, prior)) is not None or prior is None:
            raise ConfigError(f"The baseline '{self.name}' can't play this: {why}.")
        if histories.rules.feedback == "full" or isinstance(prior, NormalArms):
            return Decisions(arms=best_arms(cumulative_rewards(histories), streams))
        return Decisions(arms=best_arms(self.index(histories, prior), streams))

    @abstractmethod
    def index(self, histories: Histories, prior: Prior) -> FloatArray:
        """(B, K) a number for every arm of a Bernoulli bandit, of which the highest is played."""


class BayesOptimal(KnowsPrior):
    """Nobody does better on average: dynamic programming over all that may still be seen (`rmft.bayes`)."""

    name = "bayes-optimal"
    summary = "optimal on average, knowing what the means are drawn from"
    source = "Lattimore & Szepesvari 2020, 35.1"

    @classmethod
    def refusal(cls, rules: Rules, prior: Prior | None) -> str | None:
        return refusal(rules, prior)

    def index(self, histories: Histories, prior: Prior) -> FloatArray:
        assert not isinstance(prior, NormalArms)
        choices = optimal_choices(prior, histories.rules.horizon, histories.rules.num_arms)
        pulls, successes = (np.rint(each).astype(np.int64) for each in pulls_and_successes(histories))
        return choose(choices, pulls, successes).astype(np.float64)


class PosteriorGreedy(KnowsPrior):
    """The arm of the highest posterior mean: optimal if the next round were the last one."""

    name = "posterior-greedy"
    summary = "highest posterior mean, knowing what the means are drawn from"
    source = "Russo et al. 2018, A Tutorial on Thompson Sampling, 3"

    @classmethod
    def refusal(cls, rules: Rules, prior: Prior | None) -> str | None:
        if prior is not None and not isinstance(prior, NormalArms):
            return None
        return refusal(rules, prior)

    def index(self, histories: Histories, prior: Prior) -> FloatArray:
        assert not isinstance(prior, NormalArms)
        pulls, successes = pulls_and_successes(histories)
        means = np.stack(prior.means(list(pulls.T), list(successes.T)), axis=1)
        return np.round(means, 12)  # what rounding tells apart is tied


def pulls_and_successes(histories: Histories) -> tuple[FloatArray, FloatArray]:
    """(B, K) each: how often every arm was played, and how often it paid 1, in a Bernoulli bandit."""
    pulls, sums = counts_and_sums(histories)
    low, high = histories.rules.reward_range
    return pulls, sums * (high - low) + pulls * low if np.isfinite(high - low) else sums
