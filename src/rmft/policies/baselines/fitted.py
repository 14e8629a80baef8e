"""Baselines that know what named arms paid on the training part: the best of them always, or as a prior."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from rmft.errors import ConfigError
from rmft.policies.baselines.base import Informed, best_arms
from rmft.policies.baselines.statistics import counts_and_sums, cumulative_rewards
from rmft.streams import Streams
from rmft.types import Decisions, FloatArray, Histories, RewardTable, Rules, TextArray

MOST_ROUNDS = 1e6
"""The strength of a prior whose arm is the same in every problem."""


@dataclass(frozen=True, slots=True)
class ArmPrior:
    """What an arm pays: mean, normalized by the rules; strength, as many rounds as the prior counts for."""

    mean: float
    strength: float


FittedArms = Mapping[str, ArmPrior]
"""By name."""


def fit_arms(parts: Iterable[tuple[Rules, RewardTable, TextArray]]) -> FittedArms:
    """The arms' priors from training problems: rules, tables (B, T, K) and names (B, K) of each setting.

    With x_p the mean of an arm's rewards in problem p, the mean is that of all x_p, and the strength W / V:
    W the variance of rewards within a problem, V that of problems' means, Var(x_p) - W / T. Source:
    Bühlmann (1967), "Experience rating and credibility"; of rewards 0 or 1 it is the Beta distribution of
    these two moments, its parameters' sum being the strength.
    """
    means: dict[str, list[FloatArray]] = {}
    for rules, table, names in parts:
        rewards = rules.normalize(table.rewards)
        within = rewards.var(axis=1, ddof=1) if rules.horizon > 1 else np.zeros(rewards[:, 0].shape)
        noise = within / rules.horizon
        for name in np.unique(names):
            rows, arms = np.nonzero(names == name)
            means.setdefault(str(name), []).append(
                np.stack([rewards.mean(axis=1)[rows, arms], within[rows, arms], noise[rows, arms]])
            )
    found = {}
    for name, each in means.items():
        of_problems, within, noise = np.concatenate(each, axis=1)
        between = max(float(of_problems.var(ddof=1) - noise.mean()), 0.0) if len(of_problems) > 1 else 0.0
        inside = float(within.mean())
        strength = inside / between if inside < MOST_ROUNDS * between else MOST_ROUNDS
        found[name] = ArmPrior(float(of_problems.mean()), strength)
    return found


class Fitted(Informed):
    """Plays by what arms of these names paid on the training part; one of no such name counts as their mean.

    Ties at random.
    """

    def __init__(self, arms: FittedArms) -> None:
        self.arms = arms

    def decide(self, histories: Histories, streams: Streams) -> Decisions:
        """Arms (B,). Raises ConfigError where arms are anonymous."""
        names = histories.words.names
        if names is None:
            raise ConfigError(f"The baseline '{self.name}' needs arms with names; these are anonymous.")
        means, strengths = histories.remember("fitted", lambda: self._priors(names))
        return Decisions(best_arms(self.index(histories, means, strengths), streams))

    def _priors(self, names: TextArray) -> tuple[FloatArray, FloatArray]:
        """(B, K) each: means and strengths."""
        known = {name: (prior.mean, prior.strength) for name, prior in self.arms.items()}
        mean, strength = np.mean(list(known.values()), axis=0).tolist()
        found = np.array([[known.get(name, (mean, strength)) for name in row] for row in names.tolist()])
        return found[..., 0], found[..., 1]

    @abstractmethod
    def index(self, histories: Histories, means: FloatArray, strengths: FloatArray) -> FloatArray:
        """(B, K) a number for every arm, of which the highest is played."""


class ConstantBest(Fitted):
    """Always the arm of the highest mean on the training part, whatever is seen."""

    name = "constant-best"
    summary = "the named arm that paid most on the training part, always"
    source = "-"

    def index(self, histories: Histories, means: FloatArray, strengths: FloatArray) -> FloatArray:  # noqa: ARG002
        return means


class PriorGreedy(Fitted):
    """The arm of the highest posterior mean, (strength mean + sum of rewards) / (strength + how many)."""

    name = "prior-greedy"
    summary = "highest posterior mean, each named arm's prior fitted on the training part"
    source = "Bühlmann 1967"

    def index(self, histories: Histories, means: FloatArray, strengths: FloatArray) -> FloatArray:
        if histories.rules.feedback == "full":
            counts, sums = np.array(float(histories.num_rounds)), cumulative_rewards(histories)
        else:
            counts, sums = counts_and_sums(histories)
        weight = strengths + counts
        return np.where(weight > 0, (strengths * means + sums) / np.where(weight > 0, weight, 1), means)
