"""The baselines: their arithmetic by hand, their statelessness, their numbers, and their names."""

import numpy as np
import pytest
from scipy import special, stats

from rmft.errors import ConfigError, ShapeError, UnknownNameError
from rmft.policies.baselines import (
    GRIDS,
    Oracle,
    baseline_names,
    baselines_for,
    describe,
    make_baseline,
    tune,
)
from rmft.policies.baselines.adversarial import exp3_probabilities, tuned_exploration
from rmft.policies.baselines.base import best_arms
from rmft.policies.baselines.full_information import FadingLeader, FixedShare, project_on_simplex
from rmft.policies.baselines.indices import KLUCB, UCB, BayesUCB, Greedy, OptimisticGreedy
from rmft.policies.baselines.moving import ChangeFilter, DiscountedUCB, Runs, SlidingWindowUCB
from rmft.policies.baselines.sampling import GaussianThompson, beta_from, beta_samples
from rmft.policies.baselines.statistics import counts_and_sums, on_distinct, windowed_counts_and_sums
from rmft.policies.baselines.tuning import beyond, grid_of, noise_std
from rmft.problems.environment import Game, TableEnvironment
from rmft.regret import regret
from rmft.rollout import rollout
from rmft.streams import Streams, generator
from rmft.types import Decisions, Histories, RewardTable, Rules, Shown

BANDIT = Rules("bandit", 12, 3)
FULL = Rules("full", 12, 3)
UNBOUNDED = (-np.inf, np.inf)


def bernoulli_table(size: int, horizon: int, num_arms: int) -> RewardTable:
    draw = generator(5, size, horizon, num_arms)
    means = np.repeat(draw.random((size, 1, num_arms)), horizon, axis=1)
    return RewardTable((draw.random(means.shape) < means).astype(float), means)


def streams(size: int, seed: int = 7) -> Streams:
    return Streams.at(seed, [(row,) for row in range(size)])


def bandit_history(arms: list[int], rewards: list[float], num_arms: int = 2, horizon: int = 20) -> Histories:
    """One rollout in which `arms` paid `rewards`."""
    histories = Histories(Rules("bandit", horizon, num_arms), 1)
    for arm, reward in zip(arms, rewards, strict=True):
        histories.append(Decisions(arms=np.array([arm])), np.array([reward]))
    return histories


def test_sums_windows_and_discounts_by_hand() -> None:
    # arm 0 pays 1, arm 1 pays 0.5, arm 0 pays 0
    histories = bandit_history([0, 1, 0], [1, 0.5, 0])
    np.testing.assert_allclose(counts_and_sums(histories), [[[2, 1]], [[1, 0.5]]])
    # discount 0.5: counts 0.25 + 1 and 0.5; sums 0.25 * 1 + 0 and 0.5 * 0.5
    np.testing.assert_allclose(counts_and_sums(histories, 0.5), [[[1.25, 0.5]], [[0.25, 0.25]]])
    # the last two rounds: arm 1 paid 0.5, arm 0 paid 0
    np.testing.assert_allclose(windowed_counts_and_sums(histories, 2), [[[1, 1]], [[0, 0.5]]])


def test_rewards_are_normalized_by_their_range() -> None:
    histories = Histories(Rules("bandit", 5, 2, (0, 10)), 1)
    histories.append(Decisions(arms=np.array([1])), np.array([4.0]))
    np.testing.assert_allclose(counts_and_sums(histories)[1], [[0, 0.4]])


