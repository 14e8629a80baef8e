"""TensorBoard's event files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import yaml
from torch.utils.tensorboard import SummaryWriter

from rmft.tracking.config import TensorBoardTracking
from rmft.tracking.tracker import TrackedRun


class TensorBoardTracker:
    """See `rmft.tracking.tracker.Tracker`. A run is known by its folder; each process has a file there."""

    def __init__(self, config: TensorBoardTracking, run: TrackedRun) -> None:
        folder = run.path / "tensorboard" if config.folder is None else Path(config.folder) / run.name
        self.id = run.id or str(folder)
        self._writer = SummaryWriter(self.id)
        if run.id is None:
            settings = yaml.safe_dump(dict(run.settings), sort_keys=False)
            self._writer.add_text("config", "    " + settings.replace("\n", "\n    "))

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()
