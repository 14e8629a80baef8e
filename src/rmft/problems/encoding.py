"""Columns of a table as they are shown before a decision: as numbers, and as a text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from rmft.errors import ConfigError, ShapeError, UnknownNameError
from rmft.problems.log_files import MISSING, Cells, number_in
from rmft.reading import Config
from rmft.scenarios.contexts import Words, on_one_line
from rmft.types import FloatArray, Observation, Shown

MAX_VALUES = 20  # of a column of words, of which each has a number; of more, words alone are told
MAX_CELL = 200  # characters
MAX_TEXT = 100  # bytes of a text whose longest is not known
MAX_NUMBER = 25  # characters of a number as it is told
CONSTANT = "constant"
NOTHING = "nothing is known"


class Column(Config):
    """One column. Numbers are told to policies as (number - mean) / std, 0 where one is missing.

    values: of a column of words, which is a number for each of them, 1 where the cell holds it, else 0; None
    of a column of numbers.
    """

    name: Words
    mean: float = 0.0
    std: Annotated[float, Field(gt=0)] = 1.0
    values: tuple[str, ...] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Of the numbers that it becomes."""
        return (self.name,) if self.values is None else tuple(f"{self.name} {value}" for value in self.values)

    def numbers(self, cells: Sequence[object]) -> FloatArray:
        """(N, n) of N cells."""
        if self.values is not None:
            texts = np.array([text_of(cell) for cell in cells])
            return np.asarray(texts[:, None] == np.array(self.values, dtype=np.str_)[None], dtype=np.float64)
        found = []
        for cell in cells:
            value = number_in(cell)
            if value is None and not _missing(cell):
                raise ShapeError(f"Found {cell!r:.40} in '{self.name}'; expected a number, as in training.")
            found.append(np.nan if value is None else value)
        scaled = (np.array(found) - self.mean) / self.std
        return np.where(np.isfinite(scaled), scaled, 0.0)[:, None]


class Feature(Column):
    """What differs from arm to arm, such as its price: `columns` are those that tell it, one for each arm in
    order.

    Mean, deviation and values are those of all of them together.
    """

    columns: Annotated[tuple[str, ...], Field(min_length=2, max_length=1_000)]


