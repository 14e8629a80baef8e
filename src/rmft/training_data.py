"""What a run learned from, as files that others' trainers read: one JSON line for every rollout that was
kept.

    messages    {"messages": [{"role", "content", "weight"}, ...], "advantages": [...], ...}, an advantage per
    decision tokens      {"input_ids": [...], "loss_mask": [...], "advantages": [...], "logprobs": [...],
    ...}, one per token

`weight` and `loss_mask` are 1 where the run's loss looked, else 0. Both have `iteration`, `setting`,
`problem`, `rollout` and `regret` besides.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from rmft.errors import ConfigError, RunDirectoryError, UnknownNameError
from rmft.messages import messages
from rmft.records.batch import RecordedBatch
from rmft.records.files import read_record
from rmft.run_directory import RunDirectory

DataFormat = Literal["messages", "tokens"]


def write_training_data(run: RunDirectory, form: str, target: Path, iterations: Sequence[int] = ()) -> int:
    """Write what was kept in these iterations, all unless given, to the new file `target`; how many rollouts.

    Raises UnknownNameError for a form, ConfigError when the run's policy has no words or no tokens, or there
    is no such iteration, and RunDirectoryError when the record is damaged or the file exists or can't be
    written.
    """
    if form not in get_args(DataFormat):
        raise UnknownNameError("form of data", form, get_args(DataFormat))
    if os.path.lexists(target):
        raise RunDirectoryError(f"'{target}' exists already, and nothing is overwritten. Choose another.")
    last = len(run.metrics()) - 1
    wrong = [iteration for iteration in iterations if not 1 <= iteration <= last]
    if last < 1:
        raise ConfigError(f"'{run.path}' has finished no iteration yet, so it was trained on nothing.")
    if wrong:
        raise ConfigError(f"Found the iteration {wrong[0]}; '{run.path}' has finished {last}.")
    staged, count = target.with_name(f".{target.name}.{os.getpid()}"), 0
    try:
        with staged.open("w", encoding="utf-8") as file:
            for iteration in iterations or range(1, last + 1):
                for line in _lines(run.path, iteration, form):
                    file.write(json.dumps(line, allow_nan=False) + "\n")
                    count += 1
        os.rename(staged, target)
    except OSError as error:
        if isinstance(error, RunDirectoryError):
            raise
        raise RunDirectoryError(f"Can't write '{target}': {error.strerror or error}.") from None
    finally:
        staged.unlink(missing_ok=True)
    return count


def training_rows(batch: RecordedBatch, form: str) -> Iterator[dict[str, Any]]:
    """One row for every rollout of a batch that was kept and has not failed. Raises ConfigError."""
    for row in np.setdiff1d(batch.learned.kept, np.flatnonzero(batch.failed)).tolist():
        yield {
            **(_messages(batch, row) if form == "messages" else _tokens(batch, row)),
            "setting": batch.setting,
            "problem": int(batch.learned.group[row]),
            "rollout": int(batch.rollout[row]),
            "regret": float(batch.regret[row].sum()),
        }


def _lines(run_dir: Path, iteration: int, form: str) -> Iterator[dict[str, Any]]:
    for batch in read_record(run_dir, iteration):
        if not batch.learned.trajectories.histories.words.turns:
            raise ConfigError(
                f"'{run_dir}' trains a policy without words; read its records with rmft.records."
            )
        yield from ({**row, "iteration": iteration} for row in training_rows(batch, form))


def _messages(batch: RecordedBatch, row: int) -> dict[str, Any]:
    learned = batch.learned
    turns = [turns[row] for turns in learned.trajectories.histories.words.turns]
    chat = messages(turns, learned.mask[row].astype(np.float64))
    return {"messages": chat, "advantages": learned.advantages[row].tolist()}


def _tokens(batch: RecordedBatch, row: int) -> dict[str, Any]:
    learned = batch.learned
    line: dict[str, list[Any]] = {"input_ids": [], "loss_mask": [], "advantages": [], "logprobs": []}
    for index, turns in enumerate(learned.trajectories.histories.words.turns):
        turn = turns[row]
        if turn.ids is None or turn.logprobs is None:
            raise ConfigError("This run's model was played elsewhere and left no tokens; export messages.")
        sampled = np.isfinite(turn.logprobs)
        kept = sampled & learned.mask[row, index]
        line["input_ids"] += turn.ids.tolist()
        line["loss_mask"] += kept.astype(int).tolist()
        line["advantages"] += np.where(kept, learned.advantages[row, index], 0.0).tolist()
        line["logprobs"] += [
            value if there else None for value, there in zip(turn.logprobs.tolist(), sampled, strict=True)
        ]
    return line
