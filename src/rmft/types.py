"""The nouns, and the three protocols that the loop is made of.

Every batch has the rollout as its first axis. B = rollouts in a batch, T = horizon, K = num_arms.
A batch holds problems of one shape (`Rules`), so that nothing is ever padded.

    RewardTable   what every arm pays in every round, drawn before round 1      (hidden)
    Rules         what a policy is told before round 1                          (visible)
    Histories     what it has seen since: decisions and feedback, append-only   (visible)
    Decisions     what it does in one round
    Trajectories  complete histories beside the tables that they were played on
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from rmft.errors import ShapeError
from rmft.streams import Streams

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
State = TypeVar("State")

Feedback = Literal["full", "bandit"]
"""What is seen after a round: `full`, the reward of every arm; `bandit`, that of the played arm."""


@dataclass(frozen=True, slots=True)
class RewardTable:
    """What every arm pays in every round: one problem's, or a batch's with leading axes.

    rewards: (..., T, K), what is paid. expected_rewards: (..., T, K), its mean before the draw.
    Both finite. Never shown to a policy. Raises ShapeError.
    """

    rewards: FloatArray
    expected_rewards: FloatArray

    def __post_init__(self) -> None:
        for name in ("rewards", "expected_rewards"):
            array = np.asarray(getattr(self, name), dtype=np.float64)
            object.__setattr__(self, name, array)
            if array.ndim < 2 or array.shape[-1] < 2 or array.shape[-2] < 1:
                raise ShapeError(
                    f"{name} has shape {array.shape}; expected (..., horizon >= 1, num_arms >= 2): "
                    "one row per round, one column per arm."
                )
            if not np.isfinite(array).all():
                bad = np.argwhere(~np.isfinite(array))[0].tolist()
                raise ShapeError(
                    f"{name} holds NaN or infinity, first at index {bad}; every reward must be finite."
                )
        if self.rewards.shape != self.expected_rewards.shape:
            raise ShapeError(
                f"rewards {self.rewards.shape} and expected_rewards "
                f"{self.expected_rewards.shape} must have the same shape."
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
    def stack(tables: list[RewardTable]) -> RewardTable:
        """A batch (B, T, K) of single tables of one shape."""
        return RewardTable(
            np.stack([table.rewards for table in tables]),
            np.stack([table.expected_rewards for table in tables]),
        )

    def repeat(self, times: int) -> RewardTable:
        """Every problem of a batch `times` times in a row: (B * times, T, K)."""
        return RewardTable(
            np.repeat(self.rewards, times, axis=0), np.repeat(self.expected_rewards, times, axis=0)
        )

    def rows(self, rows: slice | IntArray) -> RewardTable:
        """The problems of a batch at `rows`."""
        return RewardTable(self.rewards[rows], self.expected_rewards[rows])


@dataclass(frozen=True, slots=True)
class Rules:
    """What a policy is told before round 1. reward_range is (low, high), infinite when unbounded.

    contexts: where the words around the problem come from, for policies that are told it in words: a
    group of contexts ("train", "held_out", "all") or the name of one.
    """

    feedback: Feedback
    horizon: int
    num_arms: int
    reward_range: tuple[float, float] = (0.0, 1.0)
    contexts: str = "train"

    def normalize(self, rewards: FloatArray) -> FloatArray:
        """Rewards on [0, 1] when the range is bounded; as they are when it is not."""
        low, high = self.reward_range
        return (rewards - low) / (high - low) if np.isfinite(high - low) else rewards


@dataclass(frozen=True, slots=True, eq=False)
class Turn:
    """One round of one rollout in words.

    told: the environment's words since the last decision. said: the policy's, reasoning and decision.
    A policy with tokens also gives ids: (n,) all of the turn's tokens, told ones first;
    log_probabilities: (n,) of those that it sampled, under what they were sampled from, NaN for the
    others; legal: (K,) the tokens that the last was chosen among, by arm, where it named an arm.
    """

    told: str
    said: str
    ids: IntArray | None = None
    log_probabilities: FloatArray | None = None
    legal: IntArray | None = None


@dataclass(frozen=True, slots=True)
class Decisions:
    """One decision per row of a batch.

    arms: (B,) the arm played, or None when the distribution itself is played (full information
    only). probabilities: (B, K) the distribution played or, with `arms`, the one they were drawn
    from; may be None when `arms` is given and the policy states none. turns: B, if decided in words.
    """

    arms: IntArray | None = None
    probabilities: FloatArray | None = None
    turns: tuple[Turn, ...] | None = None

    def __post_init__(self) -> None:
        if self.arms is None and self.probabilities is None:
            raise ShapeError("A decision needs an arm or probabilities; it has neither.")


@dataclass(frozen=True, slots=True)
class Round:
    """One finished round of a batch, as a policy saw it.

    index: from 0. arms: (B,), -1 where a distribution was played. played: (B, K) the distribution
    played (one-hot for an arm). rewards: (B,) under bandit feedback, (B, K) under full.
    """

    index: int
    arms: IntArray
    played: FloatArray
    rewards: FloatArray


class Histories:
    """What a batch of rollouts has seen so far. It grows by appending, and holds nothing hidden.

    word_seeds: (B,) the seed of the words that each row is told, the same for all rollouts of a problem.
    turns: B for every finished round, of a policy that decides in words.
    """

    def __init__(self, rules: Rules, size: int, word_seeds: IntArray | None = None) -> None:
        self.rules = rules
        self.size = size
        self.word_seeds = np.arange(size) if word_seeds is None else word_seeds
        if self.word_seeds.shape != (size,):
            raise ShapeError(f"word_seeds has shape {self.word_seeds.shape}; expected {(size,)}.")
        self.turns: list[tuple[Turn, ...]] = []
        self.num_rounds = 0
        horizon, num_arms = rules.horizon, rules.num_arms
        full = rules.feedback == "full"
        self._arms = np.full((size, horizon), -1, dtype=np.int64)
        self._rewards = np.zeros((size, horizon, num_arms) if full else (size, horizon))
        self._played = np.zeros((size, horizon, num_arms)) if full else None
        self._drawn_from: FloatArray | None = None
        self._folded: dict[Hashable, tuple[int, Any]] = {}

    def __len__(self) -> int:
        return self.size

    @property
    def arms(self) -> IntArray:
        """(B, num_rounds) arms played, -1 where a distribution was."""
        return self._arms[:, : self.num_rounds]

    @property
    def rewards(self) -> FloatArray:
        """(B, num_rounds) the played arm's rewards, or (B, num_rounds, K) under full information."""
        return self._rewards[:, : self.num_rounds]

    @property
    def played(self) -> FloatArray:
        """(B, num_rounds, K) the distribution played in every round; one-hot where it was an arm."""
        if self._played is not None:
            return self._played[:, : self.num_rounds]
        return np.eye(self.rules.num_arms)[self.arms]

    @property
    def drawn_from(self) -> FloatArray | None:
        """(B, num_rounds, K) the probabilities that the policy stated, or None if it stated none."""
        return None if self._drawn_from is None else self._drawn_from[:, : self.num_rounds]

    def append(self, decisions: Decisions, rewards: FloatArray) -> None:
        """Add one round. Raises ShapeError when a decision is not legal under the rules."""
        index, num_arms = self.num_rounds, self.rules.num_arms
        if index >= self.rules.horizon:
            raise ShapeError(f"A history of horizon {self.rules.horizon} is full; nothing can be added.")
        arms, probabilities = decisions.arms, decisions.probabilities
        if probabilities is not None:
            if probabilities.shape != (self.size, num_arms):
                raise ShapeError(
                    f"Probabilities have shape {probabilities.shape}; expected {(self.size, num_arms)}."
                )
            if not np.all(probabilities >= 0) or np.abs(probabilities.sum(axis=1) - 1).max(initial=0) > 1e-4:
                raise ShapeError("Probabilities must be non-negative and sum to 1 in every row.")
            if self._drawn_from is None:
                self._drawn_from = np.zeros((self.size, self.rules.horizon, num_arms))
            self._drawn_from[:, index] = probabilities
        if arms is not None:
            if arms.shape != (self.size,):
                raise ShapeError(f"Arms have shape {arms.shape}; expected {(self.size,)}.")
            if self.size and not (arms.min() >= 0 and arms.max() < num_arms):
                raise ShapeError(
                    f"An arm must be from 0 to {num_arms - 1}; found {arms.min()} to {arms.max()}."
                )
            self._arms[:, index] = arms
        elif self._played is None:
            raise ShapeError("Bandit feedback needs an arm in every decision; only probabilities were given.")
        if self._played is not None:
            if arms is not None:
                self._played[np.arange(self.size), index, arms] = 1.0
            else:
                self._played[:, index] = probabilities
        if decisions.turns is not None:
            if len(decisions.turns) != self.size or len(self.turns) != index:
                found = f"{len(decisions.turns)} turns after {len(self.turns)} rounds with turns"
                raise ShapeError(f"Found {found}; expected {self.size}, one for each row, in every round.")
            self.turns.append(decisions.turns)
        self._rewards[:, index] = rewards
        self.num_rounds += 1

    def round(self, index: int) -> Round:
        """The finished round `index`."""
        arms = self._arms[:, index]
        played = np.eye(self.rules.num_arms)[arms] if self._played is None else self._played[:, index]
        return Round(index, arms, played, self._rewards[:, index])

    def fold(self, key: Hashable, start: Callable[[], State], step: Callable[[State, Round], State]) -> State:
        """`step` folded over the rounds so far, remembering under `key` where it left off.

        A policy stays a function of the history, and a round costs one step: a second call with the
        same key only folds the rounds added since. `step` may change its state in place.
        """
        done, state = self._folded[key] if key in self._folded else (0, start())
        for index in range(done, self.num_rounds):
            state = step(state, self.round(index))
        self._folded[key] = (self.num_rounds, state)
        return state

    def remember(self, key: Hashable, start: Callable[[], State]) -> State:
        """What a policy keeps beside these histories under `key`, such as a cache; made on first use."""
        return self.fold(key, start, lambda state, _: state)

    def prefix(self, num_rounds: int) -> Histories:
        """A fresh copy of the first `num_rounds` rounds, with nothing remembered."""
        return self._copy(slice(None), num_rounds)

    def rows(self, rows: slice | IntArray) -> Histories:
        """A fresh copy of the histories at `rows`, with nothing remembered."""
        return self._copy(rows, self.num_rounds)

    @staticmethod
    def concatenate(parts: Sequence[Histories]) -> Histories:
        """The rows of several, one after the other: of the same rules, as long as each other."""
        first = parts[0]
        size = sum(part.size for part in parts)
        whole = Histories(first.rules, size, np.concatenate([part.word_seeds for part in parts]))
        whole.num_rounds = first.num_rounds
        for name in ("_arms", "_rewards", "_played", "_drawn_from"):
            if getattr(first, name) is not None:
                setattr(whole, name, np.concatenate([getattr(part, name) for part in parts]))
        whole.turns = [sum(turns, ()) for turns in zip(*(part.turns for part in parts), strict=True)]
        return whole

    def _copy(self, rows: slice | IntArray, num_rounds: int) -> Histories:
        arms = self._arms[rows]
        copy = Histories(self.rules, len(arms), self.word_seeds[rows])
        copy.num_rounds = num_rounds
        if self.turns:
            chosen = np.arange(self.size)[rows]
            copy.turns = [tuple(turns[row] for row in chosen) for turns in self.turns[:num_rounds]]
        copy._arms[:, :num_rounds] = arms[:, :num_rounds]
        copy._rewards[:, :num_rounds] = self._rewards[rows][:, :num_rounds]
        if self._played is not None and copy._played is not None:
            copy._played[:, :num_rounds] = self._played[rows][:, :num_rounds]
        if self._drawn_from is not None:
            copy._drawn_from = np.zeros((len(arms), self.rules.horizon, self.rules.num_arms))
            copy._drawn_from[:, :num_rounds] = self._drawn_from[rows][:, :num_rounds]
        return copy


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
        paid = np.concatenate([part.table.rewards for part in parts])
        expected = np.concatenate([part.table.expected_rewards for part in parts])
        histories = Histories.concatenate([part.histories for part in parts])
        return Trajectories(histories, RewardTable(paid, expected))

    def rows(self, rows: slice | IntArray) -> Trajectories:
        return Trajectories(self.histories.rows(rows), self.table.rows(rows))


