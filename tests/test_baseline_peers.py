"""The baselines beside the same algorithms in mabwiser and river: equal choices, or equal mean regret."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rmft.policies.baselines import make_baseline
from rmft.policies.baselines.adversarial import Exp3
from rmft.policies.baselines.indices import UCB, UCB1, Greedy
from rmft.problems.environment import TableEnvironment
from rmft.regret import regret
from rmft.rollout import rollout
from rmft.streams import Streams, generator
from rmft.types import Decisions, FloatArray, Histories, RewardTable, Rules

NUM_ARMS, HORIZON, NUM_ROLLOUTS = 4, 40, 200
RULES = Rules("bandit", HORIZON, NUM_ARMS)


def random_history(seed: int, binary: bool = False) -> tuple[list[int], list[float], Histories]:
    """Every arm once, then arms at random, with rewards on [0, 1]; in our form and as plain lists."""
    draw = generator(seed, 0)
    arms = [*range(NUM_ARMS), *draw.integers(0, NUM_ARMS, 20).tolist()]
    rewards = draw.random(len(arms)).round() if binary else draw.random(len(arms))
    histories = Histories(RULES, 1)
    for arm, reward in zip(arms, rewards, strict=True):
        histories.append(Decisions(arms=np.array([arm])), np.array([reward]))
    return arms, rewards.tolist(), histories


def best(index: FloatArray) -> set[int]:
    """The arms that tie for the highest index of one rollout, (1, K)."""
    return set(np.flatnonzero(index[0] >= index.max() - 1e-12).tolist())


def mean_and_error(differences: FloatArray) -> tuple[float, float]:
    return float(differences.mean()), float(differences.std(ddof=1) / np.sqrt(len(differences)))


def problems() -> RewardTable:
    draw = generator(11, 1)
    means = np.repeat(draw.random((NUM_ROLLOUTS, 1, NUM_ARMS)), HORIZON, axis=1)
    return RewardTable((draw.random(means.shape) < means).astype(float), means)


def our_regret(spec: str, table: RewardTable) -> FloatArray:
    streams = Streams.at(12, [(row,) for row in range(NUM_ROLLOUTS)])
    return regret(rollout(make_baseline(spec), TableEnvironment(RULES, table), streams), "pseudo")


def their_regret(
    make: Callable[[int], Any], play: Callable[[Any, FloatArray], list[int]], table: RewardTable
) -> FloatArray:
    """(NUM_ROLLOUTS,) where play(policy, rewards (T, K)) gives the arms that it played."""
    regrets = []
    for row in range(NUM_ROLLOUTS):
        arms = play(make(row), table.rewards[row])
        means = table.expected_rewards[row, 0]
        regrets.append(means.max() * HORIZON - means[arms].sum())
    return np.array(regrets)


def play_river(policy: Any, rewards: FloatArray) -> list[int]:
    arms = []
    for row in rewards:
        arm = policy.pull(range(NUM_ARMS))
        # a Beta counts its successes, a mean takes numbers: both take a bool
        policy.update(arm, bool(row[arm]))
        arms.append(arm)
    return arms


def play_mabwiser(policy: Any, rewards: FloatArray) -> list[int]:
    arms = list(range(NUM_ARMS))  # it must be fitted first: on every arm once
    policy.fit(arms, rewards[np.arange(NUM_ARMS), arms])
    for row in rewards[NUM_ARMS:]:
        arm = policy.predict()
        policy.partial_fit([arm], [row[arm]])
        arms.append(arm)
    return arms


def assert_same_mean(ours: FloatArray, theirs: FloatArray) -> None:
    """Within 4 standard errors of the paired difference, and that error small beside the regret."""
    mean, error = mean_and_error(ours - theirs)
    assert error < 0.15 * theirs.mean()
    assert abs(mean) < 4 * error


@pytest.mark.parametrize("alpha", [0.3, 1.0])
def test_ucb_indices_equal_those_of_mabwiser(alpha: float) -> None:
    mab = pytest.importorskip("mabwiser.mab")
    for seed in range(5):
        arms, rewards, histories = random_history(seed)
        peer = mab.MAB(list(range(NUM_ARMS)), mab.LearningPolicy.UCB1(alpha=alpha))
        peer.fit(arms[:NUM_ARMS], rewards[:NUM_ARMS])
        for arm, reward in zip(arms[NUM_ARMS:], rewards[NUM_ARMS:], strict=True):
            peer.partial_fit([arm], [reward])
        expectations = peer.predict_expectations()
        index = UCB(coefficient=alpha * np.sqrt(2)).index(histories, Streams.at(0, [(0,)]))
        np.testing.assert_allclose(index[0], [expectations[arm] for arm in range(NUM_ARMS)], rtol=1e-12)


def test_ucb1_chooses_as_river_does_ties_included() -> None:
    bandit = pytest.importorskip("river.bandit")
    ties = 0
    for seed in range(20):
        arms, rewards, histories = random_history(seed, binary=True)
        if seed == 0:  # every arm once, all alike: a tie of all
            arms, rewards, histories = list(range(NUM_ARMS)), [1.0] * NUM_ARMS, Histories(RULES, 1)
            for arm in arms:
                histories.append(Decisions(arms=np.array([arm])), np.ones(1))
        peer = bandit.UCB(delta=1, seed=seed)
        for arm, reward in zip(arms, rewards, strict=True):
            peer.update(arm, reward)
        chosen = {peer.pull(range(NUM_ARMS)) for _ in range(100)}
        expected = best(UCB1().index(histories, Streams.at(0, [(0,)])))
        ties += len(expected) > 1
        assert chosen == expected
        picked = {int(UCB1().decide(histories, Streams.at(s, [(0,)])).arms[0]) for s in range(60)}  # type: ignore[index]
        assert picked == expected
    assert ties > 0


def test_greedy_chooses_as_river_and_mabwiser_do() -> None:
    bandit = pytest.importorskip("river.bandit")
    mab = pytest.importorskip("mabwiser.mab")
    for seed in range(5):
        arms, rewards, histories = random_history(seed)
        river_peer = bandit.EpsilonGreedy(epsilon=0, seed=0)
        mabwiser_peer = mab.MAB(list(range(NUM_ARMS)), mab.LearningPolicy.EpsilonGreedy(epsilon=0))
        mabwiser_peer.fit(arms, rewards)
        for arm, reward in zip(arms, rewards, strict=True):
            river_peer.update(arm, reward)
        expected = best(Greedy().index(histories, Streams.at(0, [(0,)])))
        assert {river_peer.pull(range(NUM_ARMS))} == {mabwiser_peer.predict()} == expected


def test_exp3_probabilities_equal_those_of_river() -> None:
    bandit = pytest.importorskip("river.bandit")
    for seed in range(5):
        arms, rewards, histories = random_history(seed)
        peer = bandit.Exp3(gamma=0.2, seed=0)
        for arm, reward in zip(arms, rewards, strict=True):
            peer.pull(list(range(NUM_ARMS)))
            peer.update(arm, reward)
        peer.pull(list(range(NUM_ARMS)))
        expected = [peer._probabilities[arm] for arm in range(NUM_ARMS)]
        np.testing.assert_allclose(Exp3(exploration=0.2).probabilities(histories)[0], expected, rtol=1e-9)


def test_regret_equals_that_of_river() -> None:
    bandit = pytest.importorskip("river.bandit")
    proba = pytest.importorskip("river.proba")
    peers: dict[str, Callable[[int], Any]] = {
        "thompson": lambda seed: bandit.ThompsonSampling(reward_obj=proba.Beta(1, 1), seed=seed),
        "epsilon-greedy(epsilon=0.1)": lambda seed: bandit.EpsilonGreedy(epsilon=0.1, burn_in=1, seed=seed),
        "ucb1": lambda seed: bandit.UCB(delta=1, seed=seed),
    }
    table = problems()
    for spec, make in peers.items():
        assert_same_mean(our_regret(spec, table), their_regret(make, play_river, table))


def test_regret_equals_that_of_mabwiser() -> None:
    mab = pytest.importorskip("mabwiser.mab")
    arms, table = list(range(NUM_ARMS)), problems()
    peers = {
        "epsilon-greedy(epsilon=0.1)": mab.LearningPolicy.EpsilonGreedy(epsilon=0.1),
        "ucb1": mab.LearningPolicy.UCB1(alpha=1.0),
    }
    for spec, learning in peers.items():
        theirs = their_regret(lambda seed, lp=learning: mab.MAB(arms, lp, seed=seed), play_mabwiser, table)
        assert_same_mean(our_regret(spec, table), theirs)
