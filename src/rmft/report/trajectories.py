"""A run's stored trajectories: an index of all that is quick to make, and any one of them on demand.

What is stored of an iteration lies in trajectories/NNNNNN.npz (the regret of every rollout, the decisions of
those kept) and, of policies in words, in NNNNNN.jsonl.gz (every rollout, one per line); what was said in an
evaluation lies in conversations-SUITE-PART.jsonl.gz. The index is made of the arrays where they suffice,
so that nothing large is read before somebody asks for it. Nothing that is read is trusted.
"""

from __future__ import annotations

import gzip
import json
import zipfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.lib.npyio import NpzFile

from rmft.report.suite_names import suite_name
from rmft.report.untrusted import get, items_of, number, shown, text, whole

MAX_LINE = 8 * 2**20  # bytes of one trajectory
MAX_FILE = 2 * 2**30  # bytes of one file, unpacked
MAX_ENTRIES = 500_000  # of one run
IN_ROUNDS = {  # arrays with an entry for every round, and what a line calls them
    **{"arm": "arm", "reward": "seen", "weight": "weight"},
    **{"probabilities": "probabilities", "round_regret": "regret"},
}
PARTS = (*IN_ROUNDS, "expected_rewards")
BROKEN = (
    *(OSError, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError, MemoryError),
    *(ValueError, TypeError, LookupError),
)


class Entry(NamedTuple):
    """One trajectory in the index. row: its place in its file. None is what is not known.

    selected: whether training learned from it; policy: whose it is, of an evaluation.
    """

    row: int
    setting: str
    problem: int
    rollout: int
    regret: float | None
    selected: bool | None
    failed: bool | None
    context: str | None
    policy: str


@dataclass(frozen=True, slots=True)
class Shelf:
    """The trajectories of one file, without its ending: "000005" or "conversations-...".

    title: what they are, in words. suite: whose problems, "" if not known. iteration: None of an evaluation.
    notes: what could not be read.
    """

    name: str
    title: str
    suite: str
    iteration: int | None
    in_words: bool
    entries: list[Entry]
    notes: list[str] = field(default_factory=list)


def shelves(run_dir: Path) -> list[Shelf]:
    """Every file of trajectories in a run, in order; a file that has not changed is not read again."""
    folder = run_dir / "trajectories"
    names = {path.name.partition(".")[0] for path in folder.glob("[0-9]*.*") if path.suffix != ".tmp"}
    own = suite_name(run_dir)
    found = [_iteration_shelf(folder, name, own, *_stamps(folder, name)) for name in sorted(names)]
    said = sorted(run_dir.glob("conversations-*.jsonl.gz"))
    stamped = [(path, suite_name(run_dir, _played(path)), path.stat().st_mtime_ns) for path in said]
    return found + [_conversation_shelf(*each) for each in stamped]


def stored(run_dir: Path, shelf: Shelf, rows: Collection[int]) -> Iterator[tuple[int, object]]:
    """What is stored of these rows: of policies in words their lines, else `arrays_row`. Lenient: what cannot
    be read is left out."""
    folder = run_dir / "trajectories" if shelf.iteration is not None else run_dir
    if not shelf.in_words:
        yield from _array_rows(folder / f"{shelf.name}.npz", shelf, rows)
        return
    try:
        for place, line in enumerate(_lines(folder / f"{shelf.name}.jsonl.gz")):
            if place in rows:
                yield place, _parsed(line)
    except BROKEN:
        return


def _stamps(folder: Path, name: str) -> tuple[int, int]:
    """When the arrays and the lines of an iteration were last written, 0 where there are none."""
    paths = folder / f"{name}.npz", folder / f"{name}.jsonl.gz"
    arrays, lines = (path.stat().st_mtime_ns if path.is_file() else 0 for path in paths)
    return arrays, lines


@cache
def _iteration_shelf(folder: Path, name: str, suite: str, arrays: int, lines: int) -> Shelf:
    """The shelf of one iteration. arrays, lines: its files' stamps; another one is another shelf."""
    iteration, title = int(name) if name.isdigit() else None, f"training, iteration {int(name):,}"
    notes: list[str] = []
    entries: list[Entry] = []
    complete = False
    if arrays:
        try:
            entries, complete = _from_arrays(folder / f"{name}.npz", in_words=bool(lines))
        except BROKEN as error:
            notes.append(f"trajectories/{name}.npz is damaged: {str(error)[:200]}.")
    if lines and not complete:  # an older run's arrays, or damaged ones
        known = {entry.row: entry.selected for entry in entries}
        entries = _from_lines(folder / f"{name}.jsonl.gz", known, notes)
    return Shelf(name, title, suite, iteration, bool(lines), entries, notes)


def _played(path: Path) -> str:
    """The suite and part of an evaluation's trajectories as in the file's name, "words-bandits-held_out"."""
    return path.name.removesuffix(".jsonl.gz").removeprefix("conversations-")


@cache
def _conversation_shelf(path: Path, suite: str, stamp: int) -> Shelf:
    """The shelf of what was said in an evaluation. stamp: when it was written."""
    del stamp
    name, notes = path.name.removesuffix(".jsonl.gz"), list[str]()
    entries = _from_lines(path, {}, notes)
    return Shelf(name, f"evaluation, {_played(path)}", suite, None, True, entries, notes)