@runtime_checkable
class Environment(Protocol):
    """A batch of problems being played. An adaptive opponent implements this itself.

    `step` is called once per round with the decisions of all rows and returns what is seen of the
    rewards: (B,) under bandit feedback, (B, K) under full. `table`, asked for after the last round,
    is what was there to be had.
    """

    @property
    def rules(self) -> Rules: ...

    @property
    def size(self) -> int: ...

    def step(self, decisions: Decisions) -> FloatArray: ...

    @property
    def table(self) -> RewardTable: ...


@runtime_checkable
class Policy(Protocol):
    """Something that decides. Stateless: the decisions depend on the histories and streams only."""

    @property
    def name(self) -> str: ...

    def rows_at_once(self, rules: Rules) -> int: ...  # rollouts it plays together within its memory

    def decide(self, histories: Histories, streams: Streams) -> Decisions: ...


@dataclass(frozen=True, slots=True)
class PolicyRef:
    """Where a trained policy lies: its kind (`transformer`, `local`) and the folder that holds it."""

    kind: str
    path: Path


@dataclass(frozen=True, slots=True)
class Example:
    """Trajectories to learn from. weights: (B, T), how much each round's decision counts in the loss."""

    trajectories: Trajectories
    weights: FloatArray


@runtime_checkable
class Trainer(Protocol):
    """Turns a policy and what was selected into the next policy, written to the folder `target`.

    Returns the new policy and figures worth recording (loss, ...). All that training carries from one
    iteration to the next lies in the policies' folders. `progress`, 0 to 1: the run's share that is done.
    """

    def train(
        self, policy: PolicyRef, examples: list[Example], target: Path, seed: int, progress: float
    ) -> tuple[PolicyRef, dict[str, float]]: ...
