"""Parts of a whole handed out one by one, so that slow ones keep nobody waiting, and told in their order."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

PER_WORKER = 16  # parts out or waiting, for each who works; with 2, a long tail leaves most of them idle

Part = TypeVar("Part")
Result = TypeVar("Result")


class Handout(Generic[Part, Result]):
    """Numbered parts, their results in the parts' order, and each once, whoever gets lost in between.

    at_most: parts that are out, or wait for an earlier one to be told. It bounds memory.
    """

    def __init__(self, parts: Iterable[Part], at_most: int) -> None:
        self._parts = enumerate(parts)
        self._at_most = at_most
        self._again: list[tuple[int, Part]] = []
        self._out = 0
        self._waiting: dict[int, Result] = {}
        self._told = 0

    def take(self) -> tuple[int, Part] | None:
        """A part to work on, with its number; None where there is none now."""
        found = None
        if self._again:
            found = self._again.pop()
        elif self._out + len(self._waiting) < self._at_most:
            found = next(self._parts, None)
        self._out += found is not None
        return found

    def lost(self, number: int, part: Part) -> None:
        """Who had taken it is gone: somebody else takes it next."""
        self._out -= 1
        self._again.append((number, part))

    def done(self, number: int, result: Result) -> list[Result]:
        """Give a part's result in; those of all parts that can be told now, in order."""
        self._out -= 1
        self._waiting[number] = result
        told = []
        while self._told in self._waiting:
            told.append(self._waiting.pop(self._told))
            self._told += 1
        return told
