"""Intervals against hand-made, closed-form and simulated truth."""

import numpy as np
import pytest
from scipy import stats

from rmft.errors import ShapeError
from rmft.evaluation.measures import regression_check
from rmft.evaluation.statistics import (
    RESAMPLES,
    bootstrap,
    dominated_by,
    exponent_below_1,
    interval,
    of_share,
    over_seeds,
    paired_difference,
    relative_regret,
    share,
)


def uniform_play(num_problems: int, horizon: int, seed: int) -> np.ndarray:
    """Pseudo-regret curves of uniform play, 5 arms with means U[0, 1]: linear, so b0 = 1."""
    generator = np.random.default_rng(seed)
    means = generator.random((num_problems, 5))
    arms = generator.integers(5, size=(num_problems, horizon))
    return np.cumsum(means.max(axis=1, keepdims=True) - np.take_along_axis(means, arms, axis=1), axis=1)


@pytest.mark.parametrize("num_problems", [300, 1000])
def test_interval_of_many_problems_is_the_normal_one(num_problems: int):
    values = np.random.default_rng(0).exponential(size=num_problems)
    found = interval(values)
    half = 1.96 * values.std(ddof=1) / np.sqrt(num_problems)
    assert found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - half, abs=0.15 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.15 * half)


def test_interval_of_few_problems_is_scipys_bca():
    values = np.random.default_rng(1).exponential(size=25)
    found = interval(values)
    ends = stats.bootstrap((values,), np.mean, method="BCa", n_resamples=20_000, rng=0).confidence_interval
    assert (found.low, found.high) == pytest.approx((ends.low, ends.high), abs=0.06)


def test_interval_covers_what_it_should():
    generator = np.random.default_rng(2)
    found = [interval(generator.exponential(size=40)) for _ in range(150)]
    covered = np.mean([each.low <= 1 <= each.high for each in found])
    assert 0.87 <= covered <= 0.99


def test_rollouts_of_one_problem_count_as_one():
    means = np.random.default_rng(3).random(50)
    repeated, once = interval(np.repeat(means[:, None], 20, axis=1)), interval(means)
    assert (repeated.low, repeated.high) == pytest.approx((once.low, once.high))


@pytest.mark.parametrize("num_problems", [2, 50, 500])
@pytest.mark.parametrize("value", [0.0, 0.1, -3.7])
def test_constant_data_has_no_width(num_problems: int, value: float):
    found = interval(np.full(num_problems, value))
    assert found.low == found.mean == found.high
    assert found.mean == pytest.approx(value)


def test_one_problem_has_no_interval():
    found = interval(np.array([[0.25, 0.75]]))
    assert (found.mean, found.low, found.high) == (0.5, None, None)


def test_undefined_values_give_an_undefined_interval():
    for size in (1, 10, 500):
        found = interval(np.full(size, np.nan))
        assert (found.mean, found.low, found.high) == (None, None, None)


def test_no_problem_is_an_error():
    with pytest.raises(ShapeError, match="num_problems >= 1"):
        interval(np.zeros(0))


def test_the_same_seed_gives_the_same_interval():
    values = np.random.default_rng(4).random(30)
    assert interval(values, seed=1) == interval(values, seed=1)
    assert interval(values, seed=1) != interval(values, seed=2)


def test_resamples_are_of_whole_problems_and_shared_by_all_columns():
    values = np.random.default_rng(5).random((20, 1))
    found = bootstrap(np.concatenate([values, values + 1], axis=1), lambda means: means)
    assert found.replicates.shape == (2, RESAMPLES)
    np.testing.assert_allclose(found.replicates[1] - found.replicates[0], 1)


def test_statistics_of_any_shape():
    found = bootstrap(np.random.default_rng(6).random((20, 2, 3)), lambda means: means)
    assert found.low.shape == found.high.shape == (2, 3)
    assert (found.low < found.estimate).all()
    assert (found.estimate < found.high).all()


# --- several settings ------------------------------------------------------------------------------


def identity(means: np.ndarray) -> np.ndarray:
    return means


def test_what_differs_between_settings_alone_is_no_noise():
    values = np.repeat([-9.4, 5.1, 3.1], 20)
    found = interval(values, settings=[20, 20, 20])
    assert found.low == found.mean == found.high == pytest.approx(values.mean())
    pooled = interval(values)
    assert pooled.high - pooled.low > 2


