"""Settings and suites: what they read, what they refuse, and that their parts share no problem."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from rmft.errors import ConfigError, RmftError, ShapeError, UnknownNameError
from rmft.policies.baselines.catalogue import baseline_names
from rmft.problems.environment import TableEnvironment
from rmft.problems.kinds import resolve_process
from rmft.problems.process import RewardProcess
from rmft.problems.setting import Setting
from rmft.problems.suites import PART_ID, PartName, Suite, load_suite, suite_from, suite_names
from rmft.reading import read
from rmft.streams import generator
from rmft.types import Decisions, Environment, RewardTable
from rmft.wiring.suites import seated

EXAMPLES = Path(__file__).parents[1] / "examples"
PARTS: tuple[PartName, ...] = ("train", "validation", "held_out")
SETTING = {
    "name": "one",
    "feedback": "bandit",
    "horizon": 6,
    "num_arms": 3,
    "reward_process": {"kind": "bernoulli"},
}
SUITE = {"name": "mine", "title": "My own", "train": {"settings": [SETTING]}}


def changed(**keys: object) -> dict[str, object]:
    """SUITE with these keys of its one setting changed."""
    return SUITE | {"train": {"settings": [SETTING | keys]}}


def setting_of(folder: Path = EXAMPLES, **keys: object) -> Setting:
    """SETTING with these keys changed, which may name classes in `folder`."""
    return read(Setting, SETTING | keys, "setting", str(folder), trust=True)


def written(folder: Path, data: object) -> Path:
    path = folder / "mine.yaml"
    path.write_text(data if isinstance(data, str) else yaml.safe_dump(data))
    return path


@pytest.mark.parametrize("name", suite_names())
def test_every_named_suite_loads_and_draws(name: str) -> None:
    suite = seated(load_suite(name))
    assert suite.name == name
    assert suite_names()[name] == suite.title
    assert suite.source
    assert suite.baselines
    named = {baseline.removeprefix("tuned:").partition("(")[0] for baseline in suite.baselines}
    assert named <= set(baseline_names())
    problems = {}
    for part in PARTS:
        num_settings = len(suite.settings(part))
        batches = suite.draw(part, 2 * num_settings)
        assert [batch.setting for batch in batches] == list(suite.settings(part))
        for batch in batches:
            rules = batch.setting.rules
            assert batch.table.rewards.shape == (2, rules.horizon, rules.num_arms)
            assert batch.setting.play(batch.table).rules == rules
        # A problem is its table with the words that it is told in: few different tables can be drawn of some.
        problems[part] = {
            (rewards.tobytes(), int(seed))
            for batch in batches
            for rewards, seed in zip(batch.table.rewards, batch.words.seeds, strict=True)
        }
        assert len(problems[part]) == 2 * num_settings
    assert not problems["train"] & problems["validation"]
    assert not problems["train"] & problems["held_out"]
    assert not problems["validation"] & problems["held_out"]


@pytest.mark.parametrize("name", suite_names())
def test_a_suite_survives_the_way_to_disk_and_back(name: str) -> None:
    suite = load_suite(name)
    assert suite_from(json.loads(json.dumps(suite.model_dump(mode="json"))), name) == suite
    assert suite_from(yaml.safe_load(yaml.safe_dump(suite.model_dump(mode="json"))), name) == suite
    assert Suite.model_validate_json(suite.model_dump_json()) == suite


def test_the_families_that_were_asked_for_are_there() -> None:
    names = suite_names()
    for name in ("smoke", "mab/uniform-means", "nsmab/uniform-means", "fol/gaussian-gap", "fol/mixture"):
        assert name in names
    for family in ("krishnamurthy/", "banditbench/", "park/", "paper/"):
        assert any(name.startswith(family) for name in names)


def test_parts_branch_off_where_nothing_else_does() -> None:
    assert len(set(PART_ID.values())) == 3
    assert min(PART_ID.values()) > 10**9


@given(
    few=st.integers(1, 12),
    more=st.integers(0, 12),
    part=st.sampled_from(PARTS),
    seed=st.integers(0, 99),
    iteration=st.integers(0, 99),
)
@hypothesis_settings(max_examples=40, deadline=None)
def test_a_problem_is_the_same_however_many_are_drawn(
    few: int, more: int, part: PartName, seed: int, iteration: int
) -> None:
    suite = load_suite("fol/mixture")
    drawn = {}
    for count in (few, few + more):
        batches = suite.draw(part, count, seed, iteration)
        assert sorted(np.concatenate([batch.indices for batch in batches])) == list(range(count))
        drawn[count] = {
            int(index): (batch.setting.name, rewards.tobytes())
            for batch in batches
            for index, rewards in zip(batch.indices, batch.table.rewards, strict=True)
        }
    assert all(drawn[few + more][index] == problem for index, problem in drawn[few].items())


def test_settings_take_turns() -> None:
    """Seven problems of three settings: 0 3 6, 1 4, 2 5. Two problems leave the third setting out."""
    suite = load_suite("fol/mixture")
    assert [batch.indices.tolist() for batch in suite.draw("train", 7)] == [[0, 3, 6], [1, 4], [2, 5]]
    assert [batch.setting.name for batch in suite.draw("train", 2)] == ["gaussian", "alternating"]


def test_seed_iteration_and_part_each_change_the_problems() -> None:
    suite = load_suite("mab/uniform-means")
    draws = [
        suite.draw(part, 2, seed, iteration)[0].table.expected_rewards.tobytes()
        for part in PARTS
        for seed in (0, 1)
        for iteration in (0, 1)
    ]
    assert len(set(draws)) == 12


def test_the_mixture_tells_no_setting_by_its_rules() -> None:
    told = {setting.rules for setting in load_suite("fol/mixture").train.settings}
    assert len(told) == 1
    assert next(iter(told)).reward_range == (-math.inf, math.inf)


@pytest.mark.parametrize(
    ("keys", "kind"),
    [
        ({"feedback": "full"}, "static"),
        ({"feedback": "bandit"}, "pseudo"),
        ({"reward_process": {"kind": "drift", "budget": 1}}, "dynamic"),
        ({"reward_process": {"kind": "drift", "budget": 1}, "feedback": "full"}, "static"),
        ({"reward_process": {"kind": "abrupt_switches", "num_switches": 0}}, "pseudo"),
        ({"regret": "static"}, "static"),
        ({"feedback": "full", "regret": "dynamic"}, "dynamic"),
    ],
)
def test_which_regret_counts(keys: dict[str, object], kind: str) -> None:
    assert Setting.model_validate(SETTING | keys).regret_kind == kind


def test_parts_without_settings_take_those_of_training(tmp_path: Path) -> None:
    other = SETTING | {"name": "two", "horizon": 9}
    data = SUITE | {"held_out": {"settings": [other], "num_problems": 20}, "validation": {}}
    suite = load_suite(written(tmp_path, data))
    assert (suite.settings("validation"), suite.validation.num_problems) == (suite.settings("train"), 500)
    assert (suite.settings("held_out")[0].horizon, suite.held_out.num_problems) == (9, 20)


def test_files_are_found_beside_the_suite_that_names_them(tmp_path: Path) -> None:
    np.savetxt(tmp_path / "log.csv", np.arange(24.0).reshape(8, 3), delimiter=",")
    data = changed(reward_process={"kind": "logged", "rewards": "log.csv"})
    suite = load_suite(written(tmp_path, data))
    assert suite.draw("train", 1)[0].table.rewards.shape == (1, 6, 3)
    assert Suite.model_validate(suite.model_dump(mode="json")) == suite  # from any other folder


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (changed(horizon=0), "train.settings.0.horizon: found 0; expected"),
        (changed(horizon=10**9), "train.settings.0.horizon: found 1000000000; expected"),
        (changed(horizon=100_000, num_arms=1000), "horizon x num_arms"),
        (changed(num_arms=1), "train.settings.0.num_arms: found 1; expected"),
        (changed(num_arms="many"), "num_arms: found 'many'"),
        (changed(feedback="none"), "feedback: found 'none'; expected"),
        (changed(regret="sad"), "regret: found 'sad'; expected"),
        (changed(horizn=3), "train.settings.0: Unknown key 'horizn'. Did you mean 'horizon'?"),
        (changed(reward_process={"kind": "bernouli"}), "Did you mean 'bernoulli'?"),
        (changed(reward_process={"kind": "bernoulli", "gap": 2}), "reward_process.gap: found 2"),
        (changed(reward_process={"kind": "bernoulli", "means": [0.1, 0.2]}), "expected one per arm, 3"),
        (changed(reward_process="bernoulli"), "reward_process: found 'bernoulli'; expected"),
        (changed(reward_range=[0.5, 2]), "expected it to hold the reward process's own"),
        (changed(reward_range=[math.nan, 2]), "expected it to hold"),
        (changed(environment="no_such_module:It"), "found no file no_such_module.py in"),
        (SUITE | {"train": {"settings": []}}, "train.settings: found settings named []"),
        (SUITE | {"train": {"settings": [SETTING, SETTING]}}, "no name twice"),
        (SUITE | {"train": None}, "train: found None"),
        (SUITE | {"held_out": {"num_problems": 0}}, "held_out.num_problems: found 0"),
        (SUITE | {"held_out": 7}, "held_out: found 7"),
        (SUITE | {"test": {}}, "Unknown key 'test'"),
        (SUITE | {3: {}}, "Unknown key '3'"),
        ({"name": "mine"}, "train: this key is missing"),
        ([1, 2], "found list; expected keys"),
        ("", "found NoneType"),
        ("a: [1", "is not valid YAML"),
        ("name: a\ntrain:\n  settings: []\nname: b", "the key 'name' stands in line 1 and again in line 4"),
        ("a: !!python/object/apply:os.getcwd []", "is not valid YAML"),
    ],
)
def test_mistakes_name_file_and_key(tmp_path: Path, data: object, message: str) -> None:
    path = written(tmp_path, data)
    with pytest.raises(RmftError) as error:
        load_suite(path)
    assert message in str(error.value)
    assert str(error.value).startswith(str(path))


def test_all_mistakes_are_told_at_once_and_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        load_suite(written(tmp_path, changed(horizon=0, num_arms=1) | {"title": 3}))
    keys = [line.split(": ")[1] for line in str(error.value).splitlines()]
    assert keys == ["title", "train.settings.0.horizon", "train.settings.0.num_arms"]


def test_a_suite_that_is_nowhere(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'mab/uniform-means'"):
        load_suite("mab/uniform-mean")
    with pytest.raises(ConfigError, match="could not be read"):
        load_suite(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="could not be read"):
        load_suite(written(tmp_path, "").parent.with_suffix(".yaml"))
    (tmp_path / "latin.yaml").write_bytes(b"name: \xff\xfe")
    with pytest.raises(ConfigError, match="could not be read"):
        load_suite(tmp_path / "latin.yaml")


def test_draw_refuses_what_it_cannot_do() -> None:
    suite = load_suite("smoke")
    with pytest.raises(ConfigError, match="expected at least 1"):
        suite.draw("train", 0)
    with pytest.raises(UnknownNameError, match="Did you mean 'held_out'"):
        suite.draw("held-out", 1)  # type: ignore[arg-type]


def test_a_setting_plays_a_fresh_environment_every_time() -> None:
    setting = Setting.model_validate(SETTING)
    table = setting.draw([generator(i) for i in range(4)])
    first, second = setting.play(table), setting.play(table)
    assert isinstance(first, TableEnvironment)
    arms = Decisions(arms=np.zeros(4, dtype=np.int64))
    assert np.array_equal(first.step(arms), table.rewards[:, 0, 0])
    assert np.array_equal(first.step(arms), table.rewards[:, 1, 0])
    assert np.array_equal(second.step(arms), table.rewards[:, 0, 0])


def check_environment(setting: Setting, table: RewardTable) -> None:
    """The conformance test of an environment: feedback is what its table says was there, round by round."""
    environment = setting.play(table)
    assert isinstance(environment, Environment)
    before = table.rewards.copy()
    rules, arms_from = setting.rules, np.random.default_rng(0)
    arms, seen = [], []
    for _ in range(rules.horizon):
        arms.append(arms_from.integers(rules.num_arms, size=environment.size))
        seen.append(environment.step(Decisions(arms=arms[-1])).copy())
    after = environment.table.rewards
    assert after.shape == before.shape == environment.table.expected_rewards.shape
    if rules.feedback == "bandit":
        after = np.take_along_axis(after, np.stack(arms, axis=1)[..., None], axis=2)[..., 0]
    assert np.array_equal(np.stack(seen, axis=1), after)
    assert np.array_equal(table.rewards, before)  # another policy plays the same table


@pytest.mark.parametrize("feedback", ["full", "bandit"])
@pytest.mark.parametrize("environment", [None, "my_process:MyEnvironment"])
def test_environments_conform(feedback: str, environment: str | None) -> None:
    setting = setting_of(feedback=feedback, environment=environment)
    check_environment(setting, setting.draw([generator(i) for i in range(5)]))


def test_the_example_environment_adapts() -> None:
    """Rewards all 1; playing arm 0 and then arm 0 again is paid 1 and then 0, the others still 1."""
    setting = setting_of(feedback="full", horizon=2, environment="my_process:MyEnvironment")
    environment = setting.play(RewardTable(np.ones((1, 2, 3)), np.ones((1, 2, 3))))
    play_0 = Decisions(probabilities=np.array([[0.5, 0.25, 0.25]]))
    assert environment.step(play_0).tolist() == [[1, 1, 1]]
    assert environment.step(play_0).tolist() == [[0, 1, 1]]


NO_ENVIRONMENTS = """
class Uncallable:
    def step(self, decisions): ...
