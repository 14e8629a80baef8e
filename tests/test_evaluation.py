"""The evaluation table: same problems, same luck, honest JSON."""

import io
import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
from rich.console import Console

from rmft import rollout as rollout_module
from rmft import statistics
from rmft.errors import ConfigError, UnknownNameError
from rmft.evaluation.evaluate import evaluate, evaluate_seeds
from rmft.evaluation.measures import MEASURES
from rmft.problems.environment import Game
from rmft.regret import RegretKind
from rmft.results import FORMAT, Evaluation, show
from rmft.rollout import rows_of_arrays
from rmft.statistics import Interval
from rmft.streams import Streams
from rmft.types import Decisions, Histories, IntArray, RewardTable, Rules, Words


@dataclass(frozen=True)
class Setting:
    name: str
    rules: Rules
    regret_kind: RegretKind
    environment: str | None = None
    opponent: str | None = None
    adapts: bool = False

    @property
    def game(self) -> Game:
        return Game(self.rules)


@dataclass(frozen=True)
class Batch:
    setting: Setting
    indices: IntArray
    table: RewardTable

    @property
    def words(self) -> Words:
        return Words("train", self.indices)


class Fixed:
    """Plays the same arm in every round."""

    name = "fixed"
    max_concurrency = 1

    def __init__(self, arm: int) -> None:
        self.arm = arm

    def rows_at_once(self, rules: Rules) -> int:
        return rows_of_arrays(rules)

    def decide(self, histories: Histories, streams: Streams) -> Decisions:  # noqa: ARG002
        return Decisions(arms=np.full(len(histories), self.arm))


class Uniform:
    name = "uniform"
    max_concurrency = 1

    def rows_at_once(self, rules: Rules) -> int:
        return rows_of_arrays(rules)

    def decide(self, histories: Histories, streams: Streams) -> Decisions:
        num_arms = histories.rules.num_arms
        probabilities = np.full((len(histories), num_arms), 1 / num_arms)
        return Decisions(streams.choose(probabilities), probabilities)


class Spread:
    """Plays the even distribution itself."""

    name = "spread"
    max_concurrency = 1

    def rows_at_once(self, rules: Rules) -> int:
        return rows_of_arrays(rules)

    def decide(self, histories: Histories, streams: Streams) -> Decisions:  # noqa: ARG002
        num_arms = histories.rules.num_arms
        return Decisions(probabilities=np.full((len(histories), num_arms), 1 / num_arms))


class Oracle:
    """Plays the best arm, read from the table of exactly the rows that it plays."""

    name = "oracle"
    max_concurrency = 1

    def __init__(self, table: RewardTable) -> None:
        self.best = table.expected_rewards.argmax(axis=-1)

    def rows_at_once(self, rules: Rules) -> int:
        return rows_of_arrays(rules)

    def decide(self, histories: Histories, streams: Streams) -> Decisions:  # noqa: ARG002
        return Decisions(arms=self.best[:, histories.num_rounds])


POLICIES = {"uniform": lambda _: Uniform(), "oracle": Oracle, "first": lambda _: Fixed(0)}


def bandits(num_problems: int = 40, horizon: int = 10, num_arms: int = 3, name: str = "mab") -> Batch:
    generator = np.random.default_rng(horizon)
    means = generator.random((num_problems, 1, num_arms)).repeat(horizon, axis=1)
    table = RewardTable((generator.random(means.shape) < means).astype(float), means)
    return Batch(Setting(name, Rules("bandit", horizon, num_arms), "pseudo"), np.arange(num_problems), table)


def full_information(num_problems: int = 12, horizon: int = 6) -> Batch:
    rewards = np.random.default_rng(0).standard_normal((num_problems, horizon, 2))
    rules = Rules("full", horizon, 2, (-np.inf, np.inf))
    return Batch(Setting("fol", rules, "static"), np.arange(num_problems), RewardTable(rewards, 0 * rewards))


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    return evaluate(POLICIES, [bandits()], 3, seed=1, suite="mab/test", part="held_out")


# --- what is measured ------------------------------------------------------------------------------