class Encoder(Config):
    """Rows of cells as numbers, the last of which is always 1, and as texts such as "age 41, job teacher".

    features: what is shown of every arm; their cells follow those of the columns. Where one is of words, each
    arm has a text of all of them. text_length, arm_text_length: of the longest text, in bytes. plain: numbers
    as they are, without the 1 and without texts.
    """

    columns: Annotated[tuple[Column, ...], Field(max_length=1_000)]
    features: Annotated[tuple[Feature, ...], Field(max_length=1_000)] = ()
    text_length: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    arm_text_length: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    plain: bool = False

    @model_validator(mode="after")
    def _shows_something(self) -> Encoder:
        if not (self.columns or self.features):
            raise ConfigError("found no columns; expected one or more that are shown.")
        return self

    @classmethod
    def of(cls, columns: Sequence[str] | Mapping[str, Literal["number", "text"]]) -> Encoder:
        """That of plain numbers by their names; or of columns by name, each a number or a text."""
        if not isinstance(columns, Mapping):
            return cls(columns=tuple(Column(name=name) for name in columns), plain=True)
        kinds = {"number": None, "text": ()}
        found = tuple(Column(name=name, values=kinds[kind]) for name, kind in columns.items())
        longest = sum(len(name.encode()) + 3 + MAX_TEXT * (kind == "text") for name, kind in columns.items())
        return cls(columns=found, text_length=longest + MAX_NUMBER * len(found))

    @classmethod
    def fitted(
        cls,
        names: Sequence[str],
        rows: Sequence[Cells],
        fit: Sequence[int],
        features: Mapping[str, tuple[str, ...]],
    ) -> Encoder:
        """The encoder of all rows; means, deviations and values are those of the rows `fit`.

        names: of the columns. features: those of the columns after them, one of each arm. Raises ConfigError
        where one of these holds no number.
        """
        columns = [
            Column(name=name, **_measured([rows[row][place] for row in fit]))
            for place, name in enumerate(names)
        ]
        of_arms, place = [], len(names)
        for name, each in features.items():
            cells = [row[place : place + len(each)] for row in rows]
            _check_feature(name, [cell for of_row in cells for cell in of_row])
            measured = _measured([cell for row in fit for cell in cells[row]])
            of_arms.append(Feature(name=name, columns=each, **measured))
            place += len(each)
        whole = cls(columns=tuple(columns), features=tuple(of_arms))
        texts = whole._texts(rows) if columns else []
        arm_texts = [text for each in whole._arm_texts(rows) for text in each] if whole._has_arm_texts else []
        longest = (
            max(len(text.encode()) for text in (*told, NOTHING)) * bool(told) for told in (texts, arm_texts)
        )
        return whole.model_copy(update=dict(zip(("text_length", "arm_text_length"), longest, strict=True)))

    @property
    def shown(self) -> Shown:
        """What a round shows of such rows."""
        names = tuple(name for column in self.columns for name in column.names)
        if self.plain:
            return Shown(names)
        features = tuple(name for feature in self.features for name in feature.names)
        return Shown(
            (*names, CONSTANT) if names or features else (),
            features,
            self.text_length,
            tuple((feature.mean, feature.std) for feature in self.features for _ in feature.names),
            self.arm_text_length,
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Of all columns, in the order of a row's cells."""
        of_arms = (name for feature in self.features for name in feature.columns)
        return (*(column.name for column in self.columns), *of_arms)

    def encode(self, rows: Sequence[Cells]) -> Observation:
        """Of N rows numbers (N, d), features (N, K, m), texts (N,) and arm_texts (N, K), those there are."""
        numbers = [column.numbers([row[place] for row in rows]) for place, column in enumerate(self.columns)]
        if self.plain:
            return Observation(np.concatenate(numbers, axis=1))
        whole = np.concatenate([*numbers, np.ones((len(rows), 1))], axis=1)
        features = [
            np.stack([feature.numbers(of_arm) for of_arm in zip(*cells, strict=True)], axis=1)
            for feature, cells in self._of_features(rows)
            if feature.names
        ]
        return Observation(
            whole if whole.shape[1] > 1 or features else None,
            np.concatenate(features, axis=-1) if features else None,
            np.array(self._texts(rows)) if self.columns else None,
            np.array(self._arm_texts(rows)) if self._has_arm_texts else None,
        )

    def row(self, values: Mapping[str, object] | Sequence[object] | str) -> Cells:
        """One row from values by the columns' names, or in their order, or the value of the only column.

        Raises ConfigError when some are missing, or are no columns.
        """
        names = list(self.names)
        if isinstance(values, str) or not isinstance(values, Sequence | Mapping):
            values = [values]
        if isinstance(values, Mapping):
            for name in values:
                if name not in names:
                    raise ConfigError(str(UnknownNameError("column that is shown", str(name), names)))
            if missing := [name for name in names if name not in values]:
                raise ConfigError(f"Found no value of {', '.join(missing)}; expected one of each of {names}.")
            return [values[name] for name in names]
        if len(values) != len(names):
            raise ConfigError(f"Found {len(values)} values; expected one of each of {names}.")
        return list(values)

    def _of_features(self, rows: Sequence[Cells]) -> Iterator[tuple[Feature, list[Cells]]]:
        """Each feature with the cells of every row that tell it, one of each arm."""
        first = len(self.columns)
        for feature in self.features:
            last = first + len(feature.columns)
            yield feature, [row[first:last] for row in rows]
            first = last

    def _texts(self, rows: Sequence[Cells]) -> list[str]:
        return [
            _told((column.name, cell) for column, cell in zip(self.columns, row, strict=False))
            for row in rows
        ]

    @property
    def _has_arm_texts(self) -> bool:
        return any(feature.values is not None for feature in self.features)

    def _arm_texts(self, rows: Sequence[Cells]) -> list[list[str]]:
        """Of every row that of each arm."""
        names = [feature.name for feature in self.features]
        cells = [cells for _, cells in self._of_features(rows)]
        return [
            [_told(zip(names, of_arm, strict=True)) for of_arm in zip(*of_row, strict=True)]
            for of_row in zip(*cells, strict=True)
        ]


def _told(named: Iterable[tuple[str, object]]) -> str:
    """Cells by name, such as "age 41, job teacher", without those that are missing."""
    known = ", ".join(f"{name} {text_of(cell)}" for name, cell in named if not _missing(cell))
    return known or NOTHING


def _measured(cells: Sequence[object]) -> dict[str, Any]:
    """Of a column that holds these cells: mean and deviation, or the values of one of words."""
    known = [cell for cell in cells if not _missing(cell)]
    numbers = [number_in(cell) for cell in known]
    if known and all(number is not None for number in numbers):
        found = np.array(numbers, dtype=np.float64)
        return {"mean": found.mean(), "std": found.std() or 1.0}
    values = sorted({text_of(cell) for cell in known})
    return {"values": tuple(values) if len(values) <= MAX_VALUES else ()}


def _longest(texts: Sequence[str]) -> int:
    """Bytes of the longest that may be told, 0 where none is."""
    return max(len(text.encode()) for text in (*texts, NOTHING)) if texts else 0


def _check_feature(name: str, cells: Sequence[object]) -> None:
    """Raises ConfigError when these are neither all numbers nor words, of which some may be missing."""
    numbers = [number_in(cell) for cell in cells]
    if any(number is None and not _missing(cell) for number, cell in zip(numbers, cells, strict=True)):
        if any(number is not None for number in numbers):
            raise ConfigError(
                f"found numbers and words in the columns of the feature '{name}'; expected either of them."
            )
    elif not all(number is not None and math.isfinite(number) for number in numbers):
        raise ConfigError(f"found no number in a column of the feature '{name}'; expected one in each line.")


def text_of(cell: object) -> str:
    """A cell as it is told. Raises ConfigError where no line of a prompt can hold it."""
    text = f"{cell:g}" if isinstance(cell, float) else str(cell).strip()
    try:
        return on_one_line(text, MAX_CELL)
    except ValueError as error:
        raise ConfigError(f"What is shown {error}.") from None


def _missing(cell: object) -> bool:
    return cell is None or str(cell).strip().lower() in MISSING
