"""Which decisions are learned from, with the arithmetic."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmft.config import SelectionConfig
from rmft.errors import ConfigError
from rmft.problems.environment import TableEnvironment
from rmft.regret import round_regret
from rmft.rollout import rollout, rows_of_arrays
from rmft.selection import (
    arm_weights,
    excess_regret_to_go,
    kept,
    regret_to_go,
    select,
    select_lowest,
    state_features,
)
from rmft.streams import Streams
from rmft.types import Decisions, Feedback, FloatArray, Histories, RewardTable, Rules, Trajectories

RNG = np.random.default_rng


class Uniform:
    name = "uniform"
    max_concurrency = 1

    def rows_at_once(self, rules: Rules) -> int:
        return rows_of_arrays(rules)

    def decide(self, histories: Histories, streams: Streams) -> Decisions:
        even = np.full((len(histories), histories.rules.num_arms), 1 / histories.rules.num_arms)
        return Decisions(streams.choose(even), even)


def played(
    num_problems: int, num_rollouts: int, horizon: int, num_arms: int = 3, feedback: Feedback = "bandit"
) -> Trajectories:
    generator = RNG(0)
    means = np.repeat(generator.random((num_problems, 1, num_arms)), horizon, axis=1)
    table = RewardTable((generator.random(means.shape) < means).astype(float), means).repeat(num_rollouts)
    rows = num_problems * num_rollouts
    rules = Rules(feedback, horizon, num_arms)
    return rollout(Uniform(), TableEnvironment(rules, table), Streams.at(1, [(row,) for row in range(rows)]))


def weights_of(
    trajectories: Trajectories, by_round: FloatArray, rollouts: int, **config: object
) -> FloatArray:
    chosen = SelectionConfig.model_validate(config)
    return select(trajectories, by_round, rollouts, chosen, RNG(0))


# One problem, three rollouts, two rounds: regrets by round, and so to go (1.0, .2), (.5, .5), (.9, 0).
BY_ROUND = np.array([[0.8, 0.2], [0.0, 0.5], [0.9, 0.0]])


def test_with_few_rollouts_the_excess_still_tells_good_decisions_from_bad() -> None:
    """12 rollouts of 3 problems are fewer than the state has features: a fit for each round alone would
    explain all of them and leave nothing. Fitted together, what cost more than it had to weighs less."""
    trajectories = played(3, 4, 20)
    table, arms = trajectories.table, trajectories.histories.arms
    paid = np.take_along_axis(table.expected_rewards, arms[..., None], axis=2)[..., 0]
    by_round = table.expected_rewards.max(axis=2) - paid
    excess = excess_regret_to_go(trajectories, by_round.reshape(3, 4, 20), discount=0.5)
    assert np.corrcoef(excess.ravel(), by_round.ravel())[0, 1] > 0.5


def test_lowest_regret_keeps_whole_trajectories() -> None:
    # totals 1.0, 0.5, 0.9: the second and the third
    weights = weights_of(played(1, 3, 2), BY_ROUND, 3, kind="lowest_regret", num_selected=2)
    np.testing.assert_array_equal(weights[0], [[0, 0], [1, 1], [1, 1]])


def test_lowest_regret_to_go_keeps_rounds() -> None:
    # round 0: to go 1.0, .5, .9 keeps the second; round 1: .2, .5, 0 keeps the third
    weights = weights_of(played(1, 3, 2), BY_ROUND, 3, kind="lowest_regret_to_go", num_selected=1)
    np.testing.assert_array_equal(weights[0], [[0, 0], [1, 0], [0, 1]])


def test_regret_to_go_with_and_without_discount() -> None:
    np.testing.assert_allclose(regret_to_go(np.array([1.0, 2.0, 4.0])), [7, 6, 4])
    np.testing.assert_allclose(regret_to_go(np.array([1.0, 2.0, 4.0]), 0.5), [3, 4, 4])
    np.testing.assert_allclose(regret_to_go(np.array([1.0, 2.0, 4.0]), 0.0), [1, 2, 4])


def test_highest_reward_looks_at_rewards_alone() -> None:
    trajectories = played(2, 4, 6)
    got = (trajectories.histories.played * trajectories.table.rewards).sum(axis=(1, 2)).reshape(2, 4)
    misleading = np.tile(got.reshape(8, 1), 6)  # the most rewarded have the most regret
    weights = weights_of(trajectories, misleading, 4, kind="highest_reward", num_selected=1)
    for problem in range(2):
        assert got[problem][weights[problem, :, 0] == 1].item() == got[problem].max()


@pytest.mark.parametrize("kind", ["lowest_regret", "lowest_regret_to_go", "highest_reward", "random"])
@pytest.mark.parametrize("num_selected", [1, 3, 4])
def test_k_are_kept_of_every_problem_and_round(kind: str, num_selected: int) -> None:
    trajectories = played(3, 4, 5)
    by_round = round_regret(trajectories, "pseudo")
    weights = weights_of(trajectories, by_round, 4, kind=kind, num_selected=num_selected)
    np.testing.assert_array_equal(weights.sum(axis=1), np.full((3, 5), num_selected))


def test_all_keeps_all_and_too_many_are_refused() -> None:
    trajectories = played(2, 3, 4)
    assert (weights_of(trajectories, np.zeros((6, 4)), 3, kind="all") == 1).all()
    with pytest.raises(ConfigError, match="5 of 3"):
        weights_of(trajectories, np.zeros((6, 4)), 3, kind="lowest_regret", num_selected=5)


def test_ties_are_broken_at_random() -> None:
    chosen = np.mean(
        [select_lowest(np.zeros((1, 4, 1)), 1, RNG(seed))[0, :, 0] for seed in range(400)], axis=0
    )
    assert np.abs(chosen - 0.25).max() < 0.09  # four standard errors


@given(seed=st.integers(0, 1000), shift=st.floats(-5, 5))
@settings(max_examples=30, deadline=None)
def test_what_all_rollouts_of_a_problem_share_selects_nothing(seed: int, shift: float) -> None:
    by_round = RNG(seed).random((8, 5))
    shifted = by_round + np.repeat(RNG(seed + 1).random((2, 5)) + shift, 4, axis=0)
    for kind in ("lowest_regret", "lowest_regret_to_go"):
        one, other = (
            weights_of(played(2, 4, 5), each, 4, kind=kind, num_selected=2) for each in (by_round, shifted)
        )
        np.testing.assert_array_equal(one, other)


def test_excess_tells_a_good_decision_from_a_good_state() -> None:
    """Uniform play from round 1 on: only the decision itself matters, whatever the state is worth."""
    trajectories = played(200, 8, 6)
    by_round = round_regret(trajectories, "pseudo").reshape(200, 8, 6)
    immediate = by_round - by_round.mean(axis=1, keepdims=True)
    for trace, least in ((1.0, 0.3), (0.0, 0.6)):
        excess = excess_regret_to_go(trajectories, by_round, trace=trace)
        assert abs(excess.mean()) < 0.05
        for t in range(6):
            correlation = np.corrcoef(excess[:, :, t].ravel(), immediate[:, :, t].ravel())[0, 1]
            assert correlation > least, (trace, t)


def test_excess_weighs_lower_regret_positive_and_averages_to_about_nothing() -> None:
    trajectories = played(60, 8, 6)
    by_round = round_regret(trajectories, "pseudo")
    weights = weights_of(trajectories, by_round, 8, kind="excess_regret_to_go", trace=0.9, unlearn=5)
    assert abs(weights.mean()) < 0.05
    assert np.abs(weights).max() <= 5
    best = by_round == 0
    assert weights.reshape(by_round.shape)[best].mean() > 0.3
    assert weights.reshape(by_round.shape)[~best].mean() < -0.1
    floored = weights_of(trajectories, by_round, 8, kind="excess_regret_to_go", trace=0.9, unlearn=0.5)
    np.testing.assert_array_equal(floored, np.maximum(weights, -0.5))


EVERY_ARM = {"kind": "excess_regret_to_go", "every_arm": True, "strength": 2, "unlearn": 1}


def test_every_arm_weighs_by_what_it_would_have_paid() -> None:
    """Uniform play of two arms that pay 1 and 0.2: 0.4 above and below the mean, which is the spread."""
    rules, rewards = Rules("full", 1, 2), np.array([[[1.0, 0.2]], [[1.0, 0.2]]])
    environment = TableEnvironment(rules, RewardTable(rewards, rewards))
    trajectories = rollout(Uniform(), environment, Streams.at(1, [(0,), (1,)]))
    every = arm_weights(trajectories, SelectionConfig.model_validate(EVERY_ARM))
    assert every is not None
    np.testing.assert_allclose(every, 0.5 * np.broadcast_to([2.0, -1.0], (2, 1, 2)))  # -2 is cut to -1
    weights = weights_of(trajectories, np.zeros((2, 1)), 2, **EVERY_ARM)
    arms = trajectories.histories.arms.reshape(1, 2, 1)
    np.testing.assert_allclose(weights, np.where(arms == 0, 2.0, -1.0))


def test_every_arm_is_what_decisions_weigh_on_average() -> None:
    config = SelectionConfig.model_validate(EVERY_ARM | {"unlearn": 5})
    trajectories = played(1, 4_000, 3, feedback="full")
    every = arm_weights(trajectories, config)
    weights = weights_of(trajectories, np.zeros((4_000, 3)), 4_000, **EVERY_ARM | {"unlearn": 5})[0]
    assert every is not None
    arms = trajectories.histories.arms
    for arm in range(3):
        np.testing.assert_allclose((weights * (arms == arm)).mean(axis=0), every[0, :, arm], atol=0.06)
    np.testing.assert_allclose(every.sum(axis=2), 0, atol=1e-9)


def test_every_arm_is_known_under_full_information_alone() -> None:
    config = SelectionConfig.model_validate(EVERY_ARM)
    assert arm_weights(played(2, 3, 4), config) is None
    plain = config.model_copy(update={"every_arm": False})
    assert arm_weights(played(2, 3, 4, feedback="full"), plain) is None


def test_state_features_know_nothing_of_the_decision_to_come() -> None:
    trajectories = played(4, 2, 5)
    before = state_features(trajectories)
    histories = trajectories.histories.prefix(4)
    histories.append(Decisions((trajectories.histories.arms[:, 4] + 1) % 3), np.ones(8))
    after = state_features(Trajectories(histories, trajectories.table))
    np.testing.assert_array_equal(before, after)


def test_kept_names_the_rows_with_any_weight() -> None:
    weights = np.zeros((2, 3, 4))
    weights[0, 2, 1] = 1
    weights[1, 0, 3] = -0.5
    np.testing.assert_array_equal(kept(weights), [2, 3])
