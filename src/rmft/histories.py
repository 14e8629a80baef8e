"""What a policy has seen so far: decisions, feedback and what was shown, of a batch or of one row.

Nothing in here is hidden. B = rollouts in a batch, T = horizon, K = num_arms, d = numbers in an observation.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from rmft.decisions import (
    TEXTS,
    Decisions,
    FloatArray,
    IntArray,
    Observation,
    Round,
    Rules,
    TextArray,
    Turn,
    Words,
    one_hot,
)
from rmft.errors import ShapeError

State = TypeVar("State")


@dataclass(frozen=True, slots=True)
class Field:
    """An array (B, T, ...) of histories, with an entry for every row and round.

    fill: what stands where there is no entry. shape: of one entry under given rules; None for an array that
    there is not until a first entry tells it. ahead: of the coming round too, by as many rounds.
    """

    fill: float | str
    shape: Callable[[Rules], tuple[int, ...]] | None = None
    dtype: Any = np.float64
    ahead: int = 0

    def new(self, size: int, horizon: int, entry: tuple[int, ...]) -> np.ndarray:
        """(size, horizon, *entry), all `fill`."""
        return np.full((size, horizon, *entry), self.fill, dtype=self.dtype)


FIELDS = {
    "arms": Field(-1, lambda _: (), np.int64),
    "rewards": Field(0.0, lambda rules: (rules.num_arms,) if rules.feedback == "full" else ()),
    "played": Field(0.0),  # kept under full information only; else it follows from the arms
    "probabilities": Field(0.0),
    "observations": Field(np.nan, ahead=1),
    "features": Field(np.nan, ahead=1),
    "texts": Field("", dtype=TEXTS, ahead=1),
    "arm_texts": Field("", dtype=TEXTS, ahead=1),
}
"""All that is kept of a round in arrays; whatever copies, cuts or joins histories loops over it."""

SHOWN = {"observations": "numbers", "features": "features", "texts": "texts", "arm_texts": "arm_texts"}
"""Those that are kept of an `Observation`, each with the name that it has there."""


class Histories:
    """What a batch of rollouts has seen so far. It grows by appending, and holds nothing hidden.

    words: of the rows and of what was said in them; by default from the contexts "train", by the row's
    number. failed: why, by row, where a policy could not go on: the rest of that row is without decisions.
    """

    def __init__(self, rules: Rules, size: int, words: Words | None = None) -> None:
        self.rules = rules
        self.size = size
        self.words = Words("train", np.arange(size)) if words is None else words.unspoken()
        if self.words.seeds.shape != (size,):
            raise ShapeError(f"The seeds of words have shape {self.words.seeds.shape}; expected {(size,)}.")
        if self.words.names is not None and self.words.names.shape[1] != rules.num_arms:
            raise ShapeError(f"Found {self.words.names.shape[1]} names for {rules.num_arms} arms.")
        self.failed: dict[int, str] = {}
        self.num_rounds = 0
        self._arrays: dict[str, np.ndarray] = {
            name: field.new(size, rules.horizon, field.shape(rules))
            for name, field in FIELDS.items()
            if field.shape is not None
        }
        self._folded: dict[Hashable, tuple[int, Any]] = {}

    def __len__(self) -> int:
        return self.size

    @property
    def arms(self) -> IntArray:
        """(B, num_rounds) arms played, -1 where a distribution was, or nothing."""
        return self._arrays["arms"][:, : self.num_rounds]

    @property
    def rewards(self) -> FloatArray:
        """(B, num_rounds) the played arm's rewards, or (B, num_rounds, K) under full information."""
        return self._arrays["rewards"][:, : self.num_rounds]

    @property
    def played(self) -> FloatArray:
        """(B, num_rounds, K) the distribution played in every round; one-hot where it was an arm.

        All 0 in rounds without a decision.
        """
        kept = self._so_far("played")
        return one_hot(self.arms, self.rules.num_arms) if kept is None else kept

    @property
    def probabilities(self) -> FloatArray | None:
        """(B, num_rounds, K) the behaviour policy: the distributions that the policy stated.

        They are those that arms were drawn from, or that were played themselves. All 0 in a round in which
        none was stated; None where none ever was.
        """
        return self._so_far("probabilities")

    @property
    def propensities(self) -> FloatArray:
        """(B, num_rounds) the probability that the behaviour policy gave to the arm that was played.

        1 where a distribution was played, NaN where none was stated or nothing was decided.
        """
        arms, stated = self.arms, self.probabilities
        found = np.where((arms < 0) & self.played.any(axis=-1), 1.0, np.nan)
        if stated is None:
            return found
        of_arms = np.take_along_axis(stated, np.maximum(arms, 0)[..., None], axis=-1)[..., 0]
        return np.where((arms >= 0) & stated.any(axis=-1), of_arms, found)

    @property
    def observations(self) -> FloatArray | None:
        """(B, num_rounds + 1, d) what was shown before every decision, up to that of the coming round.

        (B, T, d) after the last round. None where the environment shows nothing.
        """
        return self._so_far("observations")

    @property
    def features(self) -> FloatArray | None:
        """(B, num_rounds + 1, K, m) the same of the numbers of every arm."""
        return self._so_far("features")

    @property
    def texts(self) -> TextArray | None:
        """(B, num_rounds + 1) the same of texts."""
        return self._so_far("texts")

    @property
    def arm_texts(self) -> TextArray | None:
        """(B, num_rounds + 1, K) the same of the texts of every arm."""
        return self._so_far("arm_texts")

    def shown(self, index: int) -> Observation | None:
        """What was shown before the round `index`, from 0; None where nothing was."""
        arrays = {its: self._arrays[name][:, index] for name, its in SHOWN.items() if name in self._arrays}
        return Observation(**arrays) if arrays else None

    def observe(self, shown: Observation | FloatArray | None) -> None:
        """Keep what is shown before the coming round's decision, of B rows, or None; an array (B, d) is its
        numbers.

        Raises ShapeError when it is not what the rules say, or when there was something in some rounds only.
        """
        if shown is not None and not isinstance(shown, Observation):
            shown = Observation(np.asarray(shown, dtype=np.float64))
        kept = [name for name in SHOWN if name in self._arrays]
        if shown is None and not kept and not self.rules.shown:
            return
        if shown is None or (self.num_rounds and not kept):
            raise ShapeError(
                "An environment showed something before some rounds only; expected all, or none."
            )
        shown.check(self.rules, self.size)
        for name, its in SHOWN.items():
            entries = getattr(shown, its)
            if kept and (name in kept) != (entries is not None):
                raise ShapeError(
                    f"An environment showed {its} before some rounds only; expected all, or none."
                )
            if name in kept and (expected := (self.size, *self._arrays[name].shape[2:])) != entries.shape:
                raise ShapeError(
                    f"An environment showed {its} of shape {entries.shape}; expected {expected}, as before."
                )
            self._put(name, self.num_rounds, entries)

    def append(self, decisions: Decisions, rewards: FloatArray) -> None:
        """Add one round. Raises ShapeError when a decision is not legal under the rules."""
        index, failed = self.num_rounds, list(decisions.failed)
        if index >= self.rules.horizon:
            raise ShapeError(f"A history of horizon {self.rules.horizon} is full; nothing can be added.")
        decisions.check(self.rules, self.size)
        if decisions.turns is not None:
            before = len(self.words.turns)
            if len(decisions.turns) != self.size or before != index:
                found = f"{len(decisions.turns)} turns after {before} rounds with turns"
                raise ShapeError(f"Found {found}; expected {self.size}, one for each row, in every round.")
            self.words.turns.append(decisions.turns)
        arms, probabilities = decisions.arms, decisions.probabilities
        self._put("arms", index, arms)
        self._put("probabilities", index, probabilities)
        self._put("rewards", index, rewards)
        if self.rules.feedback == "full":
            self._put("played", index, probabilities if arms is None else one_hot(arms, self.rules.num_arms))
        for name in ("rewards", "probabilities", "played"):
            if failed and name in self._arrays:
                self._arrays[name][failed, index] = 0.0
        self.failed = {**decisions.failed, **self.failed}
        self.num_rounds += 1

    def give_up(self, decisions: Decisions) -> None:
        """Add the round in which the last rows failed, and end here: what is left has no decisions."""
        self.append(decisions, np.zeros(self._arrays["rewards"][:, 0].shape))
        if self.words.turns:
            nothing = (Turn("", ""),) * self.size
            self.words.turns.extend([nothing] * (self.rules.horizon - self.num_rounds))
        self.num_rounds = self.rules.horizon

    def round(self, index: int) -> Round:
        """The finished round `index`."""
        arms = self._arrays["arms"][:, index]
        kept = {name: array[:, index] for name, array in self._arrays.items()}
        played = kept["played"] if "played" in kept else one_hot(arms, self.rules.num_arms)
        return Round(index, arms, played, kept["rewards"], kept.get("observations"), kept.get("features"))

    def row(self, row: int) -> RowHistory:
        """What one row has seen so far."""
        seen = {
            name: array[row, : self.num_rounds + FIELDS[name].ahead] for name, array in self._arrays.items()
        }
        played = seen["played"] if "played" in seen else one_hot(seen["arms"], self.rules.num_arms)
        shown = {name: seen.get(name) for name in SHOWN}
        return RowHistory(self.rules, seen["arms"], seen["rewards"], played, **shown)

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
        """Scratch state of one policy for this batch, such as a key-value cache; made on first use.

        It lives as long as the rollout, and is not copied by `rows` or `prefix`.
        """
        return self.fold(key, start, lambda state, _: state)

    def forget(self) -> None:
        """Let go of all that was folded or remembered."""
        self._folded.clear()

    def prefix(self, num_rounds: int) -> Histories:
        """A fresh copy as it was when `num_rounds` rounds were over, with nothing remembered."""
        return self._copy(slice(None), num_rounds)

    def rows(self, rows: slice | IntArray) -> Histories:
        """A fresh copy of the histories at `rows`, with nothing remembered."""
        return self._copy(rows, self.num_rounds)

    @staticmethod
    def concatenate(parts: Sequence[Histories]) -> Histories:
        """The rows of several, one after the other: of the same rules, as long as each other."""
        rules = parts[0].rules
        whole = Histories(rules, sum(part.size for part in parts))
        whole.words = Words.concatenate([part.words for part in parts])
        whole.num_rounds = parts[0].num_rounds
        for name, field in FIELDS.items():
            kept = [part._arrays.get(name) for part in parts]
            entry = next((array.shape[2:] for array in kept if array is not None), None)
            if entry is not None:  # a part may lack it: rows that failed at once have stated nothing
                whole._arrays[name] = np.concatenate([
                    field.new(part.size, rules.horizon, entry) if array is None else array
                    for part, array in zip(parts, kept, strict=True)
                ])  # fmt: skip
        starts = np.cumsum([0] + [part.size for part in parts]).tolist()
        for start, part in zip(starts, parts, strict=False):
            whole.failed |= {start + row: why for row, why in part.failed.items()}
        return whole

    def _copy(self, rows: slice | IntArray, num_rounds: int) -> Histories:
        chosen = np.arange(self.size)[rows].tolist()
        copy = Histories(self.rules, len(chosen))
        copy.words = self.words.prefix(num_rounds).rows(rows)
        copy.num_rounds = num_rounds
        copy.failed = {new: self.failed[row] for new, row in enumerate(chosen) if row in self.failed}
        for name, array in self._arrays.items():
            until = num_rounds + FIELDS[name].ahead
            copy._arrays[name] = FIELDS[name].new(copy.size, self.rules.horizon, array.shape[2:])
            copy._arrays[name][:, :until] = array[rows, :until]
        return copy

    def _put(self, name: str, index: int, entries: np.ndarray | None) -> None:
        """Keep entries (B, ...) of the round `index`, where there are some."""
        if entries is None:
            return
        if name not in self._arrays:
            self._arrays[name] = FIELDS[name].new(self.size, self.rules.horizon, entries.shape[1:])
        self._arrays[name][:, index] = entries

    def _so_far(self, name: str) -> np.ndarray | None:
        kept = self._arrays.get(name)
        return None if kept is None else kept[:, : self.num_rounds + FIELDS[name].ahead]


