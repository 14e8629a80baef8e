"""What version 0.1 wrote: its settings warn and mean what they meant; its runs are read only."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml

from rmft.cli import main
from rmft.config import parse_config
from rmft.errors import ConfigError, RunDirectoryError
from rmft.problems.suites import load_suite
from rmft.report.run_reader import read_run
from rmft.run_directory import RunDirectory
from rmft.wiring.backends import backend
from rmft.wiring.suites import load_suites
from run_files import evaluation_in, lines

GRADIENT = {"kind": "policy_gradient"}
KL_HALF = {"objective": {"kind": "policy_gradient", "kl_coef": 0.5}}
LOCAL = {"policy": {"kind": "local"}}
HOSTED = {"policy": {"kind": "hosted", "model": "m"}}
OLD_AND_NEW: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "lowest_regret": (
        {"selection": {"kind": "lowest_regret", "num_selected": 2}},
        {"credit": {"kind": "top_k_regret", "num_selected": 2}},
    ),
    "no kind": ({"selection": {"num_selected": 2}}, {"credit": {"num_selected": 2}}),
    "lowest_regret_to_go": (
        {"selection": {"kind": "lowest_regret_to_go", "num_selected": 3, "discount": 0.9}},
        {"credit": {"kind": "top_k_regret_to_go", "num_selected": 3, "discount": 0.9}},
    ),
    "highest_reward": (
        {"selection": {"kind": "highest_reward", "num_selected": 1}},
        {"credit": {"kind": "top_k_reward", "num_selected": 1}},
    ),
    "random": ({"selection": {"kind": "random"}}, {"credit": {"kind": "random"}}),
    "all": ({"selection": {"kind": "all"}}, {"credit": {"kind": "all"}}),
    "excess_regret_to_go": (
        {
            "selection": {
                **{"kind": "excess_regret_to_go", "discount": 0.9, "trace": 0.8},
                **{"strength": 2, "unlearn": 0.5, "every_arm": True},
            },
            "training": {"anchor": 0.5},
        },
        {
            "credit": GRADIENT
            | {"discount": 0.9, "advantage_lambda": 0.8, "advantage_scale": 2}
            | {"advantage_clip": [-0.5, 5], "all_actions": True},
            "training": KL_HALF,
        },
    ),
    "anchor": ({"training": {"anchor": 0.5, "epochs": 2}}, {"training": KL_HALF | {"epochs": 2}}),
    "no anchor": ({"training": {"anchor": 0, "epochs": 2}}, {"training": {"epochs": 2}}),
    "format": (
        LOCAL | {"training": {"anchor": 0.5, "format": 0.3, "tokens_at_once": 100}},
        LOCAL | {"training": KL_HALF | {"legality_coef": 0.3, "tokens_at_once": 100}},
    ),
    "no format": (LOCAL | {"training": {"anchor": 0, "format": None}}, LOCAL),
    "what did nothing for its kind": (
        {
            "selection": {
                **{"kind": "excess_regret_to_go", "num_selected": 99_999},
                **{"trace": 1.0, "strength": 1.0, "unlearn": 1.0, "every_arm": False, "discount": 1.0},
            },
            "training": {"anchor": 0.5, "format": None, "tokens_at_once": 9, "num_processes": 1},
        },
        {"credit": GRADIENT, "training": KL_HALF},
    ),
    "selected whole with the settings of advantages": (
        {"selection": {"kind": "lowest_regret", "trace": 1.0, "unlearn": 1.0, "every_arm": False}},
        {"credit": {"kind": "top_k_regret"}},
    ),
    "hosted": (
        HOSTED | {"training": {"anchor": 0.0, "epochs": 3, "learning_rate": 0.1, "batch_size": 9}},
        HOSTED | {"training": {"epochs": 3}},
    ),
    "transformer": ({"policy": {"kind": "transformer", "width": 32}}, {"policy": {"width": 32}}),
}


@pytest.mark.parametrize("name", OLD_AND_NEW)
def test_old_names_warn_and_mean_what_they_meant(name: str) -> None:
    old, new = OLD_AND_NEW[name]
    with pytest.warns(FutureWarning, match=r"^old\.yaml: .* read until version 0\.3"):
        translated = parse_config(old, source="old.yaml")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert translated == parse_config(new), "and new names do not warn"


@pytest.mark.parametrize(
    ("old", "message"),
    [
        ({"selection": {}, "credit": {}}, "selection is credit's old name: keep one"),
        ({"selection": {"kind": "lowest"}}, "kind of credit 'lowest'"),
        ({"selection": {"kind": "all", "tracee": 1}}, "Unknown key 'tracee'"),
        ({"selection": {"kind": "excess_regret_to_go", "unlearn": "much"}}, "advantage_clip"),
        ({"training": {"anchor": -1}}, "kl_coef"),
        ({"training": {"anchor": 1, "objective": {"kind": "cross_entropy"}}}, "anchor is the old name"),
        (LOCAL | {"training": {"format": 1, "legality_coef": 1}}, "format is the old name"),
    ],
)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_old_names_that_are_wrong_are_refused(old: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_config(old, source="old.yaml")
    assert message in str(raised.value)


CONFIG = {
    "name": "old",
    "seed": 0,
    "suite": "smoke",
    "iterations": 2,
    "policy": {"kind": "transformer", "width": 8, "num_heads": 2, "num_layers": 1},
    "rollout": {"num_problems": 4, "num_rollouts": 4, "temperature": 1.0},
    "selection": {
        **{"kind": "lowest_regret", "num_selected": 2, "discount": 1.0, "trace": 1.0},
        **{"strength": 1.0, "unlearn": 1.0, "every_arm": False},
    },
    "training": {
        **{"epochs": 1, "batch_size": 256, "learning_rate": 0.002, "warmup": 0.05, "weight_decay": 0.0},
        **{"max_gradient_norm": 1.0, "anchor": 0.0, "format": None, "tokens_at_once": 2048},
        **{"gradient_checkpointing": False, "num_processes": 1},
    },
    "validation": {"every": 1, "num_problems": 4, "patience": None},
    "num_threads": 1,
}


@pytest.fixture
def old_run(tmp_path: Path) -> Path:
    """A run directory as version 0.1 left it, its policies aside, which are as they are now."""
    run = tmp_path / "old"
    (run / "trajectories").mkdir(parents=True)
    about = {"format": 1, "rmft": "0.1.0", "name": "old", "suite": "smoke", "seed": 0, "versions": {},
             "started": "2026-01-02T03:04:05+00:00"}  # fmt: skip
    (run / "run.json").write_text(json.dumps(about))
    (run / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    (run / "suite.yaml").write_text(yaml.safe_dump(load_suite("smoke").model_dump(mode="json")))
    rows: list[dict[str, object]] = []
    for iteration in range(3):
        around = {"mean": 3.0 - iteration, "low": 2.0 - iteration, "high": 4.0 - iteration}
        row: dict[str, object] = {"iteration": iteration}
        if iteration:
            row |= {
                "rollout": {"regret": 3.0, "suff_fail_freq": 0.5, "entropy": 1.0, "failed": 0.0},
                "selected": {"regret": 2.0, "share": 0.5},
                "kept": {"regret": 2.0, "share": 0.5},
                "rejected": {"regret": 4.0, "share": 0.5},
                "first_arm_best": {"rollout": 0.3, "selected": 0.5},
                "train": {"loss": 1.0, "gradient_norm": 1.0, "learning_rate": 0.002, "steps": 1.0},
            }
        rows.append(row | {"validation": dict.fromkeys(("regret", "suff_fail_freq", "entropy"), around)})
    (run / "metrics.jsonl").write_text(lines(rows))
    (run / "result.json").write_text(json.dumps({"status": "finished", "best_iteration": 2, "findings": []}))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        config = parse_config(CONFIG)
    for iteration in range(3):
        folder = run / "checkpoints" / f"{iteration:06d}"
        folder.mkdir(parents=True)
        backend(config, load_suites(config)).start(folder, iteration)
    return run


def rmft(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


def test_a_run_of_version_0_1_is_read_without_a_warning(old_run: Path) -> None:
    run = RunDirectory.open(old_run, lock=False)
    assert run.config.credit.kind == "top_k_regret"
    assert run.config.policy.kind == "arm_encoder"
    assert run.suites["smoke"] == yaml.safe_load((old_run / "suite.yaml").read_text())
    assert (run.best_iteration(), run.policy(2).path) == (2, old_run / "checkpoints" / "000002")
    read = read_run(old_run)
    assert [row.above_regret for row in read.iterations] == [None, 2.0, 2.0]
    assert [row.below_regret for row in read.iterations] == [None, 4.0, 4.0]
    assert [row.mask_share for row in read.iterations] == [None, 0.5, 0.5]
    assert [row.above_first_best for row in read.iterations] == [None, 0.5, 0.5]
    assert not any("format" in note or "damaged" in note for note in read.notes)


def test_a_run_of_version_0_1_is_shown_reported_and_evaluated(
    old_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rmft("evaluate", old_run, "--num-problems", 4, "--against", "start") == 0
    assert evaluation_in(old_run).exists()
    assert rmft("report", old_run) == 0
    assert "above average" in (old_run / "report.html").read_text()
    assert rmft("show", old_run) == 0
    assert "old" in capsys.readouterr().out


def test_a_run_of_version_0_1_is_not_gone_on_with(old_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in old_run.rglob("*") if path.is_file()}
    with pytest.raises(RunDirectoryError, match=r"has format 1; .* goes on with format 2.*0\.1\.0"):
        RunDirectory.open(old_run)
    assert rmft("resume", old_run) == 2
    assert "has format 1" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in old_run.rglob("*") if path.is_file()} == before


def test_a_run_starts_from_one_of_version_0_1(old_run: Path, tmp_path: Path) -> None:
    config = tmp_path / "next.yaml"
    policy = {"width": 8, "num_heads": 2, "num_layers": 1}
    values = {"iterations": 1, "policy": policy, "init_from": str(old_run), "num_threads": 1}
    small = {"rollout": {"num_problems": 2, "num_rollouts": 4}, "validation": {"num_problems": 2}}
    config.write_text(yaml.safe_dump(values | small))
    assert rmft("train", config, "--run-dir", tmp_path / "next") == 0
    first = tmp_path / "next" / "checkpoints" / "000000" / "policy.safetensors"
    assert first.read_bytes() == (old_run / "checkpoints" / "000002" / "policy.safetensors").read_bytes()
