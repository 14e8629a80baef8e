"""Every measure by hand on tiny trajectories."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import linregress

from rmft.evaluation.measures import (
    MEASURES,
    RECORDED,
    best_arm_freq,
    best_arm_pulls,
    best_arms,
    coverage,
    early_switching,
    entropy,
    first_arm_only,
    greedy_frac,
    histogram,
    late_regret,
    late_round,
    measure,
    min_frac,
    regression_check,
    reported,
    rounds_to_switch,
    suff_fail,
    trend_check,
    win_stay_lose_shift,
)
from rmft.problems.environment import TableEnvironment
from rmft.regret import RegretKind
from rmft.types import Decisions, Histories, RewardTable, Rules, Trajectories


def one_hot(arms: list[int] | list[list[int]], num_arms: int) -> np.ndarray:
    return np.eye(num_arms)[arms]


def arms_at(arms: list[int] | list[list[int]], num_arms: int) -> np.ndarray:
    """The one best arm of every round, as `best_arms` gives them."""
    return one_hot(arms, num_arms) > 0


# --- trend check -----------------------------------------------------------------------------------


def test_late_regret_and_rounds_to_switch_by_hand() -> None:
    # T = 6: the last quarter is 2 rounds
    np.testing.assert_allclose(late_regret(np.array([[9.0, 9, 9, 9, 1, 0.5]])), [0.75])
    # arm 0 is best in rounds 1 to 3, arm 1 in 4 and 5, none in 6; played 1, 0, 0, 0, 0, 1: it waits 1 round
    # of 3, then for 2 of 2
    best = np.array([[[1, 0], [1, 0], [1, 0], [0, 1], [0, 1], [0, 0]]], dtype=bool)
    played = np.eye(2)[[[1, 0, 0, 0, 0, 1]]]
    np.testing.assert_allclose(rounds_to_switch(played, best), [(1 + 2) / 3])
    np.testing.assert_allclose(rounds_to_switch(np.eye(2)[[[0, 0, 0, 1, 1, 1]]], best), [0])


def test_win_stay_and_lose_shift_by_hand() -> None:
    # wins stay, leave, then a loss leaves, a loss stays, and the last round is followed by none
    found = win_stay_lose_shift(
        np.array([[0, 0, 1, 0, 0], [0, -1, 0, 0, 0]]),
        np.array([[True, True, False, False, True], [True, True, True, True, False]]),
    )
    # of the second row only rounds 3 and 4 count: 2 is undecided, and 1 is followed by it
    expected = {"win_stay": [1, 2], "lose_shift": [1, 0], "wins": [2, 2], "losses": [2, 0]}
    for name, rounds in expected.items():
        np.testing.assert_allclose(found[name], np.array(rounds) / 4)
    assert np.isnan(win_stay_lose_shift(np.zeros((1, 1), dtype=int), np.ones((1, 1), dtype=bool))["wins"])


def test_rates_are_ratios_of_means() -> None:
    means = np.zeros((2, len(RECORDED)))
    means[:, MEASURES.index("win_stay")], means[:, RECORDED.index("wins")] = 0.3, (0.6, 0)
    found = reported(means)
    assert found.shape == (2, len(MEASURES))
    np.testing.assert_allclose(found[:, MEASURES.index("win_stay")], [0.5, np.nan])


def test_the_exponent_from_a_quarter_on_leaves_the_first_rounds_out() -> None:
    curve = np.cumsum([0.4] * 5 + [0.2] * 195)  # each of 5 arms once, then one for ever
    assert regression_check(curve).b0 < 0.9 < regression_check(curve, late_round(200)).b0
    late = regression_check(7 * np.arange(1.0, 51) ** 0.6, late_round(50))
    assert late.b0 == pytest.approx(0.6)
    assert np.isnan(regression_check(np.ones((3, 1)), late_round(1)).b0).all()


def test_trend_check_by_hand():
    # R_t/t = 2, 1, 4/3, 1: falls twice in 3 steps; p = 2^-3 (C(3,2) + C(3,3)) = 4/8
    check = trend_check(np.array([2.0, 2.0, 4.0, 4.0]))
    assert check.s == 2
    assert check.p_trend == pytest.approx(4 / 8)


def test_trend_check_is_batched():
    # always falling: s = 3, p = 1/8; always rising: s = 0, p = 1
    check = trend_check(np.array([[1.0, 1.0, 1.0, 1.0], [1.0, 4.0, 9.0, 16.0]]))
    assert check.s.tolist() == [3, 0]
    np.testing.assert_allclose(check.p_trend, [1 / 8, 1])


@pytest.mark.parametrize("gap", [0.1, 0.2, 0.3, 1 / 3, 0.7])
def test_exactly_linear_regret_has_no_falling_trend_in_spite_of_rounding(gap: float):
    check = trend_check(np.cumsum(np.full(200, gap)))
    assert check.s == 0
    assert check.p_trend == 1


def test_trend_check_of_one_round():
    check = trend_check(np.array([0.5]))
    assert check.s == 0
    assert check.p_trend == 1


# --- regression check ------------------------------------------------------------------------------


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0, 1.5])
def test_regression_check_finds_the_exponent(exponent: float):
    check = regression_check(3 * np.arange(1, 51) ** exponent)
    assert check.b0 == pytest.approx(exponent, abs=1e-9)
    assert check.p_reg == pytest.approx(1 if exponent == 0 else 0, abs=1e-9)
    assert check.floored == 0


def test_regression_check_by_hand():
    # x = log 1, log 2, log 4 = 0, l, 2l at t = 1, 2 and (with T = 3) log 3; check the 2-point slope:
    # R = 1, 4: b0 = (log 4 - log 1) / (log 2 - log 1) = 2
    check = regression_check(np.array([1.0, 4.0]))
    assert check.b0 == pytest.approx(2)
    assert np.isnan(check.p_reg)


def test_regression_check_agrees_with_scipy():
    curve = np.exp(np.random.default_rng(0).standard_normal((6, 12)))  # no trend: p-values of all sizes
    check = regression_check(curve)
    for row in range(6):
        line = linregress(np.log(np.arange(1, 13)), np.log(curve[row]))
        assert check.b0[row] == pytest.approx(line.slope)
        assert check.p_reg[row] == pytest.approx(line.pvalue, rel=1e-6)


def test_regression_check_floors_what_has_no_logarithm():
    # R = 0, -1, 1: log R = -10, -10, 0; x = 0, .6931, 1.0986, mean .5973, deviations -.5973, .0959, .5014
    # b0 = (-10 * -.5973 - 10 * .0959 + 0) / (.3567 + .0092 + .2514) = 5.0137 / .6173 = 8.122
    check = regression_check(np.array([0.0, -1.0, 1.0]))
    assert check.floored == 2
    assert check.b0 == pytest.approx(8.122, abs=2e-3)


def test_regression_check_floors_the_tiny_remains_of_rounding():
    check = regression_check(np.array([1e-17, 1.0, 2.0]))
    assert check.floored == 1
    assert check.b0 == regression_check(np.array([0.0, 1.0, 2.0])).b0


def test_regression_check_of_no_regret_at_all():
    check = regression_check(np.zeros((2, 10)))
    assert check.b0.tolist() == [0, 0]
    assert check.p_reg.tolist() == [1, 1]
    assert check.floored.tolist() == [10, 10]


def test_regression_check_of_one_round_is_undefined():
    check = regression_check(np.ones((2, 1)))
    assert np.isnan(check.b0).all()
    assert np.isnan(check.p_reg).all()


# --- the best arm ----------------------------------------------------------------------------------

MOVING = np.array([[0.9, 0.1], [0.4, 0.6], [0.5, 0.5]])  # totals 1.8 and 1.2


@pytest.mark.parametrize("kind", ["static", "pseudo", "dynamic"])
def test_any_arm_of_the_largest_mean_is_a_best_one(kind: RegretKind):
    """Sums of .1 and .2 and .3 differ by rounding; where all arms are the same there is no best one."""
    assert best_arms(np.array([[0.2, 0.7, 0.7]] * 2), kind).tolist() == [[False, True, True]] * 2
    tied = best_arms(np.array([[3e5, 3e5 + 6e-11, 1.0]] * 3), kind)
    assert tied.tolist() == [[True, True, False]] * 3
    assert not best_arms(np.full((3, 2), 0.3), kind).any()


def test_an_arm_that_is_as_good_as_the_best_is_played_rightly():
    """Expected .6, .6, .2 and always arm 1: no regret, and no measure that says otherwise."""
    table = RewardTable(np.ones((1, 4, 3)), np.array([[[0.6, 0.6, 0.2]] * 4]))
    histories = Histories(Rules("bandit", 4, 3), 1)
    for _ in range(4):
        histories.append(Decisions(arms=np.array([1])), np.ones(1))
    found = measure(Trajectories(histories, table), "pseudo")
    assert (found["regret"], found["suff_fail_freq"], found["best_arm_freq"]) == (0, 0, 1)


def test_rounds_in_which_all_arms_pay_the_same_are_left_out():
    best = best_arms(np.array([[0.5, 0.5], [0.2, 0.2], [0.1, 0.9], [0.9, 0.1]]), "dynamic")
    played = one_hot([0, 0, 1, 1], 2)  # of the two rounds that have a best arm the first is right
    assert best_arm_freq(played, best) == pytest.approx(1 / 2)
    assert suff_fail(played[:2], best[:2]) == 0
    assert best_arm_freq(played[:2], best[:2]) == 1


def test_best_arm_is_what_regret_compares_with():
    assert best_arms(MOVING, "dynamic").tolist() == [[True, False], [False, True], [False, False]]
    assert best_arms(MOVING, "pseudo").tolist() == [[True, False]] * 3
    assert best_arms(MOVING, "static").tolist() == [[True, False]] * 3


@given(
    arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(2, 5)), elements=st.floats(0, 1, width=16))
)
def test_with_fixed_means_the_kind_of_regret_does_not_matter(means: np.ndarray):
    tables = np.repeat(means[:, None], 7, axis=1)
    assert (best_arms(tables, "dynamic") == best_arms(tables, "pseudo")).all()


# --- exploration -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arms", "failed"),
    [
        ([1, 1, 0, 0], 0),  # T = 4: rounds 2 to 4; round 2 plays arm 1
        ([1, 0, 0, 0], 1),
        ([1, 1, 0, 0, 0], 1),  # T = 5: the first round at or after 2.5 is 3
        ([1, 1, 0, 0, 1], 0),
        ([0], 1),
        ([1], 0),
    ],
)
def test_suff_fail_from_half_of_the_horizon(arms: list[int], failed: int):
    assert suff_fail(one_hot(arms, 2), arms_at([1] * len(arms), 2)) == failed


def test_suff_fail_from_a_given_round():
    played, best = one_hot([[1, 0, 0], [0, 0, 1]], 2), arms_at([[1] * 3] * 2, 2)
    assert suff_fail(played, best, first_round=1).tolist() == [0, 0]
    assert suff_fail(played, best, first_round=2).tolist() == [1, 0]


def test_suff_fail_follows_a_best_arm_that_moves():
    best = arms_at([0, 0, 1, 1], 2)
    assert suff_fail(one_hot([0, 1, 0, 0], 2), best) == 1  # rounds 2 to 4 miss 0, 1, 1
    assert suff_fail(one_hot([1, 1, 0, 1], 2), best) == 0  # round 4 hits 1


def test_min_frac_by_hand():
    # pulls 3, 1 of T = 4: 1/4; a third arm is never played: 0
    assert min_frac(one_hot([0, 0, 1, 0], 2)) == pytest.approx(1 / 4)
    assert min_frac(one_hot([0, 0, 1, 0], 3)) == 0
    # mass .5 + .2 and .5 + .8 of T = 2: .35
    assert min_frac(np.array([[0.5, 0.5], [0.2, 0.8]])) == pytest.approx(0.35)


def test_best_arm_freq_by_hand():
    best = arms_at([0, 0, 1, 1], 2)
    played = one_hot([0, 1, 1, 1], 2)  # hits rounds 1, 3, 4
    assert best_arm_pulls(played, best) == 3
    assert best_arm_freq(played, best) == pytest.approx(3 / 4)
    assert best_arm_freq(played[:2], best[:2]) == pytest.approx(1 / 2)  # BestArmFreq(2)
    assert best_arm_freq(np.array([[0.3, 0.7], [0.6, 0.4]]), arms_at([1, 1], 2)) == pytest.approx(1.1 / 2)


def test_coverage_by_hand():
    assert coverage(one_hot([[0, 0, 2], [1, 1, 1]], 4)).tolist() == [2 / 4, 1 / 4]


def test_first_arm_only_by_hand():
    assert first_arm_only(one_hot([[0, 0, 0], [1, 1, 0], [0, 1, 1]], 2)).tolist() == [1, 0, 0]


def test_the_most_probable_arms_count_as_played():
    played = np.array([[0.3, 0.3, 0.4], [0.4, 0.4, 0.2]])
    assert coverage(played[:1]) == pytest.approx(1 / 3)
    assert coverage(played[1:]) == pytest.approx(2 / 3)
    for arm, failed in ((0, 1), (1, 1), (2, 0)):
        assert suff_fail(played[:1], arms_at([arm], 3)) == failed
    for arm, failed in ((0, 0), (1, 0), (2, 1)):
        assert suff_fail(played[1:], arms_at([arm], 3)) == failed


def test_the_even_distribution_plays_every_arm():
    played = np.full((4, 3), 1 / 3)
    assert coverage(played) == 1
    assert [suff_fail(played, arms_at([arm] * 4, 3)) for arm in range(3)] == [0, 0, 0]


@pytest.mark.parametrize("kind", ["static", "pseudo", "dynamic"])
def test_the_order_of_arms_changes_no_measure(kind: RegretKind):
    generator = np.random.default_rng(0)
    rewards, expected = generator.random((2, 6, 9, 4))
    played = generator.dirichlet(np.ones(4), size=(6, 9))
    found = []
    for order in ([0, 1, 2, 3], [2, 0, 3, 1]):
        table = RewardTable(rewards[..., order], expected[..., order])
        environment = TableEnvironment(Rules("full", 9, 4), table)
        histories = Histories(environment.rules, 6)
        for index in range(9):
            decisions = Decisions(probabilities=played[:, index, order])
            histories.append(decisions, environment.step(decisions))
        found.append(measure(Trajectories(histories, table), kind))
    for name in RECORDED:
        np.testing.assert_allclose(found[0][name], found[1][name], atol=1e-12)


def test_early_switching_by_hand():
    # K = 2, so rounds 2 to 4 count: 0 1 1 0, then a switch that is too late; 2 of 3
    assert early_switching(one_hot([0, 1, 1, 0, 1], 2)) == pytest.approx(2 / 3)
    # from (1, 0) to (.5, .5) half of the mass moves
    assert early_switching(np.array([[1, 0], [0.5, 0.5]])) == pytest.approx(0.5)
    assert np.isnan(early_switching(one_hot([0], 2)))


def test_entropy_by_hand():
    # ln 2 when even, 0 when sure: mean over two rounds ln 2 / 2
    assert entropy(np.array([[0.5, 0.5], [1.0, 0.0]])) == pytest.approx(math.log(2) / 2)


# --- greedy ----------------------------------------------------------------------------------------


def test_greedy_frac_of_a_bandit_by_hand():
    # before round 2: mean(0) = 1, arm 1 untried -> arm 1 is not greedy
    # before round 3: means 1, 0 -> arm 0 is greedy
    # before round 4: means .5, 0 -> arm 1 is not greedy; round 1 does not count: 1/3
    assert greedy_frac(one_hot([0, 1, 0, 1], 2), np.array([1.0, 0.0, 0.0, 1.0])) == pytest.approx(1 / 3)


def test_greedy_frac_counts_any_tied_arm():
    # means .5 and .5 before round 4, from 1, 0 on arm 0 and .5 on arm 1: either is greedy
    rewards = np.array([1.0, 0.0, 0.5, 0.0])
    # before round 2 arm 0 leads (greedy), before round 3 arm 0 leads with .5 (arm 1 is not greedy)
    for last in (0, 1):
        assert greedy_frac(one_hot([0, 0, 1, last], 2), rewards) == pytest.approx(2 / 3)


def test_greedy_frac_calls_means_tied_that_differ_by_rounding():
    # arm 0: (.1 + .1 + .1) / 3 = .10000000000000002, arm 1: .1
    played, rewards = one_hot([0, 0, 0, 1, 1], 2), np.full(5, 0.1)
    # rounds 2 and 3 greedy, round 4 tries arm 1 (not), round 5 is a tie: 3/4
    assert greedy_frac(played, rewards) == pytest.approx(3 / 4)


def test_greedy_frac_with_negative_rewards_prefers_the_least_bad():
    # means -1, -3 before round 3
    rewards = np.array([-1.0, -3.0, -1.0])
    assert greedy_frac(one_hot([0, 1, 0], 2), rewards) == pytest.approx(1 / 2)
    assert greedy_frac(one_hot([0, 1, 1], 2), rewards) == 0


def test_greedy_frac_of_full_information_takes_the_mass_on_leaders():
    # before round 2: means 1, 0 -> mass .3 on arm 0; before round 3: .5, .5 tied -> mass 1
    played = np.array([[0.5, 0.5], [0.3, 0.7], [0.9, 0.1]])
    assert greedy_frac(played, np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])) == pytest.approx(1.3 / 2)


def test_greedy_frac_of_one_round_is_undefined():
    assert np.isnan(greedy_frac(one_hot([0], 2)[None], np.ones((1, 1)))).all()


# --- the histogram and the thin layer --------------------------------------------------------------


def test_histogram_has_a_bin_per_pull():
    counts, edges = histogram(np.array([0, 0, 3, 2]), horizon=3)
    assert counts.tolist() == [2, 0, 1, 1]
    assert edges.tolist() == [-0.5, 0.5, 1.5, 2.5, 3.5]


@given(st.integers(1, 1000))
def test_histogram_counts_every_number_of_pulls(horizon: int):
    counts, edges = histogram(np.arange(horizon + 1), horizon)
    assert counts.sum() == horizon + 1
    assert len(edges) == len(counts) + 1 <= 53


def test_measure_of_a_bandit():
    # T = 4, means .6, .4; plays 0 1 1 1, rewards 1 0 1 1
    rewards = np.array([[[1.0, 0], [1, 0], [0, 1], [0, 1]]])
    table = RewardTable(rewards, np.array([[[0.6, 0.4]] * 4]))
    environment = TableEnvironment(Rules("bandit", 4, 2), table)
    histories = Histories(environment.rules, 1)
    for arm in (0, 1, 1, 1):
        decisions = Decisions(arms=np.array([arm]))
        histories.append(decisions, environment.step(decisions))
    found = measure(Trajectories(histories, table), "pseudo")
    assert tuple(found) == RECORDED
    rates = {name: found[name] for name in ("wins", "win_stay", "losses", "lose_shift")}
    assert rates == {"wins": 2 / 3, "win_stay": 1 / 3, "losses": 1 / 3, "lose_shift": 0}
    assert found["regret"] == pytest.approx(3 * 0.2)
    assert found["suff_fail_freq"] == 1  # rounds 2 to 4 never play arm 0
    assert found["k_min_frac"] == pytest.approx(2 * 1 / 4)
    assert found["greedy_frac"] == 0  # arm 0's mean stays 1, arm 1's never passes 1/2
    assert found["best_arm_freq"] == pytest.approx(1 / 4)
    assert found["coverage"] == 1
    assert np.isnan(found["entropy"]).all()


def test_measure_of_distributions():
    table = RewardTable(np.array([[[1.0, 0], [0, 1]]]), np.array([[[0.6, 0.4]] * 2]))
    environment = TableEnvironment(Rules("full", 2, 2), table)
    histories = Histories(environment.rules, 1)
    for probabilities in ([[0.5, 0.5]], [[0.25, 0.75]]):
        decisions = Decisions(probabilities=np.array(probabilities))
        histories.append(decisions, environment.step(decisions))
    found = measure(Trajectories(histories, table), "static")
    assert found["regret"] == pytest.approx(1 - (0.5 + 0.75))
    assert found["suff_fail_freq"] == 0  # rounds 1 and 2; both arms of round 1's tie count, the best one too
    assert found["k_min_frac"] == pytest.approx(2 * 0.75 / 2)
    assert found["greedy_frac"] == pytest.approx(0.25)
    assert found["best_arm_freq"] == pytest.approx(0.75 / 2)
    assert found["coverage"] == 1  # both in round 1
    # entropies ln 2 = .6931 and -(.25 ln .25 + .75 ln .75) = .5623
    assert found["entropy"] == pytest.approx((0.6931 + 0.5623) / 2, abs=1e-4)