def test_indices_by_hand() -> None:
    histories = bandit_history([0, 1, 0], [1, 1, 0])  # means 1/2 of 2 plays and 1 of 1 play, t = 3
    luck = streams(1)
    np.testing.assert_allclose(Greedy().index(histories, luck), [[0.5, 1]])
    # (1 + 3) / (2 + 4) and (1 + 3) / (1 + 4)
    np.testing.assert_allclose(OptimisticGreedy().index(histories, luck), [[4 / 6, 4 / 5]])
    log3 = np.log(3)
    np.testing.assert_allclose(
        UCB(coefficient=0.4).index(histories, luck),
        [[0.5 + 0.4 * np.sqrt(log3 / 2), 1 + 0.4 * np.sqrt(log3)]],
    )
    # the 0.9 quantile of Beta(2, 2) solves 3q^2 - 2q^3 = 0.9, and that of Beta(2, 1) is sqrt(0.9)
    quantiles = BayesUCB().index(histories, luck)[0]
    assert 3 * quantiles[0] ** 2 - 2 * quantiles[0] ** 3 == pytest.approx(0.9)
    assert quantiles[1] == pytest.approx(np.sqrt(0.9))
    # kl(1/2, q) = -ln(4 q (1 - q)) / 2 = ln(3) / 2 at 4 q (1 - q) = 1/3; and nothing is above a mean of 1
    np.testing.assert_allclose(KLUCB().index(histories, luck), [[(1 + np.sqrt(2 / 3)) / 2, 1]], atol=1e-9)
    # of the last two rounds: means 0 and 1 of one play each, ln 2
    np.testing.assert_allclose(
        SlidingWindowUCB(window=2, coefficient=1).index(histories, luck),
        [[np.sqrt(np.log(2)), 1 + np.sqrt(np.log(2))]],
    )
    # discount 0.5: counts 1.25 and 0.5, sums 0.25 and 0.5, n = 1.75
    wide = np.sqrt(np.log(1.75) / np.array([1.25, 0.5]))
    np.testing.assert_allclose(
        DiscountedUCB(discount=0.5, coefficient=1).index(histories, luck), [np.array([0.2, 1]) + wide]
    )


def test_win_stay_shifts_after_a_loss_only() -> None:
    won, lost = (bandit_history([2, 1], paid, num_arms=3) for paid in ([0, 0.6], [1, 0.5]))
    policy = make_baseline("win-stay")
    np.testing.assert_allclose(policy.probabilities(won), [[0, 1, 0]])  # type: ignore[attr-defined]
    np.testing.assert_allclose(policy.probabilities(lost), [[0.5, 0, 0.5]])  # type: ignore[attr-defined]
    start = policy.probabilities(Histories(BANDIT, 2))  # type: ignore[attr-defined]
    np.testing.assert_allclose(start, np.full((2, 3), 1 / 3))


def test_the_window_matches_a_recount() -> None:
    draw = generator(8, 0)
    arms = draw.integers(0, 4, 30).tolist()
    rewards = draw.random(30).tolist()
    histories = bandit_history(arms, rewards, num_arms=4, horizon=30)
    counts, sums = windowed_counts_and_sums(histories, 7)
    last_arms, last_rewards = np.array(arms[-7:]), np.array(rewards[-7:])
    np.testing.assert_array_equal(counts[0], [(last_arms == arm).sum() for arm in range(4)])
    np.testing.assert_allclose(
        sums[0], [last_rewards[last_arms == arm].sum() for arm in range(4)], atol=1e-12
    )


def test_a_change_filter_believes_what_bayes_says() -> None:
    # K = 2, rate 1/4: arm 0 pays 1 (likelihood 1/2, whenever the last change was): beliefs (3/4, 1/4); it
    # pays 0: 1 - 2/3 since round 0 and 1/2 since round 1, so (1/4, 1/8) -> (2/3, 1/3) -> (1/2, 1/4, 1/4).
    histories = bandit_history([0, 0], [1, 0])
    runs = Runs(histories)
    for paid in (1.0, 0.0):
        runs.learn(np.array([[1.0, 0.0]]), np.array([paid]), 0.25)
    np.testing.assert_allclose(runs.beliefs, [[1 / 2, 1 / 4, 1 / 4]])
    np.testing.assert_allclose(runs.counts[0, :, 0], [2, 1, 0])
    np.testing.assert_allclose(runs.sums[0, :, 0], [1, 0, 0])
    # Arm 1 was never played: its law is Beta(1, 1). Arm 0: Beta(2, 2), (1, 2), (1, 1): of mean
    # 1/4 + 1/12 + 1/8 and second moment 3/20 + 1/24 + 1/12.
    index = ChangeFilter(rate=0.25, quantile=0.8).index(histories, streams(1))[0]
    mean, second = 1 / 4 + 1 / 12 + 1 / 8, 3 / 20 + 1 / 24 + 1 / 12
    total = mean * (1 - mean) / (second - mean**2) - 1
    np.testing.assert_allclose(index, [stats.beta(mean * total, (1 - mean) * total).ppf(0.8), 0.8])
    rare = ChangeFilter(rate=1e-12, quantile=0.8).index(histories, streams(1))
    np.testing.assert_allclose(rare, BayesUCB(quantile=0.8).index(histories, streams(1)), rtol=1e-6)