def test_two_problems_by_hand():
    # means .9, .5 and .2, .8 over T = 4: arm 0 costs 0 and 4 * .6 = 2.4; mean 1.2
    means = np.array([[[0.9, 0.5]] * 4, [[0.2, 0.8]] * 4])
    batch = Batch(Setting("two", Rules("bandit", 4, 2), "pseudo"), np.arange(2), RewardTable(means, means))
    policies = {"zero": lambda _: Fixed(0), "one": lambda _: Fixed(1)}
    found = evaluate(policies, [batch], 2, seed=0).settings["two"].policies["zero"]
    assert found.measures["regret"].mean == pytest.approx(1.2)
    assert found.measures["suff_fail_freq"].mean == pytest.approx(1 / 2)
    assert found.measures["k_min_frac"].mean == 0
    assert found.measures["greedy_frac"].mean == 1
    assert found.measures["best_arm_freq"].mean == pytest.approx(1 / 2)
    assert found.measures["coverage"].mean == pytest.approx(1 / 2)
    assert found.measures["entropy"] == Interval(mean=None, low=None, high=None)
    # arm 1 costs 4 * .4 = 1.6 and 0, mean .8: difference .4, ratio 1.5
    assert found.paired_difference["one"]["regret"].mean == pytest.approx(0.4)
    assert found.relative_regret["one"].mean == pytest.approx(1.5)
    assert found.regret_curve.mean == pytest.approx([0.3, 0.6, 0.9, 1.2])
    assert found.trend_check.s == 0
    assert found.regression_check.b0 == pytest.approx(1)
    assert found.best_arm_pulls.counts == [2, 0, 0, 0, 2]  # two rollouts of each problem: 4 pulls, or none


def test_uniform_plays_own_exponent_is_beside() -> None:
    # pseudo-regret of uniform play is exactly linear; static regret is not where noise is all there is
    found = evaluate({"spread": lambda _: Spread()}, [full_information(200, 20)], 1, seed=0).settings["fol"]
    own = found.policies["spread"].regression_check
    assert found.uniform_check.b0 == pytest.approx(own.b0)
    assert found.uniform_check.b0_below_1.p_value == own.b0_below_1.p_value < 0.05
    linear = evaluate({"first": lambda _: Fixed(0)}, [bandits()], 1, seed=0).settings["mab"].uniform_check
    assert (linear.b0, linear.b0_below_1.p_value) == (pytest.approx(1), 1)


def test_the_oracle_has_no_regret_whatever_the_chunks(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rollout_module, "MAX_ROWS", 7)
    found = evaluate(POLICIES, [bandits()], 3, seed=1).overall["oracle"]
    assert found.measures["regret"].mean == pytest.approx(0)
    assert found.measures["best_arm_freq"].mean == 1
    assert found.relative_regret["uniform"].mean == pytest.approx(0)


def test_chunks_change_nothing(evaluation: Evaluation, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rollout_module, "MAX_CELLS", 10 * 3 * 7)
    again = evaluate(POLICIES, [bandits()], 3, seed=1, suite="mab/test", part="held_out")
    assert again == evaluation


def test_policies_share_their_luck(evaluation: Evaluation):
    policies = {"a": lambda _: Uniform(), "b": lambda _: Uniform()}
    found = evaluate(policies, [bandits()], 3, seed=1).overall["a"]
    assert found.paired_difference["b"]["regret"] == Interval(mean=0, low=0, high=0)
    assert found.measures == evaluation.overall["uniform"].measures  # whoever else plays


def test_rollouts_and_problems_have_luck_of_their_own():
    means = np.tile([0.6, 0.4], (30, 8, 1))  # the same problem 30 times
    batch = Batch(Setting("same", Rules("bandit", 8, 2), "pseudo"), np.arange(30), RewardTable(means, means))
    for one, rollouts in (
        (batch, 1),
        (replace(batch, indices=np.arange(1), table=batch.table.rows(slice(1))), 30),
    ):
        found = evaluate({"uniform": lambda _: Uniform()}, [one], rollouts, seed=0)
        counts = found.settings["same"].policies["uniform"].best_arm_pulls.counts
        assert sum(counts) == 30
        assert np.count_nonzero(counts) > 2


def test_luck_belongs_to_the_problem_not_to_its_place():
    batch = bandits(10)
    policies = {"uniform": lambda _: Uniform()}
    last = replace(batch, indices=batch.indices[5:], table=batch.table.rows(slice(5, None)))
    first = replace(batch, indices=batch.indices[:5], table=batch.table.rows(slice(5)))
    means = [
        evaluate(policies, [part], 2, seed=3).overall["uniform"].measures for part in (batch, first, last)
    ]
    assert means[0]["regret"].mean == pytest.approx((means[1]["regret"].mean + means[2]["regret"].mean) / 2)


