"""Which of a policy's own decisions it learns from: k of lowest regret per problem, and the rest.

Every selection takes the rollouts of M problems, L each, and returns weights (M, L, T): how much each
round's decision counts in the loss. They are 0 or 1, but for the excess, which can have either sign.
Under full information it can be had of every arm, played or not (`arm_weights`).

    lowest_regret        whole trajectories, the k of lowest regret per problem: the method as published
    lowest_regret_to_go  in every round the k rollouts of a problem whose regret from there on is lowest
    excess_regret_to_go  every decision, by how far the regret that followed it lay below what was to be
                         expected: what did better is learned, what did worse is unlearned
    highest_reward, random, all                 controls

Strict selection of whole trajectories rewards luck: among many rollouts the lowest regret goes to one
that committed early to an arm that happened to be good. Regret-to-go looks at each decision's future
only; the excess asks of that future how much better it was than in other rollouts of the same problem
from a comparable state, so a good state isn't mistaken for a good decision. Its weights average to
nothing, so it needs `training.anchor`, which holds the policy where it was for what they don't tell.
"""

from __future__ import annotations

import numpy as np

from rmft.config import SelectionConfig
from rmft.errors import ConfigError
from rmft.types import FloatArray, IntArray, Trajectories

FADING = 0.85  # per round, of the second memory where means move
ROWS_PER_FEATURE = 2  # of rollouts, below which rounds are fitted together
MAX_WEIGHT = 5.0  # of a single decision, so that no rare outcome decides a step alone


def select(
    trajectories: Trajectories,
    round_regret: FloatArray,
    num_rollouts: int,
    config: SelectionConfig,
    generator: np.random.Generator,
) -> FloatArray:
    """Weights (M, L, T) for trajectories of M problems, the L rollouts of a problem in a row.

    round_regret: (M * L, T), what each round added to the regret. Of rollouts that failed nothing is
    learned. Raises ConfigError when num_selected exceeds the number of rollouts.
    """
    shape = (len(trajectories) // num_rollouts, num_rollouts, trajectories.rules.horizon)
    if config.keeps_k and config.num_selected > num_rollouts:
        raise ConfigError(f"Can't select {config.num_selected} of {num_rollouts} rollouts; select fewer.")
    by_round = round_regret.reshape(shape)
    rows = np.arange(len(trajectories)).reshape(*shape[:2], 1)
    finished = ~np.isin(rows, list(trajectories.histories.failed))
    match config.kind:
        case "lowest_regret":
            scores = by_round.sum(axis=2, keepdims=True)
        case "lowest_regret_to_go":
            scores = regret_to_go(by_round, config.discount)
        case "highest_reward":
            histories, table = trajectories.histories, trajectories.table
            scores = -(histories.played * table.rewards).sum(axis=(1, 2)).reshape(*shape[:2], 1)
        case "random":
            scores = generator.random((*shape[:2], 1))
        case "excess_regret_to_go" if _every_arm(trajectories, config):
            arms = trajectories.histories.arms[..., None]
            weights = np.take_along_axis(_of_every_arm(trajectories, config), arms, axis=2)
            return weights.reshape(shape) * finished
        case "excess_regret_to_go":
            excess = excess_regret_to_go(trajectories, by_round, config.discount, config.trace)
            spread = excess.std(axis=(0, 1)) + 1e-12
            return _weighted(excess, spread, config) * finished
        case "all":
            return np.ones(shape) * finished
    selected = select_lowest(np.where(finished, scores, np.inf), config.num_selected, generator)
    return selected * finished * np.ones(shape)


def arm_weights(trajectories: Trajectories, config: SelectionConfig) -> FloatArray | None:
    """(B, T, K), of every arm as a round's decision, or None where only what was played is learned from.

    Under full information what a decision would have brought is known of every arm, and so is the mean over
    the probabilities that it was drawn from. With `every_arm` the weight of the decision made is therefore
    replaced by its mean over all: each arm's weight times its probability. That leaves out the luck of the
    draw.
    """
    if not _every_arm(trajectories, config):
        return None
    return _drawn_from(trajectories) * _of_every_arm(trajectories, config)


def _every_arm(trajectories: Trajectories, config: SelectionConfig) -> bool:
    return config.every_arm and trajectories.rules.feedback == "full"


def _of_every_arm(trajectories: Trajectories, config: SelectionConfig) -> FloatArray:
    """(B, T, K), the weight that each arm has if played."""
    drawn_from, rewards = _drawn_from(trajectories), trajectories.table.rewards
    excess = (drawn_from * rewards).sum(axis=2, keepdims=True) - rewards
    spread = np.sqrt((drawn_from * excess**2).sum(axis=2).mean(axis=0)) + 1e-12
    return _weighted(excess, spread[:, None], config)


def _drawn_from(trajectories: Trajectories) -> FloatArray:
    if trajectories.histories.probabilities is None:
        raise ConfigError("selection.every_arm needs the probabilities that decisions were drawn from.")
    return trajectories.histories.probabilities


def _weighted(excess: FloatArray, spread: FloatArray, config: SelectionConfig) -> FloatArray:
    return np.clip(-config.strength * excess / spread, -config.unlearn, MAX_WEIGHT)


def select_lowest(scores: FloatArray, num_selected: int, generator: np.random.Generator) -> FloatArray:
    """1 for the `num_selected` lowest scores along axis 1 of (M, L, ...), else 0; ties at random."""
    ties = generator.random(scores.shape)
    order = np.lexsort((ties, scores), axis=1)
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(scores.shape[1])[None, :, None], axis=1)
    return (ranks < num_selected).astype(np.float64)


