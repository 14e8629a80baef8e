"""Reward processes: one conformance test over all of them, and the arithmetic of each."""

from __future__ import annotations

import builtins
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.stats import truncnorm

from rmft.errors import ConfigError, MissingExtraError, RmftError
from rmft.problems import kinds
from rmft.problems.kinds import KINDS
from rmft.problems.noise import truncated_gaussian
from rmft.problems.process import RewardProcess, StatesPrior
from rmft.streams import generator
from rmft.types import RewardTable

EXAMPLES = Path(__file__).parents[1] / "examples"
T, K = 12, 3
TEN = {"low": 0, "high": 10}
LOG = np.random.default_rng(0).normal(size=(30, K)).tolist()

PROCESSES = {
    "bernoulli": {"kind": "bernoulli"},
    "bernoulli-gap": {"kind": "bernoulli", "gap": 0.2},
    "bernoulli-given": {"kind": "bernoulli", "means": [0.1, 0.5, 1]},
    "bernoulli-beta": {"kind": "bernoulli", "beta": [1, 3]},
    "listed_means": {"kind": "listed_means", "means": [0.9, 0.5, 0], "shares": [0.2, 0.6, 0.2]},
    "gaussian": {"kind": "gaussian", "mean_std": 0.5},
    "gaussian-gap": {"kind": "gaussian", "gap": 1, "mean": 2},
    "gaussian-given": {"kind": "gaussian", "means": [0, 1, 2]},
    "gaussian-truncated": {"kind": "gaussian", "mean": 5, "mean_std": 4, "noise_std": 3} | TEN,
    "gaussian-half": {"kind": "gaussian", "low": 0},
    "uniform": {"kind": "uniform"} | TEN,
    "linear_trend": {"kind": "linear_trend"},
    "linear_trend-ten": {"kind": "linear_trend", "noise": "truncated-gaussian"} | TEN,
    "sine_trend": {"kind": "sine_trend"},
    "sine_trend-fast": {"kind": "sine_trend", "cycles": [1, 9], "noise": "none", "amplitude": 0.3},
    "abrupt_switches": {"kind": "abrupt_switches", "rate_per_horizon": 2},
    "abrupt_switches-number": {"kind": "abrupt_switches", "num_switches": 3, "noise": "gaussian"},
    "abrupt_switches-normal": {
        "kind": "abrupt_switches",
        "rate_per_horizon": 2,
        "noise": "gaussian",
        "mean_std": 0.5,
    },
    "drift": {"kind": "drift", "budget": 2},
    "drift-ten": {"kind": "drift", "budget": 300, "noise": "truncated-gaussian", "noise_std": 2} | TEN,
    "alternating": {"kind": "alternating"},
    "linear": {"kind": "linear", "num_numbers": 4},
    "linear-of-arms": {"kind": "linear", "shows": "features", "noise_std": 0.1},
    "logistic": {"kind": "logistic", "bias": -1},
    "logged": {"kind": "logged", "rewards": LOG},
    "logged-still": {
        "kind": "logged",
        "rewards": [[0, 1, 1]] * T,
        "expected_rewards": [[0.1, 0.8, 0.9]] * T,
    },
    "own": {"kind": "my_process:MyProcess", "gap": 0.4},
}
every_process = pytest.mark.parametrize("config", PROCESSES.values(), ids=PROCESSES.keys())
STEADY_REWARDS = ("logged", "alternating")  # drawn once per order of the arms or window, without noise


def resolve_process(config: dict[str, object], folder: str = str(EXAMPLES)) -> RewardProcess:
    """A process; a user's own is that of the examples."""
    return kinds.resolve_process(config, folder, trust=True)


def draw_many(process: RewardProcess, count: int, horizon: int = T) -> RewardTable:
    return RewardTable.stack([process.draw(generator(7, i), horizon, K) for i in range(count)])


def test_every_kind_is_tested() -> None:
    single = {*KINDS} - {"matrix_game"}  # which is played by two, and tested in test_games
    assert {config["kind"] for config in PROCESSES.values()} == {*single, "my_process:MyProcess"}


@every_process
def test_conforms(config: dict[str, object]) -> None:
    process = resolve_process(config)
    assert isinstance(process, RewardProcess)
    for horizon in (1, 2, T):
        if config.get("num_switches") and horizon < T:
            continue
        table = draw_many(process, 50, horizon)
        low, high = process.reward_range
        assert table.rewards.shape == (50, horizon, K)
        assert low < high
        assert table.rewards.min() >= low
        assert table.rewards.max() <= high
        assert table.expected_rewards.min() >= low
        assert table.expected_rewards.max() <= high
        assert (table.variation <= process.variation_budget(horizon, K) + 1e-9).all()