def test_leaders_and_shares_that_forget_by_hand() -> None:
    histories = Histories(Rules("full", 4, 2), 1)
    for rewards in ([1.0, 0.0], [0.0, 1.0]):
        histories.append(Decisions(probabilities=np.array([[0.5, 0.5]])), np.array([rewards]))
    np.testing.assert_allclose(FadingLeader(discount=0.5).index(histories, streams(1)), [[0.5, 1]])
    # rate ln 4, share 1/2: (1/2, 1/2) -> (4/5, 1/5) -> (13/20, 7/20) -> (13, 28)/41 -> half of it + 1/4
    shares = FixedShare(learning_rate=np.log(4), share=0.5).probabilities(histories)
    np.testing.assert_allclose(shares, [[13 / 82 + 1 / 4, 28 / 82 + 1 / 4]])
    hedge = make_baseline("hedge(learning_rate=0.7)").decide(histories, streams(1)).probabilities
    np.testing.assert_allclose(FixedShare(learning_rate=0.7, share=0).probabilities(histories), hedge)


def test_exp3_by_hand() -> None:
    # K = 2, g = 0.5: after arm 0 pays 1 at p = 1/2, log w(0) = 0.25 * 1 / 0.5 = 0.5
    histories = bandit_history([0], [1])
    expected = 0.5 / (1 + np.exp(-0.5)) + 0.25
    assert exp3_probabilities(histories, 0.5, 99)[0, 0] == pytest.approx(expected)
    # restarted before every second round
    twice = bandit_history([0, 0], [1, 1])
    np.testing.assert_allclose(exp3_probabilities(twice, 0.5, 2), [[0.5, 0.5]])
    assert tuned_exploration(2, 100) == pytest.approx(np.sqrt(2 * np.log(2) / ((np.e - 1) * 100)))


def test_full_information_by_hand() -> None:
    histories = Histories(Rules("full", 8, 2), 1)
    for rewards in ([1, 0], [1, 0.5]):  # totals 2 and 0.5
        histories.append(Decisions(arms=np.array([0])), np.array([rewards]))
    hedge = make_baseline("hedge(learning_rate=2)").decide(histories, streams(1)).probabilities
    np.testing.assert_allclose(hedge, [[1 / (1 + np.exp(-3)), 1 / (1 + np.exp(3))]])
    # the projection of (0.2 * 2, 0.2 * 0.5) = (0.4, 0.1) adds 0.25 to both
    ftrl = make_baseline("ftrl-l2(learning_rate=0.2)").decide(histories, streams(1)).probabilities
    np.testing.assert_allclose(ftrl, [[0.65, 0.35]])
    assert make_baseline("ftl").decide(histories, streams(1)).arms == [0]
    assert make_baseline("ftpl(noise_std=0)").decide(histories, streams(1)).arms == [0]


def test_the_projection_is_the_nearest_point() -> None:
    np.testing.assert_allclose(project_on_simplex(np.array([[2.0, 0.0, -1.0]])), [[1, 0, 0]])
    np.testing.assert_allclose(project_on_simplex(np.array([[0.6, 0.5, -3.0]])), [[0.55, 0.45, 0]])
    draw = generator(9, 1)
    points, others = 2 * draw.standard_normal((50, 4)), draw.dirichlet(np.ones(4), 200)
    nearest = project_on_simplex(points)
    np.testing.assert_allclose(nearest.sum(axis=1), 1)
    distance = ((points - nearest) ** 2).sum(axis=1)
    assert (distance[:, None] <= ((points[:, None] - others) ** 2).sum(axis=2) + 1e-12).all()


def test_ties_are_broken_evenly_and_only_among_the_best() -> None:
    index = np.tile([1.0, np.inf, 0.0, np.inf], (4000, 1))
    counts = np.bincount(best_arms(index, streams(4000)), minlength=4)
    assert counts[0] == counts[2] == 0
    assert stats.binomtest(int(counts[1]), 4000).pvalue > 1e-3


