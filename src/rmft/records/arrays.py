"""The numbers of a record: what every array is called, and its shape and type, stated once.

An iteration's arrays lie in trajectories/000001.npz, those of a setting under "SETTING/NAME" (see
docs/records.md). B = rollouts, M = problems, T = horizon, K = num_arms, and P is M where the rollouts of a
problem had one reward table, else B. D numbers of the round and F of every arm are shown before a decision.
Under full information `reward` has K numbers for every round.

Precision. What training and off-policy estimates multiply by is stored in single precision, which is what
networks compute in: propensities, advantages and action targets, rewards, regret. The distributions of a
policy without words, of which there are K numbers for every decision, are in half precision, 2^-11 of each
number; that of the played arm is taken from `propensity`, and the others are scaled to sum to the rest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from rmft.errors import RunDirectoryError, ShapeError
from rmft.records.batch import RecordedBatch
from rmft.regret import RegretKind
from rmft.types import (
    Decisions,
    Feedback,
    FloatArray,
    Histories,
    IntArray,
    Observation,
    RewardTable,
    Rules,
    Shown,
    TrainingBatch,
    Trajectories,
    Turn,
    Words,
)

MAX_REASON = 400  # characters of why a rollout failed


class Stored(NamedTuple):
    """dims: of which axes an array has. dtype: as written; any of the same kind is read."""

    dims: str
    dtype: type[np.generic]
    required: bool = True


ARRAYS = {
    "group": Stored("B", np.int64),  # the number of the rollout's problem in its part
    "rollout": Stored("B", np.int32),  # its number among those of its problem
    "word_seed": Stored("B", np.int64),
    "failure": Stored("B", np.str_),  # why the rollout failed, "" where it did not
    "arm": Stored("BT", np.int16),  # -1 where a distribution was played, or nothing
    "reward": Stored("BT", np.float32),  # seen after the round; (B, T, K) under full information
    "propensity": Stored("BT", np.float32),  # of the played arm, NaN where it is not known
    "probabilities": Stored("BTK", np.float16, required=False),  # stated; 0 where nothing was decided
    "regret": Stored("BT", np.float32),  # what the round adds
    "mask": Stored("BT", np.bool_),  # which decisions are in the loss
    "advantage": Stored("BT", np.float32),
    "action_target": Stored("BTK", np.float32, required=False),
    "rewards": Stored("PTK", np.float32),  # the hidden table
    "expected_rewards": Stored("PTK", np.float32),
    "observation": Stored("BTD", np.float32, required=False),  # what was shown before the decision
    "feature": Stored("BTKF", np.float32, required=False),  # of every arm
    "text": Stored("BT", np.str_, required=False),
    "arm_text": Stored("BTK", np.str_, required=False),
    "context": Stored("M", np.str_, required=False),  # what a problem is about in words
    "arm_name": Stored("MK", np.str_, required=False),  # where arms are named
}
SHOWN = {"observation": "numbers", "feature": "features", "text": "texts", "arm_text": "arm_texts"}
"""Those of what was shown, each with the name that it has in an `Observation`."""

ABOUT = "about"  # a text beside the arrays: JSON of `About`


class About(BaseModel):
    """What holds for all rollouts of a setting. reward_range: None where it is unbounded on that side."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    feedback: Feedback
    horizon: int = Field(ge=1, le=1_000_000)
    num_arms: int = Field(ge=2, le=100_000)
    reward_range: tuple[float | None, float | None]
    shown: Shown = Shown()
    contexts: str = "train"
    regret: RegretKind
    temperature: float = Field(gt=0)
    in_words: bool = False

    @staticmethod
    def of(recorded: RecordedBatch) -> About:
        histories = recorded.learned.trajectories.histories
        rules = histories.rules
        low, high = (bound if math.isfinite(bound) else None for bound in rules.reward_range)
        return About(
            feedback=rules.feedback,
            horizon=rules.horizon,
            num_arms=rules.num_arms,
            reward_range=(low, high),
            shown=rules.shown,
            contexts=histories.words.contexts,
            regret=recorded.regret_kind,
            temperature=recorded.learned.temperature,
            in_words=bool(histories.words.turns),
        )

    @property
    def rules(self) -> Rules:
        low, high = self.reward_range
        bounds = -math.inf if low is None else low, math.inf if high is None else high
        return Rules(self.feedback, self.horizon, self.num_arms, bounds, self.shown)


