"""Trackers read a run in a process of their own, and nothing that becomes of them stops it."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import rmft
from rmft.cli import app
from rmft.config import parse_config
from rmft.errors import ConfigError, TrackerError
from rmft.tracking import follow
from rmft.tracking.config import TensorBoardTracking
from rmft.tracking.tracker import figures_of

SMALL = {
    "suite": "smoke",
    "iterations": 3,
    "policy": {"kind": "arm_encoder", "width": 8, "num_heads": 1},
    "rollout": {"num_problems": 4, "num_rollouts": 4},
    "validation": {"num_problems": 4, "every": 1},
    "num_threads": 1,
}
LINE = {
    "iteration": 2,
    "level": 0.25,
    "rollout": {"regret": 3.5, "failed": 0.0},
    "train": {"loss": 0.5, "gradient_norm": 1.5, "tokens": 7},
    "validation": {"regret": {"mean": 2.0, "low": 1.0, "high": 3.0}},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was followed by TensorBoard's tracker from its beginning."""
    where = tmp_path_factory.mktemp("tracked") / "run"
    return rmft.train({**SMALL, "tracking": {"kind": "tensorboard"}}, where)


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """The same, which no tracker has followed yet."""
    copy = tmp_path / "run"
    shutil.copytree(trained, copy, ignore=shutil.ignore_patterns("tracking*", "tensorboard", "checkpoints"))
    return copy


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard's own reader finds in a folder: by name, steps and values."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder)).Reload()
    return {name: [(each.step, each.value) for each in read.Scalars(name)] for name in read.Tags()["scalars"]}