@pytest.mark.parametrize(("a", "b"), [(1.0, 1.0), (1.0, 9.0), (2.5, 1.0), (30.0, 20.0)])
def test_beta_samples_have_their_distribution(a: float, b: float) -> None:
    draw, shape = generator(3, int(a), int(b)), (50_000, 2)
    normal, uniform = draw.standard_normal((shape[0], 4)), draw.random(shape)
    samples = beta_from(np.full(shape, a), np.full(shape, b), normal, uniform)
    assert stats.kstest(samples[:, 0], stats.beta(a, b).cdf).pvalue > 1e-3
    assert stats.kstest(samples[:, 1], stats.beta(a, b).cdf).pvalue > 1e-3
    assert abs(np.corrcoef(samples.T)[0, 1]) < 4 / np.sqrt(shape[0])


def test_posteriors_by_hand() -> None:
    # 1 success of 1 is Beta(2, 1), 4 of 6 is Beta(5, 3); twice as sharp, Beta(4, 2) and Beta(10, 6)
    sums, counts = np.full((6000, 2), [1.0, 4.0]), np.full((6000, 2), [1.0, 6.0])
    for sharpness in (1, 2):
        samples = beta_samples(sums, counts, streams(6000), sharpness)
        for arm, (a, b) in enumerate([(2, 1), (5, 3)]):
            assert stats.kstest(samples[:, arm], stats.beta(sharpness * a, sharpness * b).cdf).pvalue > 1e-3


def test_the_gaussian_posterior_by_hand() -> None:
    # prior N(1, 0.5^2), noise 2, rewards 3 and 5 of arm 0: precision 4 + 2/4, mean (4 + 8/4) / 4.5
    histories = Histories(Rules("bandit", 5, 2, UNBOUNDED), 4000)
    for reward in (3.0, 5.0):
        histories.append(Decisions(arms=np.zeros(4000, dtype=int)), np.full(4000, reward))
    policy = GaussianThompson(prior_mean=1, prior_std=0.5, noise_std=2)
    samples = policy.index(histories, streams(4000))
    assert stats.kstest(samples[:, 0], stats.norm(6 / 4.5, 4.5**-0.5).cdf).pvalue > 1e-3
    assert stats.kstest(samples[:, 1], stats.norm(1, 0.5).cdf).pvalue > 1e-3


def test_default_rates_by_hand() -> None:
    # K = 2, T = 8, totals 1 and 0: hedge sqrt(8 ln 2 / 8), ftrl-l2 sqrt((1 / 2) / (2 * 8)), ftpl sqrt(8)
    histories = Histories(Rules("full", 8, 2), 4000)
    histories.append(Decisions(arms=np.zeros(4000, dtype=int)), np.tile([1.0, 0.0], (4000, 1)))
    hedge = make_baseline("hedge").decide(histories, streams(4000)).probabilities
    ftrl = make_baseline("ftrl-l2").decide(histories, streams(4000)).probabilities
    assert hedge is not None
    assert ftrl is not None
    assert hedge[0, 0] == pytest.approx(1 / (1 + np.exp(-np.sqrt(np.log(2)))))
    assert ftrl[0, 0] == pytest.approx(0.5 + np.sqrt(1 / 32) / 2)
    # the leader keeps its place with probability P(1 + sqrt(8) (z - z') > 0) = Phi(1 / 4)
    arms = make_baseline("ftpl").decide(histories, streams(4000)).arms
    assert arms is not None
    assert stats.binomtest(int((arms == 0).sum()), 4000, stats.norm.cdf(0.25)).pvalue > 1e-3


def test_working_out_distinct_pairs_changes_nothing() -> None:
    draw = generator(4, 0)
    counts = draw.integers(0, 9, (40, 3)).astype(float)
    sums = np.floor(counts * draw.random((40, 3)))

    def function(n: np.ndarray, s: np.ndarray) -> np.ndarray:
        return special.betaincinv(1 + s, 1 + n - s, 0.9)

    np.testing.assert_array_equal(on_distinct(function, counts, sums), function(counts, sums))
    halves = sums / 2  # not whole numbers: worked out one by one
    np.testing.assert_array_equal(on_distinct(function, counts, halves), function(counts, halves))


