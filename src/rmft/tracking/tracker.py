"""What every tracker offers, and the names that figures have there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeGuard

GROUPS = {"validation": "eval"}
"""Groups of a line of metrics that trackers' users know by another name."""
NAMES = {"gradient_norm": "grad_norm", "tokens": "num_tokens"}
"""Figures that Transformers and TRL log by another name."""


@dataclass(frozen=True, slots=True)
class TrackedRun:
    """What a tracker is told of a run. id: the tracker's own, of a run that it has begun to follow."""

    path: Path
    name: str
    settings: Mapping[str, Any]
    id: str | None = None


class Tracker(Protocol):
    """Where figures go. `id` names the run there, to be gone on with later by another process."""

    @property
    def id(self) -> str: ...

    def log(self, step: int, figures: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


def figures_of(line: Mapping[str, Any]) -> dict[str, float]:
    """The figures in a line of metrics.jsonl, by names such as train/loss, rollout/regret and eval/regret.

    A mean that has an interval is three figures: NAME, NAME_low and NAME_high.
    """
    found: dict[str, float] = {}
    for group, values in line.items():
        if group == "iteration":
            continue
        name = GROUPS.get(group, group)
        if isinstance(values, Mapping):
            for key, value in values.items():
                called = f"{name}/{NAMES.get(key, key)}"
                if isinstance(value, Mapping):
                    ends = {"": value.get("mean"), "_low": value.get("low"), "_high": value.get("high")}
                    found |= {called + end: float(each) for end, each in ends.items() if _number(each)}
                elif _number(value):
                    found[called] = float(value)
        elif _number(values):
            found[f"train/{name}"] = float(values)
    return found


def _number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
