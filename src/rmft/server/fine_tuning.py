"""A fine-tuning job's own process: `python -m rmft.server.fine_tuning`, started by `rmft.server.worker`.

It reads one line of JSON, a `Task`, writes `Report`s as lines of JSON, and ends at once when its standard
input does: so it never outlives the server, whatever ends that.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import TextIO

import torch
from transformers import AutoTokenizer

from rmft.errors import RmftError
from rmft.models.catalogue import find_model
from rmft.server.conversation import Conversations
from rmft.server.failures import ApiError
from rmft.server.task import BASE_RATE, TRAINED, Report, Task
from rmft.server.training_file import read_training_file
from rmft.training.config import LocalTraining
from rmft.training.local import fine_tune, new_policy

LATER = 5  # how far answers go before training where both want the processor ("nice")


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
        groups,
        task.work / TRAINED,
        task.policy,
        LocalTraining(epochs=task.epochs, batch_size=task.batch_size),
        BASE_RATE * task.multiplier,
        task.seed,
        lambda step, steps, loss: _say(out, Report(step=step, steps=steps, loss=loss)),
    )
    return task.epochs * sum(len(one.ids) for group in groups for one in group)


if __name__ == "__main__":
    main()
