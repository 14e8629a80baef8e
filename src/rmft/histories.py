"""What a policy sees and does: rules, decisions, turns in words, histories. Nothing in here is hidden.

Arrays have the rollout as their first axis. B = rollouts in a batch, T = horizon, K = num_arms.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from rmft.errors import ShapeError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
State = TypeVar("State")

Feedback = Literal["full", "bandit"]
"""What is seen after a round: `full`, the reward of every arm; `bandit`, that of the played arm."""


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

    told: the environment's words since the last decision, after the system's, which come first of all. said:
    the policy's, reasoning and decision. refused: before that, answers that could not be read, each with
    what was replied to it. A policy with tokens also gives ids: (n,) all of the turn's tokens, told ones
    first; log_probabilities: (n,) of those that it sampled, under what they were sampled from, NaN for the
    others; legal: (K,) the tokens that the last was chosen among, by arm, where it named an arm.
    """

    told: str
    said: str
    ids: IntArray | None = None
    log_probabilities: FloatArray | None = None
    legal: IntArray | None = None
    system: str = ""
    refused: tuple[tuple[str, str], ...] = ()

    @property
    def all_told(self) -> str:
        """What was told, after the system's words where the turn begins with them."""
        return "\n\n".join(filter(None, (self.system, self.told)))


