"""The thread that writes answers: those that wait for one model are read together, written in lock-step."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel

from rmft.generators.local import Session, bytes_per_token
from rmft.server.models import KEPT, Loaded
from rmft.server.refusals import ApiError
from rmft.server.writing import Writer

GATHERING = 0.005  # seconds in which a quiet server waits for what was asked at the same time
MOST_WAITING = 4096  # answers that are asked for and not begun
LOGITS_BYTES = 24  # of a token of the vocabulary while the next one is chosen, for each row

_log = logging.getLogger(__name__)

Model = tuple[str, Path | None]


class Generator:
    """Answers are handed to it by `write`, and tell of themselves by their own `emit`, in its thread.

    Answers that come while others are being written are begun at once if there is room, else in the order in
    which they were asked for; those under way take turns, a token of each batch at a time. Answers that
    nobody waits for any more are dropped. memory_gb: of all batches' key-value caches and logits together; an
    answer that needs more is written alone.
    """

    def __init__(self, models: Loaded, memory_gb: float) -> None:
        self._models, self._memory = models, memory_gb * 1e9
        self._asked: queue.SimpleQueue[tuple[Model, Sequence[Writer]] | None] = queue.SimpleQueue()
        self._owed: list[tuple[Model, Writer]] = []  # asked for and not begun, the oldest first
        self._thread = threading.Thread(target=self._run, name="generator", daemon=True)
        self._thread.start()

    def write(self, model: str, folder: Path | None, writers: Sequence[Writer]) -> None:
        """Begin these answers. folder: where a fine-tuned model lies; None for a base model.

        Raises ApiError (429) when too many others wait.
        """
        if len(self._owed) + self._asked.qsize() >= MOST_WAITING:
            raise ApiError(
                f"{MOST_WAITING:,} answers wait already. Try again later.",
                status=429,
                code="rate_limit_exceeded",
            )
        self._asked.put(((model, folder), writers))

    def close(self) -> None:
        """End the thread after the token that it is at; no answer is finished."""
        self._asked.put(None)
        self._thread.join()

    def _run(self) -> None:
        batches: list[_Batch] = []
        while self._listen(block=not batches and not self._owed):
            self._owed = [(model, writer) for model, writer in self._owed if not writer.cancelled.is_set()]
            while self._owed and (batch := self._next(batches)) is not None:
                batches.append(batch)
            for batch in batches:
                batch.step()
            batches = [batch for batch in batches if batch.going_on]

    def _listen(self, *, block: bool) -> bool:
        """Take what was asked meanwhile; False when the server closes."""
        with suppress(queue.Empty):
            while True:
                asked = self._asked.get(block=block)
                if asked is None:
                    return False
                if block:
                    time.sleep(GATHERING)
                block = False
                self._owed += [(asked[0], writer) for writer in asked[1]]
        return True

    def _next(self, batches: Sequence[_Batch]) -> _Batch | None:
        """A batch of the oldest answers, with others of the same model as there is room; None for none."""
        wanted = self._owed[0][0]
        mine = [writer for model, writer in self._owed if model == wanted]
        tuned = {batch.of for batch in batches if batch.of[1] is not None}
        if wanted[1] is not None and wanted not in tuned and len(tuned) >= KEPT:
            return None
        taken, longest = 0, 0
        try:
            model = self._models.get(*wanted)
            room = self._memory - sum(batch.size for batch in batches)
            of_token, of_row = bytes_per_token(model), LOGITS_BYTES * model.config.vocab_size
            for writer in mine:
                longest = max(longest, writer.length)
                if (taken or batches) and (taken + 1) * (longest * of_token + of_row) > room:
                    break
                taken += 1
        except Exception as failure:  # a damaged folder, say: these answers fail, and the server goes on
            _log.exception("The model %s can't be loaded", wanted[0])
            for writer in mine:
                writer.fail(failure)
            self._owed = [each for each in self._owed if each[0] != wanted]
            return None
        if not taken:
            return None
        begun = set(map(id, mine[:taken]))
        self._owed = [each for each in self._owed if id(each[1]) not in begun]
        return _Batch(wanted, model, mine[:taken], of_token, of_row)


class _Batch:
    """Answers of a model that are written together; a failure ends them and nothing else.

    size: the bytes that they take. of_token, of_row: the bytes of a token and of a row besides.
    """

    def __init__(
        self, of: Model, model: PreTrainedModel, writers: list[Writer], of_token: int, of_row: int
    ) -> None:
        self.of, self._model, self._writers = of, model, writers
        self._longest = max(writer.length for writer in writers)
        self.size = len(writers) * (self._longest * of_token + of_row)
        self._session: Session | None = None

    @property
    def going_on(self) -> bool:
        return not all(writer.done for writer in self._writers)

    def step(self) -> None:
        """Write a token of each answer."""
        try:
            self._step()
        except Exception as failure:
            _log.exception("%d answers have failed", len(self._writers))
            for writer in self._writers:
                writer.fail(failure)

    def _step(self) -> None:
        if self._session is None:
            self._session = Session(self._model, len(self._writers), self._longest)
            self._session.read([writer.begin() for writer in self._writers])
        rows = np.array([row for row, writer in enumerate(self._writers) if not writer.done], dtype=np.int64)
        if not len(rows):
            return
        logs = self._session.logits(rows).to("cpu", torch.float64).log_softmax(dim=-1).numpy()
        told: list[list[int]] = [[] for _ in self._writers]
        for row, of_row in zip(rows.tolist(), logs, strict=True):
            told[row] = self._writers[row].go_on(of_row)
        self._session.read(told)