def lines(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def regrets(run: Path) -> list[float]:
    return [line["validation"]["regret"]["mean"] for line in lines(run)]


def test_figures_have_the_names_that_trackers_users_know() -> None:
    assert figures_of(LINE) == {
        "train/level": 0.25,
        "rollout/regret": 3.5,
        "rollout/failed": 0.0,
        "train/loss": 0.5,
        "train/grad_norm": 1.5,
        "train/num_tokens": 7.0,
        "eval/regret": 2.0,
        "eval/regret_low": 1.0,
        "eval/regret_high": 3.0,
    }


def test_tensorboard_reads_every_figure_of_a_run_that_was_followed(trained: Path) -> None:
    found = scalars(trained / "tensorboard")
    expected = [(number, figures_of(line)) for number, line in enumerate(lines(trained))]
    names = {name for _, figures in expected for name in figures}
    assert found.keys() == names
    for name in names:
        wanted = [(step, figures[name]) for step, figures in expected if name in figures]
        assert dict(found[name]) == pytest.approx(dict(wanted), rel=1e-6)
        assert len(found[name]) == len(wanted)


def test_a_run_is_the_same_with_and_without_a_tracker(trained: Path, tmp_path: Path) -> None:
    alone = rmft.train(SMALL, tmp_path / "alone")
    assert (alone / "metrics.jsonl").read_bytes() == (trained / "metrics.jsonl").read_bytes()
    assert not (alone / follow.LOG).exists()


def test_a_run_that_goes_on_goes_on_in_its_tracker(run: Path) -> None:
    metrics = (run / "metrics.jsonl").read_bytes()
    (run / "metrics.jsonl").write_bytes(b"".join(metrics.splitlines(keepends=True)[:2]))
    first = CliRunner().invoke(app, ["track", str(run)])
    assert "2 iterations sent" in first.output, first.output
    (run / "metrics.jsonl").write_bytes(metrics + b'{"iteration": 4, "torn')
    again = CliRunner().invoke(app, ["track", str(run)])
    assert "2 iterations sent" in again.output
    assert first.output.splitlines()[0] == again.output.splitlines()[0], "one id"
    assert "0 iterations sent" in CliRunner().invoke(app, ["track", str(run)]).output
    assert [step for step, _ in scalars(run / "tensorboard")["train/loss"]] == [1, 2, 3], "none twice"


def track(run: Path, kind: str, settings: dict[str, str], environment: dict[str, str]) -> str:
    """The run's id there, which `rmft track` prints. In a process of its own: packages keep much globally."""
    chosen = {"kind": kind, **settings}
    changes = [part for key, value in chosen.items() for part in ("--set", f"tracking.{key}={value}")]
    sent = subprocess.run(
        [sys.executable, "-m", "rmft.cli", "track", str(run), *changes],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert sent.returncode == 0, sent.stderr
    assert "4 iterations sent" in sent.stderr
    return sent.stdout.splitlines()[-1]


def test_trackio_keeps_a_run_on_this_machine(run: Path, tmp_path: Path) -> None:
    environment = {"TRACKIO_DIR": str(tmp_path / "trackio"), "HF_HUB_OFFLINE": "1"}
    name = track(run, "trackio", {}, environment)
    reading = (
        "import json, sys; from trackio.sqlite_storage import SQLiteStorage as s;"
        "print(json.dumps(s.get_logs('rmft', sys.argv[1]), default=str))"
    )
    read = subprocess.run(
        [sys.executable, "-c", reading, name],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    logged = json.loads(read.stdout.splitlines()[-1])
    assert [row["step"] for row in logged] == [0, 1, 2, 3]
    assert [row["eval/regret"] for row in logged] == regrets(run)


def test_mlflow_keeps_a_run_in_files(run: Path, tmp_path: Path) -> None:
    where = {"uri": f"file://{tmp_path / 'mlflow'}", "experiment": "decisions"}
    id = track(run, "mlflow", where, {"MLFLOW_ALLOW_FILE_STORE": "true"})
    (kept,) = (tmp_path / "mlflow").glob(f"*/{id}")
    rows = [line.split() for line in (kept / "metrics" / "eval" / "regret").read_text().splitlines()]
    assert [int(step) for _, _, step in rows] == [0, 1, 2, 3]
    assert [float(value) for _, value, _ in rows] == regrets(run)
    assert (kept / "params" / "rollout.num_problems").read_text() == "4"


def test_wandb_keeps_a_run_for_later(run: Path) -> None:
    id = track(run, "wandb", {"mode": "offline"}, {})
    (kept,) = run.glob(f"wandb/offline-run-*/run-{id}.wandb")
    said = kept.read_bytes()
    assert all(name in said for name in (b"eval/regret", b"train/grad_norm", b"num_problems"))


def test_what_a_tracker_raises_is_one_message(run: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("A file is where the folder should be.")
    changes = ["--set", "tracking.kind=tensorboard", "--set", f"tracking.folder={tmp_path / 'taken'}"]
    failed = CliRunner().invoke(app, ["track", str(run), *changes])
    assert isinstance(failed.exception, TrackerError)
    assert "'tensorboard' failed" in str(failed.exception)


@pytest.mark.parametrize("fate", ["fails", "has a full disk", "is killed", "hangs"])
def test_whatever_becomes_of_a_tracker_the_run_goes_on(
    fate: str, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if fate == "fails":
        (run / "tensorboard").write_text("A file is where the folder should be.")
    fails = fate in ("fails", "has a full disk")
    monkeypatch.setattr(follow, "PATIENCE", 60.0 if fails else 0.5)
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen
    full = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (100, 100))

    def begin(*given: Any, **more: Any) -> subprocess.Popen[bytes]:
        started.append(popen(*given, **more, preexec_fn=full if fate == "has a full disk" else None))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", begin)
    with follow.followed(run, TensorBoardTracking()) as tell:
        if not fails:
            started[0].send_signal(signal.SIGKILL if fate == "is killed" else signal.SIGSTOP)
        begun = time.monotonic()
        for _ in range(100_000):  # more than a pipe holds
            tell()
        assert time.monotonic() - begun < 30
    assert started[0].poll() is not None
    assert f"rmft track {run}" in capsys.readouterr().err
    if fate != "fails":
        assert "4 iterations sent" in CliRunner().invoke(app, ["track", str(run)]).output, "replayed later"


def test_a_place_that_can_not_be_written_stops_no_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / follow.LOG).mkdir()
    with follow.followed(run, TensorBoardTracking()) as tell:
        tell()
    assert "can't be started" in capsys.readouterr().err


def test_wrong_settings_of_a_tracker_are_named(run: Path) -> None:
    with pytest.raises(ConfigError, match=r"tensorbord.*tensorboard"):
        parse_config({"tracking": {"kind": "tensorbord"}})
    with pytest.raises(ConfigError, match="project"):
        parse_config({"tracking": {"kind": "tensorboard", "project": "p"}})
    shutil.rmtree(run / "trajectories")
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace("kind: tensorboard\n  folder: null", "kind: none"))
    refused = CliRunner().invoke(app, ["track", str(run)])
    assert refused.exit_code != 0
    assert "names no tracker" in str(refused.exception or refused.output)
