"""A user's own reward process, named as "module:Class" in a suite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, PrivateAttr, ValidationInfo, model_validator

from rmft.bayes.prior import PRIORS, Prior
from rmft.errors import ConfigError, ShapeError
from rmft.own_code import file_of, load_class, require, running
from rmft.problems.process import RewardProcess, Shows, StatesPrior
from rmft.types import RewardTable, Shown


class OwnProcess(BaseModel):
    """A user's own class as a reward process.

    kind: "module:Class"; see `load_class` for where it is looked for, and when it is run. Every other key
    is handed to the class as a keyword. Raises ConfigError or UnknownNameError when the class is not
    trusted, or cannot be found or built, or is no RewardProcess.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    kind: str
    _process: RewardProcess = PrivateAttr()
    _class: type[Any] = PrivateAttr()  # what made it

    @model_validator(mode="after")
    def _built(self, info: ValidationInfo) -> OwnProcess:
        keywords, source = self.model_extra or {}, info.context or {}
        own = load_class(
            self.kind,
            "reward process",
            "RewardProcess",
            (
                "draw",
                "variation_budget",
            ),  # a reward_range may be set when it is called
            source.get("folder", "."),
            trust=source.get("trust", False),
        )
        with running(f"{self.kind}, built with {keywords},"):
            process = own(**keywords)
        require(process, ("draw", "reward_range", "variation_budget"), self.kind, "RewardProcess")
        self._process, self._class = process, own
        low, high = self.reward_range
        if not low < high:
            raise ConfigError(f"{self.kind}.reward_range is ({low}, {high}); expected low < high.")
        return self

    @property
    def own_file(self) -> tuple[str, Path]:
        """See `rmft.own_code.file_of`."""
        return file_of(self.kind, self._class)

    def __eq__(self, other: object) -> bool:
        """By what was asked for; the user's object is no part of it."""
        return isinstance(other, OwnProcess) and self.model_dump() == other.model_dump()

    @property
    def reward_range(self) -> tuple[float, float]:
        with running(f"{self.kind}.reward_range, a pair (low, high) of numbers,"):
            low, high = self._process.reward_range
            return float(low), float(high)

    def variation_budget(self, horizon: int, num_arms: int) -> float:
        with running(f"{self.kind}.variation_budget"):
            return float(self._process.variation_budget(horizon, num_arms))

    def prior(self) -> Prior | None:
        """What the class says by a method `prior`, where it has one."""
        with running(f"{self.kind}.prior"):
            found: object = self._process.prior() if isinstance(self._process, StatesPrior) else None
        if found is None or isinstance(found, PRIORS):
            return found
        names = ", ".join(prior.__name__ for prior in PRIORS)
        raise ConfigError(
            f"{self.kind}.prior returned {type(found).__name__}; expected None or one of {names} of "
            "rmft.bayes.prior."
        )

    @property
    def shown(self) -> Shown:
        """What the class says by a property `shown`, where it has one."""
        with running(f"{self.kind}.shown"):
            found: object = self._process.shown if isinstance(self._process, Shows) else Shown()
        if not isinstance(found, Shown):
            raise ConfigError(f"{self.kind}.shown is {type(found).__name__}; expected a rmft.Shown.")
        return found

    def draw(self, generator: np.random.Generator, horizon: int, num_arms: int) -> RewardTable:
        with running(f"{self.kind}.draw"):
            table = self._process.draw(generator, horizon, num_arms)
        if not isinstance(table, RewardTable):
            raise ConfigError(f"{self.kind}.draw returned {type(table).__name__}; expected a RewardTable.")
        if table.rewards.shape != (horizon, num_arms):
            raise ShapeError(
                f"{self.kind}.draw returned a table of shape {table.rewards.shape}; "
                f"expected (horizon, num_arms) = {(horizon, num_arms)}."
            )
        low, high = self.reward_range
        least, most = table.rewards.min(), table.rewards.max()
        if least < low or most > high:
            raise ConfigError(
                f"{self.kind}.draw returned rewards from {least:g} to {most:g}; expected them in its "
                f"reward_range, [{low:g}, {high:g}]."
            )
        return table
