"""A run's stored trajectories: an index of all that is quick to make, and any one of them on demand.

What is stored is defined in `rmft.records`: every rollout in arrays, of policies in words also in lines; of
an evaluation there are lines alone. The index is made of the arrays where they suffice, so that
nothing large is read before somebody asks for it. Nothing that is read is trusted.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rmft.errors import RunDirectoryError
from rmft.records.arrays import ABOUT, checked, settings_of
from rmft.records.files import FOLDER, read_arrays, read_lines
from rmft.report.old_records import old_columns
from rmft.report.suite_names import suite_name
from rmft.report.untrusted import get, items_of, lies_in, number, shown, text, whole

MAX_ENTRIES = 500_000  # of one run
IN_ROUNDS = {  # arrays with an entry for every round, and what a line calls them
    **{"arm": "arm", "reward": "seen", "advantage": "advantage", "mask": "mask"},
    **{"probabilities": "probabilities", "regret": "regret", "round_regret": "regret"},
}


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
    """The trajectories of one file, without its ending: "000005", "conversations" or "conversations-...".

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
    folder = run_dir / FOLDER
    inside = [path for path in folder.glob("[0-9]*.*") if lies_in(path, run_dir)]
    names = {path.name.partition(".")[0] for path in inside if path.suffix != ".tmp"}
    own = suite_name(run_dir)
    found = [_iteration_shelf(folder, name, own, *_stamps(folder, name)) for name in sorted(names)]
    said = sorted(path for path in run_dir.glob("conversations*.jsonl.gz") if lies_in(path, run_dir))
    stamped = [(path, suite_name(run_dir, _played(path)), path.stat().st_mtime_ns) for path in said]
    return found + [_conversation_shelf(*each) for each in stamped]


def stored(run_dir: Path, shelf: Shelf, rows: Collection[int]) -> Iterator[tuple[int, object]]:
    """What is stored of these rows, as lines. Lenient: what cannot be read is left out."""
    folder = run_dir / FOLDER if shelf.iteration is not None else run_dir
    if not shelf.in_words:
        yield from _array_rows(folder / f"{shelf.name}.npz", shelf, rows)
        return
    try:
        for place, line in enumerate(read_lines(folder / f"{shelf.name}.jsonl.gz")):
            if place in rows:
                yield place, _parsed(line)
    except RunDirectoryError:
        return


def _stamps(folder: Path, name: str) -> tuple[int, int]:
    """When the arrays and the lines of an iteration were last written, 0 where there are none."""
    paths = folder / f"{name}.npz", folder / f"{name}.jsonl.gz"
    arrays, lines = (
        path.stat().st_mtime_ns if path.is_file() and lies_in(path, folder.parent) else 0 for path in paths
    )
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
        except RunDirectoryError as error:
            notes.append(f"trajectories/{name}.npz is damaged: {str(error)[:300]}")
    if lines and not complete:  # an older run's arrays, or damaged ones
        known = {entry.row: entry.selected for entry in entries}
        entries = _from_lines(folder / f"{name}.jsonl.gz", known, notes)
    return Shelf(name, title, suite, iteration, bool(lines), entries, notes)


def _played(path: Path) -> str:
    """What an evaluation's files are called by, "" of the run's own suite."""
    return path.name.removesuffix(".jsonl.gz").removeprefix("conversations").removeprefix("-")


@cache
def _conversation_shelf(path: Path, suite: str, stamp: int) -> Shelf:
    """The shelf of what was said in an evaluation. stamp: when it was written."""
    del stamp
    name, notes = path.name.removesuffix(".jsonl.gz"), list[str]()
    entries = _from_lines(path, {}, notes)
    return Shelf(name, f"evaluation, {_played(path) or suite}", suite, None, True, entries, notes)


