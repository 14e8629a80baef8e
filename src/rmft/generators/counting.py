"""An engine without a model, which counts what a model would read and write; a `TokenEngine`."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from rmft.generators.tokens import Ends, Written, append_to
from rmft.types import FloatArray, IntArray


class CountingEngine:
    """Implements `TokenEngine`: choices are drawn evenly, and reasoning goes on until its budget is used up.

    filler: the token that reasoning is made of. openings, told, written: tokens of all rows so far, which
    were read first, read later, and sampled.
    """

    sessions_at_once = 1

    def __init__(self, context: int, stop_ids: Collection[int], filler: int) -> None:
        self.context, self.stop_ids, self.filler = context, stop_ids, filler
        self.openings = self.told = self.written = 0

    def rows_at_once(self, max_tokens: int) -> int:  # noqa: ARG002
        """See `TokenEngine`; nothing takes memory."""
        return 1_000_000

    def session(self, num_rows: int, max_tokens: int) -> CountingSession:  # noqa: ARG002
        """See `TokenEngine`."""
        return CountingSession(self, num_rows)


class CountingSession:
    """Implements `TokenSession`."""

    def __init__(self, engine: CountingEngine, num_rows: int) -> None:
        self._engine = engine
        self.ids: list[list[int]] = [[] for _ in range(num_rows)]

    def read(self, told: Sequence[Sequence[int]]) -> None:
        """See `TokenSession`."""
        count = sum(map(len, told))
        if any(self.ids):
            self._engine.told += count
        else:
            self._engine.openings += count
        append_to(self.ids, told)

    def choose(
        self,
        legal: IntArray,
        uniforms: FloatArray,
        temperature: float = 1.0,  # noqa: ARG002
    ) -> tuple[IntArray, FloatArray, FloatArray]:
        """See `TokenSession`."""
        rows, size = len(self.ids), legal.shape[-1]
        picks = np.minimum((uniforms * size).astype(np.int64), size - 1)
        ids = np.broadcast_to(legal, (rows, size))[np.arange(rows), picks]
        append_to(self.ids, ids[:, None].tolist())
        self._engine.written += rows
        return ids, np.full(rows, -np.log(size)), np.full((rows, size), 1 / size)

    def write(
        self,
        budget: int,
        ends: Ends,  # noqa: ARG002
        uniforms: FloatArray,  # noqa: ARG002
        temperature: float = 1.0,  # noqa: ARG002
        marks: Sequence[str] = (),  # noqa: ARG002
    ) -> list[Written]:
        """See `TokenSession`."""
        wrote = [Written([self._engine.filler] * budget, [0.0] * budget) for _ in self.ids]
        append_to(self.ids, [each.ids for each in wrote])
        self._engine.written += budget * len(wrote)
        return wrote