@every_process
def test_same_seed_same_table_and_another_seed_another(config: dict[str, object]) -> None:
    process = resolve_process(config)
    first, again = (process.draw(generator(1, 2), T, K) for _ in range(2))
    assert np.array_equal(first.rewards, again.rewards)
    assert np.array_equal(first.expected_rewards, again.expected_rewards)
    others = [process.draw(generator(1, i), T, K) for i in range(3, 9)]
    assert any(not np.array_equal(first.rewards, other.rewards) for other in others)


@every_process
def test_rewards_have_their_expectation(config: dict[str, object]) -> None:
    """The mean of rewards - expected_rewards over n draws is 0 within 5 of its standard errors."""
    process = resolve_process(config)
    if config["kind"] == "logged":
        return  # a log's expectations are what its owner says
    table = draw_many(process, 600)
    gap = table.rewards - table.expected_rewards
    error = gap.std(axis=0) / math.sqrt(len(gap))
    assert (np.abs(gap.mean(axis=0)) <= 5 * error + 1e-12).all()


@every_process
def test_arms_are_exchangeable(config: dict[str, object]) -> None:
    """No arm is better by its place, unless the user gave the means: arm averages over problems agree."""
    if "means" in config and config["kind"] != "listed_means":
        return
    means = draw_many(resolve_process(config), 600).expected_rewards.mean(axis=1)
    gap = means - means.mean(axis=1, keepdims=True)
    assert (np.abs(gap.mean(axis=0)) <= 5 * gap.std(axis=0) / math.sqrt(len(gap)) + 1e-12).all()


@every_process
def test_a_config_survives_the_way_to_disk_and_back(config: dict[str, object]) -> None:
    process = resolve_process(config)
    again = resolve_process(process.model_dump(mode="json"))  # type: ignore[attr-defined]
    assert again == process
    assert again != resolve_process({"kind": "uniform", "low": -9})
    table, other = (each.draw(generator(5), T, K) for each in (process, again))
    assert np.array_equal(table.rewards, other.rewards)


@every_process
def test_a_prior_that_is_stated_is_what_means_are_drawn_from(config: dict[str, object]) -> None:
    """The mean of the largest mean, and that of an arm, over draws, are the prior's within 5 errors."""
    process = resolve_process(config)
    prior = process.prior() if isinstance(process, StatesPrior) else None
    if prior is None:
        return
    means = draw_many(process, 600, 1).expected_rewards[:, 0]
    for drawn, expected in ((means.max(axis=1), prior.best_mean(K)), (means[:, 0], prior.leader_mean(0, K))):
        assert abs(drawn.mean() - expected) <= 5 * drawn.std() / math.sqrt(len(drawn)) + 1e-12


@given(
    noise=st.sampled_from(["bernoulli", "gaussian", "truncated-gaussian", "none"]),
    motion=st.one_of(
        st.builds(lambda b: {"kind": "drift", "budget": b}, st.floats(1e-6, 1e6)),
        st.builds(lambda n: {"kind": "abrupt_switches", "num_switches": n}, st.integers(0, 1)),
        st.builds(lambda r: {"kind": "abrupt_switches", "rate_per_horizon": r}, st.floats(0, 2)),
        st.builds(
            lambda a, b: {"kind": "sine_trend", "cycles": [a, a + b]}, st.floats(0.01, 50), st.floats(0, 50)
        ),
        st.just({"kind": "linear_trend"}),
    ),
    low=st.floats(-1e3, 1e3),
    width=st.floats(0.1, 1e3),
    horizon=st.integers(2, 40),
    num_arms=st.integers(2, 6),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=150, deadline=None)
def test_moving_means_stay_in_range_and_in_budget(
    noise: str,
    motion: dict[str, object],
    low: float,
    width: float,
    horizon: int,
    num_arms: int,
    seed: int,
) -> None:
    process = resolve_process(
        motion | {"noise": noise, "noise_std": width / 4, "low": low, "high": low + width}
    )
    table = process.draw(generator(seed), horizon, num_arms)
    assert table.expected_rewards.min() >= low
    assert table.expected_rewards.max() <= low + width
    assert table.rewards.min() >= process.reward_range[0]
    assert table.rewards.max() <= process.reward_range[1]
    budget = process.variation_budget(horizon, num_arms)
    assert table.variation <= budget * (1 + 1e-9) + 1e-9 * width


