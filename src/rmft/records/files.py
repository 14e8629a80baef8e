"""The files of a record, trajectories/000001.npz and .jsonl.gz, read without trusting them."""

from __future__ import annotations

import gzip
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.lib.npyio import NpzFile

from rmft.errors import RunDirectoryError
from rmft.records.arrays import ABOUT, checked, from_arrays, settings_of
from rmft.records.batch import RecordedBatch
from rmft.records.lines import turns_of
from rmft.types import Turn

FOLDER = "trajectories"
MAX_LINE = 8 * 2**20  # bytes of one trajectory
MAX_FILE = 2 * 2**30  # bytes of one file, unpacked
MAX_LINES = 500_000
BROKEN = (
    *(OSError, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError, MemoryError),
    *(ValueError, TypeError, LookupError, SyntaxError),
)


def paths_of(run_dir: Path, iteration: int) -> tuple[Path, Path]:
    """Where the arrays and the lines of an iteration lie."""
    folder, name = run_dir / FOLDER, f"{iteration:06d}"
    return folder / f"{name}.npz", folder / f"{name}.jsonl.gz"


def read_record(run_dir: Path, iteration: int) -> list[RecordedBatch]:
    """What was recorded of an iteration, setting by setting, to be trained on or evaluated off-policy.

    Raises RunDirectoryError when there is nothing, or it is damaged, or written by version 0.1, which did
    not store enough.
    """
    path, words = paths_of(run_dir, iteration)
    if not path.is_file():
        raise RunDirectoryError(f"There is no record of iteration {iteration}: '{path}' is missing.")
    arrays = read_arrays(path)
    settings = settings_of(arrays)
    if any(f"{setting}/{ABOUT}" not in arrays for setting in settings):
        raise RunDirectoryError(
            f"'{path}' was written by version 0.1, which kept only a part of the rollouts. It can be looked "
            "at, but not trained on or evaluated off-policy."
        )
    record = []
    try:
        lines = read_lines(words) if words.is_file() else iter(())
        for setting in settings:
            about, found = checked(setting, arrays)
            rules, turns = (about.horizon, about.num_arms), list[list[Turn]]()
            if about.in_words:
                pairs = zip(found["group"].tolist(), found["rollout"].tolist(), strict=True)
                rows = [turns_of(next(lines, b""), setting, *pair, rules) for pair in pairs]
                turns = [list(each) for each in zip(*rows, strict=True)]
            record.append(from_arrays(setting, about, found, turns))
    except RunDirectoryError as error:
        raise RunDirectoryError(
            f"The record of iteration {iteration} in '{run_dir}' is damaged: {error}"
        ) from None
    return record


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file by name. Raises RunDirectoryError when it holds none, or is too large."""
    try:
        with path.open("rb") as file:
            if sum(member.file_size for member in zipfile.ZipFile(file).infolist()) > MAX_FILE:
                raise ValueError("it holds more than a file of trajectories can")
            file.seek(0)
            arrays = np.load(file, allow_pickle=False)
            if not isinstance(arrays, NpzFile):
                raise ValueError("it holds no named arrays")
            return {name: arrays[name] for name in arrays.files}
    except BROKEN as error:
        raise RunDirectoryError(f"'{path}' is damaged: {str(error)[:200]}.") from None


def read_lines(path: Path) -> Iterator[bytes]:
    """The lines of a compressed file. Raises RunDirectoryError where it is damaged or too large."""
    done = lines = 0
    try:
        with gzip.open(path) as file:
            while line := file.readline(MAX_LINE):
                done, lines = done + len(line), lines + 1
                if len(line) == MAX_LINE or done > MAX_FILE or lines > MAX_LINES:
                    raise ValueError("it holds more than a file of trajectories can")
                yield line
    except BROKEN as error:
        raise RunDirectoryError(f"'{path}' is damaged: {str(error)[:200]}.") from None
