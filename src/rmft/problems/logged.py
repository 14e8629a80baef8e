"""Rewards that were logged or simulated elsewhere, given in the config or in a file."""

from __future__ import annotations

import csv
import math
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import ValidationInfo, field_validator, model_validator

from rmft.errors import ConfigError, MissingExtraError, RmftError, ShapeError
from rmft.reading import Config
from rmft.scenarios.contexts import Names
from rmft.types import FloatArray, RewardTable

Rows = tuple[tuple[float, ...], ...]


class Logged(Config):
    """Problems cut from a log of rewards.

    rewards: rows of a (T, K) array, or the name of a .csv, .parquet or .npy file that holds one (one
    row per round, one column per arm; a .npy may hold (N, T, K), N logs of which one is drawn at
    random). expected_rewards: the means, of the same shape; the rewards themselves unless given.
    A log longer than the horizon gives a window at random; a suite whose parts name one log draws
    all their problems from it, so keep a log for each part where that matters. shuffle_arms: the arms
    change places at random from problem to problem. columns: what the arms are called. low, high: the range
    told to policies; the log's own unless given. Relative file names start from the folder of the file that
    names them. Raises ConfigError for a file that cannot be read or is too short, ShapeError for NaN,
    infinity or a wrong shape.
    """

    kind: Literal["logged"] = "logged"
    rewards: str | Rows
    expected_rewards: str | Rows | None = None
    shuffle_arms: bool = True
    columns: Names | None = None
    low: float | None = None
    high: float | None = None

    @field_validator("rewards", "expected_rewards")
    @classmethod
    def _from_folder(cls, value: str | Rows | None, info: ValidationInfo) -> str | Rows | None:
        if not isinstance(value, str):
            return value
        context: dict[str, Any] = info.context or {}
        return str((Path(context.get("folder", ".")) / Path(value).expanduser()).resolve())

    @model_validator(mode="after")
    def _readable(self) -> Logged:
        low, high = self.reward_range
        least, most = float(self._log.rewards.min()), float(self._log.rewards.max())
        if not (low <= least and most <= high and low < high):
            raise ConfigError(
                f"found rewards from {least} to {most}; expected them on [low, high] = [{low}, {high}]."
            )
        return self

    @property
    def names(self) -> tuple[str, ...] | None:
        """What the arms are called, where that is known."""
        return self.columns

    @cached_property
    def _log(self) -> RewardTable:
        """(N, T, K) all that was given."""
        rewards = load_log(self.rewards, "rewards")
        if self.expected_rewards is None:
            return RewardTable(rewards, rewards)
        return RewardTable(rewards, load_log(self.expected_rewards, "expected_rewards"))

    def __eq__(self, other: object) -> bool:
        """By what was asked for; the arrays read are no part of it."""
        return isinstance(other, Logged) and self.model_dump() == other.model_dump()

    @property
    def reward_range(self) -> tuple[float, float]:
        low = float(self._log.rewards.min()) if self.low is None else self.low
        high = float(self._log.rewards.max()) if self.high is None else self.high
        return (low, low + 1.0) if self.high is None and low == high else (low, high)

    def variation_budget(self, horizon: int, num_arms: int) -> float:  # noqa: ARG002
        """The most that the means of one log move, however long the window."""
        return float(self._log.variation.max())

    def draw(self, generator: np.random.Generator, horizon: int, num_arms: int) -> RewardTable:
        log = self._log
        if log.num_arms != num_arms:
            raise ConfigError(
                f"the log has {log.num_arms} arms (columns); the setting has num_arms {num_arms}."
            )
        if log.horizon < horizon:
            raise ConfigError(f"the log has {log.horizon} rounds (rows); the setting's horizon is {horizon}.")
        which = generator.integers(len(log.rewards))
        start = generator.integers(log.horizon - horizon + 1)
        arms = generator.permutation(num_arms) if self.shuffle_arms else np.arange(num_arms)
        rows = slice(start, start + horizon)
        return RewardTable(log.rewards[which, rows][:, arms], log.expected_rewards[which, rows][:, arms])


def load_log(given: str | Rows, what: str) -> FloatArray:
    """(N, T, K) the log `given` as rows or as the name of a file; N is 1 unless a .npy says more.

    Raises ConfigError, ShapeError, and MissingExtraError for a .parquet file without pyarrow.
    """
    if not isinstance(given, str):
        if len({len(row) for row in given}) > 1:
            raise ShapeError(f"{what}: the rows have different lengths; expected one number per arm in each.")
        return _checked(np.array(given, dtype=np.float64), what)
    path = Path(given)
    readers = {".csv": _read_csv, ".parquet": _read_parquet, ".npy": _read_npy}
    if path.suffix.lower() not in readers:
        raise ConfigError(f"{what}: found the file {path}; expected one that ends in {', '.join(readers)}.")
    try:
        return _checked(readers[path.suffix.lower()](path), f"{what} in {path}")
    except RmftError:
        raise
    except (OSError, ValueError) as error:
        raise ConfigError(f"{what}: {path} could not be read: {error}") from error


def _checked(array: FloatArray, what: str) -> FloatArray:
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
    return logs


def _read_csv(path: Path) -> FloatArray:
    """Numbers separated by commas; a first line that holds no number at all is taken as a header."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        lines = [(number, line) for number, line in enumerate(csv.reader(file), 1) if line]
    if lines and all(math.isnan(_number(cell)) and cell.strip().lower() != "nan" for cell in lines[0][1]):
        lines = lines[1:]
    width = len(lines[0][1]) if lines else 0
    rows = []
    for number, line in lines:
        if len(line) != width:
            raise ShapeError(
                f"{path}, line {number}: found {len(line)} columns; expected {width}, as in the first."
            )
        rows.append([_number(cell) for cell in line])
        for column, (cell, value) in enumerate(zip(line, rows[-1], strict=True), 1):
            if not math.isfinite(value):
                raise ShapeError(
                    f"{path}, line {number}, column {column}: found '{cell}'; expected a finite number."
                )
    return np.array(rows, dtype=np.float64)


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return math.nan


def _read_parquet(path: Path) -> FloatArray:
    try:
        import pyarrow.parquet
    except ImportError:
        raise MissingExtraError("parquet", "pyarrow") from None
    table = pyarrow.parquet.read_table(path)
    return np.column_stack([column.to_numpy() for column in table.columns]).astype(np.float64)


def _read_npy(path: Path) -> FloatArray:
    array = np.load(path, allow_pickle=False)
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
        raise ConfigError(f"{path}: expected one array of numbers, as numpy.save writes it.")
    return array.astype(np.float64)