@given(
    mean=st.floats(-40, 40),
    std=st.floats(0.1, 20),
    low=st.floats(-10, 10),
    width=st.floats(0.5, 10),
    share=st.floats(0.001, 0.999),
)
@example(mean=-40.0, std=0.1, low=2.0286, width=0.9143, share=0.5)
@settings(max_examples=60, deadline=None)
def test_truncated_gaussian_is_scipys(
    mean: float, std: float, low: float, width: float, share: float
) -> None:
    class Fixed:
        def random(self, shape: tuple[int, ...]) -> np.ndarray:
            return np.full(shape, share)

    table = truncated_gaussian(Fixed(), np.full((1, 2), mean), std, low, low + width)  # type: ignore[arg-type]
    law = truncnorm((low - mean) / std, (low + width - mean) / std, loc=mean, scale=std)
    # The number `share` is read from the top, or from the bottom when all of [low, high] is above mean.
    quantile = law.ppf(share) if low > mean else law.ppf(1 - share)
    assert table.rewards[0, 0] == pytest.approx(quantile, rel=1e-6, abs=1e-6 * width)
    with np.errstate(invalid="ignore"):  # of the skewness, which scipy works out with the mean
        mean_of_law = law.mean()
    assert table.expected_rewards[0, 0] == pytest.approx(mean_of_law, rel=1e-6, abs=1e-6 * width)


def test_gap_puts_the_best_arm_at_random() -> None:
    """K = 3, gap .2: one arm at .5 + .1 = .6, two at .5 - .1 = .4, in every place sooner or later."""
    means = draw_many(resolve_process({"kind": "bernoulli", "gap": 0.2}), 60).expected_rewards[:, 0]
    assert np.allclose(np.sort(means, axis=1), [0.4, 0.4, 0.6])
    assert set(means.argmax(axis=1)) == {0, 1, 2}


def test_alternating_with_two_arms() -> None:
    """(1/2, 0), (0, 1), (1, 0), (0, 1), up to the order of the arms."""
    table = resolve_process({"kind": "alternating"}).draw(generator(0), 4, 2)
    places = np.argsort(-table.rewards[0])
    assert table.rewards[:, places].tolist() == [[0.5, 0], [0, 1], [1, 0], [0, 1]]
    assert np.array_equal(table.rewards, table.expected_rewards)


def test_alternating_with_three_arms() -> None:
    """Sums after each round: 2/3 1/3 0; 2/3 4/3 1; 5/3 4/3 2; 8/3 7/3 2. Leaders: first, second, third,
    first; and the next round's zero falls on each. Follow-the-leader earns 0 from round 2 on."""
    table = resolve_process({"kind": "alternating"}).draw(generator(0), 5, 3)
    rewards = table.rewards[:, np.argsort(-table.rewards[0])]
    expected = [[2 / 3, 1 / 3, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0], [0, 1, 1]]
    assert np.allclose(rewards, expected)
    sums = np.cumsum(rewards, axis=0)
    assert np.allclose(sums[:4] * 3, [[2, 1, 0], [2, 4, 3], [5, 4, 6], [8, 7, 6]])


@pytest.mark.parametrize("num_arms", [2, 3, 5, 9])
def test_alternating_starves_the_leader(num_arms: int) -> None:
    table = resolve_process({"kind": "alternating", "low": -0.5, "high": 0.5}).draw(
        generator(1), 40, num_arms
    )
    leaders = np.cumsum(table.rewards, axis=0)[:-1].argmax(axis=1)
    assert (table.rewards[np.arange(1, 40), leaders] == -0.5).all()
    assert table.variation == pytest.approx(39)  # (horizon - 1) x (high - low), exactly the budget


def test_switches_happen_as_often_as_asked() -> None:
    """num_switches: 3 in every problem. rate_per_horizon: 2 at T = 12: 11 rounds x 2/12 = 1.83 expected."""
    exact = draw_many(resolve_process(PROCESSES["abrupt_switches-number"]), 50).expected_rewards
    assert (np.abs(np.diff(exact, axis=1)).max(axis=2) > 0).sum(axis=1).tolist() == [3] * 50
    rate = draw_many(resolve_process(PROCESSES["abrupt_switches"]), 600).expected_rewards
    count = (np.abs(np.diff(rate, axis=1)).max(axis=2) > 0).sum(axis=1)
    # A sum of 11 independent switches has variance 11 x 1/6 x 5/6 = 1.53;
    # over 600 problems 5 standard errors are 5 x sqrt(1.53 / 600) = 0.25.
    assert count.mean() == pytest.approx(11 / 6, abs=0.25)