@dataclass(frozen=True, slots=True)
class Decisions:
    """One decision per row of a batch.

    arms: (B,) the arm played, or None when the distribution itself is played (full information
    only). probabilities: (B, K) the distribution played or, with `arms`, the one they were drawn
    from; may be None when `arms` is given and the policy states none. turns: B, if decided in words.
    failed: why, by row, where there is no decision; its arm is -1, and the row stays without from then on.
    """

    arms: IntArray | None = None
    probabilities: FloatArray | None = None
    turns: tuple[Turn, ...] | None = None
    failed: Mapping[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.arms is None and self.probabilities is None:
            raise ShapeError("A decision needs an arm or probabilities; it has neither.")


@dataclass(frozen=True, slots=True)
class Round:
    """One finished round of a batch, as a policy saw it.

    index: from 0. arms: (B,), -1 where a distribution was played, or nothing. played: (B, K) the
    distribution played (one-hot for an arm, 0 for nothing). rewards: (B,) under bandit feedback, (B, K)
    under full.
    """

    index: int
    arms: IntArray
    played: FloatArray
    rewards: FloatArray


class Histories:
    """What a batch of rollouts has seen so far. It grows by appending, and holds nothing hidden.

    word_seeds: (B,) the seed of the words that each row is told, the same for all rollouts of a problem.
    turns: B for every finished round, of a policy that decides in words. failed: why, by row, where a policy
    could not go on: the rest of that row is without decisions.
    """

    def __init__(self, rules: Rules, size: int, word_seeds: IntArray | None = None) -> None:
        self.rules = rules
        self.size = size
        self.word_seeds = np.arange(size) if word_seeds is None else word_seeds
        if self.word_seeds.shape != (size,):
            raise ShapeError(f"word_seeds has shape {self.word_seeds.shape}; expected {(size,)}.")
        self.turns: list[tuple[Turn, ...]] = []
        self.failed: dict[int, str] = {}
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
        """(B, num_rounds) arms played, -1 where a distribution was, or nothing."""
        return self._arms[:, : self.num_rounds]

    @property
    def rewards(self) -> FloatArray:
        """(B, num_rounds) the played arm's rewards, or (B, num_rounds, K) under full information."""
        return self._rewards[:, : self.num_rounds]

    @property
    def played(self) -> FloatArray:
        """(B, num_rounds, K) the distribution played in every round; one-hot where it was an arm.

        All 0 in rounds without a decision.
        """
        if self._played is not None:
            return self._played[:, : self.num_rounds]
        return _one_hot(self.arms, self.rules.num_arms)

    @property
    def drawn_from(self) -> FloatArray | None:
        """(B, num_rounds, K) the probabilities that the policy stated, or None if it stated none."""
        return None if self._drawn_from is None else self._drawn_from[:, : self.num_rounds]

    def append(self, decisions: Decisions, rewards: FloatArray) -> None:
        """Add one round. Raises ShapeError when a decision is not legal under the rules."""
        index, num_arms = self.num_rounds, self.rules.num_arms
        failed = list(decisions.failed)
        if index >= self.rules.horizon:
            raise ShapeError(f"A history of horizon {self.rules.horizon} is full; nothing can be added.")
        arms, probabilities = decisions.arms, decisions.probabilities
        if probabilities is not None:
            if probabilities.shape != (self.size, num_arms):
                raise ShapeError(
                    f"Probabilities have shape {probabilities.shape}; expected {(self.size, num_arms)}."
                )
            sums = np.delete(probabilities, failed, axis=0).sum(axis=1)
            if not np.all(probabilities >= 0) or np.abs(sums - 1).max(initial=0) > 1e-4:
                raise ShapeError("Probabilities must be non-negative and sum to 1 in every row.")
            if self._drawn_from is None:
                self._drawn_from = np.zeros((self.size, self.rules.horizon, num_arms))
            self._drawn_from[:, index] = probabilities
        if arms is not None:
            if arms.shape != (self.size,):
                raise ShapeError(f"Arms have shape {arms.shape}; expected {(self.size,)}.")
            made = np.delete(arms, failed)
            if len(made) and not (made.min() >= 0 and made.max() < num_arms):
                raise ShapeError(
                    f"An arm must be from 0 to {num_arms - 1}; found {made.min()} to {made.max()}."
                )
            if (arms[failed] != -1).any():
                raise ShapeError(f"The rows {failed} have no decision; expected -1 as their arm.")
            self._arms[:, index] = arms
        elif self._played is None:
            raise ShapeError("Bandit feedback needs an arm in every decision; only probabilities were given.")
        if self._played is not None:
            if arms is not None:
                self._played[:, index] = _one_hot(arms, num_arms)
            else:
                self._played[:, index] = probabilities
        if decisions.turns is not None:
            if len(decisions.turns) != self.size or len(self.turns) != index:
                found = f"{len(decisions.turns)} turns after {len(self.turns)} rounds with turns"
                raise ShapeError(f"Found {found}; expected {self.size}, one for each row, in every round.")
            self.turns.append(decisions.turns)
        self._rewards[:, index] = rewards
        self._rewards[failed, index] = 0.0
        self.failed = {**decisions.failed, **self.failed}
        self.num_rounds += 1

    def give_up(self, decisions: Decisions) -> None:
        """Add the round in which the last rows failed, and end here: what is left has no decisions."""
        self.append(decisions, np.zeros(self._rewards[:, 0].shape))
        if self.turns:
            nothing = (Turn("", ""),) * self.size
            self.turns += [nothing] * (self.rules.horizon - self.num_rounds)
        self.num_rounds = self.rules.horizon

    def round(self, index: int) -> Round:
        """The finished round `index`."""
        arms = self._arms[:, index]
        played = _one_hot(arms, self.rules.num_arms) if self._played is None else self._played[:, index]
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
        for name in ("_arms", "_rewards", "_played"):
            if getattr(first, name) is not None:
                setattr(whole, name, np.concatenate([getattr(part, name) for part in parts]))
        stated = [part._drawn_from for part in parts]
        if any(each is not None for each in stated):  # a row that failed at once has stated nothing
            shapes = [(part.size, first.rules.horizon, first.rules.num_arms) for part in parts]
            filled = [np.zeros(n) if each is None else each for each, n in zip(stated, shapes, strict=True)]
            whole._drawn_from = np.concatenate(filled)
        starts = np.cumsum([0] + [part.size for part in parts]).tolist()
        for start, part in zip(starts, parts, strict=False):
            whole.failed |= {start + row: why for row, why in part.failed.items()}
        whole.turns = [sum(turns, ()) for turns in zip(*(part.turns for part in parts), strict=True)]
        return whole

    def _copy(self, rows: slice | IntArray, num_rounds: int) -> Histories:
        arms = self._arms[rows]
        copy = Histories(self.rules, len(arms), self.word_seeds[rows])
        copy.num_rounds = num_rounds
        chosen = np.arange(self.size)[rows].tolist()
        copy.failed = {new: self.failed[row] for new, row in enumerate(chosen) if row in self.failed}
        if self.turns:
            copy.turns = [tuple(turns[row] for row in chosen) for turns in self.turns[:num_rounds]]
        copy._arms[:, :num_rounds] = arms[:, :num_rounds]
        copy._rewards[:, :num_rounds] = self._rewards[rows][:, :num_rounds]
        if self._played is not None and copy._played is not None:
            copy._played[:, :num_rounds] = self._played[rows][:, :num_rounds]
        if self._drawn_from is not None:
            copy._drawn_from = np.zeros((len(arms), self.rules.horizon, self.rules.num_arms))
            copy._drawn_from[:, :num_rounds] = self._drawn_from[rows][:, :num_rounds]
        return copy


def _one_hot(arms: IntArray, num_arms: int) -> FloatArray:
    """(..., K): 1 at the arm, and nowhere where it is -1."""
    return np.eye(num_arms + 1)[arms][..., :num_arms]
