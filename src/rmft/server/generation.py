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
from transformers import PreTrainedModel

from rmft.generators.local import Session, bytes_per_token, context_limit
from rmft.server.models import KEPT, Loaded
from rmft.server.refusals import ApiError
from rmft.server.writing import Writer

GATHERING = 0.005  # seconds in which a quiet server waits for what was asked at the same time
MOST_WAITING = 4096  # answers that are asked for and not begun
LOGITS_BYTES = 24  # of a token of the vocabulary while the next one is chosen, for each row
SHARED = 16  # tokens that a kept row has to have in common with what is asked
GROWTH = 1.5  # times its room, when what goes on from a kept row has too little

_log = logging.getLogger(__name__)

Model = tuple[str, Path | None]


class Generator:
    """Answers are handed to it by `write`, and tell of themselves by their own `emit`, in its thread.

    Answers that come while others are being written are begun at once if there is room, else in the order in
    which they were asked for; those under way take turns, a token of each batch at a time. Answers that
    nobody waits for any more are dropped. What was read and written is kept as long as there is room: an
    answer whose prompt goes on from it reads only what is new. memory_gb: of all batches' key-value caches
    and logits together; an answer that needs more is written alone.
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
        batches: list[_Batch] = []  # the oldest first, those included that are only kept
        while self._listen(block=not any(batch.going_on for batch in batches) and not self._owed):
            self._owed = [(model, writer) for model, writer in self._owed if not writer.cancelled.is_set()]
            self._go_on(batches)
            while self._owed and (batch := self._next(batches)) is not None:
                batches.append(batch)
            for batch in batches:
                batch.step()
            batches = [batch for batch in batches if not batch.failed and self._models.has(batch.of[0])]

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

    def _go_on(self, batches: Sequence[_Batch]) -> None:
        """Let answers go on from the idle rows that they share most with."""
        rows = [(batch, row) for batch in batches for row in batch.idle]
        found = []
        for place, (model, writer) in enumerate(self._owed):
            for batch, row in rows:
                if batch.of == model:
                    shared = min(_shared(batch.ids[row], writer.prompt), len(writer.prompt) - 1)
                    found.append((-shared, place, batch, row))
        found.sort(key=lambda each: each[:2])
        taken, joined = set[tuple[int, int]](), set[int]()
        for shared, place, batch, row in found:
            free = place not in joined and (id(batch), row) not in taken
            room = self._memory - sum(each.size for each in batches if each is not batch)
            if free and -shared >= SHARED and batch.join(self._owed[place][1], row, -shared, room):
                taken.add((id(batch), row))
                joined.add(place)
        self._owed = [each for place, each in enumerate(self._owed) if place not in joined]

    def _room(self, batches: list[_Batch], wanted: int) -> float:
        """The bytes that are free, after letting go of kept rows for as long as more are wanted."""
        idle = [batch for batch in batches if not batch.going_on]
        while (room := self._memory - sum(batch.size for batch in batches)) < wanted and idle:
            batches.remove(idle.pop(0))
        return room

    def _next(self, batches: list[_Batch]) -> _Batch | None:
        """A batch of the oldest answers, with others of the same model as there is room; None for none."""
        wanted = self._owed[0][0]
        mine = [writer for model, writer in self._owed if model == wanted]
        tuned = {batch.of for batch in batches if batch.of[1] is not None and batch.going_on}
        if wanted[1] is not None and wanted not in tuned and len(tuned) >= KEPT:
            return None
        taken, longest = 0, 0
        try:
            model = self._models.get(*wanted)
            of_token, of_row = bytes_per_token(model), LOGITS_BYTES * model.config.vocab_size
            most = max(writer.length for writer in mine)
            room = self._room(batches, len(mine) * (most * of_token + of_row))
            going_on = any(batch.going_on for batch in batches)
            for writer in mine:
                longest = max(longest, writer.length)
                if (taken or going_on) and (taken + 1) * (longest * of_token + of_row) > room:
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


def _shared(one: list[int], other: list[int]) -> int:
    """How many tokens two rows have in common from the start."""
    low, high = 0, min(len(one), len(other))
    if one[:high] == other[:high]:
        return high
    while low < high - 1:
        middle = (low + high) // 2
        low, high = (middle, high) if one[low:middle] == other[low:middle] else (low, middle)
    return low


class _Batch:
    """Answers of a model that are written together, and kept; a failure ends them and nothing else.

    size: the bytes that they take. of_token, of_row: the bytes of a token and of a row besides.
    """

    def __init__(
        self, of: Model, model: PreTrainedModel, writers: list[Writer], of_token: int, of_row: int
    ) -> None:
        self.of, self._model, self._writers = of, model, writers
        self._of_token, self._of_row = of_token, of_row
        self._longest = max(writer.length for writer in writers)
        self._unread = dict.fromkeys(range(len(writers)), 0)  # from which token on, by row
        self._session: Session | None = None
        self.failed = False

    @property
    def size(self) -> int:
        return len(self._writers) * (self._longest * self._of_token + self._of_row)

    @property
    def idle(self) -> list[int]:
        """The rows of which nobody waits for an answer."""
        return [] if self._session is None else [row for row, each in enumerate(self._writers) if each.done]

    @property
    def ids(self) -> list[list[int]]:
        """All tokens of each row."""
        return [] if self._session is None else self._session.ids

    def join(self, writer: Writer, row: int, shared: int, room: float) -> bool:
        """Let an answer go on from the first `shared` tokens of an idle row; False: there is no room."""
        assert self._session is not None
        if writer.length > self._longest:
            longest = max(writer.length, min(int(GROWTH * self._longest), context_limit(self._model)))
            if len(self._writers) * (longest * self._of_token + self._of_row) > room:
                return False
            self._session.widen(longest)
            self._longest = longest
        self._session.rewind(row, shared)
        self._writers[row], self._unread[row] = writer, shared
        return True

    @property
    def going_on(self) -> bool:
        return not all(writer.done for writer in self._writers)

    def step(self) -> None:
        """Write a token of each answer."""
        try:
            if self.going_on:
                self._step()
        except Exception as failure:
            _log.exception("%d answers have failed", len(self._writers))
            self.failed = True
            for writer in self._writers:
                writer.fail(failure)

    def _step(self) -> None:
        if self._session is None:
            self._session = Session(self._model, len(self._writers), self._longest)
        told: list[list[int]] = [[] for _ in self._writers]
        if self._unread:
            for row, start in self._unread.items():
                told[row] = self._writers[row].begin()[start:]
            self._unread = {}
            self._session.read(told)
        rows = np.array([row for row, writer in enumerate(self._writers) if not writer.done], dtype=np.int64)
        if not len(rows):
            return
        logs = self._session.logits(rows).log_softmax(dim=-1).numpy(force=True)
        told = [[] for _ in self._writers]
        for row, of_row in zip(rows.tolist(), logs, strict=True):
            told[row] = self._writers[row].go_on(of_row)
        self._session.read(told)
