"""A folder that one process at a time writes to."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rmft.errors import RunDirectoryError


def locked(path: Path) -> int:
    """The descriptor of a folder's lock, held until it is closed; RunDirectoryError when another has it."""
    lock = None
    try:
        lock = os.open(path / ".lock", os.O_CREAT | os.O_RDWR, 0o644)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if lock is not None:
            os.close(lock)
        if isinstance(error, BlockingIOError):
            raise RunDirectoryError(
                f"'{path}' is being trained by another process; wait for it or stop it."
            ) from None
        raise RunDirectoryError(
            f"Can't lock '{path / '.lock'}': {error.strerror or error}. A run needs a place "
            "that you may write to and that has file locks."
        ) from None
    return lock


@contextmanager
def hold_lock(path: Path) -> Iterator[None]:
    """Around the training of a folder of runs: it is locked. Raises RunDirectoryError as `locked` does."""
    lock = locked(path)
    try:
        yield
    finally:
        os.close(lock)