def test_with_a_gap_every_switch_makes_another_arm_the_best() -> None:
    """Of 4 arms one has mean 0.9 and three have 0.1, and the one is never the one before."""
    process = resolve_process({"kind": "abrupt_switches", "gap": 0.8, "num_switches": 3})
    means = draw_many(process, 200).expected_rewards
    expected = np.broadcast_to([0.1] * (means.shape[2] - 1) + [0.9], means.shape)
    np.testing.assert_allclose(np.sort(means, axis=2), expected, atol=1e-12)
    best = means.argmax(axis=2)
    assert (np.diff(best, axis=1) != 0).sum(axis=1).tolist() == [3] * 200
    assert len(set(best[:, 0].tolist())) == means.shape[2]


def test_drift_spends_its_budget_when_nothing_reflects() -> None:
    """From 0.5 or so a total of 1e-3 never meets a wall in most problems: V_T is the budget itself."""
    tables = draw_many(resolve_process({"kind": "drift", "budget": 1e-3}), 20)
    assert np.median(tables.variation) == pytest.approx(1e-3, rel=1e-9)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"kind": "bernoulli", "gap": 1.5}, "gap: found 1.5; expected"),
        ({"kind": "bernoulli", "means": [0.2, 1.2]}, "probabilities from 0 to 1"),
        ({"kind": "bernoulli", "means": [0.2, 0.4], "gap": 0.1}, "more than one of means, gap and beta"),
        ({"kind": "bernoulli", "beta": [0, 1]}, "beta.0: found 0; expected: greater than 0"),
        ({"kind": "listed_means", "means": [0.9, 0.5], "shares": [0.5, 0.6]}, "expected 2 that sum to 1"),
        ({"kind": "listed_means", "means": [0.5, 0.5], "shares": [0.5, 0.5]}, "expected different ones"),
        ({"kind": "bernoulli", "mean": "uniform"}, "Unknown key 'mean'. Did you mean 'means'"),
        ({"kind": "gaussian", "noise_std": 0}, "noise_std: found 0"),
        ({"kind": "gaussian", "mean": math.nan}, "mean: found nan"),
        ({"kind": "gaussian", "low": 1, "high": 1}, "expected low < high"),
        ({"kind": "uniform", "low": 2, "high": 1}, "expected low < high"),
        ({"kind": "uniform", "high": math.inf}, "high: found inf"),
        ({"kind": "abrupt_switches"}, "exactly one of num_switches and rate_per_horizon"),
        ({"kind": "abrupt_switches", "num_switches": 1, "gap": 1.5}, "expected a gap of at most 1.0"),
        ({"kind": "abrupt_switches", "num_switches": 1, "mean_std": 1}, "expected noise: gaussian"),
        ({"kind": "drift"}, "budget: this key is missing"),
        ({"kind": "drift", "budget": "much"}, "budget: found 'much'"),
        ({"kind": "sine_trend", "amplitude": 0.6}, "expected at most 0.5"),
        ({"kind": "sine_trend", "cycles": [2, 1]}, "least <= most"),
        ({"low": 0}, "with the key 'kind'"),
        ({"kind": 3}, "with the key 'kind'"),
    ],
)
def test_bad_settings_are_named(config: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        resolve_process(config)
    assert message in str(error.value)
    assert str(error.value).startswith("reward_process: ")


def test_a_log_is_read_alike_from_every_format(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    rows = np.array([[1.0, 2, 4], [4, 5, 7], [7, 8, 10.5]])
    (tmp_path / "plain.csv").write_text("1,2,4\n4,5,7\n7,8,10.5\n")
    (tmp_path / "header.csv").write_bytes(b"\xef\xbb\xbfa,b,c\r\n1,2,4\r\n4,5,7\r\n7,8,10.5\r\n")
    np.save(tmp_path / "log.npy", rows)
    pyarrow.parquet.write_table(pa.table(dict(zip("abc", rows.T, strict=True))), tmp_path / "log.parquet")
    for name in ("plain.csv", "header.csv", "log.npy", "log.parquet"):
        process = resolve_process(
            {"kind": "logged", "rewards": name, "shuffle_arms": False}, folder=str(tmp_path)
        )
        assert np.array_equal(process.draw(generator(0), 3, 3).rewards, rows), name
        assert process.reward_range == (1, 10.5)
        # max(3, 3, 3) + max(3, 3, 3.5): what the rows themselves move.
        assert process.variation_budget(3, 3) == 6.5


def test_a_longer_log_gives_windows_and_several_logs_take_turns(tmp_path: Path) -> None:
    """Log n holds 100 n + row in both arms; windows of 3 of 5 rounds start at row 0, 1 or 2."""
    logs = 100.0 * np.arange(2)[:, None, None] + np.arange(5.0)[:, None] * np.ones(2)
    np.save(tmp_path / "logs.npy", logs)
    process = resolve_process({"kind": "logged", "rewards": str(tmp_path / "logs.npy")})
    tables = [process.draw(generator(0, i), 3, 2).rewards for i in range(60)]
    assert {table[0, 0] for table in tables} == {0, 1, 2, 100, 101, 102}
    assert all(np.array_equal(np.diff(table[:, 0]), [1, 1]) for table in tables)


def test_expected_rewards_move_with_their_rewards() -> None:
    """Arm j is paid j and expected at j / 10, wherever it is shuffled to."""
    config = {"kind": "logged", "rewards": [[0, 1, 2]] * 4, "expected_rewards": [[0, 0.1, 0.2]] * 4}
    process = resolve_process(config)
    tables = [process.draw(generator(0, i), 2, 3) for i in range(20)]
    assert all(np.allclose(table.rewards, table.expected_rewards * 10) for table in tables)
    assert len({tuple(table.rewards[0]) for table in tables}) > 1
    assert process.variation_budget(2, 3) == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,3\n3,nan\n", "line 2, column 2: found 'nan'"),
        ("1,3\n3,inf\n", "line 2, column 2: found 'inf'"),
        ("1,3\n3,x\n", "line 2, column 2: found 'x'"),
        ("1,3\n3,\n", "line 2, column 2: found ''"),
        ("1,2\n3\n", "line 2: found 1 columns; expected 2"),
        ("1\n2\n", "found 2 rounds of 1 arms"),
        ("", "shape"),
        ("a,b\n", "shape"),
    ],
)
def test_bad_csv(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "log.csv").write_text(text)
    with pytest.raises(RmftError, match=message):
        resolve_process({"kind": "logged", "rewards": "log.csv"}, folder=str(tmp_path))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(3), "shape"),
        (np.zeros((2, 2, 2, 2)), "shape"),
        (np.zeros((0, 3)), "shape"),
        (np.array([[0.0, np.nan]]), "found nan in log 0, round 0, arm 1"),
        (np.array([["a", "b"]]), "one array of numbers"),
        (np.array([[1j, 2j]]), "one array of numbers"),
        (np.array([[{}, []]], dtype=object), "could not be read"),
    ],
)
def test_bad_npy(tmp_path: Path, array: np.ndarray, message: str) -> None:
    np.save(tmp_path / "log.npy", array)
    with pytest.raises(RmftError, match=message):
        resolve_process({"kind": "logged", "rewards": str(tmp_path / "log.npy")})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"rewards": "none.csv"}, "could not be read"),
        ({"rewards": "log.txt"}, "expected one that ends in .csv, .tsv, .parquet, .npy"),
        ({"rewards": [[1, 2], [3]]}, "different lengths"),
        ({"rewards": [[1, math.inf]]}, "found inf"),
        ({"rewards": [[1, 2]], "expected_rewards": [[1, 2], [3, 4]]}, "same shape"),
        ({"rewards": [[1, 2]], "high": 1}, "found rewards from 1.0 to 2.0"),
        ({"rewards": 3}, "rewards"),
    ],
)
def test_bad_logs(config: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(RmftError, match=message):
        resolve_process({"kind": "logged"} | config, folder=str(tmp_path))


def test_damaged_files_are_no_traceback(tmp_path: Path) -> None:
    for name in ("log.npy", "log.parquet"):
        (tmp_path / name).write_bytes(b"\x93NUMPY not really")
        with pytest.raises(ConfigError, match="could not be read"):
            resolve_process({"kind": "logged", "rewards": str(tmp_path / name)})


def test_parquet_without_pyarrow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: object) -> object:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *args)  # type: ignore[arg-type]

    (tmp_path / "log.parquet").write_bytes(b"")
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"rmft\[parquet\]"):
        resolve_process({"kind": "logged", "rewards": str(tmp_path / "log.parquet")})