def test_settings_have_luck_of_their_own():
    one, other = bandits(), bandits()
    other = replace(other, setting=replace(other.setting, name="other"))
    found = evaluate({"uniform": lambda _: Uniform()}, [one, other], 1, seed=0).settings
    means = {found[name].policies["uniform"].measures["regret"].mean for name in ("mab", "other")}
    assert len(means) == 2


def test_seeds_matter():
    policies = {"uniform": lambda _: Uniform()}
    one, other = (evaluate(policies, [bandits()], 1, seed).overall["uniform"].measures for seed in (0, 1))
    assert one["regret"].mean != other["regret"].mean


def test_intervals_agree_with_the_statistics_room():
    # T = 1 and a fixed arm: a problem's regret is its gap to arm 0
    batch = bandits(60, horizon=1)
    gaps = [(row.max(axis=-1) - row[:, arm])[0] for arm in (0, 1) for row in batch.table.expected_rewards]
    zero, one = np.array(gaps[:60]), np.array(gaps[60:])
    policies = {"zero": lambda _: Fixed(0), "one": lambda _: Fixed(1)}
    found = evaluate(policies, [batch], 1, seed=5).overall["zero"]
    pairs = [
        (found.measures["regret"], statistics.interval(zero, 5)),
        (found.paired_difference["one"]["regret"], statistics.paired_difference(zero, one, 5)),
        (found.relative_regret["one"], statistics.relative_regret(zero, one, 5)),
    ]
    for ours, theirs in pairs:
        assert list(ours.model_dump().values()) == pytest.approx(list(theirs.model_dump().values()))


def test_full_information_with_distributions():
    found = (
        evaluate({"spread": lambda _: Spread()}, [full_information()], 1, seed=0).overall["spread"].measures
    )
    assert found["k_min_frac"].mean == pytest.approx(1)
    assert found["best_arm_freq"].mean == 1  # all arms are expected the same: none is best, none was missed
    assert found["entropy"].mean == pytest.approx(np.log(2))


def test_several_settings_are_pooled():
    policies = {"uniform": lambda _: Uniform(), "first": lambda _: Fixed(0)}
    batches = [bandits(30), full_information(10)]
    found = evaluate(policies, batches, 2, seed=0)
    assert found.num_problems == 40
    own = [found.settings[name].policies["uniform"].measures["regret"].mean for name in ("mab", "fol")]
    assert found.overall["uniform"].measures["regret"].mean == pytest.approx((30 * own[0] + 10 * own[1]) / 40)
    assert set(found.overall["first"].paired_difference) == {"uniform"}


def test_settings_are_no_luck():
    # T = 1 and a fixed arm whose gap is the same in all problems of a setting
    def one(name: str, gap: float) -> Batch:
        means = np.tile([0.5, 0.5 + gap], (10, 1, 1))
        return Batch(Setting(name, Rules("bandit", 1, 2), "pseudo"), np.arange(10), RewardTable(means, means))

    found = evaluate({"zero": lambda _: Fixed(0)}, [one("easy", 0.1), one("hard", 0.5)], 1, seed=0)
    regret = found.overall["zero"].measures["regret"]
    assert (regret.mean, regret.low, regret.high) == pytest.approx((0.3, 0.3, 0.3))


def test_shares_are_as_sure_as_their_problems_are_many():
    found = evaluate({"oracle": Oracle}, [bandits(50)], 1, seed=0).overall["oracle"].measures
    assert (found["suff_fail_freq"].mean, found["suff_fail_freq"].low) == (0, 0)
    assert found["suff_fail_freq"].high == pytest.approx(1 - 0.025 ** (1 / 50))
    assert found["regret"].high == pytest.approx(0), "which is no share"


