"""What can go wrong because of what a user gave: one base class, one subclass per kind of mistake.

Every message says what was found, what was expected, what to do and, for names, the nearest right
one. Each class also inherits the stdlib type that a caller without this package would expect.
"""

from __future__ import annotations

import difflib
import os
import shlex
from collections.abc import Iterable
from pathlib import Path


def command(*words: object) -> str:
    """A command line to be copied into a shell, such as: rmft resume 'my run'."""
    return shlex.join(str(word) for word in ("rmft", *words))


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


class NoRunError(RunDirectoryError):
    """There is no run where one was named."""

    def __init__(self, path: Path) -> None:
        near = names_of_runs(path.parent)
        hint = (
            f"Runs there: {', '.join(near[-5:])}."
            if near
            else "Give the folder that 'rmft train' printed, such as runs/<name>-<time>."
        )
        super().__init__(f"There is no run directory '{path}'. {hint}")


def names_of_runs(folder: Path) -> list[str]:
    """The runs that lie in a folder, by their own names."""
    return sorted(each.parent.name for each in folder.glob("*/run.json")) if os.path.isdir(folder) else []


class MissingExtraError(RmftError, ImportError):
    """A feature was asked for whose optional dependency is not installed."""

    def __init__(self, extra: str, package: str) -> None:
        super().__init__(
            f"This needs the package '{package}', which is not installed. Run: pip install 'rmft[{extra}]'"
        )


class EpisodeError(RmftError, RuntimeError):
    """An episode was used out of turn: decided twice, observed before a decision, or past its horizon."""


class TrainingError(RmftError, RuntimeError):
    """Training went wrong in a way that no further step can mend, such as a loss that is not finite."""


class TrackerError(RmftError, RuntimeError):
    """A run's tracker raised something of its own."""


class HostedError(RmftError, ConnectionError):
    """Something went wrong with a hosted model. Messages never hold a key.

    status: the HTTP status, None where there was no answer. code, param: what the endpoint calls the
    mistake and the setting that it is about, where it says so.
    """

    def __init__(
        self, message: str, *, status: int | None = None, code: str | None = None, param: str | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.param = status, code, param


class EndpointError(HostedError):
    """No call to this endpoint can succeed as things are: a refused key, an unknown model, no money left."""


class AnswerError(HostedError):
    """One call failed for good, after all its retries; others may succeed."""


class TrainingJobError(RmftError, RuntimeError):
    """A provider's fine-tuning job failed or was cancelled; the run can be resumed."""


class BudgetError(RmftError, RuntimeError):
    """The next call might cost more than the run's budget; nothing is lost, and the run can be resumed."""
