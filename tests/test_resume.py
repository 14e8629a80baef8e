"""Kill a training run, resume it, and find what a run that was never killed ends with, byte for byte.

The processes are real, and so are the signals and the full disk. Children are forked from a server that
has torch loaded, so that each costs a fraction of a second.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from full_disk import full_disk
from rmft.cli import main

CONFIG = """
name: tiny
suite: smoke
seed: 3
iterations: 12
policy: {width: 8, num_heads: 2, num_layers: 1}
rollout: {num_problems: 8, num_rollouts: 4}
credit: {kind: top_k_regret, num_selected: 2}
training: {batch_size: 8, learning_rate: 0.01}
validation: {every: 3, num_problems: 20}
num_threads: 1
"""
TIMES = ("run.json", "timings.jsonl", "log.txt", ".lock")  # when and how fast, which may differ
OPERATIONS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree")
NEVER = ("", 0)

processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["pytest", "torch._dynamo", "rmft.training.numeric", "rmft.iteration"])


Moment = tuple[str, int]
"""A pattern of operations on the run's files, such as "os.rename .*npz", and which of them: 1, 2, ..."""


def rmft(arguments: list[str], run: Path, moment: Moment) -> None:
    """The command line in a child, killed by SIGKILL just before the operation that `moment` names."""
    pattern, last = moment
    count = itertools.count(1)

    def die(event: str, given: tuple[object, ...]) -> None:
        if event not in OPERATIONS or str(run) not in str(given[0]):
            return
        if re.match(pattern, f"{event} {given[0]}") and next(count) == last:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(die)
    main(arguments)


def start(*arguments: object, run: Path, moment: Moment = NEVER) -> multiprocessing.process.BaseProcess:
    child = processes.Process(target=rmft, args=([str(argument) for argument in arguments], run, moment))
    child.start()
    return child


def finish(*arguments: object, run: Path, moment: Moment = NEVER) -> int:
    """The exit code of a command, minus the signal's number where it was killed."""
    child = start(*arguments, run=run, moment=moment)
    child.join(60)
    assert child.exitcode is not None, "the command hangs"
    return child.exitcode


def here(*arguments: object) -> int:
    """The exit code of a command run in this process."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


def content(run: Path) -> dict[str, str]:
    """The SHA-256 of every file of a run but those that tell times."""
    return {
        str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(run.rglob("*"))
        if path.is_file() and path.name not in TIMES
    }


def lines(run: Path) -> int:
    path = run / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="module")
def undisturbed(config: Path) -> Path:
    """The run that was never killed."""
    run = config.with_name("undisturbed")
    assert here("train", config, "--run-dir", run) == 0
    assert lines(run) == 13
    return run


STAGED = """
name: staged
suite: smoke
seed: 3
policy: {width: 8, num_heads: 2, num_layers: 1}
rollout: {num_problems: 4, num_rollouts: 4}
credit: {kind: top_k_regret, num_selected: 2}
training: {batch_size: 8, learning_rate: 0.01}
stages:
- {iterations: 2, rollout: {temperature: 1.5}}
- iterations: 2
  suite: SUITE
  credit: {kind: policy_gradient}
  training: {objective: {kind: policy_gradient, kl_coef: 1}}
validation: {every: 2, num_problems: 10}
num_threads: 1
"""
OTHER = """
name: other
title: another suite, of one stage
train:
  settings:
  - name: other
    feedback: full
    horizon: 4
    num_arms: 2
    reward_process: {kind: gaussian}
"""


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The config of a run in two stages, the second with a suite, a credit and an objective of its own."""
    folder = tmp_path_factory.mktemp("staged")
    (folder / "other.yaml").write_text(OTHER)
    path = folder / "staged.yaml"
    path.write_text(STAGED.replace("SUITE", str(folder / "other.yaml")))
    return path


def train_or_resume(config: Path, run: Path) -> tuple[object, ...]:
    return ("resume", run) if run.exists() else ("train", config, "--run-dir", run)


WRITES = [
    r"os.mkdir .*/checkpoints/\.",
    r"open .*/trajectories/.*\.tmp",
    r"os.rename .*/trajectories/.*\.tmp",
    r"os.rename .*/checkpoints/\.",
    r"open .*/timings.jsonl",
    r"shutil.rmtree .*/checkpoints/0",
]
"""What an iteration does to the run's files, from its start to its line of metrics, and after it."""


