"""Training batches made by hand, for tests of trainers."""

from __future__ import annotations

import numpy as np

from rmft.types import BoolArray, FloatArray, TrainingBatch, Trajectories


def batch_of(
    trajectories: Trajectories,
    advantages: FloatArray,
    mask: BoolArray | None = None,
    action_targets: FloatArray | None = None,
    temperature: float = 1.0,
) -> TrainingBatch:
    """A batch with these advantages (B, T), by which every rollout is of a problem of its own.

    mask: (B, T); None: the decisions whose advantage is not 0.
    """
    learned = advantages != 0 if mask is None else mask
    group = np.arange(len(trajectories))
    return TrainingBatch(trajectories, group, learned, advantages, action_targets, temperature)
