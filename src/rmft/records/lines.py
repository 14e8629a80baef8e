"""The words of a record: one JSON line per rollout, of training in 000001.jsonl.gz and of evaluations.

A line of a policy in words has all that was said, token by token; one of a policy without words has its
decisions, to five digits. What each key means is in docs/records.md. Names of version 0.1 are read too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import numpy as np
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from rmft.errors import RunDirectoryError
from rmft.records.batch import RecordedBatch, Told
from rmft.types import FloatArray, Histories, IntArray, TrainingBatch, Trajectories, Turn

OLD_NAMES = {"prompt": "told", "completion": "said", "logprobs": "log_probabilities", "advantage": "weight"}
"""What keys of a round were called in version 0.1, where they have changed."""


def lines(record: Sequence[RecordedBatch]) -> Iterator[dict[str, Any]]:
    """A line for every rollout of a policy in words; none of other policies, whose arrays tell it all."""
    for each in record:
        if each.learned.trajectories.histories.words.turns:
            yield from lines_of(
                each.setting,
                each.learned.group,
                each.rollout,
                each.learned.trajectories,
                each.regret,
                each.told,
                each.learned,
            )


def lines_of(
    setting: str,
    problem: IntArray,
    rollout: IntArray,
    trajectories: Trajectories,
    regret: FloatArray,
    told: Mapping[int, Told],
    learned: TrainingBatch | None = None,
) -> Iterator[dict[str, Any]]:
    """One line for JSON per row, to five digits where it is without words.

    problem, rollout: (B,) numbers of the row's problem and among its rollouts. regret: (B, T). told: by word
    seed. learned: the credit that the decisions were given, where they were trained on.
    """
    histories, table = trajectories.histories, trajectories.table
    stated = histories.played if histories.probabilities is None else histories.probabilities
    plain = not histories.words.turns
    for row in range(len(trajectories)):
        numbers = {
            "arm": histories.arms[row].tolist(),
            "probabilities": _numbers(stated[row], plain),
            "seen": _numbers(histories.rewards[row], plain),
            "regret": _numbers(regret[row], plain),
        }
        if learned is not None:
            numbers["advantage"] = learned.advantages[row].tolist()
            numbers["mask"] = learned.mask[row].tolist()
        rounds = [dict(zip(numbers, each, strict=True)) for each in zip(*numbers.values(), strict=True)]
        seed = int(histories.words.seeds[row])
        yield {
            "setting": setting,
            "problem": int(problem[row]),
            "rollout": int(rollout[row]),
            "regret": float(regret[row].sum()),
            "failed": histories.failed.get(row),
            **(_named(histories, row) if plain else {"word_seed": seed, **_told(told[seed])}),
            "rewards": _numbers(table.rewards[row], plain),
            "expected_rewards": _numbers(table.expected_rewards[row], plain),
            "rounds": rounds if plain else _with_words(histories, row, rounds),
        }


def _named(histories: Histories, row: int) -> dict[str, Any]:
    """What arms are called, of a policy that is not told their names."""
    names = histories.words.names
    return {} if names is None else {"options": [[name] for name in names[row].tolist()]}


def _told(told: Told) -> dict[str, Any]:
    return {"context": told.context, "options": [list(option) for option in told.options]}


def _with_words(histories: Histories, row: int, rounds: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    turns = [turns[row] for turns in histories.words.turns]
    return [
        {
            **({"system": turn.system} if turn.system else {}),
            "prompt": turn.prompt,
            "refused": turn.refused,
            "completion": turn.completion,
            **({"cut": True} if turn.cut else {}),
            **numbers,
            "ids": _listed(turn.ids),
            "logprobs": _listed(turn.logprobs),
            "legal": _listed(turn.legal),
        }
        for turn, numbers in zip(turns, rounds, strict=True)
    ]


def five_digits(values: FloatArray) -> list[Any]:
    """Numbers for JSON, nested as the array is, each to five significant digits."""
    if values.ndim > 1:
        return [five_digits(each) for each in values]
    return [float(f"{value:.5g}") for value in values.tolist()]


def _numbers(values: FloatArray, plain: bool) -> list[Any]:
    listed: list[Any] = values.tolist()
    return five_digits(values) if plain else listed


def _listed(values: np.ndarray | None) -> list[Any] | None:
    """Numbers for JSON, None where there is none."""
    return None if values is None else [None if math.isnan(value) else value for value in values.tolist()]


def _either(name: str) -> AliasChoices:
    return AliasChoices(name, OLD_NAMES[name])


class RecordedTurn(BaseModel):
    """One round of a line, as far as it makes a turn."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    prompt: Annotated[str, Field(validation_alias=_either("prompt"))]
    completion: Annotated[str, Field(validation_alias=_either("completion"))]
    system: str = ""
    refused: tuple[tuple[str, str], ...] = ()
    ids: list[Annotated[int, Field(ge=0, lt=2**31)]] | None = None
    logprobs: Annotated[
        list[float | None] | None,
        Field(validation_alias=_either("logprobs")),
    ] = None
    legal: list[Annotated[int, Field(ge=-1, lt=2**31)]] | None = None
    cut: bool = False

    @classmethod
    def of(cls, turn: Turn) -> RecordedTurn:
        """The round that `turn` is made of again."""
        return cls.model_construct(
            prompt=turn.prompt,
            completion=turn.completion,
            system=turn.system,
            refused=turn.refused,
            ids=_listed(turn.ids),
            logprobs=_listed(turn.logprobs),
            legal=_listed(turn.legal),
        )

    @property
    def turn(self) -> Turn:
        logprobs = None if self.logprobs is None else np.array(self.logprobs, dtype=np.float64)
        ids, legal = (
            None if listed is None else np.array(listed, dtype=np.int64) for listed in (self.ids, self.legal)
        )
        return Turn(self.prompt, self.completion, ids, logprobs, legal, self.system, self.refused, self.cut)


class Line(BaseModel):
    """One line, as far as it says whose turns these are."""

    model_config = ConfigDict(extra="ignore")

    setting: str
    problem: int
    rollout: int
    rounds: list[RecordedTurn]


def turns_of(content: bytes, setting: str, problem: int, rollout: int, rules: tuple[int, int]) -> list[Turn]:
    """The T turns in one line. rules: the horizon and the number of arms.

    Raises RunDirectoryError when it is damaged, or is another rollout's.
    """
    where = f"the rollout {rollout} of problem {problem} in '{setting}'"
    try:
        line = Line.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(key) for key in first["loc"])
        raise RunDirectoryError(f"{where} is damaged: {place} {first['msg']}.") from None
    if (line.setting, line.problem, line.rollout) != (setting, problem, rollout):
        found = f"rollout {line.rollout} of problem {line.problem} in '{line.setting[:80]}'"
        raise RunDirectoryError(f"Found {found}; expected {where}.")
    horizon, num_arms = rules
    fitting = all(
        (turn.ids is None) == (turn.logprobs is None)
        and len(turn.ids or ()) == len(turn.logprobs or ())
        and len(turn.legal or ()) in (0, num_arms)
        for turn in line.rounds
    )
    if len(line.rounds) != horizon or not fitting:
        raise RunDirectoryError(f"{where} has {len(line.rounds)} rounds, or tokens that do not fit.")
    return [recorded.turn for recorded in line.rounds]
