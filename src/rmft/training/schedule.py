"""The learning rate over a stage of a run."""

from __future__ import annotations

import math

from rmft.training.config import LocalTraining, NumericTraining


def learning_rate(config: NumericTraining | LocalTraining, progress: float) -> float:
    """A linear rise over the first `warmup` of the stage, then a cosine down to 5% of the peak."""
    rise = min(1.0, progress / config.warmup) if config.warmup else 1.0
    return config.learning_rate * rise * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * progress)))
