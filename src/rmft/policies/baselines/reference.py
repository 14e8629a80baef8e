"""The two ends of every scale: knowing nothing, and knowing the hidden table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from rmft.errors import ShapeError
from rmft.policies.baselines.base import ProbabilityPolicy
from rmft.regret import RegretKind
from rmft.rollout import rows_of_arrays
from rmft.streams import Streams
from rmft.types import Decisions, Feedback, FloatArray, Histories, RewardTable, Rules


class Uniform(ProbabilityPolicy):
    """Every arm with probability 1/K, whatever was seen."""

    label: ClassVar[str] = "uniform"
    feedback: ClassVar[Feedback | None] = None

    def probabilities(self, histories: Histories) -> FloatArray:
        num_arms = histories.rules.num_arms
        return np.full((histories.size, num_arms), 1 / num_arms)


class Oracle:
    """Plays the comparator of the regret from the hidden table, so that this regret is 0.

    Only evaluation may make one. table: (B, T, K), row by row that of the histories it plays on.
    regret: the kind whose comparator is played (static: the arm of the largest total reward; pseudo: of
    the largest total expected reward; dynamic: of the largest expected reward in the round), or the kinds by
    rules; None for static under full information and dynamic under bandit feedback. Ties: lowest index.
    """

    name = "oracle"
    max_concurrency = 1

    def __init__(
        self, table: RewardTable, regret: RegretKind | Mapping[Rules, RegretKind] | None = None
    ) -> None:
        self.table = table
        self.regret = regret

    def rows_at_once(self, rules: Rules) -> int:
        """See `Policy`."""
        return rows_of_arrays(rules)

    def decide(self, histories: Histories, streams: Streams) -> Decisions:  # noqa: ARG002
        """Arms (B,). Raises ShapeError when the table is not that of the histories."""
        rules, table = histories.rules, self.table
        expected = (histories.size, rules.horizon, rules.num_arms)
        if table.rewards.shape != expected:
            raise ShapeError(f"The oracle's table has shape {table.rewards.shape}; expected {expected}.")
        given = self.regret.get(rules) if isinstance(self.regret, Mapping) else self.regret
        kind = given or ("static" if rules.feedback == "full" else "dynamic")
        if kind == "static":
            arms = table.rewards.sum(axis=1).argmax(axis=1)
        elif kind == "pseudo":
            arms = table.expected_rewards.sum(axis=1).argmax(axis=1)
        else:
            arms = table.expected_rewards[:, histories.num_rounds].argmax(axis=1)
        return Decisions(arms=arms.astype(np.int64))