def test_killed_between_any_two_writes_a_run_ends_as_if_it_never_was(
    config: Path, undisturbed: Path, tmp_path: Path
) -> None:
    luck, run = random.Random(0), tmp_path / "run"
    for operation in WRITES:
        code = finish(*train_or_resume(config, run), run=run, moment=(operation, luck.choice([2, 3])))
        assert code == -signal.SIGKILL, operation
    assert 0 < lines(run) < 13
    assert finish("resume", run, run=run) == 0
    assert content(run) == content(undisturbed)


def test_killed_in_any_stage_a_run_ends_as_if_it_never_was(staged: Path, tmp_path: Path) -> None:
    """Before the first stage's line, between the stages and in the second, of which the suite is gone."""
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert here("train", staged, "--run-dir", whole) == 0
    assert lines(whole) == 5
    suite = staged.with_name("other.yaml").read_bytes()
    for operation, done in {
        r"open .*/trajectories/000001.*\.tmp": 1,
        r"os.mkdir .*/checkpoints/\.000003": 3,
        r"os.rename .*/checkpoints/\.000003": 3,
        r"open .*/timings.jsonl": 3,
    }.items():
        code = finish(*train_or_resume(staged, run), run=run, moment=(operation, 1))
        assert code == -signal.SIGKILL, operation
        assert lines(run) == done
        staged.with_name("other.yaml").unlink(missing_ok=True)
    assert finish("resume", run, run=run) == 0
    staged.with_name("other.yaml").write_bytes(suite)
    assert content(run) == content(whole)


@pytest.mark.slow
@pytest.mark.parametrize("stages", [False, True])
def test_killed_at_any_operation_a_run_ends_as_if_it_never_was(
    staged: Path, tmp_path: Path, stages: bool
) -> None:
    short = tmp_path / "short.yaml"
    text = staged.read_text() if stages else CONFIG.replace("iterations: 12", "iterations: 4")
    short.write_text(text)
    whole = tmp_path / "whole"
    assert here("train", short, "--run-dir", whole) == 0
    for last in itertools.count(1):
        run = tmp_path / f"killed-{last}"
        code = finish("train", short, "--run-dir", run, run=run, moment=("", last))
        if code == 0:
            break
        assert code == -signal.SIGKILL
        assert finish(*train_or_resume(short, run), run=run) == 0
        assert content(run) == content(whole), f"killed before operation {last}"
    assert last > 40


def appears(run: Path, pattern: str) -> Callable[[], bool]:
    return lambda: any(run.glob(pattern))


def kill_when(config: Path, run: Path, moment: Callable[[], bool]) -> bool:
    """Train or resume until `moment`, then SIGKILL; whether it came before the end."""
    child = start(*train_or_resume(config, run), run=run)
    while child.is_alive() and not moment():
        pass
    child.kill()
    child.join()
    return child.exitcode != 0


