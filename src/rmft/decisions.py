"""What a policy is told before round 1 and before a round, and what it does in it.

Arrays have the rollout as their first axis. B = rollouts in a batch, T = horizon, K = num_arms.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from rmft.errors import ShapeError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
TextArray = NDArray[np.str_]

Feedback = Literal["full", "bandit"]
"""What is seen after a round: `full`, the reward of every arm; `bandit`, that of the played arm."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What every round shows before its decision; nothing, unless the bandit is a contextual one.

    numbers: names of the d numbers of the round. features: names of the m numbers of each arm. scales: of
    each feature the mean and deviation that it was standardized by, where it is told in its own units.
    text_length: of the longest text of a round, in bytes of UTF-8, which no tokens are more than; 0 where
    there is none. arm_text_length: of the longest text of an arm.
    """

    numbers: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    text_length: int = 0
    scales: tuple[tuple[float, float], ...] = ()
    arm_text_length: int = 0

    def __bool__(self) -> bool:
        return bool(self.numbers or self.features or self.text_length or self.arm_text_length)

    @property
    def num_inputs(self) -> int:
        """d + m, how many numbers there are on the choice of an arm."""
        return len(self.numbers) + len(self.features)

    def told(self, features: FloatArray) -> FloatArray:
        """Features (..., m) in the units in which they are told."""
        if not self.scales:
            return features
        means, deviations = np.transpose(self.scales)
        return np.asarray(features * deviations + means)


@dataclass(frozen=True, slots=True)
class Rules:
    """What every policy is told before round 1. reward_range is (low, high), infinite when unbounded."""

    feedback: Feedback
    horizon: int
    num_arms: int
    reward_range: tuple[float, float] = (0.0, 1.0)
    shown: Shown = Shown()

    def normalize(self, rewards: FloatArray) -> FloatArray:
        """Rewards on [0, 1] when the range is bounded; as they are when it is not."""
        low, high = self.reward_range
        return (rewards - low) / (high - low) if np.isfinite(high - low) else rewards


class TogetherArrays:
    """What the dataclasses have whose fields are arrays with the same first axes, some of them maybe None."""

    __slots__ = ()

    def _arrays(self) -> list[np.ndarray | None]:
        return [getattr(self, each.name) for each in fields(self)]  # type: ignore[arg-type]

    def map(self, change: Callable[[np.ndarray], np.ndarray]) -> Self:
        """The same with every array changed alike."""
        return type(self)(*(None if array is None else change(array) for array in self._arrays()))

    @classmethod
    def join(
        cls, parts: Sequence[Self | None], joined: Callable[[list[np.ndarray]], np.ndarray]
    ) -> Self | None:
        """The arrays of several joined one by one; None where a part is None, of one array too."""
        some = [part for part in parts if part is not None]
        if not some or len(some) < len(parts):
            return None
        kinds = zip(*(part._arrays() for part in some), strict=True)
        given = ([array for array in kind if array is not None] for kind in kinds)
        return cls(*(joined(arrays) if len(arrays) == len(some) else None for arrays in given))


@dataclass(frozen=True, slots=True, eq=False)
class Observation(TogetherArrays):
    """What is shown before a decision: axes (...) are () of one, (B,) of a batch, (B, T) of all its rounds.

    numbers: (..., d) of the round. features: (..., K, m) of every arm. texts: (...), in which a policy in
    words is told what the numbers say; arm_texts: (..., K), what the features say, or what no number does.
    None where nothing of the kind is shown. Raises ShapeError for a number that is not finite.
    """

    numbers: FloatArray | None = None
    features: FloatArray | None = None
    texts: TextArray | None = None
    arm_texts: TextArray | None = None

    def __post_init__(self) -> None:
        for name in ("numbers", "features"):
            given = getattr(self, name)
            if given is not None:
                array = np.asarray(given, dtype=np.float64)
                object.__setattr__(self, name, array)
                if not np.isfinite(array).all():
                    raise ShapeError(f"The {name} shown hold NaN or infinity; expected finite numbers.")
        for name in ("texts", "arm_texts"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=TEXTS))

    def check(self, rules: Rules, *axes: int) -> None:
        """Raises ShapeError when it is not of these axes, or not what `rules.shown` says.

        Where that says nothing, numbers of any width may be shown.
        """
        shown = rules.shown
        width = 0 if self.numbers is None else (1, *self.numbers.shape)[-1]
        of_arms = (*axes, rules.num_arms)
        for name, array, size, expected in (
            ("numbers", self.numbers, count := len(shown.numbers) if shown else width, (*axes, count)),
            ("features", self.features, len(shown.features), (*of_arms, len(shown.features))),
            ("texts", self.texts, shown.text_length, axes),
            ("arm_texts", self.arm_texts, shown.arm_text_length, of_arms),
        ):
            none = not size
            if (array is None) != none or (array is not None and array.shape != expected):
                found = "none" if array is None else f"an array of shape {array.shape}"
                raise ShapeError(
                    f"Found {found} as the {name} shown; expected {'none' if none else expected}."
                )

    def named(self) -> dict[str, np.ndarray]:
        """Those that are given, by name."""
        every = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: array for name, array in every.items() if array is not None}

    def arrays(self) -> list[np.ndarray]:
        """Those that are given."""
        return list(self.named().values())


TEXTS = np.dtypes.StringDType()
"""The type of arrays of texts of any length."""


@dataclass(frozen=True, slots=True, eq=False)
class Turn:
    """One round of one rollout in words.

    prompt: the environment's words since the last decision, after the system's, which come first of all.
    completion: the policy's, reasoning and decision. refused: before that, answers that could not be read,
    each with what was replied to it. A policy with tokens also gives ids: (n,) all of the turn's tokens, the
    prompt's first; logprobs: (n,) of those that it sampled, under what they were sampled from, NaN for the
    others; legal: (K,) the tokens that the last was chosen among, by arm, where it named an arm.
    cut: whether the budget cut its reasoning, or of a hosted model an answer that was then refused.
    """

    prompt: str
    completion: str
    ids: IntArray | None = None
    logprobs: FloatArray | None = None
    legal: IntArray | None = None
    system: str = ""
    refused: tuple[tuple[str, str], ...] = ()
    cut: bool = False

    @property
    def full_prompt(self) -> str:
        """The prompt, after the system's words where the turn begins with them."""
        return "\n\n".join(filter(None, (self.system, self.prompt)))