def _from_arrays(path: Path, *, in_words: bool) -> tuple[list[Entry], bool]:
    """The entries that the arrays of an iteration tell of, and whether they tell all that there is to index.

    Raises RunDirectoryError.
    """
    entries: list[Entry] = []
    complete = True
    for name, columns in _columns(read_arrays(path), in_words=in_words):
        count, setting, begun = len(columns["group"]), shown(name), len(entries)
        unknown = [None] * count
        regret = columns["regret"].sum(axis=1).tolist()
        learned: list[bool] = np.any(columns["mask"] & (columns["advantage"] > 0), axis=1).tolist()
        failed = [why != "" for why in columns["failure"].tolist()] if "failure" in columns else unknown
        contexts = columns["context"].tolist() if "context" in columns else unknown
        complete &= "failure" in columns and ("context" in columns or not in_words)
        places, groups, rollouts = range(begun, begun + count), columns["group"], columns["rollout"]
        each = zip(places, groups.tolist(), rollouts.tolist(), regret, learned, failed, contexts, strict=True)
        entries += [
            Entry(place, setting, group, rollout, number(r), chosen, lost, context, "")
            for place, group, rollout, r, chosen, lost, context in each
        ]
    return entries, complete


def _columns(arrays: dict[str, np.ndarray], *, in_words: bool) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Each setting's arrays, one row per trajectory, by the names of `rmft.records.arrays`.

    Of version 0.1, which stored less, as far as they go. Raises RunDirectoryError.
    """
    for name in settings_of(arrays):
        if f"{name}/{ABOUT}" not in arrays:
            yield name, old_columns(name, arrays, in_words=in_words)
            continue
        _, found = checked(name, arrays)
        place = np.unique(found["group"], return_inverse=True)[1]
        for table in ("context", "arm_name", "rewards", "expected_rewards"):
            if table in found and len(found[table]) != len(place):
                found[table] = found[table][place]
        yield name, found


def _from_lines(path: Path, selected: dict[int, bool | None], notes: list[str]) -> list[Entry]:
    entries: list[Entry] = []
    bad = 0
    try:
        for place, content in enumerate(read_lines(path)):
            line = _parsed(content)
            credit = [advantage_of(each) for each in items_of(get(line, "rounds"))]
            learned = any((found or 0) > 0 for found in credit) if any(credit) else None
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
    except RunDirectoryError as error:
        notes.append(f"{path.name} is damaged, what follows is left out: {str(error)[:300]}")
    if bad:
        notes.append(f"{path.name}: {bad} damaged line(s) left out.")
    return entries


def _parsed(line: bytes) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def advantage_of(each: object) -> float | None:
    """What the decision of a round counted in training: 0 outside the loss, None where it was not trained on.

    In version 0.1 that was its weight.
    """
    if get(each, "mask") is False:
        return 0.0
    found = number(get(each, "advantage"))
    return number(get(each, "weight")) if found is None else found


def _array_rows(path: Path, shelf: Shelf, rows: Collection[int]) -> Iterator[tuple[int, object]]:
    """Trajectories of a policy without words, in the form of a line, as far as they are stored."""
    try:
        begun = 0
        for _, columns in _columns(read_arrays(path), in_words=False):
            count = len(columns["group"])
            for row in (row for row in range(count) if begun + row in rows):
                wanted = (*IN_ROUNDS, "expected_rewards", "arm_name")
                parts = {name: columns[name] for name in wanted if name in columns}
                told = {name: part[row].tolist() for name, part in parts.items() if row < len(part)}
                yield begun + row, _array_row(shelf.entries[begun + row], told)
            begun += count
    except (RunDirectoryError, LookupError):
        return


def _array_row(entry: Entry, told: dict[str, list[object]]) -> dict[str, object]:
    """A line from arrays, of which version 0.1 stored some for the first trajectories only."""
    horizon = len(told["arm"])
    fitting = {
        name: told[part] for part, name in IN_ROUNDS.items() if part in told and len(told[part]) == horizon
    }
    rounds = [{name: each[place] for name, each in fitting.items()} for place in range(horizon)]
    options = [[name] for name in told.get("arm_name", [])]
    return {
        **entry._asdict(),
        "options": options,
        "rounds": rounds,
        "expected_rewards": told.get("expected_rewards"),
    }
