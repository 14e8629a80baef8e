"""Advantages of decisions under bandit feedback and under full information: what the policy gradient needs.

Costs are regrets: c_t is what round t adds to a trajectory's regret. With discount gamma and lambda,

    G_t = sum_{s>=t} gamma^(s-t) c_s                             cost-to-go
    b_t = mean of G_t over the other rollouts of the group + w . (phi_t - their mean of phi_t)      baseline
    delta_t = c_t + gamma b_{t+1} - b_t,    A_t = - sum_{s>=t} (gamma lambda)^(s-t) delta_s        advantage

which is generalized advantage estimation (Schulman et al. 2016, eq. 16) with the sign of a reward, a
leave-one-out group baseline (RLOO: Kool et al. 2019) and a linear correction by features phi of the state.

All rollouts of a group share one reward table. Every comparator of regret is then the same number for all of
them and cancels in A_t - an identity, whichever regret is meant: these are the advantages of *reward*, of the
expected reward where regret is pseudo or dynamic. What training is told beyond a bandit's feedback is the
hidden truth: expected instead of realised rewards, and features that read the hidden means, which makes the
baseline an asymmetric (privileged) one. Neither is ever shown to the policy.
"""

from __future__ import annotations

import numpy as np

from rmft.errors import ConfigError
from rmft.regret import RegretKind, highest
from rmft.types import FloatArray, IntArray, Trajectories

FADING = 0.85  # per round, of the second memory where means move
ROWS_PER_FEATURE = 2  # of rollouts, below which rounds are fitted together


def cost_to_go(costs: FloatArray, discount: float = 1.0) -> FloatArray:
    """(..., T): sum_{s >= t} discount^(s-t) c_s, of costs c (..., T)."""
    to_go = np.array(costs)
    for t in range(costs.shape[-1] - 2, -1, -1):
        to_go[..., t] += discount * to_go[..., t + 1]
    return to_go


def advantages(
    trajectories: Trajectories,
    costs: FloatArray,
    group: IntArray,
    discount: float = 1.0,
    lambda_: float = 1.0,
) -> FloatArray:
    """(B, T): A_t of the module's formula, about 0 on average. costs: (B, T). group: (B,), see
    `Trajectories`.

    The features are fixed before the decision; the fit is in-sample, which shrinks advantages a little when
    rollouts are few. Under full information a decision changes nothing later, and all rollouts of a group
    have seen the same rewards: each round is compared for itself with the group's other rollouts.
    Raises ConfigError when a group has a single rollout.
    """
    if trajectories.rules.feedback == "full":
        return -beyond_others(costs, group)
    to_go = cost_to_go(costs, discount)
    beyond = beyond_others(to_go, group)
    features = state_features(trajectories)
    features = np.concatenate([beyond_others(features, group), features], axis=-1)
    rows, horizon = costs.shape
    if rows >= ROWS_PER_FEATURE * features.shape[-1]:
        for t in range(horizon):
            beyond[:, t] -= _fitted(features[:, t], beyond[:, t])
    else:
        # Few rollouts: one fit for all rounds, with the share of rounds left as a second factor.
        left = np.linspace(1, 0, horizon, endpoint=False)[:, None]
        beyond -= _fitted(np.concatenate([features, left * features], axis=-1), beyond)
    # `beyond` is G_t - b_t, so the baseline is what is left of G_t, and delta_t = c_t + gamma b_{t+1} - b_t.
    baseline = to_go - beyond
    delta = costs - baseline
    delta[:, :-1] += discount * baseline[:, 1:]
    return -cost_to_go(delta, discount * lambda_)


def advantages_of_all_actions(trajectories: Trajectories, kind: RegretKind) -> FloatArray:
    """(B, T, K): r_t(a) - sum_b pi_t(b) r_t(b) of every arm a, pi the rollout policy, under full information.

    The exact advantages of one round, without any luck of the draw (mean actor-critic, or expected policy
    gradient; `qpg_loss` in rlax): of the realised rewards under static regret, else of the expected ones.
    Raises ConfigError when the policy stated no probabilities.
    """
    probabilities = trajectories.histories.probabilities
    if probabilities is None:
        raise ConfigError("credit.all_actions needs the probabilities that decisions were drawn from.")
    table = trajectories.table
    rewards = table.rewards if kind == "static" else table.expected_rewards
    return np.asarray(rewards - (probabilities * rewards).sum(axis=2, keepdims=True))


