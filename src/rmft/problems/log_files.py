"""Logs as people have them: CSV, Parquet and .npy files become rewards, one column per arm.

What could be meant in two ways is never guessed: it is refused, and the settings that say it are named.
"""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import numpy as np

from rmft.errors import ConfigError, MissingExtraError, RmftError, ShapeError, UnknownNameError
from rmft.types import FloatArray

Header = bool | Literal["auto"]
Cells = Sequence[object]

MISSING = ("", "na", "n/a", "nan", "null", "none", "#n/a", "-")
CURRENCY = re.compile(r"[$€£¥₹%'\s]")
THOUSANDS = re.compile(r"-?[1-9]\d{0,2}(,\d{3})+")
UNNAMED = re.compile(r"|Unnamed: \d+|__index_level_\d+__")  # what pandas calls its index
YEARS = range(1900, 2101)
MAX_LABELS = 1_000


@dataclass(frozen=True)
class LogColumns:
    """How a log is to be read.

    header: whether its first line names the columns. columns: those that are arms, in their order; where no
    header names them, names for all of them, None for one that is no arm. group: the column that says whose
    a line is. label: the column that names the arm which pays 1 in a line, where all others pay 0; `columns`
    are then the names of the arms. shown: the columns that are shown before the decision. features: more of
    them, which tell of an arm each.
    """

    header: Header = "auto"
    columns: tuple[str | None, ...] | None = None
    group: str | None = None
    label: str | None = None
    shown: tuple[str, ...] | None = None
    features: tuple[str, ...] = ()

    @property
    def by_name(self) -> tuple[str, ...]:
        """Columns that only a header can name."""
        named = (self.group, self.label, *(self.shown or ()), *self.features)
        return tuple(name for name in named if name is not None)


@dataclass(frozen=True)
class Log:
    """names: of the K arms, None where nothing names them. logs: one (T, K) array for each group, in the
    order in which groups first occur; T may differ. columns: those that are shown. cells: of each log, theirs
    in every line, and after them those of the features."""

    names: tuple[str, ...] | None
    logs: tuple[FloatArray, ...]
    columns: tuple[str, ...] = ()
    cells: tuple[list[Cells], ...] = ()


def load_log(given: str | Sequence[Sequence[float]], what: str, how: LogColumns) -> Log:
    """The log `given` as rows or as the name of a file; a .npy may hold (N, T, K), N logs.

    Raises ConfigError, ShapeError, and MissingExtraError for a .parquet file without pyarrow.
    """
    if not isinstance(given, str):
        if len({len(row) for row in given}) > 1:
            raise ShapeError(f"{what}: the rows have different lengths; expected one number per arm in each.")
        return _of_array(np.array(given, dtype=np.float64), what, how)
    path, where = Path(given), f"{what} in {given}"
    readers = {".csv": _read_csv, ".tsv": _read_csv, ".parquet": _read_parquet, ".npy": _read_npy}
    if path.suffix.lower() not in readers:
        expected = ".csv, .tsv, .parquet, .npy"
        raise ConfigError(f"{what}: found the file {path}; expected one that ends in {expected}.")
    try:
        return readers[path.suffix.lower()](path, where, how)
    except RmftError:
        raise
    except Exception as error:  # whatever the readers of three formats say of a file that is none
        said = f"{type(error).__name__}: {error}"
        raise ConfigError(f"{what}: {path} could not be read: {said:.300}") from error


def _of_array(array: FloatArray, what: str, how: LogColumns) -> Log:
    if how.by_name:
        raise ConfigError(f"{what}: found '{how.by_name[0]}', but nothing names the columns of this log.")
    logs = array[None] if array.ndim == 2 else array
    if logs.ndim != 3 or logs.shape[0] < 1 or logs.shape[1] < 1 or logs.shape[2] < 2:
        raise ShapeError(
            f"{what}: found shape {array.shape}; expected (rounds, arms), or (logs, rounds, arms) in a .npy, "
            "with at least 1 round and 2 arms."
        )
    bad = np.argwhere(~np.isfinite(logs))
    if len(bad):
        log, row, arm = bad[0].tolist()
        raise ShapeError(
            f"{what}: found {logs[log, row, arm]} in log {log}, round {row}, arm {arm} (counted from 0), "
            f"and {len(bad) - 1} more like it; every reward must be a finite number."
        )
    arms, names = _named(how.columns, logs.shape[2], what)
    return Log(names, tuple(logs[:, :, arms]))


def _named(
    columns: tuple[str | None, ...] | None, width: int, what: str
) -> tuple[list[int], tuple[str, ...] | None]:
    """Which of `width` columns without a header are arms, and their names."""
    if columns is None:
        return list(range(width)), None
    if len(columns) != width:
        raise ConfigError(
            f"{what}: found {len(columns)} columns named and {width} in the log, which has no header; "
            "expected a name for each, or null for one that is no arm."
        )
    arms = [place for place, name in enumerate(columns) if name is not None]
    return arms, tuple(name for name in columns if name is not None)


