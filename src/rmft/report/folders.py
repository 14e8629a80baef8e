"""Folders of runs, and the runs in them: of several seeds, known by their seeds.json, and of a study."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from rmft.errors import RunDirectoryError
from rmft.report.untrusted import get, items_of, lies_in, whole

SEEDS_FILE, STUDY_FILE = "seeds.json", "study.json"
MAX_BYTES = 2**20
MAX_SEEDS = 1_000


def runs_in(path: Path) -> list[Path]:
    """The runs of a folder of seeds or of a study, in order; of anything else the path itself.

    Raises RunDirectoryError when the folder names no seed, or the study has no run.
    """
    if (path / STUDY_FILE).is_file():
        found = sorted(each.parent for each in path.glob("*/seed-*/run.json") if lies_in(each, path))
        if not found:
            raise RunDirectoryError(f"The study in '{path}' has no run yet.")
        return found[:MAX_SEEDS]
    if not is_folder(path):
        return [path]
    with (path / SEEDS_FILE).open("rb") as file:
        content = file.read(MAX_BYTES)
    try:
        named = items_of(get(json.loads(content), "seeds"))
    except (ValueError, RecursionError):
        named = []
    seeds = dict.fromkeys(seed for each in named[:MAX_SEEDS] if (seed := whole(each)) is not None)
    if not seeds:
        raise RunDirectoryError(
            f"'{path / SEEDS_FILE}' is damaged: it names no seed. Give the runs in the folder one by one."
        )
    found = [path / f"seed-{seed}" for seed in seeds]
    for run in found:
        if not lies_in(run, path):
            raise RunDirectoryError(
                f"'{run}' is a link out of the folder. Give the run itself, if you mean it."
            )
    return found


def expanded(paths: Iterable[Path]) -> list[Path]:
    """Every run of some runs and folders of seeds."""
    return [run for path in paths for run in runs_in(path)]


def is_folder(path: Path) -> bool:
    """Whether it is a folder of seeds."""
    return (path / SEEDS_FILE).is_file()


def folder_of(run: Path) -> Path | None:
    """The folder of seeds that a run is in."""
    parent = run.absolute().parent
    return parent if run.name.startswith("seed-") and is_folder(parent) else None


def study_of(run: Path) -> Path | None:
    """The folder of the study that a run is in."""
    folder = run.absolute().parent.parent
    return folder if (folder / STUDY_FILE).is_file() else None


def short_name(run: Path) -> str:
    """A run's folder, with that of its seeds, or its entry in a study, where it has one."""
    return (
        run.resolve().name
        if folder_of(run) is None and study_of(run) is None
        else "/".join(run.resolve().parts[-2:])
    )