def to_arrays(record: Sequence[RecordedBatch]) -> dict[str, np.ndarray]:
    """The arrays of an iteration, by "SETTING/NAME"."""
    arrays: dict[str, np.ndarray] = {}
    for recorded in record:
        about = About.of(recorded)
        arrays[f"{recorded.setting}/{ABOUT}"] = np.array(about.model_dump_json())
        for name, array in _arrays(recorded).items():
            stored = ARRAYS[name]
            exact = name == "probabilities" and about.in_words  # few beside the words
            dtype = np.float32 if exact else stored.dtype
            arrays[f"{recorded.setting}/{name}"] = np.asarray(array, dtype=dtype)
    return arrays


def _arrays(recorded: RecordedBatch) -> dict[str, np.ndarray]:
    learned = recorded.learned
    histories, table = learned.trajectories.histories, learned.trajectories.table
    _, first, place = np.unique(learned.group, return_index=True, return_inverse=True)
    one_table = np.array_equal(table.rewards, table.rewards[first[place]]) and np.array_equal(
        table.expected_rewards, table.expected_rewards[first[place]]
    )
    tables = table.rows(first) if one_table else table
    why = {row: reason[:MAX_REASON] or "no reason given" for row, reason in histories.failed.items()}
    found = {
        "group": learned.group,
        "rollout": recorded.rollout,
        "word_seed": histories.words.seeds,
        "failure": np.array([why.get(row, "") for row in range(histories.size)]),
        "arm": histories.arms,
        "reward": histories.rewards,
        "propensity": histories.propensities,
        "probabilities": histories.probabilities,
        "regret": recorded.regret,
        "mask": learned.mask,
        "advantage": learned.advantages,
        "action_target": learned.action_targets,
        "rewards": tables.rewards,
        "expected_rewards": tables.expected_rewards,
        "observation": histories.observations,
        "feature": histories.features,
        "text": None if histories.texts is None else np.array(histories.texts.tolist()),
        "arm_text": None if histories.arm_texts is None else np.array(histories.arm_texts.tolist()),
    }
    if recorded.told:
        seeds = histories.words.seeds[first].tolist()
        found["context"] = np.array([recorded.told[seed].context for seed in seeds])
    if histories.words.names is not None:
        found["arm_name"] = histories.words.names[first]
    return {name: array for name, array in found.items() if array is not None}


def checked(setting: str, arrays: Mapping[str, np.ndarray]) -> tuple[About, dict[str, np.ndarray]]:
    """What holds of a setting, and its arrays by name, of the shapes and types that they should have.

    arrays: by "SETTING/NAME". Raises RunDirectoryError when one is missing or is anything else.
    """
    text = arrays.get(f"{setting}/{ABOUT}", np.array(0)).item()
    try:
        about = About.model_validate_json(text if isinstance(text, str) else "")
    except ValueError:
        raise RunDirectoryError(f"'{setting}/{ABOUT}' does not say what its arrays are of.") from None

    def array_of(name: str) -> np.ndarray:
        return arrays.get(f"{setting}/{name}", np.zeros(0))

    group = array_of("group")
    problems = len(np.unique(group))
    sizes = {"B": (group.size,), "M": (problems,), "P": (problems, group.size)}
    sizes |= {"T": (about.horizon,), "K": (about.num_arms,)}
    sizes |= {"F": (len(about.shown.features),)}
    if about.shown or array_of("observation").ndim != 3:
        sizes["D"] = (len(about.shown.numbers),)
    else:  # an environment of one's own showed more than its rules say
        sizes["D"] = (array_of("observation").shape[2],)
    found = {}
    for name, stored in ARRAYS.items():
        array = arrays.get(f"{setting}/{name}")
        if array is None and not stored.required:
            continue
        dims = "BTK" if name == "reward" and about.feedback == "full" else stored.dims
        shape, kind = () if array is None else array.shape, np.dtype(stored.dtype).kind
        fits = len(shape) == len(dims) and all(s in sizes[d] for s, d in zip(shape, dims, strict=True))
        if array is None or not fits or array.dtype.kind != kind:
            is_what = "nothing" if array is None else f"{array.dtype} of shape {shape}"
            form = np.dtype(stored.dtype).name
            wanted = ", ".join(" or ".join(str(size) for size in sizes[dim]) for dim in dims)
            raise RunDirectoryError(f"'{setting}/{name}' is {is_what}; expected {form} of shape ({wanted}).")
        found[name] = array
    return about, found


