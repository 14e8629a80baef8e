"""All that is known of an iteration's rollouts of one setting: what a record holds, written or read back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from rmft.regret import RegretKind
from rmft.types import BoolArray, FloatArray, IntArray, TrainingBatch


@dataclass(frozen=True, slots=True)
class Told:
    """What a problem is about in words. options: K pairs of the letter and the name that an arm had."""

    context: str
    options: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class RecordedBatch:
    """The rollouts of one setting, B of them, and the credit that their decisions were given.

    setting: its name. learned: what was trained on; its group holds every rollout's problem, by the number
    that it has in its part. rollout: (B,) the number among the rollouts of its problem. regret: (B, T), by
    round, of regret_kind. told: by word seed, what a policy in words was told of; empty when read back.
    """

    setting: str
    regret_kind: RegretKind
    learned: TrainingBatch
    rollout: IntArray
    regret: FloatArray
    told: Mapping[int, Told] = field(default_factory=dict)

    @property
    def failed(self) -> BoolArray:
        """(B,) which rollouts ended without a decision."""
        histories = self.learned.trajectories.histories
        return np.isin(np.arange(histories.size), list(histories.failed))
