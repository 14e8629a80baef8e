"""A run's lines of metrics, once they are committed, go to its tracker; what went is kept beside the run.

    tracking.json   the tracker's settings, the run's id there, and how many lines it has

A line goes at least once: after a kill between the two, once more, to the same step.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from rmft.errors import RmftError, RunDirectoryError, TrackerError
from rmft.files import write_atomically
from rmft.reading import Config, read, read_mapping
from rmft.tracking.config import NoTracking, TrackingConfig
from rmft.tracking.kinds import make_tracker
from rmft.tracking.tracker import TrackedRun, figures_of

STATE = "tracking.json"
CONFIG = "config.yaml"


class Settings(Config):
    """Of a run's config, what is about its tracker."""

    tracking: TrackingConfig = NoTracking()


class Tracked(Settings):
    """What tracking.json holds."""

    id: str
    lines: Annotated[int, Field(ge=0)]


def settings_of(run: Path) -> TrackingConfig:
    """The tracker that a run's config names. Raises ConfigError, RunDirectoryError."""
    found = {key: value for key, value in read_mapping(run / CONFIG).items() if key == "tracking"}
    return read(Settings, found, str(run / CONFIG)).tracking


class Sender:
    """Sends a run's lines to its tracker; `id` is the run's there.

    A run that another tracker, or one with other settings, has followed begins anew. Raises
    RunDirectoryError where the run is damaged, MissingExtraError, and TrackerError for what the tracker
    raises, then and whenever it is told something.
    """

    def __init__(self, run: Path, config: TrackingConfig) -> None:
        about, state = read_mapping(run / CONFIG), _state(run)
        known = state if state is not None and state.tracking == config else None
        began = TrackedRun(run, str(about.get("name", run.name)), about, known.id if known else None)
        self._run, self._config = run, config
        with self._faults_named():
            self._tracker = make_tracker(config, began)
        self._sent = known.lines if known else 0
        self.id = self._tracker.id

    def send(self) -> int:
        """Send all committed lines that the tracker does not have yet; how many these were."""
        before, lines = self._sent, committed_lines(self._run)
        for number in range(before, len(lines)):
            with self._faults_named():
                self._tracker.log(number, figures_of(lines[number]))
            self._sent = number + 1
            kept = Tracked(tracking=self._config, id=self.id, lines=self._sent)
            write_atomically(self._run / STATE, kept.model_dump_json().encode())
        return self._sent - before

    def close(self) -> None:
        with self._faults_named():
            self._tracker.close()

    @contextmanager
    def _faults_named(self) -> Iterator[None]:
        try:
            yield
        except RmftError:
            raise
        except Exception as error:  # a package may raise anything
            said = " ".join(str(error).split())
            raise TrackerError(
                f"The tracker '{self._config.kind}' failed with {type(error).__name__}: {said:.600}"
            ) from error


def _state(run: Path) -> Tracked | None:
    path = run / STATE
    return read(Tracked, read_mapping(path), str(path)) if path.exists() else None


def committed_lines(run: Path) -> list[dict[str, Any]]:
    """The whole lines of metrics.jsonl, of which each is an object. Raises RunDirectoryError."""
    path = run / "metrics.jsonl"
    try:
        whole = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
        lines = [json.loads(line) for line in whole]
    except (OSError, ValueError, RecursionError) as error:
        raise RunDirectoryError(f"'{path}' is damaged: {error}.") from None
    if not all(isinstance(line, dict) for line in lines):
        raise RunDirectoryError(f"'{path}' is damaged: a line holds no JSON object.")
    return lines
