"""Trackio."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import uuid4

import trackio

from rmft.tracking.config import TrackioTracking
from rmft.tracking.tracker import TrackedRun


class TrackioTracker:
    """See `rmft.tracking.tracker.Tracker`. A run is known by its name, to which a few digits are added."""

    def __init__(self, config: TrackioTracking, run: TrackedRun) -> None:
        self.id = run.id or f"{run.name}-{uuid4().hex[:8]}"
        trackio.init(
            project=config.project,
            name=self.id,
            space_id=config.space_id,
            config=dict(run.settings),
            resume="allow",
            embed=False,
        )

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        trackio.log(dict(figures), step=step)

    def close(self) -> None:
        trackio.finish()  # type: ignore[no-untyped-call]
