"""Rewards that were logged or simulated elsewhere, given in the config or in a file."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from rmft.errors import ConfigError, ShapeError
from rmft.problems.encoding import Encoder
from rmft.problems.log_files import Header, Log, LogColumns, load_log
from rmft.reading import Config
from rmft.scenarios.contexts import Words
from rmft.streams import generator as new_generator
from rmft.types import IntArray, Observation, RewardTable, Shown

Rows = tuple[tuple[float, ...], ...]
PartName = Literal["train", "validation", "held_out"]

PARTED = 0x9A27  # the seed of which group is of which part

Share = Annotated[float, Field(gt=0, lt=1)]


class Parts(Config):
    """Which share of a log's groups each part of a suite has."""

    train: Share = 0.6
    validation: Share = 0.2
    held_out: Share = 0.2

    @model_validator(mode="after")
    def _at_most_all(self) -> Parts:
        total = self.train + self.validation + self.held_out
        if total > 1 + 1e-9:
            raise ConfigError(f"found parts that sum to {total:g}; expected at most 1.")
        return self

    def of(self, count: int) -> dict[PartName, Sequence[int]]:
        """Which of `count` groups each part has: no group is in two, and none of the parts is empty.

        Raises ConfigError when there are fewer groups than parts.
        """
        if count < 3:
            raise ConfigError(f"found {count} logs for 3 parts; expected one or more for each of them.")
        order = new_generator(PARTED).permutation(count).tolist()
        held_out = max(1, round(self.held_out * count))
        validation = max(1, round(self.validation * count))
        train = max(1, min(round(self.train * count), count - held_out - validation))
        ends = np.cumsum([held_out, validation, train]).tolist()
        starts: list[int] = [0, *ends[:-1]]
        names: tuple[PartName, ...] = ("held_out", "validation", "train")
        return {name: sorted(order[a:b]) for name, a, b in zip(names, starts, ends, strict=True)}


def _texts(given: object) -> object:
    """Names of columns, of which YAML reads some as numbers: years, and arms that are counted."""
    if not isinstance(given, Sequence) or isinstance(given, str):
        return given
    return [str(name) if type(name) in (int, float) else name for name in given]


