"""The index of a run's trajectories as columns, which the page filters; and a sample of them for one file."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rmft.report.blocks import Json, as_json
from rmft.report.trajectories import MAX_ENTRIES, Entry, Shelf
from rmft.report.untrusted import shown

NAMED = ("setting", "context", "policy")  # columns of few names, sent as their places in `names`
FLAGS = ("selected", "failed")
NUMBERS = ("row", "problem", "rollout")


def index(found: Sequence[Shelf], only: Collection[str] | None = None, note: str = "") -> Json:
    """Every trajectory of the shelves, or those called `only` ("000005.17"), one column per property.

    files: name, title, suite and iteration of each shelf. columns: file (a place in files), row, problem,
    rollout, regret, selected and failed (1, 0, None where it is not known); setting, context and policy
    (places in `names`, None where there is none). total: how many there are in the run. stored: which those
    are, in words.
    """
    total = sum(len(shelf.entries) for shelf in found)
    step = -(-total // MAX_ENTRIES) or 1
    if step > 1 and not note:
        note = f"One of every {step} of {total:,} trajectories is listed."
    chosen: list[tuple[int, Entry]] = [
        (place, entry)
        for place, shelf in enumerate(found)
        for entry in shelf.entries[::step]
        if only is None or f"{shelf.name}.{entry.row}" in only
    ]
    entries = [entry for _, entry in chosen]
    names: dict[str, list[str]] = {}
    columns: dict[str, list[int] | list[int | None] | list[float | None]] = {
        "file": [place for place, _ in chosen],
        "regret": [None if each.regret is None else float(f"{each.regret:.5g}") for each in entries],
    }
    for key in NUMBERS:
        columns[key] = [getattr(each, key) for each in entries]
    for key in FLAGS:
        columns[key] = [None if (flag := getattr(each, key)) is None else int(flag) for each in entries]
    for key in NAMED:
        places: dict[str, int] = {}
        values = [getattr(each, key) for each in entries]
        columns[key] = [places.setdefault(value, len(places)) if value else None for value in values]
        names[key] = [shown(name, 80) for name in places]
    return {
        "files": as_json(
            [{"name": s.name, "title": s.title, "suite": s.suite, "iteration": s.iteration} for s in found]
        ),
        "names": names,
        "columns": columns,
        "total": total,
        "note": note,
        "stored": _stored(found),
    }


def _stored(found: Sequence[Shelf]) -> str:
    """What a run stores, where that is not everything."""
    if any(shelf.iteration is None for shelf in found):
        return "Of an evaluation the first problems are stored, 50 at most, one rollout of each."
    return ""


def sample(found: Sequence[Shelf], most: int) -> list[str]:
    """Names of at most `most` trajectories: evaluations' first, then evenly spread over all iterations'.

    Of an evaluation the first problems, with every policy that played them, so that policies can be laid
    side by side; they take at most half.
    """
    said = [(shelf, entry) for shelf in found if shelf.iteration is None for entry in shelf.entries]
    said.sort(key=lambda pair: (pair[1].problem, pair[0].name))
    said = said[: most // 2]
    trained = [(shelf, entry) for shelf in found if shelf.iteration is not None for entry in shelf.entries]
    room = most - len(said)
    places = range(len(trained)) if len(trained) <= room else spread(len(trained), room)
    chosen = said + [trained[place] for place in places]
    return [f"{shelf.name}.{entry.row}" for shelf, entry in chosen]


def spread(count: int, most: int) -> list[int]:
    """`most` places out of `count`, evenly spread."""
    return [place * count // most for place in range(most)]