@pytest.mark.parametrize(
    ("spec", "expected", "tolerance"),
    [
        ("uniform", 16.6, 0.5),
        ("ucb1", 10.5, 0.4),
        ("ucb", 4.65, 0.3),
        ("ucb(coefficient=0.5)", 5.2, 0.3),
        ("thompson", 6.3, 0.3),
        ("sharpened-thompson", 4.39, 0.3),
        ("bayes-ucb", 3.68, 0.3),
        ("bayes-ucb(quantile=0.85)", 3.62, 0.3),
        ("optimistic-greedy", 3.62, 0.3),
    ],
)
def test_regret_on_bernoulli_arms_is_the_known_one(spec: str, expected: float, tolerance: float) -> None:
    """K = 5, T = 50, means uniform on [0, 1], 1,000 problems; the tolerances are about 3 standard errors."""
    table = bernoulli_table(1000, 50, 5)
    played = rollout(make_baseline(spec), TableEnvironment(Rules("bandit", 50, 5), table), streams(1000))
    assert regret(played, "pseudo").mean() == pytest.approx(expected, abs=tolerance)


@pytest.mark.parametrize("kind", ["static", "pseudo", "dynamic"])
@pytest.mark.parametrize("feedback", ["full", "bandit"])
def test_the_oracle_has_no_regret(feedback: str, kind: str) -> None:
    table = bernoulli_table(20, 12, 3)
    rules = BANDIT if feedback == "bandit" else FULL
    oracle = make_baseline(f"oracle(regret={kind})", table)
    played = rollout(oracle, TableEnvironment(rules, table), streams(20))
    np.testing.assert_allclose(regret(played, kind), 0, atol=1e-12)  # type: ignore[arg-type]


def test_the_oracle_refuses_another_table() -> None:
    with pytest.raises(ShapeError, match="table"):
        Oracle(bernoulli_table(3, 12, 3)).decide(Histories(BANDIT, 4), streams(4))
    with pytest.raises(ConfigError, match="table"):
        make_baseline("oracle")


def test_names() -> None:
    assert len(baseline_names()) == len(set(baseline_names())) == 33
    for name in baseline_names():
        assert describe(name).name == name
    for name, grid in GRIDS.items():
        assert len(grid) > 1
        assert describe(name).tunable
        assert all(spec == name or spec.startswith(f"{name}(") for spec in grid)


