"""The nouns, and the three protocols that the loop is made of.

Every batch has the rollout as its first axis. B = rollouts in a batch, T = horizon, K = num_arms.
A batch holds problems of one shape (`Rules`), so that nothing is ever padded.

    RewardTable   what every arm pays in every round, drawn before round 1 (hidden)
    Rules         what every policy is told before round 1            (visible, rmft.decisions)
    Observation   what is shown before a decision, in contextual bandits (visible, rmft.decisions)
    Words         what a policy that decides in words is told besides (visible, rmft.decisions)
    Histories     what it has seen since: decisions and feedback      (visible, rmft.histories)
    RowHistory    the same of one rollout                             (visible, rmft.histories)
    Decisions     what it does in one round                           (rmft.decisions)
    Trajectories  complete histories beside the tables that they were played on
    TrainingBatch trajectories in groups, and the credit of every decision
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from rmft.decisions import (
    Decisions,
    Feedback,
    FloatArray,
    IntArray,
    Observation,
    Round,
    Rules,
    Shown,
    TextArray,
    TogetherArrays,
    Turn,
    Words,
)
from rmft.errors import ShapeError
from rmft.histories import Histories, RowHistory
from rmft.streams import Streams

BoolArray = NDArray[np.bool_]

__all__ = [
    "BoolArray",
    "Decisions",
    "Environment",
    "Feedback",
    "FloatArray",
    "Histories",
    "IntArray",
    "Observation",
    "OtherSide",
    "Policy",
    "PolicyRef",
    "RewardTable",
    "Round",
    "RowHistory",
    "Rules",
    "Shown",
    "TextArray",
    "Trainer",
    "TrainingBatch",
    "TrainingStep",
    "Trajectories",
    "Turn",
    "Words",
]


MAX_REWARD = 1e100  # of either sign, so that sums and squares are numbers


@dataclass(frozen=True, slots=True, eq=False)
class OtherSide(TogetherArrays):
    """The other side of repeated matrix games, as hidden as the table that it belongs to.

    payoffs: (..., 2, K, K), what the policy and what the other side is paid, by the policy's arm and then the
    other side's. seeds: (...), integers that the other side's luck and words come from. played:
    (..., T, K), the distributions that it played, one-hot where it named an arm; None before the game.
    """

    payoffs: FloatArray
    seeds: IntArray
    played: FloatArray | None = None


@dataclass(frozen=True, slots=True)
class RewardTable:
    """What every arm pays in every round: one problem's, or a batch's with leading axes.

    rewards: (..., T, K), what is paid. expected_rewards: (..., T, K), its mean before the draw, given what
    is shown. Both finite, and never shown to a policy. observations: axes (..., T), what is shown to it
    before each round; None where nothing is. other: of a game against another policy, its other side. Raises
    ShapeError.
    """

    rewards: FloatArray
    expected_rewards: FloatArray
    observations: Observation | None = None
    other: OtherSide | None = None

    def __post_init__(self) -> None:
        for name in ("rewards", "expected_rewards"):
            array = np.asarray(getattr(self, name), dtype=np.float64)
            object.__setattr__(self, name, array)
            if array.ndim < 2 or array.shape[-1] < 2 or array.shape[-2] < 1:
                raise ShapeError(
                    f"{name} has shape {array.shape}; expected (..., horizon >= 1, num_arms >= 2): "
                    "one row per round, one column per arm."
                )
            if not (small := np.abs(array) <= MAX_REWARD).all():
                first = np.argwhere(~small)[0]
                raise ShapeError(
                    f"{name} holds {array[tuple(first)]:g}, first at index {first.tolist()}; every reward "
                    f"must be a number from {-MAX_REWARD:g} to {MAX_REWARD:g}."
                )
        if self.rewards.shape != self.expected_rewards.shape:
            raise ShapeError(
                f"rewards {self.rewards.shape} and expected_rewards "
                f"{self.expected_rewards.shape} must have the same shape."
            )
        for array in () if self.observations is None else self.observations.arrays():
            if array.shape[: self.rewards.ndim - 1] != self.rewards.shape[:-1]:
                raise ShapeError(
                    f"What is shown has shape {array.shape}; expected axes {self.rewards.shape[:-1]} first, "
                    "one entry per round."
                )

    @property
    def horizon(self) -> int:
        return int(self.rewards.shape[-2])

    @property
    def num_arms(self) -> int:
        return int(self.rewards.shape[-1])

    @property
    def variation(self) -> FloatArray:
        """V_T = sum_{t>=2} max_a |mu_t(a) - mu_{t-1}(a)|, shape (...)."""
        moved = np.abs(np.diff(self.expected_rewards, axis=-2)).max(axis=-1)
        return np.asarray(moved.sum(axis=-1))

    @staticmethod
    def stack(tables: Sequence[RewardTable]) -> RewardTable:
        """A batch (B, T, K) of single tables of one shape."""
        return RewardTable._joined(tables, np.stack)

    @staticmethod
    def concatenate(tables: Sequence[RewardTable]) -> RewardTable:
        """The problems of several batches, one after the other."""
        return RewardTable._joined(tables, np.concatenate)

    @staticmethod
    def _joined(
        tables: Sequence[RewardTable], joined: Callable[[list[np.ndarray]], np.ndarray]
    ) -> RewardTable:
        return RewardTable(
            joined([table.rewards for table in tables]),
            joined([table.expected_rewards for table in tables]),
            Observation.join([table.observations for table in tables], joined),
            OtherSide.join([table.other for table in tables], joined),
        )

    def repeat(self, times: int) -> RewardTable:
        """Every problem of a batch `times` times in a row: (B * times, T, K)."""
        return self.rows(np.repeat(np.arange(len(self.rewards)), times))

    def rows(self, rows: slice | IntArray) -> RewardTable:
        """The problems of a batch at `rows`."""
        shown = None if self.observations is None else self.observations.map(lambda array: array[rows])
        other = None if self.other is None else self.other.map(lambda array: array[rows])
        return RewardTable(self.rewards[rows], self.expected_rewards[rows], shown, other)


@dataclass(frozen=True, slots=True)
class Trajectories:
    """Complete histories beside the tables that they were played on, row by row."""

    histories: Histories
    table: RewardTable

    def __len__(self) -> int:
        return self.histories.size

    @property
    def rules(self) -> Rules:
        return self.histories.rules

    @staticmethod
    def concatenate(parts: Sequence[Trajectories]) -> Trajectories:
        """The rows of several, one after the other, played under the same rules."""
        histories = Histories.concatenate([part.histories for part in parts])
        return Trajectories(histories, RewardTable.concatenate([part.table for part in parts]))

    def rows(self, rows: slice | IntArray) -> Trajectories:
        return Trajectories(self.histories.rows(rows), self.table.rows(rows))


@runtime_checkable
class Environment(Protocol):
    """A batch of B problems being played. An adaptive opponent implements this itself.

    `observe` is called once before every decision and returns what is shown for the coming round, of B rows
    (an array (B, d) is its numbers), or None in all rounds. A class that inherits from this one shows
    nothing unless it says otherwise. `step` is called once per round with the decisions of all rows
    and returns what is seen of the rewards: (B,) under bandit feedback, (B, K) under full. Rows that have
    failed, which `decisions.failed` names, decide nothing: their arm is -1, their probabilities mean
    nothing, and what is returned for them is ignored. `table`, asked for after the last round, is what was
    there to be had.
    """

    @property
    def rules(self) -> Rules: ...

    @property
    def size(self) -> int: ...

    def observe(self) -> Observation | FloatArray | None:
        return None

    def step(self, decisions: Decisions) -> FloatArray: ...

    @property
    def table(self) -> RewardTable: ...


@runtime_checkable
class Policy(Protocol):
    """Something that decides. Stateless: the decisions depend on the histories and streams only.

    max_concurrency: how many batches are played concurrently, each in a thread; more than 1 for remote
    policies, which wait for another machine.
    """

    @property
    def name(self) -> str: ...

    @property
    def max_concurrency(self) -> int: ...

    def rows_at_once(self, rules: Rules) -> int: ...  # rollouts it plays together within its memory

    def decide(self, histories: Histories, streams: Streams) -> Decisions: ...


@dataclass(frozen=True, slots=True)
class PolicyRef:
    """Where a trained policy lies: its kind (`numeric`, `local`, `hosted`) and the folder that holds it."""

    kind: str
    path: Path


@dataclass(frozen=True, slots=True)
class TrainingBatch:
    """Trajectories to learn from, and the credit of their decisions (`rmft.credit`).

    group: (B,), equal for the rollouts of one problem. mask: (B, T) bool, the decisions that are in the loss.
    advantages: (B, T), the coefficient of a decision's log probability; 1 where it is simply imitated.
    action_targets: (B, T, K), where given, the coefficient of every arm's log probability in place of the
    decision's advantage. temperature: what divided the logits that decisions were sampled from; the loss
    scores them at the same. Raises ShapeError when the shapes do not fit.
    """

    trajectories: Trajectories
    group: IntArray
    mask: BoolArray
    advantages: FloatArray
    action_targets: FloatArray | None = None
    temperature: float = 1.0

    def __post_init__(self) -> None:
        rows, rules = len(self.trajectories), self.trajectories.rules
        expected: dict[str, tuple[int, ...]] = {
            "group": (rows,),
            "mask": (rows, rules.horizon),
            "advantages": (rows, rules.horizon),
            "action_targets": (rows, rules.horizon, rules.num_arms),
        }
        for name, shape in expected.items():
            array = getattr(self, name)
            if array is not None and array.shape != shape:
                raise ShapeError(f"{name} has shape {array.shape}; expected {shape}.")

    @property
    def kept(self) -> IntArray:
        """(n,) the rows of which any decision is in the loss."""
        return np.flatnonzero(self.mask.any(axis=1))

    @property
    def num_decisions(self) -> int:
        """How many decisions are in the loss."""
        return int(self.mask.sum())

    def rows(self, rows: slice | IntArray) -> TrainingBatch:
        """The part of the batch at `rows`."""
        targets = None if self.action_targets is None else self.action_targets[rows]
        return TrainingBatch(
            self.trajectories.rows(rows),
            self.group[rows],
            self.mask[rows],
            self.advantages[rows],
            targets,
            self.temperature,
        )


@dataclass(frozen=True, slots=True)
class TrainingStep:
    """Where in a run a training stands. iteration: from 1. progress: 0 to 1, the share of its stage done.

    start: the policy that the run began with, for objectives that hold to it; None: that which is trained.
    """

    iteration: int
    seed: int
    progress: float
    start: PolicyRef | None = None


@runtime_checkable
class Trainer(Protocol):
    """Turns a policy and a batch of every setting into the next policy, written to the folder `target`.

    Returns the new policy and figures worth recording (loss, kl, ...). All that training carries from one
    iteration to the next lies in the policies' folders.
    """

    def train(
        self, policy: PolicyRef, batches: list[TrainingBatch], target: Path, step: TrainingStep
    ) -> tuple[PolicyRef, dict[str, float]]: ...