def beyond_others(values: FloatArray, group: IntArray) -> FloatArray:
    """Each row's value (B, ...) less the mean of the other rows of its group.

    Raises ConfigError for one row.
    """
    _, index, counts = np.unique(group, return_inverse=True, return_counts=True)
    if counts.min() < 2:
        raise ConfigError("A group baseline needs at least 2 rollouts of every problem; found 1.")
    sums = np.zeros((len(counts), *values.shape[1:]))
    np.add.at(sums, index, values)
    count = counts[index].reshape(-1, *[1] * (values.ndim - 1)).astype(np.float64)
    # v - (S - v) / (n - 1) = (v - S / n) n / (n - 1)
    return np.asarray((values - sums[index] / count) * (count / (count - 1)))


def _fitted(features: FloatArray, values: FloatArray) -> FloatArray:
    """The least-squares fit of values (...) on features (..., F), with a little ridge."""
    x, y = features.reshape(-1, features.shape[-1]), values.reshape(-1)
    ridge = 1e-4 * len(x) * np.eye(x.shape[1])
    return np.asarray(x @ np.linalg.solve(x.T @ x + ridge, x.T @ y)).reshape(values.shape)


def state_features(trajectories: Trajectories) -> FloatArray:
    """(B, T, 9 or 18): what a state promises before each decision under bandit feedback.

    From the visible history: the two highest smoothed empirical means, the share of arms not tried.
    From the table, which is known in hindsight: how much worse the empirical leader is than the best
    arm, and how well the best arm is known. None depends on the decision about to be made. Where means
    move, all of it twice: from the whole history, and from one that fades. Of a log whose means are not
    known, what an arm pays on average in the problem is its mean: that of one round is luck alone.
    """
    histories, table = trajectories.histories, trajectories.table
    expected = table.expected_rewards
    if np.array_equal(expected, table.rewards):
        expected = np.broadcast_to(expected.mean(axis=1, keepdims=True), expected.shape)
    rewards = histories.rules.normalize(histories.rewards)[..., None] * histories.played
    moving = bool((expected[:, 1:] != expected[:, :-1]).any())
    parts = []
    for memory in (1.0, FADING) if moving else (1.0,):
        counts, sums = _before(histories.played, memory), _before(rewards, memory)
        parts += _promises(counts, (sums + 0.5) / (counts + 1.0), expected)
    return np.concatenate(parts, axis=-1, dtype=np.float64)


def _promises(counts: FloatArray, means: FloatArray, expected: FloatArray) -> list[FloatArray]:
    """The features of `state_features`, (B, T, 1) each, from counts, means and truth, (B, T, K) each."""
    best = highest(expected)  # any of several best arms counts
    ordered = np.sort(means, axis=-1)
    leader = means.argmax(axis=-1)[..., None]
    leader_gap = expected.max(axis=-1, keepdims=True) - np.take_along_axis(expected, leader, -1)
    best_count = np.where(best, counts, 0).max(axis=-1, keepdims=True)
    behind = np.where(best, means, -np.inf).max(axis=-1, keepdims=True) - ordered[..., -1:]
    return [
        ordered[..., -1:],
        ordered[..., -2:-1],
        (counts == 0).mean(axis=-1, keepdims=True),
        leader_gap,
        np.sqrt(leader_gap),
        behind,
        np.sqrt(best_count),
        (best_count == 0).astype(np.float64),
        np.log1p(best_count) * behind,
    ]


def _before(values: FloatArray, memory: float) -> FloatArray:
    """(B, T, K): the sum of what came before each round, fading by `memory` with every round."""
    if memory == 1:
        return np.asarray(np.cumsum(values, axis=1) - values)
    sums = np.zeros_like(values)
    for t in range(1, values.shape[1]):
        sums[:, t] = memory * sums[:, t - 1] + values[:, t - 1]
    return sums