def test_killed_in_the_middle_of_writing_a_run_ends_as_if_it_never_was(
    config: Path, undisturbed: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert kill_when(config, run, appears(run, "checkpoints/.*/policy.safetensors"))
    assert kill_when(config, run, appears(run, "checkpoints/.0*1/policy.safetensors"))
    kill_when(config, run, appears(run, "trajectories/*.tmp"))
    assert finish("resume", run, run=run) == 0
    assert content(run) == content(undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_killed_at_random_times_a_run_ends_as_if_it_never_was(
    config: Path, undisturbed: Path, tmp_path: Path, seed: int
) -> None:
    luck, run = random.Random(seed), tmp_path / "run"
    for _ in range(4):
        at, patterns = [], ["trajectories/*.tmp", "checkpoints/.*", "checkpoints/.*/optimizer.safetensors"]
        until, seen = luck.randrange(lines(run), 14), appears(run, luck.choice(patterns))

        def moment(at=at, until=until, seen=seen) -> bool:  # type: ignore[no-untyped-def]
            if not at and lines(run) >= until and seen():
                at.append(time.perf_counter() + luck.random() * 0.01)
            return bool(at) and time.perf_counter() >= at[0]

        kill_when(config, run, moment)
    assert finish("resume", run, run=run) == 0
    assert content(run) == content(undisturbed)


def unfinished(undisturbed: Path, run: Path) -> Path:
    """A copy of the run as it was when 11 of its 12 iterations were done."""
    shutil.copytree(undisturbed, run)
    whole = (run / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (run / "metrics.jsonl").write_bytes(b"".join(whole[:12]))
    shutil.rmtree(run / "checkpoints" / "000012")
    (run / "trajectories" / "000012.npz").unlink()
    (run / "result.json").unlink()
    return run


def torn_line(run: Path) -> None:
    with (run / "metrics.jsonl").open("ab") as file:
        file.write(b'{"iteration": 12, "rollout": {"regr')


def whole_line_without_its_newline(run: Path) -> None:
    with (run / "metrics.jsonl").open("ab") as file:
        file.write(json.dumps({"iteration": 12, "train": {}}).encode())


def torn_timings(run: Path) -> None:
    with (run / "timings.jsonl").open("ab") as file:
        file.write(b'{"iteration": 12, "roll')


def half_a_staged_checkpoint(run: Path) -> None:
    staged = run / "checkpoints" / ".000012"
    staged.mkdir()
    (staged / "policy.safetensors").write_bytes(b"\x00\x01half")


def an_orphan_checkpoint(run: Path) -> None:
    orphan = run / "checkpoints" / "000012"
    orphan.mkdir()
    (orphan / "policy.safetensors").write_bytes(b"of another time")
    (orphan / "left.over").write_bytes(b"")


def half_written_files(run: Path) -> None:
    for name in ("metrics.jsonl.tmp", "result.json.tmp", "baselines.json.tmp", "trajectories/000012.npz.tmp"):
        (run / name).write_bytes(b"half")
    (run / "trajectories" / "000012.npz").write_bytes(b"orphan")


def an_unpruned_checkpoint(run: Path) -> None:
    shutil.copytree(run / "checkpoints" / "000011", run / "checkpoints" / "000010")


LEFTOVERS = [
    *(torn_line, whole_line_without_its_newline, torn_timings, half_a_staged_checkpoint),
    *(an_orphan_checkpoint, half_written_files, an_unpruned_checkpoint),
]


@pytest.mark.parametrize("leave", LEFTOVERS, ids=lambda leave: leave.__name__)
def test_what_a_killed_run_leaves_behind_changes_nothing(
    undisturbed: Path, tmp_path: Path, leave: Callable[[Path], None]
) -> None:
    run = unfinished(undisturbed, tmp_path / "run")
    leave(run)
    assert here("resume", run) == 0
    assert content(run) == content(undisturbed)
    timings = [json.loads(line) for line in (run / "timings.jsonl").read_text().splitlines()]
    assert timings[-1]["iteration"] == 12


def test_a_run_killed_between_its_last_line_and_its_result_only_writes_the_result(
    undisturbed: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(undisturbed, tmp_path / "run")
    (run / "result.json").unlink()
    shutil.copytree(run / "checkpoints" / "000011", run / "checkpoints" / "000010")
    assert here("resume", run) == 0
    assert content(run) == content(undisturbed)


def test_resuming_a_finished_run_changes_nothing(undisturbed: Path, tmp_path: Path) -> None:
    run = shutil.copytree(undisturbed, tmp_path / "run")
    assert here("resume", run) == 0
    assert content(run) == content(undisturbed)
    for name in ("run.json", "timings.jsonl"):
        assert (run / name).read_bytes() == (undisturbed / name).read_bytes()


def test_an_extended_run_is_that_of_its_stages(tmp_path: Path) -> None:
    """Its learning rate takes its course anew in what was added, and it is judged where each stage ends."""
    short, whole, run = (tmp_path / name for name in ("short.yaml", "whole", "run"))
    short.write_text(CONFIG.replace("iterations: 12", "iterations: 2"))
    assert here("train", short, "--run-dir", run) == 0
    assert here("resume", run, "--iterations", 1) == 2, "it has more"
    last, elsewhere = run / "checkpoints" / "000002", tmp_path / "000002"
    last.rename(elsewhere)
    before = content(run)
    assert here("resume", run, "--iterations", 4) == 2, "it can't go on from there"
    assert content(run) == before
    elsewhere.rename(last)
    assert here("resume", run, "--iterations", 4) == 0
    assert here("resume", run, "--iterations", 4) == 0, "the same again asks for nothing"
    short.write_text(CONFIG.replace("iterations: 12", "stages: [{iterations: 2}, {iterations: 2}]"))
    assert here("train", short, "--run-dir", whole) == 0
    assert content(run) == content(whole)
    told = (run / "log.txt").read_text().splitlines()
    assert all(re.match(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00 \S", line) for line in told)
    assert sum("iteration 4/4: regret" in line for line in told) == 1
    result = json.loads((run / "result.json").read_text())
    (run / "result.json").write_text(json.dumps(result | {"status": "stopped"}))
    assert here("resume", run, "--iterations", 5) == 2, "its patience is out"


def test_a_changed_suite_file_does_not_change_a_run_that_goes_on(tmp_path: Path) -> None:
    suite, config = tmp_path / "mine.yaml", tmp_path / "tiny.yaml"
    process = "{kind: bernoulli, means: [0.1, 0.9]}"
    suite.write_text(
        "{name: mine, title: mine, validation: {num_problems: 4}, train: {settings: [{name: one, "
        f"feedback: bandit, horizon: 4, num_arms: 2, reward_process: {process}}}]}}}}"
    )
    config.write_text(CONFIG.replace("12", "3").replace("suite: smoke", f"suite: {suite}"))
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert here("train", config, "--run-dir", whole) == 0
    shutil.copytree(whole, run)
    head = (run / "metrics.jsonl").read_bytes().splitlines(keepends=True)[:3]
    (run / "metrics.jsonl").write_bytes(b"".join(head))
    suite.write_text(suite.read_text().replace("0.9", "0.2"))
    config.unlink()
    assert here("resume", run) == 0
    assert content(run) == content(whole)


@pytest.mark.parametrize(("end", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_one_that_is_asked_to_end_says_how_to_go_on_and_goes_on_where_it_was(
    end: signal.Signals,
    code: int,
    config: Path,
    undisturbed: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-m", "rmft.cli", "train", str(config), "--run-dir", str(run)]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as child:
        try:
            while child.poll() is None and not lines(run):
                time.sleep(0.001)
            child.send_signal(signal.SIGSTOP)
            os.waitpid(child.pid, os.WUNTRACED)
            before = content(run)
            assert here("resume", run) == 2, "another process trains it"
            assert f"'{run}' is being trained by another process" in capsys.readouterr().err
            assert content(run) == before
            child.send_signal(signal.SIGCONT)
            child.send_signal(end)
            _, errors = child.communicate(timeout=60)
        finally:
            child.kill()
    assert child.returncode == code, errors
    assert f"Go on with: rmft resume {run}" in errors
    assert "Traceback" not in errors
    assert "\x1b" not in errors
    assert 0 < lines(run) < 13
    assert here("resume", run) == 0
    assert content(run) == content(undisturbed)


def test_an_existing_directory_is_never_overwritten(
    config: Path, undisturbed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = content(undisturbed)
    assert here("train", config, "--run-dir", undisturbed) == 2
    message = capsys.readouterr().err
    assert f"'{undisturbed}' exists already" in message
    assert f"rmft resume {undisturbed}" in message
    assert content(undisturbed) == before


def test_a_disk_that_fills_up_costs_nothing_that_was_complete(
    undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The line of metrics at which the disk is full is torn; the lines before it stay."""
    whole = (undisturbed / "metrics.jsonl").read_bytes()
    run = unfinished(undisturbed, tmp_path / "run")
    shutil.copyfile(undisturbed / "metrics.jsonl", run / "metrics.jsonl")
    padding = b" " * 30_000  # larger than a checkpoint, so that the metrics are what does not fit
    padded = whole.splitlines(keepends=True)[:12]
    padded[5] = padded[5].rstrip(b"\n") + padding + b"\n"
    (run / "metrics.jsonl").write_bytes(b"".join(padded))
    with full_disk(len(b"".join(padded)) + 200):
        assert here("resume", run) == 2
    message = capsys.readouterr().err
    assert f"Error: Can't write to '{run}': File too large." in message
    assert f"go on with: rmft resume {run}" in message
    assert "Traceback" not in message
    assert (run / "metrics.jsonl").read_bytes()[: len(b"".join(padded))] == b"".join(padded)
    assert not (run / "result.json").exists()
    assert here("resume", run) == 0
    after = (run / "metrics.jsonl").read_bytes().replace(padding, b"")
    assert after == whole
    assert {**content(run), "metrics.jsonl": ""} == {**content(undisturbed), "metrics.jsonl": ""}


@pytest.mark.parametrize(
    ("what", "size"),
    [
        ("the suite", 550),
        ("the baselines", 700),
        ("the first policy", 5_000),
        ("an optimizer", 10_000),
    ],
)
def test_a_disk_that_is_full_ends_training_with_one_message(
    config: Path,
    undisturbed: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    what: str,
    size: int,
) -> None:
    run = tmp_path / "run"
    with full_disk(size):
        assert here("train", config, "--run-dir", run) == 2, what
    message = capsys.readouterr().err
    assert message.count("Error: Can't write") == 1
    assert "Traceback" not in message
    assert here(*train_or_resume(config, run)) == 0
    assert content(run) == content(undisturbed)
    assert os.listdir(tmp_path) == ["run"], "nothing half made is left beside it"
