"""Studies: read, resolved, run in processes of their own, killed, gone on with, and summed up."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from rmft.errors import ConfigError, RunDirectoryError, UnknownNameError
from rmft.report.blocks import as_json
from rmft.report.folders import runs_in
from rmft.report.study import study_blocks
from rmft.results import Evaluation
from rmft.statistics import bootstrap, holm, over_seeds
from rmft.studies.folder import StudyFolder
from rmft.studies.running import Work, owed
from rmft.studies.study import load_study
from rmft.study_results import StudyResults

CONFIGS = Path(__file__).parents[1] / "configs"
SMALL = {
    "iterations": 2,
    "rollout": {"num_problems": 6, "num_rollouts": 4},
    "validation": {"num_problems": 10},
}
TOP_K = {
    "credit": {"kind": "top_k_regret", "num_selected": 2},
    "training": {"objective": {"kind": "cross_entropy"}},
}


def write(path: Path, **changes: Any) -> Path:
    study = {
        "name": "tiny",
        "config": os.path.relpath(CONFIGS / "smoke.yaml", path.parent),
        "settings": SMALL,
        "entries": {"policy gradient": {}, "top k": TOP_K},
        "seeds": "0-1",
        "evaluate": [{"num_problems": 20, "baselines": ["uniform", "thompson"]}],
        **changes,
    }
    path.write_text(yaml.safe_dump(study, sort_keys=False))
    return path


def run(study: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rmft.cli", "study", str(study), "--dir", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_entries_are_a_config_with_changes_key_by_key(tmp_path: Path) -> None:
    study = load_study(write(tmp_path / "study.yaml"))
    ours, top_k = study.entries.values()
    assert ours.iterations == top_k.iterations == 2
    assert (ours.credit.kind, top_k.credit.kind) == ("policy_gradient", "top_k_regret")
    assert top_k.training.learning_rate == ours.training.learning_rate == 0.004  # of the config, as all else
    assert study.settings.seeds == (0, 1)
    assert study.settings.pairs == (("policy gradient", "top k"),)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"entries": {}}, "entries"),
        ({"entries": {"a": {"seed": 3}}}, "study's seeds"),
        ({"entries": {"a": {"iteration": 3}}}, "iterations"),
        ({"entries": {"a b": {}, "a-b": {}}}, "blanks"),
        ({"seeds": "2-1"}, "2-1"),
        ({"seeds": [1, 1]}, "twice"),
        ({"compare": [["policy gradient", "topk"]]}, "top k"),
        ({"entries": {"a": {}, "b": {"suite": "mab/uniform-means"}}}, "evaluate"),
        ({"evaluates": []}, "evaluate"),
        ({"entries": {"start": {}}}, "name it otherwise"),
        ({"evaluate": [{"entries": ["topk"]}]}, "Did you mean 'top k'"),
    ],
)
def test_a_mistake_is_one_clear_message(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises((ConfigError, UnknownNameError), match=said):
        load_study(write(tmp_path / "study.yaml", **changes))


def test_what_entries_have_in_common_may_be_a_config_that_comes_along(tmp_path: Path) -> None:
    named = load_study(write(tmp_path / "study.yaml", config="smoke")).entries
    assert named == load_study(write(tmp_path / "study.yaml")).entries
    with pytest.raises(UnknownNameError, match="Did you mean 'smoke'"):
        load_study(write(tmp_path / "study.yaml", config="smok"))
    with pytest.raises(ConfigError, match="'smoke' is a config; expected a study"):
        load_study(Path("smoke"))


def test_what_an_entry_depends_on_names_its_runs(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    before = {job.entry: job.path for job in StudyFolder(tmp_path / "runs", load_study(write(path))).jobs()}
    write(path, entries={"policy gradient": {}, "top k": {**TOP_K, "iterations": 3}}, seeds="0-4")
    after = {job.entry: job.path for job in StudyFolder(tmp_path / "runs", load_study(path)).jobs()}
    assert before["policy gradient"].parent == after["policy gradient"].parent  # seeds do not matter
    assert before["top k"].parent != after["top k"].parent


def test_an_evaluation_is_of_the_entries_that_it_names(tmp_path: Path) -> None:
    evaluate = [{"num_problems": 20}, {"part": "validation", "entries": ["top k"]}]
    study = load_study(write(tmp_path / "study.yaml", evaluate=evaluate, seeds=0))
    folder = StudyFolder(tmp_path / "runs", study)
    played = {job.entry: [each.settings.part for each in folder.unplayed(job)] for job in folder.jobs()}
    assert played == {"policy gradient": ["held_out"], "top k": ["held_out", "validation"]}


def test_another_folder_is_left_alone(tmp_path: Path) -> None:
    study = load_study(write(tmp_path / "study.yaml"))
    with pytest.raises(RunDirectoryError, match="no study"):
        StudyFolder(tmp_path, study)
    StudyFolder(tmp_path / "runs", study).prepare()
    other = load_study(write(tmp_path / "study.yaml", name="other"))
    with pytest.raises(RunDirectoryError, match="tiny"):
        StudyFolder(tmp_path / "runs", other)


def test_a_study_is_run_gone_on_with_and_its_failures_are_named(tmp_path: Path) -> None:
    entries = {"ours": {}, "broken": {"policy": {"kind": "local", "model": "nowhere/at-all"}}}
    path, folder = tmp_path / "study.yaml", tmp_path / "runs"
    changes = {"seeds": 0, "compare": [["ours", "thompson"], ["ours", "start"]]}
    done = run(write(path, entries=entries, **changes), folder, "--jobs", "2")
    assert done.returncode == 1
    assert "broken, seed 0 failed" in done.stderr
    assert "nowhere/at-all" in done.stderr
    first = StudyResults.model_validate_json((folder / "results.json").read_bytes())
    (evaluated,) = first.evaluations
    assert list(first.failed) == ["broken, seed 0"]
    assert list(evaluated.entries) == ["ours"]
    assert list(evaluated.baselines) == ["thompson", "uniform"]  # the strongest first
    ours, pairs = evaluated.entries["ours"], evaluated.pairs
    for pair, other in zip(pairs, (evaluated.baselines["thompson"], ours.start), strict=True):
        assert pair.difference.mean == pytest.approx(ours.regret.mean - other.mean)
    assert [pair.p_holm for pair in pairs] == holm([pair.p_value for pair in pairs])
    played = Evaluation.from_json(next(folder.glob("ours-*/seed-0-*.json")).read_bytes())
    exponents = [
        each.policies[name].regression_check
        for each in played.settings.values()
        for name in ("best", "start")
    ]
    assert [ours.b0, ours.start_b0] == [check.b0 for check in exponents if check]  # of one setting

    stamps = {each: each.stat().st_mtime_ns for each in folder.glob("*/seed-0/**/*") if each.is_file()}
    again = run(write(path, entries={"ours": {}}, seeds="0-1"), folder, "--json")
    assert again.returncode == 0, again.stderr
    assert "1 to do" in again.stderr  # the second seed
    assert all(each.stat().st_mtime_ns == stamp for each, stamp in stamps.items() if each.name != ".lock")
    seeds = json.loads(again.stdout)["evaluations"][0]["entries"]["ours"]["seeds"]
    assert [each["seed"] for each in seeds] == [0, 1]
    assert seeds[0]["regret"]["mean"] == pytest.approx(ours.regret.mean)
    assert owed(StudyFolder(folder, load_study(path))) == []

    (folder / "broken-00000000").mkdir()  # what is no run is passed over
    blocks = study_blocks(runs_in(folder))
    assert [block.kind for block in blocks] == ["heading", "chart", "table"]
    json.dumps(as_json(blocks), allow_nan=False)
    (folder / "results.json").write_text('{"format": "rmft-study/1", "name": "\u202e"}')
    assert [block.kind for block in study_blocks(runs_in(folder))] == ["note"]


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    study = write(tmp_path / "study.yaml", settings={**SMALL, "iterations": 20})
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run(study, whole).returncode == 0
    for seconds in (3.0, 6.0, 9.0):
        command = [sys.executable, "-m", "rmft.cli", "study", str(study), "--dir", str(killed), "--jobs", "2"]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert run(study, killed, "--jobs", "2").returncode == 0
    results = [json.loads((folder / "results.json").read_bytes()) for folder in (whole, killed)]
    for each in (each for result in results for each in result["evaluations"][0]["entries"].values()):
        each.pop("minutes")
    assert results[0] == results[1]


def test_holm_by_hand() -> None:
    # sorted .01, .03, .04: times 3, 2, 1 is .03, .06, .04, and none is below the one before: .03, .06, .06
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_p_values_are_small_where_the_interval_leaves_out_0() -> None:
    draw = np.random.default_rng(0)
    for shift in (0.0, 0.15, 1.0):
        values = draw.normal(shift, 1.0, size=(3, 200))
        for found in (bootstrap(values[0], lambda each: each), over_seeds(values, lambda each: each)):
            interval, p_value = found.interval(), found.p_value()
            assert p_value is not None
            assert interval.low is not None
            assert interval.high is not None
            if p_value < 0.04:
                assert not interval.low < 0 < interval.high
            if p_value > 0.06:
                assert interval.low < 0 < interval.high
    assert bootstrap(np.zeros(9), lambda each: each).p_value() == 1.0
    assert bootstrap(np.ones(9), lambda each: each).p_value() == 0.0


def test_owed_is_what_is_not_there(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path / "runs", load_study(write(tmp_path / "study.yaml")))
    folder.prepare()
    assert [work.name for work in owed(folder)] == [
        "baselines on smoke",
        "policy gradient, seed 0",
        "top k, seed 0",
        "policy gradient, seed 1",
        "top k, seed 1",
    ]


def test_progress_counts_what_is_played_after_training(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path / "runs", load_study(write(tmp_path / "study.yaml", seeds=0)))
    folder.prepare()
    job, _ = folder.jobs()
    metrics = job.path / "metrics.jsonl"

    def ours() -> Work:
        return next(each for each in owed(folder) if each.run == job.path)

    work = ours()
    metrics.write_text("{}\n{}\n{}\n")  # of the start, and of both iterations
    trained, left = work.done(), ours()
    assert 0 < trained < work.size
    assert left.size == work.size - trained  # both policies' rounds on 20 problems
    assert left.size == 2 * 20 * folder.evaluations[0].suite.mean_horizon("held_out")
    job.evaluation(folder.evaluations[0]).write_text("{}")
    assert work.done() == work.size