@pytest.mark.parametrize("size", [40, 300])
def test_settings_are_resampled_apart(size: int):
    generator = np.random.default_rng(13)
    parts = [generator.exponential(size=size), 50 + 2 * generator.exponential(size=size // 2)]
    found = interval(np.concatenate(parts), settings=[size, size // 2])
    variances = [(len(part) / (1.5 * size)) ** 2 * part.var(ddof=1) / len(part) for part in parts]
    assert found.mean == pytest.approx(np.concatenate(parts).mean())
    assert found.high - found.low == pytest.approx(2 * 1.96 * np.sqrt(sum(variances)), rel=0.12)


def test_one_setting_is_as_if_none_were_named():
    values = np.random.default_rng(14).random(30)
    assert interval(values, settings=[30]) == interval(values)


def test_a_setting_of_one_problem_leaves_no_interval():
    found = interval(np.arange(5.0), settings=[4, 1])
    assert (found.mean, found.low, found.high) == (2, None, None)


@pytest.mark.parametrize("settings", [[2, 2], [6, -1], [5, 0], [3, 3]])
def test_settings_that_do_not_add_up_are_an_error(settings: list[int]):
    with pytest.raises(ShapeError, match="do not add up to the 5"):
        interval(np.arange(5.0), settings=settings)


# --- shares ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ones", "size"), [(0, 50), (3, 300), (25, 50), (50, 50)])
def test_a_share_has_scipys_exact_interval(ones: int, size: int):
    values = np.zeros(size)
    values[:ones] = 1
    found = share(values)
    exact = stats.binomtest(ones, size).proportion_ci(0.95, "exact")
    assert found.mean == ones / size
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high))


def test_a_share_of_one_problem_has_no_interval():
    assert (share(np.ones(1)).mean, share(np.ones(1)).low) == (1, None)


@pytest.mark.parametrize("values", [[0.5, 1.0], [], [np.nan, 1.0]])
def test_other_values_are_no_share(values: list[float]):
    with pytest.raises(ShapeError, match="each 0 or 1"):
        share(np.array(values))


def test_shares_of_several_rollouts_stay_within_0_and_1():
    values = np.array([0.0, 0.5, 0.0, 0.0])
    found = of_share(interval(values), values)
    assert found == interval(values)
    wide = over_seeds(np.array([[0, 0, 0, 0.0], [0, 1, 0, 0.0]]), identity).interval()
    assert wide.low is not None
    assert wide.low < 0
    assert of_share(wide, values).low == 0


# --- training seeds --------------------------------------------------------------------------------


def test_one_seed_is_clustered_by_problem_alone():
    values = np.random.default_rng(15).random((40, 2))
    one, alone = over_seeds(values[None], identity), bootstrap(values, identity)
    np.testing.assert_array_equal(one.low, alone.low)
    np.testing.assert_array_equal(one.replicates, alone.replicates)


def test_what_no_seed_changes_has_the_interval_of_problems():
    values = np.random.default_rng(16).random(40)
    repeated = over_seeds(np.broadcast_to(values, (3, 40)), identity).interval()
    assert [*repeated.model_dump().values()] == pytest.approx([*interval(values).model_dump().values()])


def test_seeds_alone_give_students_interval():
    # the same on every problem, so that all variance is between seeds: the t interval of 4 numbers
    seeds = np.array([1.0, 2.0, 4.0, 5.0])
    found = over_seeds(np.repeat(seeds[:, None], 50, axis=1), identity).interval()
    half = stats.t.ppf(0.975, 3) * seeds.std(ddof=1) / 2
    assert found.mean == 3
    assert found.high - 3 == pytest.approx(half, rel=0.05)
    assert 3 - found.low == pytest.approx(half, rel=0.05)


def test_hard_problems_are_hard_for_every_seed():
    # 4 seeds that play alike but for a little: no more is known of the problems than from one of them
    generator = np.random.default_rng(17)
    problems = generator.exponential(size=300)
    found = over_seeds(problems + 0.01 * generator.standard_normal((4, 300)), identity).interval()
    alone = interval(problems)
    assert found.high - found.low == pytest.approx(alone.high - alone.low, rel=0.1)


def test_intervals_over_seeds_cover_what_they_should():
    generator = np.random.default_rng(18)
    covered = []
    for _ in range(150):
        luck = (
            generator.normal(0, 0.3, (3, 1)),
            generator.exponential(size=60),
            generator.normal(0, 1, (3, 60)),
        )
        found = over_seeds(sum(luck), identity).interval()
        covered.append(found.low <= 1 <= found.high)
    assert 0.89 <= np.mean(covered) <= 1


def test_seeds_need_an_axis_of_their_own():
    with pytest.raises(ShapeError, match="num_seeds >= 1"):
        over_seeds(np.zeros(3), identity)


# --- pairs -----------------------------------------------------------------------------------------


def test_pairing_takes_out_the_luck_of_the_problems():
    generator = np.random.default_rng(7)
    hardness = 10 * generator.random(200)
    better, worse = hardness + 0.1 * generator.random(200), hardness + 0.3 + 0.1 * generator.random(200)
    found = paired_difference(better, worse)
    assert found.mean == pytest.approx(np.mean(better - worse))
    assert -0.35 < found.low < found.high < -0.25
    assert interval(better).high > interval(worse).low  # unpaired, one could not tell


def test_difference_changes_sign_with_the_order():
    a, b = np.random.default_rng(8).random((2, 400))
    forth, back = paired_difference(a, b), paired_difference(b, a)
    assert (back.mean, back.low, back.high) == pytest.approx((-forth.mean, -forth.high, -forth.low))


def test_pairs_need_the_same_problems():
    with pytest.raises(ShapeError, match="3 and 4"):
        paired_difference(np.zeros(3), np.zeros(4))


def test_relative_regret_is_the_ratio_of_means():
    # means 2 and 4: one half, though the mean of ratios is (1/1 + 3/7) / 2
    assert relative_regret(np.array([1.0, 3.0]), np.array([1.0, 7.0])).mean == pytest.approx(0.5)


def test_relative_regret_of_a_share_is_that_share():
    b = 1 + np.random.default_rng(9).random(60)
    found = relative_regret(0.9 * b, b)
    assert (found.mean, found.low, found.high) == pytest.approx((0.9, 0.9, 0.9))


def test_relative_regret_is_undefined_against_none_or_negative_regret():
    ones = np.ones(30)
    assert relative_regret(ones, 0 * ones).mean is None
    assert relative_regret(ones, -ones).mean is None
    mixed = np.tile([3.0, -2.9], 15)  # mean .05 > 0, but not in every resample
    found = relative_regret(ones, mixed)
    assert found.mean == pytest.approx(1 / 0.05)
    assert (found.low, found.high) == (None, None)


# --- the exponent ----------------------------------------------------------------------------------


def test_square_root_regret_is_found_sublinear():
    scale = 0.5 + np.random.default_rng(10).random((100, 1))
    found = exponent_below_1(scale * np.sqrt(np.arange(1, 51)))
    assert found.p_value == pytest.approx(1 / (1 + RESAMPLES))
    assert found.low == pytest.approx(0.5)
    assert found.high == pytest.approx(0.5)


def test_exactly_linear_regret_is_never_found_sublinear():
    scale = np.random.default_rng(11).random((100, 1))
    assert exponent_below_1(np.cumsum(scale * np.ones(50), axis=1)).p_value == 1


def test_linear_regret_is_found_sublinear_as_rarely_as_the_level_says():
    found = [exponent_below_1(uniform_play(30, 20, seed)) for seed in range(150)]
    assert np.mean([test.p_value < 0.05 for test in found]) <= 0.10  # 5%, standard error 1.8%
    assert 0.87 <= np.mean([test.low <= 1 <= test.high for test in found]) <= 0.99


def test_single_trajectories_of_linear_regret_look_sublinear_about_half_the_time():
    b0 = regression_check(uniform_play(2000, 50, 0)).b0
    assert 0.35 < np.mean(b0 < 1) < 0.65


def test_exponent_of_one_round_or_one_problem_is_undefined():
    for curves in (np.ones((10, 1)), np.ones((1, 10))):
        found = exponent_below_1(curves)
        assert (found.p_value, found.low, found.high) == (None, None, None)


# --- the frontier ----------------------------------------------------------------------------------


def test_dominated_by():
    points = {"a": (3.6, 0.21), "b": (4.6, 0.08), "c": (5.2, 0.1), "d": (3.6, 0.3), "e": (3.6, 0.21)}
    assert dominated_by(points) == {"a": [], "b": [], "c": ["b"], "d": ["a", "e"], "e": []}
    assert dominated_by({"less": (3.6, 0.2), "more": (4.0, 0.2)}) == {"less": [], "more": ["less"]}