def _read_npy(path: Path, where: str, how: LogColumns) -> Log:
    array = np.load(path, allow_pickle=False)
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
        raise ConfigError(f"{path}: expected one array of numbers, as numpy.save writes it.")
    return _of_array(array.astype(np.float64), where, how)


def _read_parquet(path: Path, where: str, how: LogColumns) -> Log:
    try:
        import pyarrow.parquet
    except ImportError:
        raise MissingExtraError("parquet", "pyarrow") from None
    table = pyarrow.parquet.read_table(path)
    index = (table.schema.pandas_metadata or {}).get("index_columns", [])
    header = ["" if name in index and name != how.group else name for name in table.column_names]
    rows = list(zip(*(_values(column) for column in table.columns), strict=True))
    return _of_cells(header, rows, [f"row {n}" for n in range(len(rows))], where, how)


def _values(column: Any) -> list[object]:
    """The cells of an Arrow column, of which some kinds hold what Python has no value for."""
    try:
        return list(column.to_pylist())
    except (OverflowError, ValueError):
        return [f"a {column.type} out of range"] * len(column)


def _read_csv(path: Path, where: str, how: LogColumns) -> Log:
    rows, numbers = _lines(path)
    places = [f"line {number}" for number in numbers]
    header = _header(rows, where, how)
    if header is None:
        return _of_cells(None, rows, places, where, how)
    return _of_cells(header, rows[1:], places[1:], where, how)


def _lines(path: Path) -> tuple[list[list[str]], list[int]]:
    """The cells of every line that has any, and the line's number from 1.

    In UTF-8 or, as its first bytes say, UTF-16; with commas, semicolons or tabs between cells.
    """
    content = path.read_bytes()
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = content.decode("utf-16" if wide else "utf-8-sig")
    first = next((line for line in text.splitlines() if line.strip()), "")
    separator = next((each for each in "\t;" if each in first), ",")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    found = [(number, line) for number, line in enumerate(reader, 1) if any(cell.strip() for cell in line)]
    rows, numbers = [line for _, line in found], [number for number, _ in found]
    if len({len(line) for line in rows}) > 1:
        number, line = next((n, line) for n, line in found if len(line) != len(rows[0]))
        raise ShapeError(
            f"{path}, line {number}: found {len(line)} columns; expected {len(rows[0])}, as in the first."
        )
    return rows, numbers


def _header(rows: list[list[str]], where: str, how: LogColumns) -> list[str] | None:
    """The first line where it names the columns. Raises ConfigError where it may or may not."""
    if not rows or how.header is False:
        return None
    first = [cell.strip() for cell in rows[0]]
    if how.header is True:
        return first
    advice = (
        "Say header: true where it names the columns, and header: false where it holds rewards; columns: "
        "[...] names those that are arms."
    )
    numbers = [number_in(cell) for cell in first]
    if all(number is None for number in numbers):
        money = next((cell for cell in first if number_in(CURRENCY.sub("", cell)) is not None), None)
        if money is not None:
            raise ConfigError(f"{where}: the first line holds '{money}', a name or an amount. {advice}")
        return None if all(cell.lower() in MISSING for cell in first) else first
    if first[0] == "" and len(rows) > 1:  # as pandas writes its index, here above arms called by numbers
        return first
    whole = [int(cell) for cell in first if re.fullmatch(r"\d{1,9}", cell)]
    counts = len(first) == len(whole) > 1 and all(b - a == 1 for a, b in itertools.pairwise(whole))
    years = len(first) == len(whole) == len(set(whole)) and all(number in YEARS for number in whole)
    others = {number_in(cell) for row in rows[1:] for cell in row}
    if (counts or years) and others and not set(numbers) <= others:
        shown = ", ".join(first[:4]) + (", ..." if len(first) > 4 else "")
        raise ConfigError(f"{where}: the first line is {shown}, numbers of arms or rewards. {advice}")
    return None


def _of_cells(
    header: Sequence[str] | None, rows: Sequence[Cells], places: Sequence[str], where: str, how: LogColumns
) -> Log:
    """The log in lines of cells. places: what each line is called in messages."""
    width = len(rows[0]) if rows else 0
    group: list[object] | None = None
    shown: tuple[str, ...] = ()
    if header is None:
        if how.by_name:
            raise ConfigError(f"{where}: found '{how.by_name[0]}', but no header that names the columns.")
        arms, names = _named(how.columns, width, where)
        titles = [f"column {place + 1}" for place in range(width)]
    else:
        others = [name for name in header if not UNNAMED.fullmatch(name) and name not in how.by_name]
        shown = tuple(others if how.shown is None and how.label is not None else how.shown or ())
        chosen = () if how.label is not None else how.columns or tuple(others)
        arms = [_place(name, header, where) for name in chosen if name is not None]
        names = tuple(name for name in chosen if name is not None)
        titles = [f"column '{name}'" for name in header]
        if how.group is not None:
            group = [row[_place(how.group, header, where)] for row in rows]
    if how.label is not None and header is not None and rows:
        names, rewards = _labelled(
            [row[_place(how.label, header, where)] for row in rows], how.columns, where
        )
    elif not rows or len(arms) < 2:
        raise ShapeError(
            f"{where}: found {len(rows)} rounds of {len(arms)} arms; expected at least 1 round and 2 arms: a "
            "line per round, a column per arm."
        )
    else:
        rewards = _numbers(rows, arms, titles, places, where)
        if how.columns is None:
            _refuse_counting(rewards, [titles[arm] for arm in arms], where)
    lines = _by_group(len(rows), group, where)
    at = [_place(name, header or (), where) for name in (*shown, *how.features)]
    cells: tuple[list[Cells], ...] = tuple(
        [[rows[line][place] for place in at] for line in each] for each in lines
    )
    return Log(names, tuple(rewards[each] for each in lines), shown, cells if at else ())