@dataclass(frozen=True, slots=True, eq=False)
class Words:
    """The words of a batch of B rows. Only what reads or writes words looks into them.

    contexts: where they are drawn from, a group of contexts ("train", "held_out", "all"), the name of one, or
    contexts of one's own as text (`rmft.scenarios.contexts`). seeds: (B,), what they are drawn with, the same
    for all rollouts of a problem. turns: B for every finished round, of a policy that decides in words; else
    none. names: (B, K) what each arm is called, in the order of the arms; None where arms are anonymous, and
    their names are drawn with the rest. Raises ShapeError.
    """

    contexts: str
    seeds: IntArray
    turns: list[tuple[Turn, ...]] = field(default_factory=list)
    names: TextArray | None = None

    def __post_init__(self) -> None:
        if self.names is not None and (self.names.ndim != 2 or len(self.names) != len(self.seeds)):
            raise ShapeError(
                f"The names of arms have shape {self.names.shape}; expected ({len(self.seeds)}, num_arms)."
            )

    def __len__(self) -> int:
        return len(self.seeds)

    def unspoken(self) -> Words:
        """The same words before round 1."""
        return replace(self, turns=[])

    def repeat(self, times: int) -> Words:
        """Before round 1, every row `times` times in a row."""
        return self.unspoken().rows(np.repeat(np.arange(len(self)), times))

    def rows(self, rows: slice | IntArray) -> Words:
        """Those of the rows at `rows`, with their turns."""
        chosen = np.arange(len(self))[rows].tolist()
        turns = [tuple(each[row] for row in chosen) for each in self.turns]
        names = None if self.names is None else self.names[rows]
        return Words(self.contexts, self.seeds[rows], turns, names)

    def prefix(self, num_rounds: int) -> Words:
        """Those of the first `num_rounds` rounds."""
        return replace(self, turns=self.turns[:num_rounds])

    @staticmethod
    def concatenate(parts: Sequence[Words]) -> Words:
        """The rows of several, one after the other: from the same contexts, of as many rounds each.

        Either all have names for the arms, or none has.
        """
        turns = [sum(each, ()) for each in zip(*(part.turns for part in parts), strict=True)]
        named = [part.names for part in parts if part.names is not None]
        names = np.concatenate(named) if named else None
        return Words(parts[0].contexts, np.concatenate([part.seeds for part in parts]), turns, names)


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

    def check(self, rules: Rules, size: int) -> None:
        """Raises ShapeError when these are no decisions of `size` rows under `rules`."""
        failed, expected = list(self.failed), (size, rules.num_arms)
        if self.probabilities is not None:
            if self.probabilities.shape != expected:
                raise ShapeError(f"Probabilities have shape {self.probabilities.shape}; expected {expected}.")
            sums = np.delete(self.probabilities, failed, axis=0).sum(axis=1)
            if not np.all(self.probabilities >= 0) or np.abs(sums - 1).max(initial=0) > 1e-4:
                raise ShapeError("Probabilities must be non-negative and sum to 1 in every row.")
        if self.arms is None:
            if rules.feedback == "bandit":
                raise ShapeError(
                    "Bandit feedback needs an arm in every decision; only probabilities were given."
                )
            return
        if self.arms.shape != (size,):
            raise ShapeError(f"Arms have shape {self.arms.shape}; expected {(size,)}.")
        made = np.delete(self.arms, failed)
        if len(made) and not (made.min() >= 0 and made.max() < rules.num_arms):
            raise ShapeError(
                f"An arm must be from 0 to {rules.num_arms - 1}; found {made.min()} to {made.max()}."
            )
        if (self.arms[failed] != -1).any():
            raise ShapeError(f"The rows {failed} have no decision; expected -1 as their arm.")


@dataclass(frozen=True, slots=True)
class Round:
    """One finished round of a batch, as a policy saw it.

    index: from 0. arms: (B,), -1 where a distribution was played, or nothing. played: (B, K) the
    distribution played (one-hot for an arm, 0 for nothing). rewards: (B,) under bandit feedback, (B, K)
    under full. observations: (B, d) the numbers shown before the decision, where some were. features:
    (B, K, m) those of every arm.
    """

    index: int
    arms: IntArray
    played: FloatArray
    rewards: FloatArray
    observations: FloatArray | None = None
    features: FloatArray | None = None


def one_hot(arms: IntArray, num_arms: int) -> FloatArray:
    """(..., K): 1 at the arm, and nowhere where it is -1."""
    return np.eye(num_arms + 1)[arms][..., :num_arms]
