"""Columns of a table as they are shown before a decision: as numbers, and as a text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

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
    """A number of every arm, such as its price: `columns` are those that tell it, one for each arm in order.

    Mean and deviation are those of all of them together.
    """

    columns: Annotated[tuple[str, ...], Field(min_length=2, max_length=1_000)]
    values: None = None


class Encoder(Config):
    """Rows of cells as numbers, the last of which is always 1, and as texts such as "age 41, job teacher".

    features: what is shown of every arm; their cells follow those of the columns. text_length: of the longest
    text, in bytes. plain: numbers as they are, without the 1 and without texts.
    """

    columns: Annotated[tuple[Column, ...], Field(max_length=1_000)]
    features: Annotated[tuple[Feature, ...], Field(max_length=1_000)] = ()
    text_length: Annotated[int, Field(ge=0, le=1_000_000)] = 0
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
        columns = []
        for place, name in enumerate(names):
            cells = [rows[row][place] for row in fit if not _missing(rows[row][place])]
            numbers = [number_in(cell) for cell in cells]
            if cells and all(number is not None for number in numbers):
                found = np.array(numbers, dtype=np.float64)
                columns.append(Column(name=name, mean=found.mean(), std=found.std() or 1.0))
                continue
            values = sorted({text_of(cell) for cell in cells})
            columns.append(Column(name=name, values=tuple(values) if len(values) <= MAX_VALUES else ()))
        of_arms, place = [], len(names)
        for name, each in features.items():
            numbers = [number_in(row[place + arm]) for row in rows for arm in range(len(each))]
            if not all(number is not None and math.isfinite(number) for number in numbers):
                raise ConfigError(
                    f"found no number in a column of the feature '{name}'; expected one in each line."
                )
            found = np.array(numbers, dtype=np.float64).reshape(len(rows), -1)[fit]
            of_arms.append(Feature(name=name, columns=each, mean=found.mean(), std=found.std() or 1.0))
            place += len(each)
        whole = cls(columns=tuple(columns), features=tuple(of_arms))
        longest = max((len(text.encode()) for text in whole._texts(rows)), default=0) if columns else 0
        return whole.model_copy(update={"text_length": longest})

    @property
    def shown(self) -> Shown:
        """What a round shows of such rows."""
        names = tuple(name for column in self.columns for name in column.names)
        if self.plain:
            return Shown(names)
        return Shown(
            (*names, CONSTANT) if names or self.features else (),
            tuple(feature.name for feature in self.features),
            self.text_length,
            tuple((feature.mean, feature.std) for feature in self.features),
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Of all columns, in the order of a row's cells."""
        of_arms = (name for feature in self.features for name in feature.columns)
        return (*(column.name for column in self.columns), *of_arms)

    def encode(self, rows: Sequence[Cells]) -> Observation:
        """Of N rows: numbers (N, d), features (N, K, m) and texts (N,), where there are any."""
        numbers = [column.numbers([row[place] for row in rows]) for place, column in enumerate(self.columns)]
        if self.plain:
            return Observation(np.concatenate(numbers, axis=1))
        whole = np.concatenate([*numbers, np.ones((len(rows), 1))], axis=1)
        features, first = [], len(self.columns)
        for feature in self.features:
            last = first + len(feature.columns)
            cells = zip(*(row[first:last] for row in rows), strict=True)
            features.append(np.concatenate([feature.numbers(of_arm) for of_arm in cells], axis=1))
            first = last
        return Observation(
            whole if whole.shape[1] > 1 or features else None,
            np.stack(features, axis=-1) if features else None,
            np.array(self._texts(rows)) if self.columns else None,
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

    def _texts(self, rows: Sequence[Cells]) -> list[str]:
        told = []
        for row in rows:
            known = zip(self.columns, row, strict=False)
            told.append(
                ", ".join(f"{column.name} {text_of(cell)}" for column, cell in known if not _missing(cell))
            )
        return [text or "nothing is known" for text in told]


def text_of(cell: object) -> str:
    """A cell as it is told. Raises ConfigError where no line of a prompt can hold it."""
    text = f"{cell:g}" if isinstance(cell, float) else str(cell).strip()
    try:
        return on_one_line(text, MAX_CELL)
    except ValueError as error:
        raise ConfigError(f"What is shown {error}.") from None


def _missing(cell: object) -> bool:
    return cell is None or str(cell).strip().lower() in MISSING