def _place(name: str, header: Sequence[str], where: str) -> int:
    """The place of a column. Raises ConfigError when there is none of that name, or several."""
    if name not in header:
        raise ConfigError(f"{where}: {UnknownNameError('column', name, filter(None, header))}")
    if list(header).count(name) > 1:
        raise ConfigError(f"{where}: found several columns '{name}'; expected one.")
    return list(header).index(name)


def _labelled(
    labels: Sequence[object], columns: tuple[str | None, ...] | None, where: str
) -> tuple[tuple[str, ...], FloatArray]:
    """The arms' names and (T, K) rewards: 1 of the arm that the line's label names, 0 of the others."""
    found = np.array([str(label).strip() for label in labels])
    names = tuple(name for name in columns or np.unique(found).tolist() if name is not None)
    unknown = sorted(set(found.tolist()) - set(names))
    if unknown or not 2 <= len(names) <= MAX_LABELS:
        what = (
            f"the label '{unknown[0]:.60}', which columns does not name"
            if unknown
            else f"{len(names)} labels"
        )
        raise ShapeError(f"{where}: found {what}; expected 2 to {MAX_LABELS}, the names of the arms.")
    return names, np.asarray(found[:, None] == np.array(names)[None], dtype=np.float64)


def _numbers(
    rows: Sequence[Cells], arms: Sequence[int], titles: Sequence[str], places: Sequence[str], where: str
) -> FloatArray:
    """(T, K) the rewards in the cells of the columns `arms`. Raises ShapeError for what is no number."""
    texts = [cell for row in rows for cell in (row[arm] for arm in arms) if isinstance(cell, str)]
    commas, points = [text for text in texts if "," in text], [text for text in texts if "." in text]
    if commas and (points or all(THOUSANDS.fullmatch(text.strip()) for text in commas)):
        shown = f"'{commas[0]}'" + (f" and '{points[0]}'" if points else "")
        raise ShapeError(
            f"{where}: found {shown}; expected decimal points, or decimal commas throughout, and nothing "
            "between thousands."
        )
    found = np.zeros((len(rows), len(arms)))
    for line, (row, place) in enumerate(zip(rows, places, strict=True)):
        for number, arm in enumerate(arms):
            value = number_in(row[arm])
            if value is None or not math.isfinite(value):
                raise ShapeError(_nonumber_in(row[arm], f"{where}, {place}, {titles[arm]}"))
            found[line, number] = value
    return found


def _nonumber_in(cell: object, place: str) -> str:
    shown = f"{cell!r:.40}" if isinstance(cell, str) else f"'{cell!s:.40}'"
    if cell is None or str(cell).strip().lower() in MISSING:
        return (
            f"{place}: found {shown}, a missing value; expected a finite number, since every arm has a "
            "reward in every round. Fill it in, or leave the line out."
        )
    return (
        f"{place}: found {shown}; expected a finite number. Where this column is no arm, name those that "
        "are: columns: [...]."
    )


def number_in(cell: object) -> float | None:
    """A cell as a number, with a decimal point or comma; None where it is none."""
    if isinstance(cell, str):
        try:
            return float(cell.strip().replace(",", ".")) if "_" not in cell else None
        except ValueError:
            return None
    try:
        return float(cell) if isinstance(cell, bool | int | float | Decimal) else None
    except (OverflowError, ValueError):
        return None


def _refuse_counting(rewards: FloatArray, titles: Sequence[str], where: str) -> None:
    """Raises ConfigError where a column counts the lines, as a row number does and an arm hardly can."""
    if len(rewards) < 4:
        return
    for title, column in zip(titles, rewards.T, strict=True):
        if column[0] in (0, 1) and (np.diff(column) == 1).all():
            raise ConfigError(
                f"{where}: {title} counts the lines ({column[0]:g}, {column[1]:g}, {column[2]:g}, ...), as "
                "a row number does. Name the columns that are arms: columns: [...], with header: true where "
                "the first line names them; else with a name for each column and null for this one."
            )


def _by_group(count: int, group: Iterable[object] | None, where: str) -> list[list[int]]:
    """The lines of every group."""
    if group is None:
        return [list(range(count))]
    lines: dict[str, list[int]] = {}
    for line, whose in enumerate(group):
        if str(whose).strip().lower() in MISSING:
            raise ConfigError(f"{where}: found no group in round {line}; expected whose it is in every line.")
        lines.setdefault(str(whose), []).append(line)
    return list(lines.values())
