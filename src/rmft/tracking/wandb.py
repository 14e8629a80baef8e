"""Weights & Biases."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import uuid4

import wandb

from rmft.tracking.config import WandbTracking
from rmft.tracking.tracker import TrackedRun


class WandbTracker:
    """See `rmft.tracking.tracker.Tracker`."""

    def __init__(self, config: WandbTracking, run: TrackedRun) -> None:
        self.id = run.id or uuid4().hex[:8]
        self._run = wandb.init(
            project=config.project,
            entity=config.entity,
            mode=config.mode,
            id=self.id,
            name=run.name,
            dir=str(run.path),
            config=dict(run.settings),
            resume="allow",
        )

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        self._run.log(dict(figures), step=step)

    def close(self) -> None:
        self._run.finish()