def test_what_suits_which_rules() -> None:
    assert {"ftl", "fading-leader", "hedge", "fixed-share", "ftrl-l2", "ftpl", "uniform", "oracle"} == set(
        baselines_for(FULL)
    )
    assert {"thompson", "bayes-ucb", "exp3"} <= set(baselines_for(BANDIT))
    gaussian = set(baselines_for(Rules("bandit", 5, 2, UNBOUNDED)))
    assert {"ucb", "gaussian-thompson"} <= gaussian
    assert not {"thompson", "exp3", "hedge"} & gaussian
    shown = set(baselines_for(Rules("bandit", 5, 2, shown=Shown(("age",)))))
    assert shown - set(baselines_for(BANDIT)) == {"linucb", "linear-thompson", "linear-epsilon-greedy"}


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("ucbb", UnknownNameError, "Did you mean 'ucb'"),
        ("ucb(coef=1)", UnknownNameError, "Did you mean 'coefficient'"),
        ("ucb(coefficient=-1)", ConfigError, "coefficient.*found -1"),
        ("ucb(coefficient=nan)", ConfigError, "finite"),
        ("ucb(coefficient=wide)", ConfigError, "found 'wide'"),
        ("ucb(0.4)", ConfigError, "parameter=value"),
        ("ucb(coefficient=1, coefficient=2)", ConfigError, "once"),
        ("ucb(coefficient=__import__('os'))", ConfigError, "Cannot read"),
        ("sliding-window-ucb(window=2.5)", ConfigError, "window"),
        ("tuned:ucb", ConfigError, "tune"),
        ("", ConfigError, "Cannot read"),
    ],
)
def test_bad_specs_say_what_is_wrong(spec: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make_baseline(spec)


def test_a_baseline_says_when_it_does_not_suit_the_problem() -> None:
    with pytest.raises(ConfigError, match="bandit feedback; this problem gives full"):
        make_baseline("ucb").decide(Histories(FULL, 2), streams(2))
    with pytest.raises(ConfigError, match="full feedback; this problem gives bandit"):
        make_baseline("hedge").decide(Histories(BANDIT, 2), streams(2))
    with pytest.raises(ConfigError, match="shows none"):
        make_baseline("linucb").decide(Histories(BANDIT, 2), streams(2))
    with pytest.raises(ConfigError, match="finite range"):
        make_baseline("thompson").decide(Histories(Rules("bandit", 5, 2, UNBOUNDED), 2), streams(2))


def test_tuning_takes_the_lowest_regret_of_the_grid() -> None:
    # the alternating rewards of Shalev-Shwartz (2012), example 2.2, break the leader (noise 0)
    rewards = np.zeros((2, 40, 2))
    rewards[:, 0] = [0.5, 0]
    rewards[:, 1::2, 1] = 1
    rewards[:, 2::2, 0] = 1
    table, rules = RewardTable(rewards, rewards), Rules("full", 40, 2)
    assert tune("ftpl", [(Game(rules), table, "static")], seed=0) != "ftpl(noise_std=0)"
    spec = tune("tuned:ucb", [(Game(Rules("bandit", 50, 5)), bernoulli_table(100, 50, 5), "pseudo")], seed=1)
    assert spec in GRIDS["ucb"]
    assert tune("thompson", [], seed=0) == "thompson"
    with pytest.raises(UnknownNameError):
        tune("ucbb", [], seed=0)
    with pytest.raises(ConfigError, match="at least one"):
        tune("ucb", [], seed=0)


def test_a_grid_is_widened_where_its_border_is_chosen() -> None:
    # what is wanted is the highest learning rate: follow the leader
    rewards = np.zeros((3, 30, 2))
    rewards[:, :, 0] = 0.1
    said: list[str] = []
    spec = tune(
        "hedge", [(Game(Rules("full", 30, 2)), RewardTable(rewards, rewards), "static")], 0, said.append
    )
    assert spec == "hedge(learning_rate=64)"
    assert said[0].startswith(
        "hedge(learning_rate=8) lies on the border of its grid; tried beyond: hedge(lea"
    )
    assert "still" in said[-1]
    assert len(said) == 4


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ("bayes-ucb(quantile=0.7)", ["bayes-ucb(quantile=0.65)"]),
        ("bayes-ucb(quantile=0.99)", ["bayes-ucb(quantile=0.995)"]),
        ("bayes-ucb(quantile=None)", []),
        ("ftpl(noise_std=0)", []),
        ("ucb(coefficient=0.3)", []),
        (
            "sliding-window-ucb(window=50, coefficient=0.1)",
            [
                "sliding-window-ucb(window=83, coefficient=0.1)",
                "sliding-window-ucb(window=50, coefficient=0.05)",
            ],
        ),
        ("fixed-share(learning_rate=1, share=0.1)", ["fixed-share(learning_rate=1, share=0.2)"]),
    ],
)
def test_what_lies_beyond_a_grid(chosen: str, expected: list[str]) -> None:
    assert list(beyond(chosen, GRIDS[chosen.partition("(")[0]])) == expected


def test_grids_of_unbounded_rewards_are_in_units_of_their_noise() -> None:
    means = np.zeros((50, 40, 3))
    table = RewardTable(means + np.random.default_rng(0).normal(0, 3, means.shape), means)
    wide, unit = Rules("bandit", 40, 3, UNBOUNDED), Rules("bandit", 40, 3)
    assert noise_std([(Game(wide), table, "pseudo")]) == 3
    no_means = RewardTable(table.rewards, table.rewards)
    assert noise_std([(Game(wide), no_means, "static")]) == pytest.approx(3, abs=0.1)
    assert noise_std([(Game(unit), bernoulli_table(5, 40, 3), "pseudo")]) == 1
    assert grid_of("ucb", 3)[:2] == ("ucb(coefficient=0.3)", "ucb(coefficient=0.6)")
    assert "gaussian-thompson(prior_mean=0, prior_std=3, noise_std=1.5)" in grid_of("gaussian-thompson", 3)
    assert all(make_baseline(spec) for name in GRIDS for spec in grid_of(name, 2.7))