@dataclass(frozen=True, slots=True, eq=False)
class RowHistory:
    """What one rollout has seen in t rounds, 0 <= t <= T.

    arms: (t,), -1 where a distribution was played, or nothing. rewards: (t,), or (t, K) under full
    information. played: (t, K). observations: (t + 1, d), features: (t + 1, K, m), texts: (t + 1,) and
    arm_texts: (t + 1, K), where such is shown before every decision (T of them after the last). Raises
    ShapeError.
    """

    rules: Rules
    arms: IntArray
    rewards: FloatArray
    played: FloatArray
    observations: FloatArray | None = None
    features: FloatArray | None = None
    texts: TextArray | None = None
    arm_texts: TextArray | None = None

    def __post_init__(self) -> None:
        each = (self.num_rounds, self.rules.num_arms)
        expected = (each if self.rules.feedback == "full" else each[:1], each)
        if (self.rewards.shape, self.played.shape) != expected or self.num_rounds > self.rules.horizon:
            raise ShapeError(
                f"Found rewards {self.rewards.shape} and played {self.played.shape} of {self.num_rounds} "
                f"rounds; expected {expected[0]} and {expected[1]} of at most {self.rules.horizon} rounds."
            )

    @classmethod
    def of_arms(
        cls, rules: Rules, arms: IntArray, rewards: FloatArray, shown: Observation | None = None
    ) -> RowHistory:
        """The history in which these arms were played, (t,), -1 for nothing. Raises ShapeError."""
        arrays = {} if shown is None else {name: getattr(shown, its) for name, its in SHOWN.items()}
        return cls(rules, arms, rewards, one_hot(arms, rules.num_arms), **arrays)

    @property
    def num_rounds(self) -> int:
        return len(self.arms)
