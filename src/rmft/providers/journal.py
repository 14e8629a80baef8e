"""What was paid for at an endpoint, on disk as it comes: nothing is asked twice, and what it cost is known.

One JSON line for every answer, job and fact about the endpoint, found again by its key. A run that was
killed and asks the same gets the same from here. It also keeps the budget: a call that might pass it is
not made.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from rmft.errors import BudgetError, RunDirectoryError
from rmft.files import append_line
from rmft.providers.config import BudgetConfig


@dataclass
class Spent:
    """tokens: read, written and trained on. usd: None where a price is not known."""

    tokens: int = 0
    usd: float | None = 0.0

    def add(self, tokens: int, usd: float | None) -> None:
        self.tokens += tokens
        self.usd = None if self.usd is None or usd is None else self.usd + usd


class _Entry(BaseModel):
    model_config = ConfigDict(extra="allow")

    key: str
    tokens: int = 0
    usd: float | None = 0.0


class Journal:
    """A file of JSON lines, each an object with its `key`, and maybe `tokens` and `usd`. Thread-safe.

    path: None keeps it in memory. budget: in all, with what the file already holds. Raises
    RunDirectoryError when the file is damaged before its last line.
    """

    def __init__(self, path: Path | None, budget: BudgetConfig | None = None) -> None:
        self.path, self.budget = path, budget or BudgetConfig()
        self.spent = Spent()
        self._known: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()
        self._promised = Spent()
        self._stopped: BudgetError | None = None
        if path is not None and path.exists():
            self._read(path)

    def get(self, key: str) -> dict[str, Any] | None:
        """What is known under `key`."""
        return self._known.get(key)

    def put(self, key: str, entry: Mapping[str, Any]) -> None:
        """Have `entry` on disk under `key` before returning."""
        line = {"key": key, **entry}
        with self._lock:
            if self.path is not None:
                append_line(self.path, line)
            self._take(line)

    @contextmanager
    def within_budget(self, tokens: int, usd: float | None) -> Iterator[None]:
        """Around a call that costs at most this much. Raises BudgetError when the budget may not hold it.

        usd: None where the price is not known.
        """
        with self._lock:
            if self._stopped is None:
                self._stopped = self._beyond(tokens, usd)
            if self._stopped is not None:  # from now on nothing is begun, so that all ends soon
                raise self._stopped
            self._promised.add(tokens, usd or 0.0)
        try:
            yield
        finally:
            with self._lock:
                self._promised.add(-tokens, -(usd or 0.0))

    def _beyond(self, tokens: int, usd: float | None) -> BudgetError | None:
        most = self.budget.max_tokens
        if most is not None and self.spent.tokens + self._promised.tokens + tokens > most:
            return BudgetError(
                f"The budget of {most:,} tokens may not hold the next call: {self.spent.tokens:,} are spent. "
                "Raise it when you resume the run, with --max-tokens."
            )
        limit = self.budget.max_usd
        if limit is None:
            return None
        if usd is None or self.spent.usd is None:
            return BudgetError(
                "budget.max_usd is set, but the price of this model is not known. Give it in a file of "
                "your own (policy.catalogue), or set budget.max_tokens instead."
            )
        if self.spent.usd + (self._promised.usd or 0.0) + usd > limit:
            return BudgetError(
                f"The budget of {limit:g} USD may not hold the next call: {self.spent.usd:.4f} are spent. "
                "Raise it when you resume the run, with --max-usd."
            )
        return None

    def _read(self, path: Path) -> None:
        for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], 1):  # the rest was torn by a kill
            try:
                entry = _Entry.model_validate_json(line).model_dump(exclude_unset=True)
            except ValueError:
                raise RunDirectoryError(
                    f"Line {number} of '{path}' is damaged. Restore the file, or delete that line: what it "
                    "held is asked, and paid for, again."
                ) from None
            self._take(entry)

    def _take(self, entry: dict[str, Any]) -> None:
        if entry["key"] not in self._known:
            self.spent.add(entry.get("tokens", 0), entry.get("usd", 0.0))
        self._known[entry["key"]] = entry
