"""A fine-tuning job's own process: `python -m rmft.server.fine_tuning`, started by `rmft.server.worker`.

It reads one line of JSON, a `Task`, writes `Report`s as lines of JSON, and ends at once when its standard
input does: so it never outlives the server, whatever ends that.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import TextIO

import torch
from pydantic import BaseModel, ConfigDict
from transformers import AutoTokenizer

from rmft.errors import RmftError
from rmft.models.catalogue import find_model
from rmft.policies.config import LocalConfig
from rmft.server.conversation import Conversations, read_training_file
from rmft.server.refusals import ApiError
from rmft.training.config import LocalTraining
from rmft.training.local import fine_tune, new_policy

TRAINED = "trained"
"""The folder of the new policy, in a job's working folder."""
BASE_RATE = 1e-3
"""The learning rate of AdamW at learning_rate_multiplier 1."""
LATER = 5  # how far answers go before training where both want the processor ("nice")


class Task(BaseModel):
    """What is trained. source: the policy that it starts from; None: the base model of `policy`.

    work: an empty folder, in which `TRAINED` is the new policy afterwards. context, stop_ids: of the model.
    multiplier: times BASE_RATE.
    """

    model_config = ConfigDict(frozen=True)

    policy: LocalConfig
    source: Path | None
    file: Path
    work: Path
    context: int
    stop_ids: tuple[int, ...]
    epochs: int
    batch_size: int
    multiplier: float
    seed: int
    num_threads: int


class Report(BaseModel):
    """How it goes: a step with its loss, or the end, by `trained_tokens` or by what was wrong."""

    model_config = ConfigDict(frozen=True)

    step: int = 0
    steps: int = 0
    loss: float = 0.0
    trained_tokens: int | None = None
    wrong: str | None = None
    code: str | None = None


def main() -> None:
    """Do the task that standard input tells of."""
    task = Task.model_validate_json(sys.stdin.readline())
    threading.Thread(target=_end_with_server, daemon=True).start()
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is no report
    os.nice(LATER)
    try:
        _say(out, Report(trained_tokens=_train(task, out)))
    except ApiError as error:
        _say(out, Report(wrong=error.message, code=error.code))
    except RmftError as error:
        _say(out, Report(wrong=str(error), code="training_failed"))


def _end_with_server() -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(1)


def _say(out: TextIO, report: Report) -> None:
    out.write(report.model_dump_json() + "\n")
    out.flush()


def _train(task: Task, out: TextIO) -> int:
    """The number of tokens trained on, those of all epochs. Raises RmftError."""
    torch.set_num_threads(task.num_threads)
    tokenizer = AutoTokenizer.from_pretrained(find_model(task.policy.model))
    groups = read_training_file(task.file, Conversations.of(tokenizer, task.stop_ids), task.context)
    source = task.source
    if source is None:
        source = task.work / "start"
        source.mkdir()
        new_policy(task.policy, task.seed, source)
    (task.work / TRAINED).mkdir()
    fine_tune(
        source,
        task.work / TRAINED,
        groups,
        task.policy,
        LocalTraining(
            epochs=task.epochs,
            batch_size=task.batch_size,
            learning_rate=BASE_RATE * task.multiplier,
            schedule="constant",
            warmup=0,
        ),
        0.0,
        task.seed,
        lambda step, steps, loss: _say(out, Report(step=step, steps=steps, loss=loss)),
    )
    return task.epochs * sum(len(one.ids) for group in groups for one in group)


if __name__ == "__main__":
    main()
