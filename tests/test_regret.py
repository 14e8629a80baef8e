"""Regret by hand on 3 rounds x 2 arms, and what must hold for any table and any play.

round   rewards   expected   played (arm)   pi in the mixed case
  1      1   0     .8   .4        1              .5  .5
  2      0   1     .8   .4        1              .2  .8
  3      1   1     .8   .4        0               1   0
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rmft.problems.environment import TableEnvironment
from rmft.regret import (
    RegretKind,
    dynamic_regret_curve,
    pseudo_regret_curve,
    regret,
    regret_curve,
    round_regret,
    static_regret_curve,
)
from rmft.types import Decisions, FloatArray, Histories, RewardTable, Rules, Trajectories

KINDS: list[RegretKind] = ["static", "pseudo", "dynamic"]
REWARDS = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
EXPECTED = np.array([[0.8, 0.4]] * 3)
MOVING = np.array([[0.8, 0.4], [0.1, 0.9], [0.3, 0.5]])
ARMS = np.array([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
MIXED = np.array([[0.5, 0.5], [0.2, 0.8], [1.0, 0.0]])


def played_trajectories(rewards: FloatArray, expected: FloatArray, played: FloatArray) -> Trajectories:
    """One full-information trajectory of each row of the batches (B, T, K)."""
    size, horizon, num_arms = rewards.shape
    environment = TableEnvironment(Rules("full", horizon, num_arms), RewardTable(rewards, expected))
    histories = Histories(environment.rules, size)
    for index in range(horizon):
        decisions = Decisions(probabilities=played[:, index])
        histories.append(decisions, environment.step(decisions))
    return Trajectories(histories, environment.table)


def test_static_regret_by_hand():
    # best prefix totals: max(1, 0), max(1, 1), max(2, 2); got with arms 1, 1, 0: 0, 0 + 1, 1 + 1
    np.testing.assert_allclose(static_regret_curve(REWARDS, ARMS), [1 - 0, 1 - 1, 2 - 2])
    # got with pi: .5, .5 + .8 = 1.3, 1.3 + 1 = 2.3; switching beats the best fixed arm
    np.testing.assert_allclose(static_regret_curve(REWARDS, MIXED), [0.5, -0.3, -0.3])


def test_pseudo_regret_by_hand():
    # gap .8 - .4 = .4 for every round on arm 1
    np.testing.assert_allclose(pseudo_regret_curve(EXPECTED, ARMS), [0.4, 0.8, 0.8])
    np.testing.assert_allclose(pseudo_regret_curve(EXPECTED, MIXED), [0.2, 0.2 + 0.32, 0.52])


def test_pseudo_regret_of_moving_means_compares_with_the_best_total():
    # totals 1.2 and 1.8: arm 1, whose means are .4, .9, .5; played .4, .9, .3
    np.testing.assert_allclose(pseudo_regret_curve(MOVING, ARMS), [0, 0, 0.2], atol=1e-12)


def test_dynamic_regret_by_hand():
    # best of each round .8, .9, .5; played .4, .9, .3
    np.testing.assert_allclose(dynamic_regret_curve(MOVING, ARMS), [0.4, 0.4, 0.6])


def test_round_regret_by_hand():
    # static: totals tie at 2, so arm 0 is the comparator: 1 - 0, 0 - 1, 1 - 1
    trajectories = played_trajectories(REWARDS[None], MOVING[None], ARMS[None])
    np.testing.assert_allclose(round_regret(trajectories, "static"), [[1, -1, 0]])
    np.testing.assert_allclose(round_regret(trajectories, "pseudo"), [[0, 0, 0.2]], atol=1e-12)
    np.testing.assert_allclose(round_regret(trajectories, "dynamic"), [[0.4, 0, 0.2]], atol=1e-12)


@st.composite
def any_trajectories(draw: st.DrawFn) -> Trajectories:
    shape = draw(st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(2, 4)))
    values = st.floats(-5, 5, width=32)
    rewards, expected = (
        draw(arrays(np.float64, shape, elements=values)),
        draw(arrays(np.float64, shape, elements=values)),
    )
    weights = draw(arrays(np.float64, shape, elements=st.floats(0.0625, 1, width=32)))
    return played_trajectories(rewards, expected, weights / weights.sum(axis=2, keepdims=True))


@given(any_trajectories(), st.sampled_from(KINDS))
def test_curve_rounds_and_regret_agree(trajectories: Trajectories, kind: RegretKind):
    whole = regret(trajectories, kind)
    np.testing.assert_allclose(regret_curve(trajectories, kind)[:, -1], whole)
    np.testing.assert_allclose(round_regret(trajectories, kind).sum(axis=1), whole, atol=1e-9)


@given(any_trajectories())
def test_best_fixed_arm_has_no_static_regret_and_none_has_less(trajectories: Trajectories):
    rewards = trajectories.table.rewards
    num_arms = rewards.shape[-1]
    fixed = np.stack(
        [
            static_regret_curve(rewards, np.broadcast_to(np.eye(num_arms)[arm], rewards.shape))[:, -1]
            for arm in range(num_arms)
        ]
    )
    np.testing.assert_allclose(fixed.min(axis=0), 0, atol=1e-9)


@given(any_trajectories())
def test_dynamic_is_at_least_pseudo_and_static_on_expected_rewards(trajectories: Trajectories):
    expected, played = trajectories.table.expected_rewards, trajectories.histories.played
    dynamic = dynamic_regret_curve(expected, played)
    assert (dynamic[:, -1] >= pseudo_regret_curve(expected, played)[:, -1] - 1e-9).all()
    assert (dynamic >= static_regret_curve(expected, played) - 1e-9).all()
    assert (np.diff(dynamic, axis=1, prepend=0) >= -1e-9).all()


@given(any_trajectories(), st.sampled_from(KINDS), st.randoms(use_true_random=False))
def test_the_order_of_arms_changes_nothing(trajectories: Trajectories, kind: RegretKind, random):
    order = list(range(trajectories.rules.num_arms))
    random.shuffle(order)
    table = trajectories.table
    other = played_trajectories(
        table.rewards[..., order],
        table.expected_rewards[..., order],
        trajectories.histories.played[..., order],
    )
    if kind == "pseudo":  # the comparator's curve depends on which of two tied totals is taken
        np.testing.assert_allclose(regret(other, kind), regret(trajectories, kind), atol=1e-9)
    else:
        np.testing.assert_allclose(regret_curve(other, kind), regret_curve(trajectories, kind), atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_an_arm_is_the_one_hot_distribution(kind: RegretKind):
    environment = TableEnvironment(Rules("bandit", 3, 2), RewardTable(REWARDS[None], MOVING[None]))
    histories = Histories(environment.rules, 1)
    for arm in (1, 1, 0):
        decisions = Decisions(arms=np.array([arm]))
        histories.append(decisions, environment.step(decisions))
    as_arms = Trajectories(histories, environment.table)
    as_probabilities = played_trajectories(REWARDS[None], MOVING[None], ARMS[None])
    np.testing.assert_array_equal(regret_curve(as_arms, kind), regret_curve(as_probabilities, kind))
