"""Stored trajectories as they are found, read and sampled: in words, in numbers, and damaged ones."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from rmft.errors import RunDirectoryError
from rmft.report.conversation import MAX_ROUNDS
from rmft.report.page import embedded
from rmft.report.pieces import Pieces
from rmft.report.trajectories import Entry, shelves
from rmft.report.trajectory_index import index, sample
from run_files import HOSTILE, write_run, write_words


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in words: 2 iterations of 6 problems x 3 rollouts, and 6 problems played by start and best."""
    return write_words(write_run(tmp_path_factory.mktemp("runs") / "run", last=2))


@pytest.fixture
def run_dir(made: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(made, tmp_path / "run"))


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in gzip.open(path)]


def test_the_index_tells_of_every_trajectory_what_its_line_says(made: Path) -> None:
    found = shelves(made)
    assert [shelf.name for shelf in found] == ["000001", "000002", "conversations"]
    assert [shelf.iteration for shelf in found] == [1, 2, None]
    assert [len(shelf.entries) for shelf in found] == [18, 18, 12]
    for shelf in found[:2]:
        stored = lines(made / "trajectories" / f"{shelf.name}.jsonl.gz")
        for entry, line in zip(shelf.entries, stored, strict=True):
            for key in ("setting", "problem", "rollout", "context"):
                assert getattr(entry, key) == line[key]
            assert entry.regret == pytest.approx(line["regret"], abs=1e-5)
            assert entry.selected == any(each["mask"] for each in line["rounds"])  # type: ignore[attr-defined]
            assert entry.failed is False
    assert sum(bool(entry.selected) for entry in found[0].entries) == 12  # 2 of every problem's 3
    assert {entry.policy for entry in found[2].entries} == {"start", "best"}


def as_version_0_1(path: Path, *, context: bool = True) -> dict[str, np.ndarray]:
    """The arrays of an iteration as that version wrote them."""
    new, old = dict(np.load(path)), {}
    for setting in dict.fromkeys(key.rpartition("/")[0] for key in new):
        own = {key.rpartition("/")[2]: each for key, each in new.items() if key.startswith(f"{setting}/")}
        problems = np.unique(own["group"])
        kept = np.flatnonzero(own["mask"].any(axis=1))
        old[f"{setting}/problem"] = problems
        old[f"{setting}/regret"] = own["regret"].sum(axis=1).reshape(len(problems), -1)
        old[f"{setting}/row"] = kept.astype(np.int32)
        old[f"{setting}/arm"], old[f"{setting}/reward"] = own["arm"][kept], own["reward"][kept]
        old[f"{setting}/weight"] = (own["advantage"] * own["mask"])[kept].astype(np.float16)
        old[f"{setting}/failed"] = own["failure"] != ""
        if context:
            old[f"{setting}/context"] = own["context"]
    np.savez(path, **old)
    return old


@pytest.mark.parametrize("context", [True, False])
def test_a_run_of_version_0_1_is_indexed_as_before(run_dir: Path, context: bool) -> None:
    before = [shelf.entries for shelf in shelves(run_dir)]
    for path in (run_dir / "trajectories").glob("*.npz"):
        as_version_0_1(path, context=context)
    after = [shelf.entries for shelf in shelves(run_dir)]
    assert [[entry._replace(regret=0) for entry in entries] for entries in after] == [
        [entry._replace(regret=0) for entry in entries] for entries in before
    ]
    content = gzip.decompress((run_dir / "trajectories" / "000001.jsonl.gz").read_bytes())
    renamed = content.replace(b'"advantage"', b'"weight"').replace(b'"mask"', b'"unknown"')
    (run_dir / "trajectories" / "000001.jsonl.gz").write_bytes(gzip.compress(renamed))
    assert Pieces([run_dir]).piece("0/trajectory/000001.4")["rounds"][0]["advantage"] == 1


@pytest.mark.parametrize("old", [False, True])
def test_a_policy_without_words_has_its_rollouts_in_arrays(run_dir: Path, old: bool) -> None:
    for path in run_dir.glob("**/*.jsonl.gz"):
        path.unlink()
    path = run_dir / "trajectories" / "000002.npz"
    arrays = dict(np.load(path))
    name, row = "three-arms", 1
    rows = np.flatnonzero(arrays["two-arms/mask"].any(axis=1)) if old else np.arange(9)
    kept = np.flatnonzero(arrays[f"{name}/mask"].any(axis=1)) if old else np.arange(9)
    if old:
        as_version_0_1(path)
    shelf = shelves(run_dir)[1]
    assert len(shelf.entries) == (12 if old else 18)
    assert sum(bool(entry.selected) for entry in shelf.entries) == 12
    read = Pieces([run_dir]).piece(f"0/trajectory/000002.{len(rows) + row}")
    assert [each["arm"] for each in read["rounds"]] == arrays[f"{name}/arm"][kept[row]].tolist()
    assert [each["seen"] for each in read["rounds"]] == arrays[f"{name}/reward"][kept[row]].tolist()
    assert ["regret", pytest.approx(arrays[f"{name}/regret"][kept[row]].sum())] in read["facts"]
    assert read["options"][: max(each["arm"] for each in read["rounds"]) + 1][0] == "arm 1"