def regret_to_go(by_round: FloatArray, discount: float = 1.0) -> FloatArray:
    """(..., T): the regret from each round on, sum_{s >= t} discount^(s-t) x regret of round s."""
    to_go = np.array(by_round)
    for t in range(by_round.shape[-1] - 2, -1, -1):
        to_go[..., t] += discount * to_go[..., t + 1]
    return to_go


def excess_regret_to_go(
    trajectories: Trajectories, by_round: FloatArray, discount: float = 1.0, trace: float = 1.0
) -> FloatArray:
    """(M, L, T): regret-to-go beyond what was to be expected before the decision; mean about 0.

    Expected is the mean of the problem's other rollouts, corrected by a least-squares fit on how the
    state (`state_features`) differs from theirs, per round or, where rollouts are few, for all rounds at
    once with the share of rounds left as a factor. Both are fixed before the decision is
    drawn, so on average the excess depends on the decision alone. With trace 1 it is the regret that
    followed less what was expected; below 1 what followed is replaced, more the later it came, by what
    was then expected, which is less noisy (generalized advantage estimation, Schulman et al. 2016).
    Under full information a decision changes nothing later and all rollouts have seen the same rewards: each
    round is compared for itself, with the problem's other rollouts.
    """
    if trajectories.rules.feedback == "full":
        return _beyond_others(by_round)
    to_go = regret_to_go(by_round, discount)
    excess = _beyond_others(to_go)
    num_problems, num_rollouts, horizon = to_go.shape
    features = state_features(trajectories).reshape(num_problems, num_rollouts, horizon, -1)
    features = np.concatenate([_beyond_others(features), features], axis=-1)
    if num_problems * num_rollouts >= ROWS_PER_FEATURE * features.shape[-1]:
        for t in range(horizon):
            excess[:, :, t] -= _fitted(features[:, :, t], excess[:, :, t])
    else:
        left = np.linspace(1, 0, horizon, endpoint=False)[:, None]
        excess -= _fitted(np.concatenate([features, left * features], axis=-1), excess)
    expected = to_go - excess
    surprise = by_round - expected
    surprise[..., :-1] += discount * expected[..., 1:]
    return regret_to_go(surprise, discount * trace)


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
    move, all of it twice: from the whole history, and from one that fades.
    """
    histories = trajectories.histories
    expected = trajectories.table.expected_rewards
    rewards = histories.rules.normalize(histories.rewards)[..., None] * histories.played
    moving = bool((expected[:, 1:] != expected[:, :-1]).any())
    parts = []
    for memory in (1.0, FADING) if moving else (1.0,):
        counts, sums = _before(histories.played, memory), _before(rewards, memory)
        parts += _promises(counts, (sums + 0.5) / (counts + 1.0), expected)
    return np.concatenate(parts, axis=-1, dtype=np.float64)


def _promises(counts: FloatArray, means: FloatArray, expected: FloatArray) -> list[FloatArray]:
    """The features of `state_features`, (B, T, 1) each, from counts, means and truth, (B, T, K) each."""
    best_arm = expected.argmax(axis=-1)[..., None]
    ordered = np.sort(means, axis=-1)
    leader = means.argmax(axis=-1)[..., None]
    leader_gap = np.take_along_axis(expected, best_arm, -1) - np.take_along_axis(expected, leader, -1)
    best_count = np.take_along_axis(counts, best_arm, -1)
    behind = np.take_along_axis(means, best_arm, -1) - ordered[..., -1:]
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


def _beyond_others(values: FloatArray) -> FloatArray:
    """Each rollout's value less the mean of the other rollouts of its problem, along axis 1."""
    count = values.shape[1]
    return np.asarray((values - values.mean(axis=1, keepdims=True)) * (count / (count - 1)))


def kept(weights: FloatArray) -> IntArray:
    """(n,) the indices, in (M * L), of the trajectories of which any decision is learned from."""
    return np.flatnonzero((weights != 0).reshape(-1, weights.shape[-1]).any(axis=1))