def test_the_way_to_the_optimum_by_hand():
    # two problems as above: start 0 and 2.4, best 1.6 and 0; optimal play would have 0.4 on average
    means = np.array([[[0.9, 0.5]] * 4, [[0.2, 0.8]] * 4])
    short = Batch(Setting("two", Rules("bandit", 4, 2), "pseudo"), np.arange(2), RewardTable(means, means))
    more = np.repeat(means, 2, axis=0)[:, :2]
    long = Batch(Setting("four", Rules("bandit", 2, 2), "pseudo"), np.arange(4), RewardTable(more, more))
    policies = {"start": lambda _: Fixed(0), "best": lambda _: Fixed(1)}
    found = evaluate(policies, [short, long], 1, seed=0, optima={"two": 0.4, "four": 0.1})
    share = found.settings["two"].policies["best"].share_to_optimum
    assert share is not None
    assert share.mean == pytest.approx((1.2 - 0.8) / (1.2 - 0.4))
    # of "four" start and best have 0.6 and 0.4, so over all six problems 0.8 and 1.6 / 3
    overall = found.overall["best"].share_to_optimum
    assert overall is not None
    assert overall.mean == pytest.approx((0.8 - 1.6 / 3) / (0.8 - 0.2))
    assert (found.settings["two"].optimum, found.optimum) == (0.4, pytest.approx(0.2))
    assert found.overall["start"].share_to_optimum is None
    assert Evaluation.from_json(found.to_json()) == found
    row = next(row for row in found.rows() if (row["setting"], row["policy"]) == ("overall", "best"))
    assert row["share to optimum"].startswith("0.44")
    partly = evaluate(policies, [short, long], 1, seed=0, optima={"two": 0.4})
    assert partly.optimum is None
    assert partly.overall["best"].share_to_optimum is None
    assert partly.settings["two"] == found.settings["two"]
    # two seeds that do the same say what one does
    by_seed = {seed: {"start": lambda _: Fixed(0), "best": lambda _: Fixed(1)} for seed in range(2)}
    seeds, own = evaluate_seeds(by_seed, {}, [short], 1, seed=0, optima={"two": 0.4})
    assert seeds.overall["best"].share_to_optimum == own[0].overall["best"].share_to_optimum == share


def test_seeds_by_hand():
    # two problems, means .9, .5 and .2, .8 over T = 4: arm 0 costs 0 and 2.4, arm 1 costs 1.6 and 0
    means = np.array([[[0.9, 0.5]] * 4, [[0.2, 0.8]] * 4])
    batch = Batch(Setting("two", Rules("bandit", 4, 2), "pseudo"), np.arange(2), RewardTable(means, means))
    zero, one = (lambda _: Fixed(0)), (lambda _: Fixed(1))
    found, own = evaluate_seeds(
        {3: {"best": zero}, 5: {"best": one}, 8: {"best": one}}, {"zero": zero}, [batch], 2, seed=0
    )
    best = found.overall["best"]
    assert best.measures["regret"].mean == pytest.approx((1.2 + 0.8 + 0.8) / 3)
    assert [(each.seed, each.regret.mean) for each in best.seeds or ()] == [
        (3, pytest.approx(1.2)), (5, pytest.approx(0.8)), (8, pytest.approx(0.8)),
    ]  # fmt: skip
    assert best.paired_difference["zero"]["regret"].mean == pytest.approx((0 - 0.4 - 0.4) / 3)
    assert best.relative_regret["zero"].mean == pytest.approx((1.2 + 0.8 + 0.8) / 3 / 1.2)
    result = found.settings["two"].policies["best"]
    assert result.problem_regrets == pytest.approx([3.2 / 3, 0.8], abs=1e-4)
    assert result.best_arm_pulls.counts == [6, 0, 0, 0, 6]
    assert result.regret_curve.mean[-1] == pytest.approx(2.8 / 3)
    assert found.overall["zero"].seeds is None
    assert own[3] == evaluate({"best": zero, "zero": zero}, [batch], 2, seed=0)
    assert own[8] == evaluate({"best": one, "zero": zero}, [batch], 2, seed=0)
    assert Evaluation.from_json(found.to_json()) == found
    assert "regret by seed" in found.rows()[0]


def test_one_seed_is_that_seeds_evaluation():
    found, own = evaluate_seeds(
        {4: {"best": lambda _: Uniform()}}, {"oracle": Oracle}, [bandits()], 1, seed=0
    )
    assert found.overall["best"].measures == own[4].overall["best"].measures
    assert [each.seed for each in found.overall["best"].seeds or ()] == [4]
    assert found.overall["oracle"].seeds is None


@pytest.mark.parametrize("by_seed", [{}, {0: {"best": Oracle}, 1: {"start": Oracle}}])
def test_seeds_need_the_same_policies(by_seed):
    with pytest.raises(ConfigError, match="same names"):
        evaluate_seeds(by_seed, {}, [bandits()], 1, seed=0)