class Incomplete:
    def __init__(self, rules, table): self.rules, self.size = rules, len(table.rewards)
    def step(self, decisions): ...
class Resized(Incomplete):
    def __init__(self, rules, table): self.rules, self.size, self.table = rules, 7, table
class Wrong:
    def __init__(self, rules, table): self.rules, self.size, self.table = rules, len(table.rewards), table
    def step(self, decisions): return self.table.rewards[:, 0]
class High(Wrong):
    def step(self, decisions): return [7]
class Bad(Wrong):
    def step(self, decisions): return [float("nan")]
class Raising(Wrong):
    def step(self, decisions): return {}["x"]
class Exiting(Wrong):
    def step(self, decisions): raise SystemExit(0)
"""


def test_an_environment_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'MyEnvironment'"):
        setting_of(environment="my_process:MyEnviron")
    with pytest.raises(ConfigError, match="MyProcess has no step; the protocol Environment needs step"):
        setting_of(environment="my_process:MyProcess")
    (tmp_path / "none.py").write_text(NO_ENVIRONMENTS)
    for name, message in {
        "Uncallable": r"called as Class\(rules, table\), failed: TypeError",
        "Incomplete": "has no table; the protocol Environment needs rules, size, step, table",
        "Resized": "has size 7",
    }.items():
        setting = setting_of(tmp_path, environment=f"none:{name}")
        with pytest.raises(RmftError, match=message):
            setting.play(setting.draw([generator(0)]))
    for name, message in {
        "Wrong": r"none:Wrong.step returned the shape \(1, 3\); expected \(1,\)",
        "High": r"none:High.step returned 7; expected rewards in the setting's reward_range, \[0, 1\]",
        "Bad": r"none:Bad.step returned nan",
        "Raising": r"none:Raising.step failed in .*none.py, line \d+: KeyError",
        "Exiting": r"none:Exiting.step failed in .*none.py, line \d+: SystemExit: 0",
    }.items():
        setting = setting_of(tmp_path, feedback="bandit", environment=f"none:{name}")
        environment = setting.play(setting.draw([generator(0)]))
        with pytest.raises(RmftError, match=message):
            environment.step(Decisions(arms=np.zeros(1, dtype=np.int64)))
    setting = Setting.model_validate(SETTING)
    with pytest.raises(ShapeError, match="expected"):
        setting.play(RewardTable(np.ones((1, 2, 3)), np.ones((1, 2, 3))))


def test_an_unknown_kind_names_the_nearest() -> None:
    with pytest.raises(
        UnknownNameError, match=r"Unknown reward process 'bernouli'. Did you mean 'bernoulli'"
    ):
        resolve_process({"kind": "bernouli"})


@pytest.mark.parametrize(
    ("config", "horizon", "message"),
    [
        ({"kind": "bernoulli", "means": [0.2, 0.4]}, 5, "means lists 2 numbers; expected one per arm, 3"),
        ({"kind": "abrupt_switches", "num_switches": 5}, 5, "room for 4"),
        ({"kind": "logged", "rewards": [[1, 2], [3, 4]]}, 2, "the log has 2 arms"),
        ({"kind": "logged", "rewards": [[1, 2, 3]]}, 2, "the log has 1 rounds"),
    ],
)
def test_settings_that_fit_no_problem(config: dict[str, object], horizon: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve_process(config).draw(generator(0), horizon, 3)


OWN_FILE = """
import numpy as np
from rmft.types import RewardTable
class Right:
    reward_range = (0.0, 1.0)
    def variation_budget(self, horizon, num_arms): return 0.0
    def draw(self, generator, horizon, num_arms):
        return RewardTable(np.zeros((horizon, num_arms)), np.zeros((horizon, num_arms)))
