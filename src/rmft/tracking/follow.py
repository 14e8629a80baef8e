"""Around training: the process that follows a run, which can't stop it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rmft.errors import command
from rmft.tracking.config import NoTracking, TrackingConfig

LOG = "tracking.log"
PATIENCE = 60.0  # seconds that a run's end waits for its tracker


@contextmanager
def followed(run: Path, config: TrackingConfig) -> Iterator[Callable[[], None]]:
    """Around training: a process of its own follows the run, and is told of a new line by what this yields.

    Whatever becomes of that process, the training goes on. At the end it has PATIENCE seconds to send what is
    left; what went wrong is told on standard error.
    """
    if isinstance(config, NoTracking):
        yield lambda: None
        return
    try:
        with open(run / LOG, "ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "rmft.tracking", str(run)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
            )
    except OSError as error:
        _warn(run, f"can't be started: {error.strerror or error}")
        yield lambda: None
        return
    news = process.stdin
    assert news is not None
    os.set_blocking(news.fileno(), False)  # it may hang

    def tell() -> None:
        with suppress(OSError):  # it has died, which is told at the end, or has news enough waiting
            os.write(news.fileno(), b"\n")

    try:
        yield tell
    finally:
        news.close()
        try:
            if process.wait(PATIENCE):
                _warn(run, f"failed, see {run / LOG}")
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            _warn(run, f"did not end within {PATIENCE:.0f} seconds, see {run / LOG}")


def _warn(run: Path, what: str) -> None:
    print(
        f"The tracker {what}. The run is whole; send what is missing: {command('track', run)}",
        file=sys.stderr,
    )
