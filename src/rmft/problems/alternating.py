"""The sequence that breaks follow-the-leader."""

from __future__ import annotations

from typing import Literal

import numpy as np

from rmft.problems.process import Bounded
from rmft.types import RewardTable


class Alternating(Bounded):
    """Whoever leads is paid `low` in the next round, and everybody else `high`.

    On [0, 1] with two arms: (1/2, 0), then (0, 1), (1, 0), (0, 1), ... In general the arms stand in an
    order drawn at random; in round 1 the arm at place j of 0..K-1 is paid (K-1-j)/K, which makes the
    first the leader and leaves no ties, and from then on each place in turn is paid 0 and the others
    1. So the leader after round t is at place (t-1) mod K, and that is who is paid 0 in round t+1:
    follow-the-leader earns nothing after round 1, while every fixed arm earns about T (K-1)/K.
    Nothing is random but the order, so expected rewards are the rewards.
    Source: Shalev-Shwartz (2012), "Online learning and online convex optimization", example 2.2;
    Cesa-Bianchi and Lugosi (2006), sec. 4.3. The step from 2 to K arms is this project's own.
    """

    kind: Literal["alternating"] = "alternating"

    def variation_budget(self, horizon: int, num_arms: int) -> float:  # noqa: ARG002
        """Exact: in every round but the first, some arm moves by high - low."""
        return (horizon - 1) * self.width

    def draw(self, generator: np.random.Generator, horizon: int, num_arms: int) -> RewardTable:
        pays = np.ones((horizon, num_arms))
        pays[0] = np.arange(num_arms)[::-1] / num_arms
        later = np.arange(1, horizon)
        pays[later, (later - 1) % num_arms] = 0.0
        rewards = self.low + self.width * pays[:, generator.permutation(num_arms)]
        return RewardTable(rewards, rewards)
