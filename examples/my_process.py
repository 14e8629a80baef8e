"""A reward process and an adaptive environment of one's own, in a file of one's own.

In a suite's YAML, with this file beside it or in the current directory:

    reward_process: {kind: "my_process:MyProcess", gap: 0.4}
    environment: "my_process:MyEnvironment"       # only where the opponent should adapt
"""

from __future__ import annotations

import numpy as np

from rmft.types import Decisions, FloatArray, RewardTable, Rules


class MyProcess:
    """Bernoulli rewards; halfway through, the best arm hands over to another, both at random."""

    def __init__(self, gap: float = 0.4) -> None:
        if not 0 < gap <= 1:
            raise ValueError(f"found gap {gap}; expected a number above 0, at most 1.")
        self.gap = gap

    @property
    def reward_range(self) -> tuple[float, float]:
        return 0.0, 1.0

    def variation_budget(self, horizon: int, num_arms: int) -> float:  # noqa: ARG002
        return self.gap

    def draw(self, generator: np.random.Generator, horizon: int, num_arms: int) -> RewardTable:
        first, second = generator.permutation(num_arms)[:2]
        means = np.full((horizon, num_arms), 0.5 - self.gap / 2)
        means[: horizon // 2, first] += self.gap
        means[horizon // 2 :, second] += self.gap
        return RewardTable((generator.random(means.shape) < means).astype(float), means)


class MyEnvironment:
    """The arm that was played most in the round before pays the least; the rest is as in the table."""

    def __init__(self, rules: Rules, table: RewardTable) -> None:
        self.rules, self.size = rules, len(table.rewards)
        self._rewards, self._means = table.rewards.copy(), table.expected_rewards.copy()
        self._round = 0

    @property
    def table(self) -> RewardTable:
        return RewardTable(self._rewards, self._means)

    def step(self, decisions: Decisions) -> FloatArray:
        rows, index = np.arange(self.size), self._round
        self._round += 1
        arms = decisions.arms if decisions.arms is not None else decisions.probabilities.argmax(axis=1)
        if self._round < self.rules.horizon:
            low = self.rules.reward_range[0]
            decided = np.delete(rows, list(decisions.failed))  # the arm of the others is -1, which is none
            at = decided, self._round, arms[decided]
            self._rewards[at] = self._means[at] = low
        rewards = self._rewards[:, index]
        return rewards.copy() if self.rules.feedback == "full" else rewards[rows, arms]
