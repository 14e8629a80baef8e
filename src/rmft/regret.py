"""Static, pseudo- and dynamic regret, and their curves. Arrays in, arrays out.

Shapes: rewards, expected_rewards and played are (..., T, K); `played` is the distribution played in
each round, one-hot where an arm was. Curves are (..., T) with entry t the regret of the first t + 1
rounds; the regret of a trajectory is the last entry, in units of reward. Nothing is ever clipped:
static regret can be negative. A round without a decision (`played` all 0) earns what the worst arm does.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from rmft.types import BoolArray, FloatArray, RewardTable, Trajectories

RegretKind = Literal["static", "pseudo", "dynamic"]


ROUNDING = 1e-9
"""Relative to the largest number: what two rewards may differ by and be the same."""


def highest(values: FloatArray) -> BoolArray:
    """(..., K) which of the values are the highest, to within rounding: several where they tie."""
    margin = ROUNDING * np.abs(values).max(axis=-1, keepdims=True)
    return np.asarray(values >= values.max(axis=-1, keepdims=True) - margin)


def earned(rewards: FloatArray, played: FloatArray) -> FloatArray:
    """(..., T) <pi_t, r_t>, or min_a r_t(a) where nothing was decided."""
    nothing = ~played.any(axis=-1)
    return np.asarray((played * rewards).sum(axis=-1) + nothing * rewards.min(axis=-1))


def static_regret_curve(rewards: FloatArray, played: FloatArray) -> FloatArray:
    """max_a sum_{s<=t} r_s(a) - sum_{s<=t} <pi_s, r_s>: against the best fixed arm in hindsight.

    Source: the full-information setting of Park et al. (2025), "Do LLM agents have regret?", eq. 3.1.
    """
    best = np.cumsum(rewards, axis=-2).max(axis=-1)
    return np.asarray(best - np.cumsum(earned(rewards, played), axis=-1))


def pseudo_regret_curve(expected_rewards: FloatArray, played: FloatArray) -> FloatArray:
    """sum_{s<=t} (mu* - <pi_s, mu>) with mu* the best fixed arm's mean over the whole horizon.

    Source: Lattimore and Szepesvari (2020), Bandit Algorithms, ch. 4. With means that move, mu is the
    mean of round s and mu* that of the arm whose total over the horizon is largest.
    """
    best_arm = expected_rewards.sum(axis=-2).argmax(axis=-1)
    best = np.take_along_axis(expected_rewards, best_arm[..., None, None], axis=-1)[..., 0]
    return np.cumsum(best - earned(expected_rewards, played), axis=-1)


def dynamic_regret_curve(expected_rewards: FloatArray, played: FloatArray) -> FloatArray:
    """sum_{s<=t} (max_a mu_s(a) - <pi_s, mu_s>): against the best arm of every round.

    Source: Besbes, Gur and Zeevi (2014), "Stochastic multi-armed-bandit problem with non-stationary
    rewards", eq. 2.
    """
    best = expected_rewards.max(axis=-1)
    return np.cumsum(best - earned(expected_rewards, played), axis=-1)


def regret_curve(trajectories: Trajectories, kind: RegretKind) -> FloatArray:
    """(B, T) the regret of `kind` along each trajectory."""
    return curve(trajectories.table, trajectories.histories.played, kind)


def curve(table: RewardTable, played: FloatArray, kind: RegretKind) -> FloatArray:
    """(B, T) the regret of `kind` of what was played, (B, T, K), on a table."""
    if kind == "static":
        return static_regret_curve(table.rewards, played)
    if kind == "pseudo":
        return pseudo_regret_curve(table.expected_rewards, played)
    return dynamic_regret_curve(table.expected_rewards, played)


def regret(trajectories: Trajectories, kind: RegretKind) -> FloatArray:
    """(B,) the regret of `kind` of each whole trajectory."""
    return regret_curve(trajectories, kind)[:, -1]


def round_regret(trajectories: Trajectories, kind: RegretKind) -> FloatArray:
    """(B, T) what each round adds to the trajectory's regret; rows sum to `regret`.

    For static regret the comparator is the arm that is best over the whole horizon, so that a
    round's share does not depend on when the leader changed.
    """
    table, played = trajectories.table, trajectories.histories.played
    rewards = table.rewards if kind == "static" else table.expected_rewards
    got = earned(rewards, played)
    if kind == "dynamic":
        return np.asarray(rewards.max(axis=-1) - got)
    best_arm = rewards.sum(axis=-2).argmax(axis=-1)
    return np.asarray(np.take_along_axis(rewards, best_arm[:, None, None], axis=-1)[..., 0] - got)
