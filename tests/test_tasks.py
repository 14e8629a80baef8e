"""Tasks of one's own: written, checked, trained on, played; and what is said of a wrong one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from rmft.cli import main
from rmft.config import parse_config
from rmft.errors import ConfigError, RmftError
from rmft.problems.suites import load_suite, suite_from
from rmft.problems.tasks import new_task
from rmft.run_directory import RunDirectory

NAMES = ["Sunshine", "Keebler", "Nabisco", "Own label"]
QUICK = [
    "policy.kind=arm_encoder", "policy.width=8", "policy.num_heads=1", "policy.num_layers=1", "iterations=1",
    "rollout.num_problems=4", "training.batch_size=64",
]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    new_task(Path("my-task"))
    return Path("my-task")


def changed(folder: Path, **changes: Any) -> Path:
    data = yaml.safe_load((folder / "task.yaml").read_text("utf-8"))
    data = {key: value for key, value in (data | changes).items() if value is not None}
    (folder / "task.yaml").write_text(json.dumps(data), "utf-8")
    return folder


def test_a_task_is_a_suite_of_named_arms(folder: Path) -> None:
    suite = load_suite(folder)
    (batch,) = suite.draw("held_out", 300)
    assert (suite.name, batch.setting.rules.horizon, len(batch.indices)) == ("my-task", 10, 30)
    assert batch.words.names is not None
    assert batch.words.names[0].tolist() == NAMES
    assert "round and buttery" in batch.words.contexts
    assert load_suite(folder / "task.yaml") == suite
    assert suite_from(suite.model_dump(mode="json"), "a run's") == suite
    anonymous = load_suite(changed(folder, arms="anonymous")).draw("train", 9)[0]
    assert anonymous.words.names is None
    assert '"Own label"' in anonymous.words.contexts
    drawn = load_suite(changed(folder, rewards={"kind": "bernoulli"}, group=None, arms=None, horizon=3))
    assert drawn.draw("held_out", 300)[0].table.rewards.shape == (300, 3, 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"situation": None}, "task.yaml: situation: this key is missing"),
        ({"optoins": []}, "Unknown key 'optoins'. Did you mean 'options'"),
        ({"options": ["a"]}, "task.yaml: options: .*at least 2"),
        ({"options": ["Sunshine", "Sunshine"]}, "found Sunshine more than once"),
        ({"options": ["Sunshine", "Keebler", "Nabsico"]}, "task.yaml: rewards: .*Did you mean 'Nabisco'"),
        ({"rewards": "nowhere.csv"}, "task.yaml: rewards: .*nowhere.csv could not be read"),
        ({"rewards": {"kind": "bernuolli"}, "group": None}, "Did you mean 'bernoulli'"),
        ({"rewards": {"kind": "bernoulli"}}, "group, parts, context, features and label are of a log"),
        ({"horizon": 11}, "10 rounds .*horizon is 11"),
        ({"group": "costumer"}, "Did you mean 'customer'"),
    ],
)  # fmt: skip
def test_a_wrong_task_says_what_is_wrong_in_its_own_words(
    folder: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(RmftError, match=message) as error:
        load_suite(changed(folder, **changes))
    assert "settings.0" not in str(error.value)


def test_tasks_are_settings_of_a_suite_beside_others(folder: Path) -> None:
    new_task(Path("other"))
    mixed = {
        "name": "shops",
        "title": "Two shops",
        "train": {"settings": [{"task": "../my-task"}]},
        "held_out": {"settings": [{"task": "../my-task"}, {"task": "../other"}]},
    }
    Path("suites").mkdir()
    Path("suites/shops.yaml").write_text(yaml.safe_dump(mixed))
    suite = load_suite("suites/shops.yaml")
    assert suite.train.settings == load_suite(folder).train.settings
    assert [setting.name for setting in suite.settings("held_out")] == ["my-task", "other"]
    assert suite_from(suite.model_dump(mode="json"), "a run's") == suite
    for wrong, message in (
        ({"task": "my-task", "horizon": 3}, "found task, horizon; expected a setting, or 'task' alone"),
        ({"task": 3}, "'task' alone with a task's place"),
        ({"task": "nowhere"}, "'nowhere': found no folder; expected a task. Make one with"),
        ({"task": "suites/shops.yaml"}, "found a suite; expected a task"),
    ):
        with pytest.raises(ConfigError, match=message):
            suite_from(mixed | {"train": {"settings": [wrong]}}, "shops")
    changed(Path("other"), options=["a"])
    with pytest.raises(ConfigError, match=r"task.yaml: options: .*at least 2"):
        load_suite("suites/shops.yaml")


def test_a_folder_is_neither_overwritten_nor_taken_for_a_task(folder: Path) -> None:
    with pytest.raises(ConfigError, match="'my-task' exists already"):
        new_task(folder)
    with pytest.raises(
        ConfigError, match=r"found no task.yaml; expected a task. Make one with: rmft task new"
    ):
        load_suite(Path())
    with pytest.raises(ConfigError, match="found both task and suite"):
        parse_config({"task": "my-task", "suite": "smoke"})
    assert (
        parse_config({"task": "my-task", "stages": [{"iterations": 1, "task": "x"}]}).stages[0].suite == "x"
    )


def test_the_command_line_checks_trains_and_plays_a_task(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "train.yaml").write_text(
        (folder / "train.yaml").read_text("utf-8").replace("smollm2-135m", "some/model"), "utf-8"
    )  # whose tokens are estimated, without a hub
    with pytest.raises(SystemExit, match="0"):
        main(["task", "check", "my-task"])
    said = capsys.readouterr().out
    assert "4 named options, 10 rounds, feedback bandit, static regret" in said
    assert "90 in train, 30 in validation, 30 in held_out" in said
    assert "Sunshine: round and buttery" in said
    assert "Nothing looks wrong" in said
    with pytest.raises(SystemExit, match="0"):
        main(["train", "--task", "my-task", "--run-dir", "run", *(f"--set={each}" for each in QUICK)])
    assert RunDirectory.open(Path("run"), lock=False).config.suite == "my-task"
    (folder / "visits.csv").rename("elsewhere.csv")
    with pytest.raises(SystemExit, match="2"):
        main(["evaluate", "run", "--against", "uniform"])
    Path("elsewhere.csv").rename(folder / "visits.csv")
    with pytest.raises(SystemExit, match="0"):
        main(["evaluate", "run", "--against", "uniform", "--json"])
    assert '"num_problems": 30' in capsys.readouterr().out
    with pytest.raises(SystemExit, match="0"):
        main(["play", "run"])
    assert "Own label" in capsys.readouterr().out
