"""A user's own reward process or environment, named as "module:Class" in a config."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, PrivateAttr, model_validator

from rmft.errors import ConfigError, ShapeError, UnknownNameError
from rmft.problems.process import RewardProcess
from rmft.types import RewardTable


class OwnProcess(BaseModel):
    """A user's own class as a reward process.

    kind: "module:Class". Every other key is handed to the class as a keyword. The module is found
    like any import, with the current directory last in line. Raises ConfigError or UnknownNameError
    when the class cannot be found or built or is no RewardProcess.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    kind: str
    _process: RewardProcess = PrivateAttr()

    @model_validator(mode="after")
    def _built(self) -> OwnProcess:
        keywords = self.model_extra or {}
        try:
            process = load_object(self.kind, "reward process")(**keywords)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{self.kind} could not be built with {keywords}: {error}") from error
        require(process, ("draw", "reward_range", "variation_budget"), self.kind, "RewardProcess")
        self._process = process
        low, high = self.reward_range
        if not low < high:
            raise ConfigError(f"{self.kind}.reward_range is ({low}, {high}); expected low < high.")
        return self

    def __eq__(self, other: object) -> bool:
        """By what was asked for; the user's object is no part of it."""
        return isinstance(other, OwnProcess) and self.model_dump() == other.model_dump()

    @property
    def reward_range(self) -> tuple[float, float]:
        try:
            low, high = self._process.reward_range
            return float(low), float(high)
        except (TypeError, ValueError):
            raise ConfigError(
                f"{self.kind}.reward_range must be a property that is a pair (low, high) of numbers."
            ) from None

    def variation_budget(self, horizon: int, num_arms: int) -> float:
        return float(self._process.variation_budget(horizon, num_arms))

    def draw(self, generator: np.random.Generator, horizon: int, num_arms: int) -> RewardTable:
        table = self._process.draw(generator, horizon, num_arms)
        if not isinstance(table, RewardTable):
            raise ConfigError(f"{self.kind}.draw returned {type(table).__name__}; expected a RewardTable.")
        if table.rewards.shape != (horizon, num_arms):
            raise ShapeError(
                f"{self.kind}.draw returned a table of shape {table.rewards.shape}; "
                f"expected (horizon, num_arms) = {(horizon, num_arms)}."
            )
        return table


def load_object(reference: str, what: str) -> Callable[..., Any]:
    """What "module:Class" names. Raises ConfigError or UnknownNameError; `what` says what it is for."""
    module_name, colon, name = reference.partition(":")
    if not (module_name and colon and name):
        raise ConfigError(f"found {what} '{reference}'; expected 'module:Class'.")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    importlib.invalidate_caches()
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise ConfigError(f"{what} '{reference}': importing {module_name} failed: {error}") from error
        raise ConfigError(
            f"{what} '{reference}': found no module '{module_name}'; expected {module_name}.py in the "
            f"current directory {here} or an installed package."
        ) from None
    except Exception as error:
        raise ConfigError(
            f"{what} '{reference}': importing {module_name} failed: {type(error).__name__}: {error}"
        ) from error
    if name not in vars(module):
        classes = [key for key, value in vars(module).items() if isinstance(value, type)]
        raise UnknownNameError(f"class in module {module_name}:", name, classes)
    found = vars(module)[name]
    if not callable(found):
        raise ConfigError(f"{what} '{reference}' is a {type(found).__name__}; expected a class.")
    return found  # type: ignore[no-any-return]


def require(thing: object, members: Iterable[str], name: str, protocol: str) -> None:
    """Raises ConfigError when `thing` lacks a member of a protocol."""
    missing = [member for member in members if member not in dir(thing)]
    if missing:
        raise ConfigError(f"{name} has no {', '.join(missing)}; a {protocol} needs {', '.join(members)}.")