class Incomplete:
    def draw(self, generator, horizon, num_arms): ...
class Turned(Right):
    def draw(self, generator, horizon, num_arms):
        return RewardTable(np.zeros((num_arms, horizon)), np.zeros((num_arms, horizon)))
class Bare(Right):
    def draw(self, generator, horizon, num_arms): return np.zeros((horizon, num_arms))
class Backwards(Right):
    reward_range = (1.0, 0.0)
class Method(Right):
    def reward_range(self): return (0.0, 1.0)
class Late(Right):
    paid = 0.0
    def draw(self, generator, horizon, num_arms):
        rewards = np.zeros((horizon, num_arms))
        rewards[-1] = self.paid
        type(self).paid = 3.0
        return RewardTable(rewards, rewards)
class NaN(Right):
    begun = False
    def draw(self, generator, horizon, num_arms):
        table = super().draw(generator, horizon, num_arms)
        rewards, type(self).begun = table.rewards + (np.nan if self.begun else 0), True
        return RewardTable(rewards, table.rewards)
class Exiting(Right):
    begun = False
    def draw(self, generator, horizon, num_arms):
        if self.begun: raise SystemExit(0)
        type(self).begun = True
        return super().draw(generator, horizon, num_arms)
NUMBER = 3
"""


def own(kind: str, **keys: object) -> RewardProcess:
    """A process of one's own, in the current directory."""
    return resolve_process({"kind": kind} | keys, trust=True)


