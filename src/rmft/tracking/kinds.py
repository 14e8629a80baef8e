"""Every tracker by its kind: the settings become the object, and its package is imported here only."""

from __future__ import annotations

from rmft.errors import MissingExtraError
from rmft.tracking.config import (
    MLflowTracking,
    NoTracking,
    TensorBoardTracking,
    TrackingConfig,
    TrackioTracking,
)
from rmft.tracking.tracker import TrackedRun, Tracker


def make_tracker(config: TrackingConfig, run: TrackedRun) -> Tracker:
    """The tracker, which has begun the run or goes on with it.

    Raises MissingExtraError where its package is not installed, and what the package raises.
    """
    assert not isinstance(config, NoTracking)
    try:
        if isinstance(config, TrackioTracking):
            from rmft.tracking.trackio import TrackioTracker

            return TrackioTracker(config, run)
        if isinstance(config, TensorBoardTracking):
            from rmft.tracking.tensorboard import TensorBoardTracker

            return TensorBoardTracker(config, run)
        if isinstance(config, MLflowTracking):
            from rmft.tracking.mlflow import MLflowTracker

            return MLflowTracker(config, run)
        from rmft.tracking.wandb import WandbTracker

        return WandbTracker(config, run)
    except ModuleNotFoundError as error:
        raise MissingExtraError(config.kind, error.name or config.kind) from None
