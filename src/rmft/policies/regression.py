"""Ridge regressions of rewards on what is shown, kept up round by round for a whole batch.

z_ta, (n,), is what is shown on arm a in round t: the d numbers of the round, then the m numbers of the arm.
With A_a = ridge I + sum z z^T and b_a = sum z r over the rounds in which the reward of arm a was seen,

    theta_a = A_a^-1 b_a,    mean_ta = z_ta . theta_a,    width_ta = sqrt(z_ta^T A_a^-1 z_ta)

Where only numbers of arms are shown, all rounds are of one regression, A and theta. A^-1 and theta are kept
up by the formula of Sherman and Morrison (1950). Rewards are normalized by the rules.

B = rollouts, K = arms, R = ridges, M = K regressions, or 1 where arms share one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rmft.types import FloatArray, Histories, IntArray, Observation, Round, Rules

RIDGES = (0.3, 1.0, 3.0, 10.0)
"""Those whose means and widths networks read."""


@dataclass
class Regression:
    """inverse: (B, M, R, n, n), A^-1 of each; theta: (B, M, R, n)."""

    inverse: FloatArray
    theta: FloatArray

    def learn(self, arms: IntArray, z: FloatArray, rewards: FloatArray, seen: FloatArray) -> None:
        """Add one event of each row: z (B, n) of arms (B,) paid rewards (B,); none where seen (B,) is 0."""
        at = np.arange(len(arms)), arms if self.theta.shape[1] > 1 else np.zeros_like(arms)
        inverse, theta, z = self.inverse[at], self.theta[at], z * seen[:, None]
        gain = np.einsum("brij,bj->bri", inverse, z)
        scaled = gain / (1 + np.einsum("bri,bi->br", gain, z))[:, :, None]
        error = rewards[:, None] - np.einsum("bri,bi->br", theta, z)
        self.inverse[at] = inverse - scaled[..., None] * gain[:, :, None]
        self.theta[at] = theta + scaled * error[:, :, None]

    def means(self, z: FloatArray) -> FloatArray:
        """(B, K, R) mean_ta, of z (B, K, n)."""
        return np.asarray((self.theta @ z[..., None])[..., 0])

    def widths(self, z: FloatArray) -> FloatArray:
        """(B, K, R) width_ta, of z (B, K, n)."""
        gain = self.inverse @ z[:, :, None, :, None]
        squared = (gain[..., 0] * z[:, :, None]).sum(axis=-1)
        return np.asarray(np.sqrt(np.maximum(squared, 0)))


def is_shared(rules: Rules) -> bool:
    """Whether all arms are of one regression."""
    return not rules.shown.numbers


def size_of(rules: Rules, num_ridges: int) -> int:
    """How many numbers the regressions of one rollout are."""
    return (1 if is_shared(rules) else rules.num_arms) * num_ridges * max(rules.shown.num_inputs, 1) ** 2


def inputs(shown: Observation, rules: Rules) -> FloatArray:
    """(B, K, n) z_ta of one round."""
    parts = [] if shown.features is None else [shown.features]
    if shown.numbers is not None:
        wide = (len(shown.numbers), rules.num_arms, shown.numbers.shape[-1])
        parts.insert(0, np.broadcast_to(shown.numbers[:, None], wide))
    return np.concatenate(parts, axis=-1)


def new_regression(rules: Rules, size: int, ridges: tuple[float, ...]) -> Regression:
    """Before round 1."""
    count, width = 1 if is_shared(rules) else rules.num_arms, rules.shown.num_inputs
    each = np.eye(width) / np.array(ridges)[:, None, None]
    inverse = np.broadcast_to(each, (size, count, *each.shape)).copy()
    return Regression(inverse, np.zeros(inverse.shape[:-1]))


def learn_round(regression: Regression, last: Round, rules: Rules) -> None:
    """Add what was seen in a round."""
    z = inputs(Observation(last.observations, last.features), rules)
    rewards, seen = rules.normalize(last.rewards), last.played.sum(axis=1)  # 0 of rows that failed
    if rules.feedback == "bandit":
        regression.learn(last.arms, z[np.arange(len(z)), last.arms], rewards, seen)
        return
    for arm in range(rules.num_arms):
        regression.learn(np.full(len(z), arm), z[:, arm], rewards[:, arm], np.sign(seen))


def regression_of(histories: Histories, ridge: float) -> Regression:
    """The regression, of one ridge, after the rounds so far; the fold's own state, not to be written to."""
    rules = histories.rules

    def step(state: Regression, last: Round) -> Regression:
        learn_round(state, last, rules)
        return state

    def start() -> Regression:
        return new_regression(rules, histories.size, (ridge,))

    return histories.fold(("ridge regression", ridge), start, step)


def num_readings(num_inputs: int) -> int:
    """How many numbers `readings` has of every arm, where `num_inputs` are shown on each."""
    return num_inputs + 2 * len(RIDGES) if num_inputs else 0


def readings(histories: Histories) -> FloatArray:
    """(B, t + 1, K, n + 2 R) what was shown before every decision, up to that of the coming round, and what
    the regressions of `RIDGES` made of it then: means, then widths. T in place of t + 1 after the last round.

    The fold's own array, in single precision, not to be written to.
    """
    rules, horizon = histories.rules, histories.rules.horizon

    def start() -> tuple[Regression, np.ndarray]:
        shape = (histories.size, horizon, rules.num_arms, num_readings(rules.shown.num_inputs))
        return new_regression(rules, histories.size, RIDGES), np.full(shape, np.nan, dtype=np.float32)

    def read(regression: Regression, found: np.ndarray, index: int) -> None:
        shown = histories.shown(index)
        if shown is not None and np.isnan(found[:1, index, :1, :1]).any():
            z = inputs(shown, rules)
            found[:, index] = np.concatenate([z, regression.means(z), regression.widths(z)], axis=-1)

    def step(state: tuple[Regression, np.ndarray], last: Round) -> tuple[Regression, np.ndarray]:
        read(*state, last.index)
        learn_round(state[0], last, rules)
        return state

    state = histories.fold("readings", start, step)
    if histories.num_rounds < horizon:
        read(*state, histories.num_rounds)
    return state[1][:, : histories.num_rounds + 1]