def from_arrays(
    setting: str, about: About, arrays: Mapping[str, np.ndarray], turns: Sequence[Sequence[Turn]] = ()
) -> RecordedBatch:
    """What was stored, from arrays that were `checked`. turns: B for every round, of a policy in words.

    Raises RunDirectoryError when they make no trajectories under the setting's rules.
    """
    group = arrays["group"].astype(np.int64)
    rewards, expected = arrays["rewards"], arrays["expected_rewards"]
    if len(rewards) != len(group):
        place = np.unique(group, return_inverse=True)[1]
        rewards, expected = rewards[place], expected[place] if len(expected) != len(group) else expected
    try:
        trajectories = Trajectories(_histories(about, arrays, turns), RewardTable(rewards, expected))
        targets = arrays.get("action_target")
        learned = TrainingBatch(
            trajectories,
            group,
            arrays["mask"],
            arrays["advantage"].astype(np.float64),
            None if targets is None else targets.astype(np.float64),
            about.temperature,
        )
        for name in ("advantage", "regret", "reward", "action_target"):
            if name in arrays and not np.isfinite(arrays[name]).all():
                raise ShapeError(f"{name} holds NaN or infinity.")
    except ShapeError as error:
        raise RunDirectoryError(f"'{setting}' holds no trajectories: {error}") from None
    rollout, regret = arrays["rollout"].astype(np.int64), arrays["regret"].astype(np.float64)
    return RecordedBatch(setting, about.regret, learned, rollout, regret)


def _histories(about: About, arrays: Mapping[str, np.ndarray], turns: Sequence[Sequence[Turn]]) -> Histories:
    """The histories, played once more from the decisions that are stored."""
    arms, rewards = arrays["arm"].astype(np.int64), arrays["reward"].astype(np.float64)
    reasons = arrays["failure"].tolist()
    stated = _stated(arrays)
    names = arrays.get("arm_name")
    if names is not None:
        names = names[np.unique(arrays["group"], return_inverse=True)[1]]
    words = Words(about.contexts, arrays["word_seed"].astype(np.int64), names=names)
    histories = Histories(about.rules, len(arms), words)
    shown = {its: arrays[name] for name, its in SHOWN.items() if name in arrays}
    for index in range(about.horizon):
        if shown:
            histories.observe(Observation(**{its: array[:, index] for its, array in shown.items()}))
        of_round, probabilities = arms[:, index], None if stated is None else stated[:, index]
        if probabilities is not None and not probabilities.any():
            probabilities = None
        mixed = about.feedback == "full" and probabilities is not None and (of_round < 0).all()
        undecided = (of_round < 0) if probabilities is None or not mixed else ~probabilities.any(axis=1)
        decisions = Decisions(
            arms=None if mixed else of_round,
            probabilities=probabilities,
            turns=tuple(turns[index]) if turns else None,
            failed={int(row): str(reasons[row]) for row in np.flatnonzero(undecided)},
        )
        histories.append(decisions, rewards[:, index])
    return histories


def _stated(arrays: Mapping[str, np.ndarray]) -> FloatArray | None:
    """(B, T, K) the distributions: the played arm's from its propensity, the others scaled to the rest."""
    if "probabilities" not in arrays:
        return None
    stated = arrays["probabilities"].astype(np.float64)
    if arrays["probabilities"].dtype != np.float16:
        return stated
    propensity, arms = arrays["propensity"].astype(np.float64), arrays["arm"]
    at: IntArray = np.clip(arms, 0, stated.shape[2] - 1).astype(np.int64)[..., None]
    known = (arms >= 0) & np.isfinite(propensity)
    others = stated.copy()
    np.put_along_axis(others, at, 0.0, axis=2)
    total = others.sum(axis=2)
    scale = np.divide(1 - propensity, total, out=np.zeros_like(total), where=known & (total > 0))
    exact = others * scale[..., None]
    np.put_along_axis(exact, at, propensity[..., None], axis=2)
    sums = stated.sum(axis=2, keepdims=True)
    plain = np.divide(stated, sums, out=np.zeros_like(stated), where=sums > 0)
    return np.asarray(np.where(known[..., None], exact, plain))


def settings_of(arrays: Mapping[str, np.ndarray]) -> list[str]:
    """The names of the settings, in the order in which they are stored."""
    return list(dict.fromkeys(key.rpartition("/")[0] for key in arrays))