def _from_arrays(path: Path, *, in_words: bool) -> tuple[list[Entry], bool]:
    """The entries that the arrays of an iteration tell of, and whether they tell all that there is to index.

    Of policies in words every rollout, else those whose decisions are stored, which are the kept ones.
    """
    with _arrays(path) as arrays:
        names = list(dict.fromkeys(key.rpartition("/")[0] for key in arrays.files))
        entries: list[Entry] = []
        complete = True
        for name in names:
            regret, problems = arrays[f"{name}/regret"], arrays[f"{name}/problem"].tolist()
            (count, times), rows = regret.shape, arrays[f"{name}/row"]
            chosen = np.arange(count * times) if in_words else rows
            if not count == len(problems) or (len(rows) and not 0 <= rows.min() <= rows.max() < regret.size):
                raise ValueError("its rows and problems do not fit each other")
            has_failed, has_context = f"{name}/failed" in arrays.files, f"{name}/context" in arrays.files
            complete &= has_failed and (has_context or not in_words)
            failed = arrays[f"{name}/failed"].tolist() if has_failed else [None] * regret.size
            contexts = arrays[f"{name}/context"].tolist() if has_context else [None] * count
            selected = np.zeros(regret.size, dtype=bool)
            selected[rows] = (arrays[f"{name}/weight"] > 0).any(axis=1)
            regrets, kept, setting = regret.ravel().tolist(), selected.tolist(), shown(name)
            begun = len(entries)
            entries += [
                Entry(
                    begun + place, setting, problems[row // times], row % times, number(regrets[row]),
                    kept[row], failed[row], contexts[row // times], "",
                )
                for place, row in enumerate(chosen.tolist())
            ]  # fmt: skip
    return entries, complete


@contextmanager
def _arrays(path: Path) -> Iterator[NpzFile]:
    """The arrays of a file. Raises one of BROKEN."""
    with path.open("rb") as file:
        arrays = np.load(file, allow_pickle=False)
        if not isinstance(arrays, NpzFile):
            raise ValueError("it holds no named arrays")
        file.seek(0)
        if sum(member.file_size for member in zipfile.ZipFile(file).infolist()) > MAX_FILE:
            raise ValueError("it holds more than a file of trajectories can")
        yield arrays


def _from_lines(path: Path, selected: dict[int, bool | None], notes: list[str]) -> list[Entry]:
    entries: list[Entry] = []
    bad = 0
    try:
        for place, content in enumerate(_lines(path)):
            line = _parsed(content)
            weights = [number(get(each, "weight")) for each in items_of(get(line, "rounds"))]
            learned = any((weight or 0) > 0 for weight in weights) if any(weights) else None
            if not isinstance(line, dict):
                bad += 1
                continue
            entries.append(
                Entry(
                    place,
                    shown(text(get(line, "setting")) or "?"),
                    whole(get(line, "problem")) or 0,
                    whole(get(line, "rollout")) or 0,
                    number(get(line, "regret")),
                    selected.get(place, learned),
                    get(line, "failed") is not None if "failed" in line else None,
                    text(get(line, "context")),
                    shown(text(get(line, "policy")) or "", 80),
                )
            )
    except BROKEN as error:
        notes.append(f"{path.name} is damaged, what follows is left out: {str(error)[:200]}.")
    if bad:
        notes.append(f"{path.name}: {bad} damaged line(s) left out.")
    return entries


def _lines(path: Path) -> Iterator[bytes]:
    """The lines of a compressed file; a longer one than a trajectory can be ends it with ValueError."""
    done = 0
    with gzip.open(path) as file:
        while line := file.readline(MAX_LINE):
            done += len(line)
            if len(line) == MAX_LINE or done > MAX_FILE:
                raise ValueError("it holds more than a file of trajectories can")
            yield line


def _parsed(line: bytes) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _array_rows(path: Path, shelf: Shelf, rows: Collection[int]) -> Iterator[tuple[int, object]]:
    """Kept trajectories of a numeric policy, in the form of a line in words, as far as they are stored."""
    try:
        with _arrays(path) as arrays:
            begun = 0
            for name in dict.fromkeys(key.rpartition("/")[0] for key in arrays.files):
                count = len(arrays[f"{name}/arm"])
                wanted = [row for row in range(count) if begun + row in rows]
                parts = {part: arrays[f"{name}/{part}"] for part in PARTS if f"{name}/{part}" in arrays.files}
                for row in wanted:
                    told = {part: array[row].tolist() for part, array in parts.items() if row < len(array)}
                    yield begun + row, _array_row(shelf.entries[begun + row], told)
                begun += count
    except BROKEN:
        return


def _array_row(entry: Entry, told: dict[str, list[object]]) -> dict[str, object]:
    """A line from the arrays of `PARTS`, of which only the first trajectories of a file have all."""
    horizon = len(told["arm"])
    fitting = {
        name: told[part] for part, name in IN_ROUNDS.items() if part in told and len(told[part]) == horizon
    }
    rounds = [{name: each[place] for name, each in fitting.items()} for place in range(horizon)]
    return {**entry._asdict(), "rounds": rounds, "expected_rewards": told.get("expected_rewards")}
