"""What can go wrong because of what a user gave: one base class, one subclass per kind of mistake.

Every message says what was found, what was expected, what to do and, for names, the nearest right
one. Each class also inherits the stdlib type that a caller without this package would expect.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RmftError(Exception):
    """Base of every mistake that this package reports in one message, without a traceback."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else self.__class__.__name__


class ConfigError(RmftError, ValueError):
    """A setting has a wrong name, type or range."""


class ShapeError(RmftError, ValueError):
    """An array has the wrong shape, or values that no reward or decision can have."""


class UnknownNameError(RmftError, LookupError):
    """A suite, baseline, reward process or other thing was asked for by a name nobody has."""

    def __init__(self, what: str, name: str, known: Iterable[str]) -> None:
        known = sorted(known)
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"Did you mean '{near[0]}'? " if near else ""
        super().__init__(f"Unknown {what} '{name}'. {hint}Known: {', '.join(known)}.")


class RunDirectoryError(RmftError, OSError):
    """A run directory exists already, is damaged, comes from another version or can't be written."""


class MissingExtraError(RmftError, ImportError):
    """A feature was asked for whose optional dependency is not installed."""

    def __init__(self, extra: str, package: str) -> None:
        super().__init__(
            f"This needs the package '{package}', which is not installed. Run: pip install 'rmft[{extra}]'"
        )


class TrainingError(RmftError, RuntimeError):
    """Training went wrong in a way that no further step can mend, such as a loss that is not finite."""