def test_one_setting_is_the_overall(evaluation: Evaluation):
    for name, overall in evaluation.overall.items():
        own = evaluation.settings["mab"].policies[name]
        assert overall.measures == own.measures
        assert overall.paired_difference == own.paired_difference


def test_one_round_and_one_problem():
    found = evaluate(POLICIES, [bandits(1, horizon=1)], 1, seed=0)
    result = found.settings["mab"].policies["uniform"]
    assert result.regression_check.b0 is None
    assert result.measures["greedy_frac"].mean is None
    assert result.measures["regret"].low is None
    assert Evaluation.from_json(found.to_json()) == found


def test_progress_names_every_setting_and_policy():
    said: list[str] = []
    evaluate(POLICIES, [bandits(2)], 1, 0, said.append)
    assert said == ["mab: uniform (1 of 3)", "mab: oracle (2 of 3)", "mab: first (3 of 3)"]


@pytest.mark.parametrize(
    ("policies", "batches", "num_rollouts"),
    [
        ({}, [bandits(2)], 1),
        (POLICIES, [], 1),
        (POLICIES, [bandits(0)], 1),
        (POLICIES, [bandits(2)], 0),
        (POLICIES, [bandits(2), bandits(2)], 1),
        ({"bad\x1bname": lambda _: Uniform()}, [bandits(2)], 1),
    ],
)
def test_nothing_sensible_to_play_is_an_error(policies, batches, num_rollouts):
    with pytest.raises(ConfigError, match="found"):
        evaluate(policies, batches, num_rollouts, seed=0)


# --- JSON ------------------------------------------------------------------------------------------


def test_json_holds_what_the_document_says(evaluation: Evaluation):
    found = json.loads(evaluation.to_json(), parse_constant=pytest.fail)
    assert found["format"] == FORMAT == "rmft-evaluation/1"
    assert set(found) == {
        "format", "suite", "part", "num_problems", "num_rollouts", "seed", "confidence", "versions",
        "fingerprint", "settings", "overall", "optimum", "rivals",
    }  # fmt: skip
    setting = found["settings"]["mab"]
    assert set(setting) == {
        "feedback",
        "horizon",
        "num_arms",
        "regret",
        "num_problems",
        "optimum",
        "policies",
        "uniform_check",
    }
    policy = setting["policies"]["uniform"]
    assert set(policy) == {
        "measures", "paired_difference", "relative_regret", "trend_check", "regression_check", "regret_curve",
        "best_arm_pulls", "problem_regrets",
    }  # fmt: skip
    assert tuple(policy["measures"]) == tuple(policy["paired_difference"]["oracle"]) == MEASURES
    assert set(policy["measures"]["regret"]) == {"mean", "low", "high"}
    assert set(policy["regression_check"]) == {"b0", "p_reg", "floored", "b0_below_1", "b0_late"}
    assert set(setting["uniform_check"]) == set(policy["regression_check"])
    assert len(policy["regret_curve"]["low"]) == setting["horizon"]
    assert policy["relative_regret"]["oracle"] == {"mean": None, "low": None, "high": None}
    assert set(found["overall"]["uniform"]) == {"measures", "paired_difference", "relative_regret"}


def test_json_round_trip(evaluation: Evaluation):
    assert Evaluation.from_json(evaluation.to_json()) == evaluation
    assert Evaluation.from_json(evaluation.to_json().encode()).to_json() == evaluation.to_json()


def test_an_older_file_without_regrets_by_problem_is_read(evaluation: Evaluation):
    found = json.loads(evaluation.to_json())
    del found["fingerprint"]
    for policy in found["settings"]["mab"]["policies"].values():
        del policy["problem_regrets"]
    older = Evaluation.from_json(json.dumps(found))
    assert older.fingerprint is None
    assert older.overall == evaluation.overall


def test_lists_of_numbers_take_a_line_each(evaluation: Evaluation):
    lines = evaluation.to_json().splitlines()
    assert sum('"problem_regrets": [' in line and line.endswith("]") for line in lines) == 3
    renamed = evaluation.model_copy(update={"suite": "[ 1, 2 ]", "part": '["a\\"]'})
    assert Evaluation.from_json(renamed.to_json()) == renamed