def test_a_trajectory_is_shown_as_it_was_played(made: Path) -> None:
    line = lines(made / "trajectories" / "000001.jsonl.gz")[4]
    read = Pieces([made]).piece("0/trajectory/000001.4")
    assert read["options"] == [" ".join(pair) for pair in line["options"]]  # type: ignore[attr-defined]
    for shown, stored, means in zip(read["rounds"], line["rounds"], line["expected_rewards"], strict=True):  # type: ignore[call-overload]
        assert (shown["prompt"], shown["completion"]) == (stored["prompt"], stored["completion"])
        assert shown["refused"] == [["Let me see.", "Again."]]
        assert shown["arm"] == stored["arm"]
        assert shown["probabilities"] == pytest.approx(stored["probabilities"], rel=1e-4)
        assert (shown["means"], shown["regret"], shown["seen"]) == (
            pytest.approx(means, rel=1e-4), stored["regret"], stored["seen"]
        )  # fmt: skip


@pytest.mark.parametrize(
    "name",
    ["000009.1", "000001", "../run.1", "000001.-1", "000001.1e3", ".1", "000001.²", "000001.9999999999"],
)
def test_only_names_of_the_index_are_read(made: Path, name: str) -> None:
    with pytest.raises(LookupError):
        Pieces([made]).piece(f"0/trajectory/{name}")


@pytest.mark.parametrize(
    "name", ["", "0", "1/overview", "0/nothing", "x/overview", "0/overview/1", "²/overview"]
)
def test_a_piece_that_there_is_not(made: Path, name: str) -> None:
    with pytest.raises((LookupError, ValueError)):
        Pieces([made]).piece(name)


DAMAGED = (
    b"",
    b"PK\x03\x04garbage",
    b"\x1f\x8b\x08\x00garbage",
    b"[1]\n",
    gzip.compress(b'{"a": 1}\n[2]\n{"regret'),
)


