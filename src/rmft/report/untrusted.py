"""Values from a file that nobody vouches for: the right type, or None."""

from __future__ import annotations

import math
import os
import unicodedata
from dataclasses import dataclass
from pathlib import Path

MAX_LENGTH = 400


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean, with its confidence interval where one is known. Finite."""

    mean: float
    low: float | None = None
    high: float | None = None


def lies_in(path: Path, folder: Path) -> bool:
    """Whether nothing on the way to `path` is a link out of `folder`, to what is not a run's to show."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def get(node: object, *keys: str) -> object:
    """The value under `keys`, one below the other; None where there is none."""
    for key in keys:
        node = node.get(key) if isinstance(node, dict) else None
    return node


def number(value: object) -> float | None:
    """A finite number, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def whole(value: object) -> int | None:
    """A non-negative whole number below 10^12, or None."""
    found = number(value)
    return int(found) if found is not None and found == int(found) and 0 <= found < 1e12 else None


def shown(value: str, limit: int = MAX_LENGTH) -> str:
    """`value` with control, bidirectional, invisible and unpaired characters spelled out, cut at `limit`."""
    spelled = value[: limit + 1]
    if not spelled.replace("\n", "").isprintable():
        spelled = "".join(
            character
            if character in "\n\t" or not unicodedata.category(character).startswith("C")
            else f"\\u{ord(character):04x}"
            for character in spelled
        )
    return spelled if len(value) <= limit else spelled[:limit] + "…"


def text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def interval(value: object) -> Interval | None:
    """{"mean", "low", "high"} or a bare number, or None. Half an interval counts as none."""
    mean = number(get(value, "mean")) if isinstance(value, dict) else number(value)
    low, high = number(get(value, "low")), number(get(value, "high"))
    if mean is None:
        return None
    return Interval(mean) if low is None or high is None else Interval(mean, low, high)


def mapping(value: object) -> dict[str, object]:
    return {str(key): item for key, item in value.items()} if isinstance(value, dict) else {}


def items_of(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def numbers(value: object) -> list[float] | None:
    """A list of finite numbers that is not empty, or None."""
    found = [number(item) for item in items_of(value)]
    complete = [item for item in found if item is not None]
    return complete if complete and len(complete) == len(found) else None


def intervals(value: object) -> dict[str, Interval]:
    return {key: found for key, item in mapping(value).items() if (found := interval(item))}
