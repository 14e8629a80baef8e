"""The learning rate over a run."""

from __future__ import annotations

import math

from rmft.config import TrainingConfig


def learning_rate(config: TrainingConfig, progress: float) -> float:
    """A linear rise over the first `warmup` of the run, then a cosine down to 5% of the peak."""
    rise = min(1.0, progress / config.warmup) if config.warmup else 1.0
    return config.learning_rate * rise * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * progress)))
