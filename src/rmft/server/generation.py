"""The thread that writes answers: those that wait for one model are read together, written in lock-step."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel

from rmft.generators.local import Session, bytes_per_token
from rmft.server.models import Loaded
from rmft.server.writing import Writer

GATHERING = 0.005  # seconds in which a quiet server waits for what was asked at the same time

_log = logging.getLogger(__name__)

Asked = tuple[str, Path | None, Sequence[Writer]]


class Generator:
    """Answers are handed to it by `write`, and tell of themselves by their own `emit`, in its thread.

    Answers that come while others are being written are begun at once, and then all of them take turns,
    a token of each batch at a time. memory_gb: of a batch's key-value cache.
    """

    def __init__(self, models: Loaded, memory_gb: float) -> None:
        self._models, self._memory = models, memory_gb * 1e9
        self._asked: queue.SimpleQueue[Asked | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="generator", daemon=True)
        self._thread.start()

    def write(self, model: str, folder: Path | None, writers: Sequence[Writer]) -> None:
        """Begin these answers. folder: where a fine-tuned model lies; None for a base model."""
        self._asked.put((model, folder, writers))

    def close(self) -> None:
        """End the thread after the token that it is at; no answer is finished."""
        self._asked.put(None)
        self._thread.join()

    def _run(self) -> None:
        batches: list[_Batch] = []
        while (asked := self._waiting(block=not batches)) is not None:
            together: dict[tuple[str, Path | None], list[Writer]] = {}
            for name, folder, writers in asked:
                together.setdefault((name, folder), []).extend(writers)
            for (name, folder), writers in together.items():
                batches += self._begin(name, folder, writers)
            for batch in batches:
                batch.step()
            batches = [batch for batch in batches if batch.going_on]

    def _waiting(self, *, block: bool) -> list[Asked] | None:
        """All that was asked meanwhile; None when the server closes."""
        found: list[Asked] = []
        try:
            while True:
                one = self._asked.get(block=block and not found)
                if one is None:
                    return None
                if block and not found:
                    time.sleep(GATHERING)
                found.append(one)
        except queue.Empty:
            return found

    def _begin(self, name: str, folder: Path | None, writers: list[Writer]) -> list[_Batch]:
        """Batches of these answers, each as large as the memory allows."""
        try:
            model = self._models.get(name, folder)
        except Exception as failure:  # a damaged folder, say: these answers fail, and the server goes on
            _log.exception("The model %s can't be loaded", name)
            for writer in writers:
                writer.fail(failure)
            return []
        batches: list[list[Writer]] = []
        most = self._memory / bytes_per_token(model)
        for writer in sorted(writers, key=lambda each: each.length):
            if not batches or writer.length * (len(batches[-1]) + 1) > most:
                batches.append([])
            batches[-1].append(writer)
        return [_Batch(model, batch) for batch in batches]


class _Batch:
    """Answers that are written together; a failure ends them and nothing else."""

    def __init__(self, model: PreTrainedModel, writers: list[Writer]) -> None:
        self._model, self._writers = model, writers
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
            longest = max(writer.length for writer in self._writers)
            self._session = Session(self._model, len(self._writers), longest)
            self._session.read([writer.begin() for writer in self._writers])
        rows = np.array([row for row, writer in enumerate(self._writers) if not writer.done], dtype=np.int64)
        if not len(rows):
            return
        logs = self._session.logits(rows).to("cpu", torch.float64).log_softmax(dim=-1).numpy()
        told: list[list[int]] = [[] for _ in self._writers]
        for row, of_row in zip(rows.tolist(), logs, strict=True):
            told[row] = self._writers[row].go_on(of_row)
        self._session.read(told)
