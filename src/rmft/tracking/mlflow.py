"""MLflow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import mlflow

from rmft.tracking.config import MLflowTracking
from rmft.tracking.tracker import TrackedRun

MAX_PARAMETER = 500  # characters, of older servers


class MLflowTracker:
    """See `rmft.tracking.tracker.Tracker`."""

    def __init__(self, config: MLflowTracking, run: TrackedRun) -> None:
        if config.uri is not None:
            mlflow.set_tracking_uri(config.uri)
        mlflow.set_experiment(config.experiment)
        begun = mlflow.start_run(run_id=run.id, run_name=None if run.id else run.name)
        self.id = str(begun.info.run_id)
        if run.id is None:
            mlflow.log_params({key: str(value)[:MAX_PARAMETER] for key, value in _flat(run.settings)})

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        mlflow.log_metrics(dict(figures), step=step)

    def close(self) -> None:
        mlflow.end_run()


def _flat(settings: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{key}.")
        else:
            yield before + key, value