def test_a_users_own_file_in_the_current_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_problems.py").write_text(OWN_FILE)
    (tmp_path / "broken_problems.py").write_text("import nothing_of_this_name")
    (tmp_path / "syntax_problems.py").write_text("def")
    (tmp_path / "exiting_problems.py").write_text("raise SystemExit(0)")
    monkeypatch.chdir(tmp_path)
    assert own("own_problems:Right").draw(generator(0), 4, 2).rewards.shape == (4, 2)
    for kind, message in {
        "own_problems:Rihgt": "Did you mean 'Right'",
        "own_problems:": "expected 'module:Class'",
        "own_problems:NUMBER": "is a int; expected a class that",
        "own_problems:Incomplete": "has no variation_budget",
        "own_problems:Backwards": "expected low < high",
        "own_problems:Method": "reward_range, a pair (low, high) of numbers, failed: TypeError",
        "such_problems:Right": "Did you mean 'own_problems:Right'",
        "broken_problems:Right": "No module named 'nothing_of_this_name'",
        "syntax_problems:Right": "SyntaxError",
    }.items():
        with pytest.raises(RmftError) as error:
            own(kind)
        assert message in str(error.value), kind
    with pytest.raises(ConfigError, match=r"own_problems:Right, built with \{'size': 3\}, failed"):
        own("own_problems:Right", size=3)
    with pytest.raises(ShapeError, match=r"shape \(2, 4\); expected \(horizon, num_arms\) = \(4, 2\)"):
        own("own_problems:Turned").draw(generator(0), 4, 2)
    with pytest.raises(ConfigError, match="returned ndarray; expected a RewardTable"):
        own("own_problems:Bare").draw(generator(0), 4, 2)
    for kind, message in {
        "Late": r"returned rewards from 0 to 3; expected them in its reward_range, \[0, 1\]",
        "NaN": r"NaN.draw failed in .*own_problems.py, line \d+: ShapeError: rewards holds nan",
        "Exiting": r"Exiting.draw failed in .*own_problems.py, line \d+: SystemExit: 0",
    }.items():
        process = own(f"own_problems:{kind}")
        process.draw(generator(0), 4, 2)  # the first problem is right
        with pytest.raises(ConfigError, match=message):
            process.draw(generator(0), 4, 2)
    with pytest.raises(ConfigError, match=r"exiting_problems\.py, line 1: SystemExit: 0"):
        own("exiting_problems:Right")


def test_a_users_own_error_is_told() -> None:
    with pytest.raises(
        ConfigError,
        match=r"my_process:MyProcess, built with.* failed in .*my_process.py, line \d+: .*found gap 2",
    ):
        resolve_process({"kind": "my_process:MyProcess", "gap": 2}, str(EXAMPLES), trust=True)