def test_a_file_of_very_many_lines_is_given_up(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rmft.records.files.MAX_LINES", 1_000)
    (run_dir / "conversations.jsonl.gz").write_bytes(gzip.compress(b"\n" * 2_000))
    found = next(shelf for shelf in shelves(run_dir) if shelf.name == "conversations")
    assert "more than a file of trajectories can" in str(found.notes)


def test_what_a_link_leads_to_outside_of_the_run_is_not_shown(run_dir: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere"
    other.mkdir()
    links = ("conversations.jsonl.gz", "trajectories", "evaluation.json", "config.yaml", "metrics.jsonl")
    for name in links:
        (run_dir / name).rename(other / name)
        (run_dir / name).symlink_to(other / name)
    pieces = Pieces([run_dir])
    assert pieces.piece("0/trajectories")["total"] == 0
    told = str(pieces.piece("0/overview"))
    assert [f"{name} is a link out of the run" in told for name in links[2:]] == [True] * 3
    alias = tmp_path / "alias"
    alias.symlink_to(run_dir)
    assert Pieces([alias]).piece("runs")  # the user's own link to a run
    (tmp_path / "seeds.json").write_text('{"seeds": [0]}')
    (tmp_path / "seed-0").symlink_to(Path("/") / "tmp")
    with pytest.raises(RunDirectoryError, match="is a link out of the folder"):
        Pieces([tmp_path])


@pytest.mark.parametrize("content", DAMAGED, ids=range(len(DAMAGED)))
@pytest.mark.parametrize(
    "name",
    [
        "trajectories/000001.npz",
        "trajectories/000001.jsonl.gz",
        "conversations.jsonl.gz",
    ],
)
def test_damaged_files_are_told_and_the_rest_is_shown(run_dir: Path, name: str, content: bytes) -> None:
    (run_dir / name).write_bytes(content)
    pieces = Pieces([run_dir])
    found = pieces.piece("0/trajectories")
    assert sum(count == 1 for count in found["columns"]["file"]) == 18  # iteration 2
    for place in range(len(found["columns"]["row"])):
        shelf = found["files"][found["columns"]["file"][place]]["name"]
        pieces.piece(f"0/trajectory/{shelf}.{found['columns']['row'][place]}")
    if name.endswith("npz"):
        assert sum(count == 0 for count in found["columns"]["file"]) == 18  # its lines tell as much
        assert "trajectories/000001.npz is damaged" in str(pieces.piece("0/overview"))
    else:
        assert "missing or damaged" in str(pieces.piece("0/trajectory/000001.0")) or name.startswith("conv")


def test_whatever_stands_in_a_line_is_shown_as_text_or_left_out(run_dir: Path) -> None:
    hostile = {
        **dict.fromkeys(("setting", "failed", "context", "policy"), HOSTILE),
        **{"problem": -1, "rollout": "x", "regret": 1e400, "options": [[HOSTILE], 3, None]},
        "expected_rewards": [[1, "x"], None, [0.5, 0.5]],
        "rounds": [
            {"prompt": HOSTILE, "completion": 3, "refused": [[HOSTILE], "x", None], "arm": 10**9},
            None,
            {"arm": True, "seen": [1, 2], "regret": "much", "weight": None, "probabilities": [0.5, 0.5]},
            *[{}] * MAX_ROUNDS,
        ],
    }
    path = run_dir / "conversations-x.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(hostile).replace("Infinity", "1e400").encode()))
    pieces = Pieces([run_dir])
    found = json.dumps(pieces.piece("0/trajectories"), allow_nan=False, ensure_ascii=False)
    assert "<script>alert(1)" in found
    assert "\u202e" not in found
    read = pieces.piece("0/trajectory/conversations-x.0")
    assert "\u202e" not in json.dumps(read, allow_nan=False, ensure_ascii=False)
    assert read["cut"] == 3
    assert read["rounds"][0]["arm"] is None
    assert read["rounds"][2] == {
        **{"arm": None, "probabilities": [0.5, 0.5], "means": [0.5, 0.5]},
        **{"seen": [1, 2], "regret": None, "advantage": None},
    }


def test_one_file_holds_a_sample_that_it_tells_of(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = embedded([run_dir])
    assert whole["0/trajectories"]["note"] == ""
    assert sum(name.startswith("0/trajectory/") for name in whole) == 48
    monkeypatch.setattr("rmft.report.page.MAX_SAMPLE", 16)
    some = embedded([run_dir])
    names = {name.removeprefix("0/trajectory/") for name in some if name.startswith("0/trajectory/")}
    assert len(names) == 16
    assert some["0/trajectories"]["note"].startswith("This file holds 16 of 48 trajectories, evenly spread")
    assert some["0/trajectories"]["total"] == 48
    assert {name.partition(".")[0] for name in names} == {
        "000001",
        "000002",
        "conversations",
    }
    columns = some["0/trajectories"]["columns"]
    assert {
        f"{some['0/trajectories']['files'][file]['name']}.{row}"
        for file, row in zip(columns["file"], columns["row"], strict=True)
    } == names
    monkeypatch.setattr("rmft.report.page.MAX_SAMPLE_BYTES", 20_000)
    few = embedded([run_dir])
    held = [piece for name, piece in few.items() if name.startswith("0/trajectory/")]
    assert 0 < len(json.dumps(held)) <= 20_000


def test_a_sample_keeps_policies_together(made: Path) -> None:
    found = shelves(made)
    said = {entry.row: entry for entry in found[2].entries}
    chosen = [said[int(name.rpartition(".")[2])] for name in sample(found, 8) if name.startswith("conv")]
    assert [(entry.problem, entry.policy) for entry in chosen] == [
        (0, "best"),
        (0, "start"),
        (1, "best"),
        (1, "start"),
    ]


def test_many_are_listed_evenly(monkeypatch: pytest.MonkeyPatch, made: Path) -> None:
    monkeypatch.setattr("rmft.report.trajectory_index.MAX_ENTRIES", 20)
    found = index(shelves(made))
    assert len(found["columns"]["row"]) == 6 + 6 + 4
    assert found["note"] == "One of every 3 of 48 trajectories is listed."


def test_a_run_that_goes_on_is_another_version(run_dir: Path) -> None:
    pieces = Pieces([run_dir])
    before, piece = pieces.version(0), pieces.piece("0/trajectories")
    assert pieces.piece("0/trajectories") is piece, "made once"
    (run_dir / "report.html").write_text("x")
    (run_dir / "metrics.jsonl.tmp").write_text("x")
    assert pieces.version(0) == before
    shutil.copy(run_dir / "trajectories" / "000002.jsonl.gz", run_dir / "trajectories" / "000003.jsonl.gz")
    assert pieces.version(0) != before
    assert len(pieces.piece("0/trajectories")["columns"]["row"]) == 48 + 18


def test_entries_are_small() -> None:
    assert Entry.__doc__
    assert Entry._fields[0] == "row"