class Logged(Config):
    """Problems cut from a log of rewards, or from a table of classes.

    rewards: rows of a (T, K) array, or the name of a .csv, .tsv, .parquet or .npy file that holds one (one
    row per round, one column per arm; a .npy may hold (N, T, K), N logs). expected_rewards: the means, of the
    same shape; the rewards themselves unless given. header: whether the first line of a .csv names the
    columns; `auto` reads a line without numbers so, and refuses what could be either. columns: those that are
    arms, by their names; where no header names them, names for all, null for one that is no arm. A column
    without a name, as pandas writes its index, is none. group: the column that says whose a line is, such as
    a household: each group is a log of its own, and those shorter than the horizon are left out. parts: the
    share of the logs that each part of a suite has, so that no group is in two; unless given, .6, .2 and .2
    where there are groups, and every part has all where there are none. A problem is one log of those, and in
    the validation and held-out parts of a suite with `parts` each log is one problem. A log longer than the
    horizon gives a window at random: where all parts have the same log, and it is long enough, in its first
    60% for training, then 20% each for validation and held-out. label: the column that names the arm which
    pays 1 in a line, where the others pay 0: the class of a classification table, whose arms are all classes,
    or those that `columns` names. context: columns that are shown before the decision; with a label all
    others, unless given. Numbers are standardized and words become a number for each, as in the training part
    (`rmft.problems.encoding`). features: what is shown of every arm, such as its price: by name, the columns
    with it, one for each arm in their order, which are then named. sampled: whether a problem is lines at
    random, each once, and parts share no line; unless given, where there is a label and no group.
    shuffle_arms: the arms change places at random from problem to problem. low, high: the range told to
    policies; the log's own unless given. Relative file names start from the folder of the file that names
    them. Raises ConfigError for a file that cannot be read or is too short, ShapeError for NaN, infinity or a
    wrong shape.
    """

    kind: Literal["logged"] = "logged"
    rewards: str | Rows
    expected_rewards: str | Rows | None = None
    header: Header = "auto"
    columns: Annotated[tuple[str | None, ...] | None, BeforeValidator(_texts)] = None
    group: str | None = None
    label: str | None = None
    context: Annotated[tuple[str, ...] | None, BeforeValidator(_texts)] = None
    features: dict[Words, tuple[str, ...]] | None = None
    sampled: bool | None = None
    parts: Parts | None = None
    part: PartName | None = None
    shuffle_arms: bool = True
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
        least, most = self._extremes
        if not (low <= least and most <= high and low < high):
            raise ConfigError(
                f"found rewards from {least} to {most}; expected them on [low, high] = [{low}, {high}]."
            )
        if self._expected is not None:
            shapes = [[log.shape for log in each.logs] for each in (self._log, self._expected)]
            if shapes[0] != shapes[1]:
                raise ShapeError("rewards and expected_rewards must have the same shape, group by group.")
        for feature, of_arms in (self.features or {}).items():
            if len(of_arms) != self._log.logs[0].shape[1]:
                raise ConfigError(
                    f"found {len(of_arms)} columns of the feature '{feature}'; expected one for each of "
                    f"{self._log.logs[0].shape[1]} arms."
                )
        if self.at_random and self.group is not None:
            raise ConfigError("found sampled with group; lines at random are of no group: leave one out.")
        return self

    @cached_property
    def _log(self) -> Log:
        of_arms = tuple(name for columns in (self.features or {}).values() for name in columns)
        how = LogColumns(self.header, self.columns, self.group, self.label, self.context, of_arms)
        return load_log(self.rewards, "rewards", how)

    @cached_property
    def _expected(self) -> Log | None:
        if self.expected_rewards is None:
            return None
        how = LogColumns(self.header, self.columns, self.group)
        return load_log(self.expected_rewards, "expected_rewards", how)

    @cached_property
    def encoder(self) -> Encoder | None:
        """How the columns that are shown become numbers and texts; fitted to the training part."""
        log = self._log
        if not log.cells:
            return None
        counts = [len(each) for each in log.logs]
        fit: Sequence[int] = range(sum(counts))
        if self.parted:
            of_train = (self.parts or Parts()).of(counts[0] if self.at_random else len(counts))["train"]
            starts = np.cumsum([0, *counts])
            spans = [range(starts[number], starts[number + 1]) for number in of_train if not self.at_random]
            fit = of_train if self.at_random else [line for span in spans for line in span]
        rows = [row for each in log.cells for row in each]
        return Encoder.fitted(log.columns, rows, fit, self.features or {})

    @cached_property
    def _observations(self) -> list[Observation] | None:
        """What is shown in every line of each log."""
        return None if self.encoder is None else [self.encoder.encode(cells) for cells in self._log.cells]

    @property
    def shown(self) -> Shown:
        """What is shown before every decision."""
        return Shown() if self.encoder is None else self.encoder.shown

    @property
    def at_random(self) -> bool:
        """Whether a problem is lines at random."""
        return self.label is not None and self.group is None if self.sampled is None else self.sampled

    @property
    def parted(self) -> bool:
        """Whether each part of a suite has logs, or lines, of its own."""
        return self.parts is not None or self.group is not None or self.at_random

    @cached_property
    def _extremes(self) -> tuple[float, float]:
        logs = self._log.logs
        return float(min(log.min() for log in logs)), float(max(log.max() for log in logs))

    def __eq__(self, other: object) -> bool:
        """By what was asked for; the arrays read are no part of it."""
        return isinstance(other, Logged) and self.model_dump() == other.model_dump()

    @property
    def names(self) -> tuple[str, ...] | None:
        """What the arms are called, where the header or `columns` names them."""
        return self._log.names

    @property
    def reward_range(self) -> tuple[float, float]:
        least, most = self._extremes
        low = least if self.low is None else self.low
        high = most if self.high is None else self.high
        return (low, low + 1.0) if self.high is None and low == high else (low, high)

    def variation_budget(self, horizon: int, num_arms: int) -> float:  # noqa: ARG002
        """The most that the means of one log move, however long the window."""
        logs = (self._expected or self._log).logs
        return float(max(RewardTable(log, log).variation for log in logs))

    def for_part(self, part: PartName) -> Logged:
        """The same, of the logs that a part of a suite has."""
        return self.model_copy(update={"part": part})

    def which(self, horizon: int) -> list[int]:
        """The logs that problems are cut from: of the part, and at least as long as the horizon.

        Raises ConfigError when there are none.
        """
        logs = self._log.logs
        of_part: Sequence[int] = range(len(logs))
        if self.at_random:
            for log in of_part:
                self._lines(log, horizon)
            return list(of_part)
        if self.part is not None and self.parted:  # by all logs, so that other horizons part them alike
            of_part = (self.parts or Parts()).of(len(logs))[self.part]
        long = [number for number in of_part if len(logs[number]) >= horizon]
        if not long:
            longest = max(len(logs[number]) for number in of_part)
            raise ConfigError(
                f"the log has {longest} rounds (rows){f' in the part {self.part}' if self.part else ''}; the "
                f"setting's horizon is {horizon}."
            )
        return long

    def _lines(self, log: int, horizon: int) -> Sequence[int]:
        """The lines of a log that a part has, where problems are lines at random.

        Raises ConfigError when they are fewer than the horizon.
        """
        count = len(self._log.logs[log])
        lines = range(count) if self.part is None else (self.parts or Parts()).of(count)[self.part]
        if len(lines) < horizon:
            of_part = f" in the part {self.part}" if self.part else ""
            raise ConfigError(
                f"the table has {len(lines)} lines{of_part}; the setting's horizon is {horizon}, and a "
                "problem has each line once."
            )
        return lines

    def _span(self, count: int, horizon: int) -> tuple[int, int]:
        """Where the windows of a part lie in a log of `count` lines that has all parts."""
        if self.part is None or self.parted:
            return 0, count
        shares = Parts()
        ends = np.rint(count * np.cumsum([0, shares.train, shares.validation, shares.held_out])).astype(int)
        if np.diff(ends).min() < horizon:
            return 0, count
        place = ("train", "validation", "held_out").index(self.part)
        return int(ends[place]), int(ends[place + 1])

    def draw(self, generator: np.random.Generator, horizon: int, num_arms: int) -> RewardTable:
        which = self.which(horizon)
        return self.cut(which[generator.integers(len(which))], generator, horizon, num_arms)

    def cut(self, log: int, generator: np.random.Generator, horizon: int, num_arms: int) -> RewardTable:
        """A problem of one log: a window of it. Raises ConfigError when it does not have as many arms."""
        rewards = self._log.logs[log]
        if rewards.shape[1] != num_arms:
            raise ConfigError(
                f"the log has {rewards.shape[1]} arms (columns); the setting has num_arms {num_arms}."
            )
        expected = rewards if self._expected is None else self._expected.logs[log]
        if self.at_random:
            rows: slice | IntArray = generator.choice(self._lines(log, horizon), horizon, replace=False)
        else:
            first, last = self._span(len(rewards), horizon)
            start = first + generator.integers(last - first - horizon + 1)
            rows = slice(start, start + horizon)
        arms = generator.permutation(num_arms) if self.shuffle_arms else np.arange(num_arms)
        shown = None if self._observations is None else self._observations[log].map(lambda array: array[rows])
        return RewardTable(rewards[rows][:, arms], expected[rows][:, arms], shown)
