"""Rewards as people write them: as few digits as tell them apart, no exponents, no minus zero."""

from __future__ import annotations

import math

import numpy as np

from rmft.types import Rules


def write_reward(reward: float, rules: Rules, scaled: bool) -> str:
    """A reward, or a mean of some; `scaled`: from 0 to 10 in place of from low to high, both finite.

    Written to a hundredth of the range where that is bounded; else with two significant digits below 1,
    three above, and at most 6 decimals.
    """
    low, high = rules.reward_range
    if scaled:
        return _write(10 * float(rules.normalize(np.asarray(reward))), 10.0)
    return _write(reward, high - low)


def write_difference(difference: float, rules: Rules, scaled: bool) -> str:
    """A difference of two rewards, as `write_reward` writes one."""
    low, high = rules.reward_range
    return _write(10 * difference / (high - low), 10.0) if scaled else _write(difference, high - low)


def write_range(rules: Rules, scaled: bool) -> str:
    """The range of rewards: "0 to 10", "at least 0", "at most 5" or, when there are no bounds, ""."""
    low, high = rules.reward_range
    if scaled:
        return "0 to 10"
    if math.isfinite(low):
        written = _write(low, high - low)
        return f"{written} to {_write(high, high - low)}" if math.isfinite(high) else f"at least {written}"
    return f"at most {_write(high, high - low)}" if math.isfinite(high) else ""


def write_number(number: float) -> str:
    """A number of no known range: two significant digits below 1, three above, and at most 6 decimals."""
    return _write(number, math.inf)


def _write(number: float, width: float) -> str:
    if math.isfinite(width):
        decimals = 2 - math.floor(math.log10(width))
    else:
        size = abs(number) or 1.0
        decimals = min((1 if size < 1 else 2) - math.floor(math.log10(size)), 6)
    text = f"{number:.{max(decimals, 0)}f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text
