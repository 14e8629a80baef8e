"""Reading an endpoint's JSON, which is not trusted: what has another form raises ValueError."""

from __future__ import annotations

import math
from typing import Any


def an_object(found: Any) -> dict[str, Any]:
    """`found`, which has to be an object."""
    if not isinstance(found, dict):
        raise ValueError("it is no JSON object")
    return found


def a_list(found: Any, key: str) -> list[dict[str, Any]]:
    """The objects in the list at `key`."""
    values = an_object(found).get(key)
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise ValueError(f"it has no list '{key}'")
    return values


def a_text(found: Any, key: str) -> str:
    """The text at `key`, not empty."""
    value = maybe_text(found, key)
    if value is None:
        raise ValueError(f"it has no text '{key}'")
    return value


def maybe_text(found: Any, key: str) -> str | None:
    """The text at `key`, None where there is none."""
    value = an_object(found).get(key)
    return value if isinstance(value, str) and value else None


def maybe_number(found: Any, key: str) -> float | None:
    """The finite number at `key`, None where there is none."""
    value = an_object(found).get(key)
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    return None
