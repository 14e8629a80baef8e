"""A run's directory: what lies in it, what is refused, what a torn line or a full disk does to it."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rmft
from full_disk import full_disk
from rmft.config import parse_config
from rmft.errors import ConfigError, RmftError, RunDirectoryError
from rmft.files import append_line, write_atomically
from rmft.policies.checkpoint import ADAPTER, ADAPTER_CONFIG, OPTIMIZER, adapter_in
from rmft.run_directory import RunDirectory, package_versions, policy_in, read_json
from rmft.targets import check_path

CONFIG = parse_config({"name": "mine", "seed": 7, "iterations": 3})
SUITES = {"smoke": {"name": "mine", "title": "My own", "train": {"settings": []}}}


def metrics(iteration: int) -> dict[str, Any]:
    measured = {"mean": 2.0 - iteration, "low": 1.0, "high": 3.0}
    validation = {"regret": measured, "suff_fail_freq": measured, "entropy": measured}
    return {"iteration": iteration, "validation": validation}


def commit(run: RunDirectory, iteration: int, weights: bytes = b"weights") -> None:
    (run.staged_checkpoint(iteration) / "policy.safetensors").write_bytes(weights)
    arrays = {"one/regret": np.full((2, 3), iteration, dtype=np.float32)} if iteration else {}
    run.commit(metrics(iteration), {"rollout": 0.5}, arrays)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunDirectory]:
    with closing(RunDirectory.create(tmp_path / "run", CONFIG, SUITES)) as created:
        yield created


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_a_new_run_holds_config_suite_seed_and_versions(run: RunDirectory) -> None:
    assert names(run.path) == [
        ".lock",
        "checkpoints",
        "config.yaml",
        "run.json",
        "suite.yaml",
        "trajectories",
    ]
    about = read_json(run.path / "run.json")
    assert about.pop("started").endswith("+00:00")
    assert about.pop("sha256").keys() == {"config.yaml", "suite.yaml"}
    assert about == {
        "format": 2,
        "rmft": rmft.__version__,
        "name": "mine",
        "suite": "smoke",
        "seed": 7,
        "versions": package_versions(),
    }
    assert about["versions"]["numpy"] == np.__version__
    run.close()
    with closing(RunDirectory.open(run.path)) as opened:
        assert (opened.config, opened.suites, opened.metrics()) == (CONFIG, SUITES, [])


def a_file(path: Path) -> None:
    path.write_text("mine")


def an_empty_folder(path: Path) -> None:
    path.mkdir()


def a_link_to_nothing(path: Path) -> None:
    path.symlink_to("nothing")


@pytest.mark.parametrize("make", [a_file, an_empty_folder, a_link_to_nothing], ids=lambda make: make.__name__)
def test_what_exists_is_never_overwritten(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "run")
    before = (tmp_path / "run").lstat()
    with pytest.raises(RunDirectoryError, match="exists already and is never overwritten"):
        RunDirectory.create(tmp_path / "run", CONFIG, SUITES)
    assert (tmp_path / "run").lstat() == before
    assert names(tmp_path) == ["run"]


@pytest.mark.parametrize(
    ("path", "reason"),
    [("file/run", "exists|Not a directory"), ("file/a/b", "Not a directory"), ("n" * 300, "too long")],
)
def test_a_place_that_can_not_be_written_is_named(tmp_path: Path, path: str, reason: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunDirectoryError, match=rf"Can't write the run directory .*({reason}).*--run-dir"):
        RunDirectory.create(tmp_path / path, CONFIG, SUITES)
    assert names(tmp_path) == ["file"]


def test_a_full_disk_leaves_no_half_made_run(tmp_path: Path) -> None:
    with full_disk(100), pytest.raises(RunDirectoryError, match="File too large"):
        RunDirectory.create(tmp_path / "run", CONFIG, SUITES)
    assert names(tmp_path) == []
    RunDirectory.create(tmp_path / "run", CONFIG, SUITES).close()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("run.json", None, "is no run directory, or is damaged: run.json No such file"),
        ("run.json", b'{"format": 1', "run.json' is damaged: it is not valid JSON"),
        ("run.json", b"\xff\xfe", "run.json' is damaged: it is not valid JSON"),
        ("run.json", b"[" * 100_000, "run.json' is damaged: it is not valid JSON"),
        ("run.json", b"[1]", "run.json' is damaged: it holds no JSON object"),
        ("run.json", b"{}", "has format None"),
        ("run.json", b'{"format": 3, "rmft": "9.1"}', "has format 3; .* reads format 2.*wrote it: 9.1"),
        ("config.yaml", None, "config.yaml': No such file"),
        ("config.yaml", b"seed: [", "config.yaml' is not valid YAML"),
        ("config.yaml", b"", "config.yaml' holds an empty file"),
        ("config.yaml", b"seed: one", "config.yaml: seed: found 'one'; expected: a valid integer"),
        ("config.yaml", b"sed: 1", "config.yaml: Unknown key 'sed'. Did you mean 'seed'?"),
        ("suite.yaml", None, "suite.yaml': No such file"),
        ("suite.yaml", b"a: {", "suite.yaml' is not valid YAML"),
        ("suite.yaml", b"- a", "suite.yaml' holds a list"),
    ],
)
def test_a_damaged_run_is_refused_and_named(
    run: RunDirectory, name: str, content: bytes | None, message: str
) -> None:
    run.close()
    path = run.path / name
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(RmftError, match=message) as raised:
        RunDirectory.open(run.path)
    assert isinstance(raised.value, RunDirectoryError | ConfigError)


def test_a_run_that_is_not_there_is_named_with_those_that_are(run: RunDirectory) -> None:
    with pytest.raises(RunDirectoryError, match=r"no run directory .*rum'\. Runs there: run\."):
        RunDirectory.open(run.path.with_name("rum"))
    with pytest.raises(RunDirectoryError, match="no run directory"):
        RunDirectory.open(run.path / "nobody" / "nothing")
    with pytest.raises(RunDirectoryError, match="no run directory"):
        RunDirectory.open(run.path / ("n" * 300))
    with pytest.raises(RunDirectoryError, match="holds several runs"):
        RunDirectory.open(run.path.parent)


def test_one_run_is_trained_by_one_process(run: RunDirectory) -> None:
    with pytest.raises(RunDirectoryError, match="being trained by another process"):
        RunDirectory.open(run.path)
    assert RunDirectory.open(run.path, lock=False).config == CONFIG, "reading needs no lock"
    run.close()
    run.close()
    RunDirectory.open(run.path).close()


def test_a_lock_that_can_not_be_had_is_reported(run: RunDirectory) -> None:
    run.close()
    (run.path / ".lock").unlink()
    (run.path / ".lock").mkdir()
    with pytest.raises(RunDirectoryError, match=r"Can't lock .*Is a directory"):
        RunDirectory.open(run.path)


def test_an_iteration_is_committed_whole(run: RunDirectory) -> None:
    commit(run, 0)
    commit(run, 1, b"better")
    assert run.metrics() == [metrics(0), metrics(1)]
    assert names(run.path / "checkpoints") == ["000000", "000001"]
    assert run.policy(1).kind == "numeric"
    assert (run.policy(1).path / "policy.safetensors").read_bytes() == b"better"
    assert names(run.path / "trajectories") == ["000001.npz"]
    with np.load(run.path / "trajectories" / "000001.npz", allow_pickle=False) as stored:
        assert stored["one/regret"].tolist() == [[1.0] * 3] * 2
    assert (run.path / "timings.jsonl").read_text().splitlines()[1] == '{"iteration": 1, "rollout": 0.5}'


def test_a_checkpoint_that_is_missing_is_named(run: RunDirectory) -> None:
    with pytest.raises(RunDirectoryError, match="checkpoints/000004' is missing"):
        run.policy(4)


def test_what_a_killed_run_left_of_an_iteration_is_replaced(run: RunDirectory) -> None:
    commit(run, 0)
    commit(run, 1, b"killed before its line was written")
    (run.checkpoint(1) / "stray").write_bytes(b"")
    whole = (run.path / "metrics.jsonl").read_bytes()
    (run.path / "metrics.jsonl").write_bytes(whole[: whole.index(b"\n") + 20])
    (run.path / "trajectories" / "000001.npz.tmp").write_bytes(b"half")
    (run.path / "my-folder.tmp").mkdir()
    (run.path / "notes.tmp").write_bytes(b"a user's own")
    (run.path / "metrics.jsonl.tmp").write_bytes(b"half")
    (run.staged_checkpoint(1) / "policy.safetensors").write_bytes(b"half")
    run.write_json("result.json", {"status": "finished"})
    run.discard_unfinished()
    assert run.metrics() == [metrics(0)]
    assert names(run.path / "trajectories") == ["000001.npz"]
    assert "metrics.jsonl.tmp" not in names(run.path)
    assert {"my-folder.tmp", "notes.tmp"} <= set(names(run.path))
    assert run.read_json("result.json") is None
    assert names(run.path / "checkpoints") == ["000000", "000001"]
    commit(run, 1, b"again")
    assert names(run.checkpoint(1)) == ["policy.safetensors"]
    assert (run.checkpoint(1) / "policy.safetensors").read_bytes() == b"again"
    assert (run.path / "metrics.jsonl").read_bytes() == whole


def test_discarding_on_a_new_run_is_nothing(run: RunDirectory) -> None:
    before = names(run.path)
    run.discard_unfinished()
    assert names(run.path) == before


def test_pruning_keeps_what_it_is_told_to(run: RunDirectory) -> None:
    for iteration in range(5):
        commit(run, iteration)
    run.staged_checkpoint(5)
    run.prune({0, 3, 4, 9})
    assert names(run.path / "checkpoints") == [".000005", "000000", "000003", "000004"]


@pytest.mark.parametrize(
    ("number", "line"),
    [
        (1, b'{"iteration": 1, "vali'),
        (1, b""),
        (1, b"\x00\x00"),
        (1, b"[1]"),
        (1, b"{}"),
        (1, b'{"iteration": 2}'),
        (0, b'{"iteration": 0}'),
        (1, b'{"iteration": 1, "validation": {"regret": 3}}'),
        (1, b'{"iteration": 1, "validation": {"regret": {"mean": null}}}'),
        (1, b"[" * 100_000),
    ],
)
def test_a_damaged_line_of_metrics_is_named(run: RunDirectory, number: int, line: bytes) -> None:
    for iteration in range(3):
        commit(run, iteration)
    path = run.path / "metrics.jsonl"
    whole = path.read_bytes().splitlines()
    whole[number] = line
    path.write_bytes(b"\n".join(whole) + b"\n")
    with pytest.raises(RunDirectoryError, match=rf"Line {number + 1} of '.*metrics.jsonl' is damaged"):
        run.metrics()


def test_a_line_counts_once_its_newline_is_there(run: RunDirectory) -> None:
    for iteration in range(3):
        commit(run, iteration)
    path = run.path / "metrics.jsonl"
    whole = path.read_bytes()
    ends = [position + 1 for position, byte in enumerate(whole) if byte == ord("\n")]
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        assert len(run.metrics()) == sum(end <= cut for end in ends)


@given(cut=st.integers(0, 200))
def test_a_torn_line_is_mended_by_the_next(cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("lines") / "metrics.jsonl"
    for number in range(3):
        append_line(path, {"iteration": number, "text": "a\nb"})
    torn = path.read_bytes()[:cut]
    path.write_bytes(torn)
    append_line(path, {"iteration": 9})
    *before, last = path.read_bytes().splitlines(keepends=True)
    assert b"".join(before) == torn[: torn.rfind(b"\n") + 1]
    assert last == b'{"iteration": 9}\n'


def test_a_line_that_does_not_fit_on_the_disk_costs_none_before_it(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    append_line(path, {"iteration": 0})
    append_line(path, {"iteration": 1})
    whole = path.read_bytes()
    with full_disk(len(whole) + 7), pytest.raises(OSError, match="File too large"):
        append_line(path, {"iteration": 2})
    assert path.read_bytes().startswith(whole)
    append_line(path, {"iteration": 2})
    assert [json.loads(line)["iteration"] for line in path.read_bytes().splitlines()] == [0, 1, 2]


def test_a_number_that_is_none_is_never_written(tmp_path: Path) -> None:
    append_line(tmp_path / "lines", {"iteration": 0})
    with pytest.raises(ValueError, match="not JSON compliant"):
        append_line(tmp_path / "lines", {"loss": float("nan")})
    assert (tmp_path / "lines").read_bytes() == b'{"iteration": 0}\n'


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    write_atomically(path, b"before")
    with full_disk(1000), pytest.raises(OSError, match="File too large"):
        write_atomically(path, b"x" * 5000)
    assert path.read_bytes() == b"before"
    write_atomically(path, b"x" * 5000)
    assert path.read_bytes() == b"x" * 5000
    assert names(tmp_path) == ["result.json"]


def test_a_full_disk_during_a_commit_leaves_the_iterations_before(run: RunDirectory) -> None:
    commit(run, 0)
    commit(run, 1)
    staged = run.staged_checkpoint(2)
    (staged / "policy.safetensors").write_bytes(b"third")
    noise = np.random.default_rng(0).random((100, 100))
    with full_disk(10_000), pytest.raises(OSError, match="File too large"):
        run.commit(metrics(2), {}, {"one/regret": noise})
    assert run.metrics() == [metrics(0), metrics(1)]
    run.discard_unfinished()
    assert names(run.path / "trajectories") == ["000001.npz"]
    assert names(run.path / "checkpoints") == ["000000", "000001"]


def test_result_files_are_read_back(run: RunDirectory) -> None:
    assert run.read_json("result.json") is None
    run.write_json("result.json", {"status": "finished"})
    assert run.read_json("result.json") == {"status": "finished"}
    (run.path / "result.json").write_bytes(b"{")
    with pytest.raises(RunDirectoryError, match="not valid JSON"):
        run.read_json("result.json")


def test_a_moved_run_is_the_same_run(run: RunDirectory, tmp_path: Path) -> None:
    commit(run, 0)
    run.close()
    moved = shutil.move(run.path, tmp_path / "elsewhere")
    with closing(RunDirectory.open(moved)) as opened:
        assert opened.metrics() == [metrics(0)]
        assert opened.policy(0).path == moved / "checkpoints" / "000000"


def test_an_adapter_of_which_something_is_gone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match="has lost what training made"):
        adapter_in(tmp_path)
    (tmp_path / OPTIMIZER).write_bytes(b"\x10" + bytes(7) + b'{"weight/step":')
    with pytest.raises(RunDirectoryError, match="untrained model would play"):
        adapter_in(tmp_path)
    (tmp_path / OPTIMIZER).write_bytes(b"\x08" + bytes(7) + b"{}      ")
    assert adapter_in(tmp_path) is None, "as a run starts"
    (tmp_path / ADAPTER).touch()
    with pytest.raises(RunDirectoryError, match=f"lacks {ADAPTER_CONFIG}"):
        adapter_in(tmp_path)
    (tmp_path / ADAPTER_CONFIG).touch()
    assert adapter_in(tmp_path) == tmp_path
    (tmp_path / ADAPTER).unlink()
    with pytest.raises(RunDirectoryError, match=f"lacks {ADAPTER}"):
        adapter_in(tmp_path)


def test_a_mistyped_path_of_a_run_is_named_as_such(run: RunDirectory) -> None:
    check_path(str(run.path))
    check_path("ucb(coefficient=0.4)")
    with pytest.raises(RunDirectoryError, match=f"no run directory .*Runs there: {run.path.name}"):
        check_path(str(run.path.with_name("mistyped")))


def test_a_folder_of_several_runs_is_refused_wherever_one_is_asked_for(run: RunDirectory) -> None:
    several = run.path.parent
    says = f"holds several runs; name one of them, such as {re.escape(str(run.path))}"
    for ask in (lambda: policy_in(several), lambda: RunDirectory.open(several, lock=False)):
        with pytest.raises(RunDirectoryError, match=says):
            ask()