def test_unknown_keys_are_left_out(evaluation: Evaluation):
    found = json.loads(evaluation.to_json())
    found["from_a_later_version"] = 1
    assert Evaluation.from_json(json.dumps(found)) == evaluation


def _damage(found: dict, path: str, value: object) -> dict:
    *parents, last = path.split("/")
    node = found
    for key in parents:
        node = node[key]
    node[last] = value
    return found


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("format", "rmft-evaluation/2"),
        ("num_problems", 0),
        ("settings", {}),
        ("settings/mab/regret", "clipped"),
        ("settings/mab/horizon", 11),
        ("settings/mab/policies/uniform/measures/regret/mean", float("nan")),
        ("settings/mab/policies/uniform/measures/regret/mean", "low"),
        ("settings/mab/policies/uniform/regret_curve/mean", [float("inf")] * 10),
        ("settings/mab/policies/uniform/best_arm_pulls/edges", [0.0]),
        ("suite", "\x1b[31mred"),
        ("part", "held\u202eout"),
        ("overall", {}),
        ("overall/uniform/measures", {}),
        ("overall/uniform/paired_difference", {}),
        ("settings/mab/policies/uniform/paired_difference/oracle", {}),
    ],
)
def test_a_damaged_file_gives_one_clear_error(evaluation: Evaluation, path: str, value: object):
    text = json.dumps(_damage(json.loads(evaluation.to_json()), path, value))
    with pytest.raises(ConfigError, match="no evaluation of the format") as caught:
        Evaluation.from_json(text)
    message = str(caught.value)
    assert len(message) < 600
    assert "\n" not in message
    assert message.isprintable()
    assert "settings.mab" in message or path.split("/")[0] in message or "the whole" in message


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", b"\xff\xfe", "[" * 100_000])
def test_what_is_no_evaluation_at_all_gives_one_clear_error(text: str | bytes):
    with pytest.raises(ConfigError, match="no evaluation of the format") as caught:
        Evaluation.from_json(text)
    assert str(caught.value).isprintable()


def test_hostile_keys_are_not_printed_raw(evaluation: Evaluation):
    found = json.loads(evaluation.to_json())
    found["settings"]["\x1b[2J" + "x" * 1000] = {}
    with pytest.raises(ConfigError) as caught:
        Evaluation.from_json(json.dumps(found))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600


# --- the table -------------------------------------------------------------------------------------


def test_rows(evaluation: Evaluation):
    rows = evaluation.rows(against=["uniform"])
    assert [row["policy"] for row in rows] == ["uniform", "oracle", "first"]
    assert list(rows[0]) == [
        "setting",
        "policy",
        "regret",
        "minus uniform",
        "SuffFailFreq",
        "K·MinFrac",
        "GreedyFrac",
        "switching",
        "b0",
        "from T/4",
    ]
    assert rows[0]["minus uniform"] == "-"
    ranked = evaluation.model_copy(update={"rivals": ["first", "uniform"]}).rows()
    assert [row["policy"] for row in ranked] == ["oracle", "first", "uniform"]
    assert rows[1]["regret"] == "0.00 [0.00, 0.00]"
    assert rows[1]["minus uniform"] == show(
        evaluation.overall["oracle"].paired_difference["uniform"]["regret"], "+"
    )


def test_show():
    assert show(Interval(mean=3.625, low=-0.001, high=4)) == "3.62 [0.00, 4.00]"
    assert show(Interval(mean=0.5, low=-1, high=2), "+") == "+0.50 [-1.00, +2.00]"
    assert show(Interval(mean=0.5, low=None, high=None)) == "0.50"
    assert show(Interval(mean=None, low=None, high=None)) == "-"


def test_an_opponent_nobody_played_is_named(evaluation: Evaluation):
    with pytest.raises(UnknownNameError, match="Did you mean 'uniform'"):
        evaluation.rows(against=["unifrom"])


def test_table_prints_names_as_they_are():
    policies = {"[bold]x[/bold]": lambda _: Uniform(), "first": lambda _: Fixed(0)}
    found = evaluate(
        policies, [bandits(5), full_information(5)], 1, seed=0, suite="[red]suite[/red]", part="held_out"
    )
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(found.table(against=["first", "[bold]x[/bold]"]))
    text = console.export_text()
    for expected in ("[bold]x[/bold]", "[red]suite[/red]", "overall", "mab", "fol", "minus [bold]x[/bold]"):
        assert expected in text
