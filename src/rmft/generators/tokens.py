"""What a language policy asks of whatever its tokens come from: ids in, ids and their log probabilities out.

    TokenEngine    one model with one adapter, wherever it runs (`rmft.generators.local`)
    TokenSession   a batch of rows of tokens that it reads, chooses from and goes on with

An engine knows no words: what the ids mean is its user's business.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from rmft.errors import ShapeError
from rmft.types import FloatArray, IntArray

Ends = Callable[[list[int]], bool | None]
"""Whether a text ends with the last of its tokens: None where it goes on, False where it ends before it."""


@dataclass(slots=True)
class Written:
    """What a row wrote: its tokens, their log probabilities, and whether it ended before its budget did."""

    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    ended: bool = False

    def add(self, token: int, logprob: float, stands: bool | None) -> bool:
        """Add a token, unless it must not stand, as `Ends` says; and say whether it is one of the tokens."""
        self.ended = stands is not None
        if stands is False:
            return False
        self.ids.append(token)
        self.logprobs.append(logprob)
        return True


def append_to(rows: list[list[int]], told: Sequence[Sequence[int]]) -> None:
    """Append told[i] to row i. Raises ShapeError when there are not as many as rows."""
    if len(told) != len(rows):
        raise ShapeError(f"Found tokens for {len(told)} rows; expected {len(rows)}.")
    for row, new in zip(rows, told, strict=True):
        row.extend(new)


class TokenSession(Protocol):
    """A batch of B rows that are read and written in lock-step; what was read is never read again.

    ids: one list per row of all tokens so far. What a row's tokens are depends on its own tokens and uniforms
    only, up to rounding, and not on the rows beside it.
    """

    @property
    def ids(self) -> list[list[int]]: ...

    def read(self, told: Sequence[Sequence[int]]) -> None:
        """Append told[i] to row i. Raises ShapeError when there are not B of them."""
        ...

    def choose(
        self, legal: IntArray, uniforms: FloatArray, temperature: float = 1.0
    ) -> tuple[IntArray, FloatArray, FloatArray]:
        """Append to each row one token out of `legal`, (C,) or (B, C), by inverse CDF at uniforms (B,).

        Returns the tokens (B,), their log probabilities (B,) and those of all legal ones, as
        probabilities (B, C), each among the legal tokens only.
        """
        ...

    def write(
        self,
        budget: int,
        ends: Ends,
        uniforms: FloatArray,
        temperature: float = 1.0,
        marks: Sequence[str] = (),
    ) -> list[Written]:
        """Let each row write freely, until `ends` says so of its new tokens or there are `budget` of them.

        uniforms: (B, budget), one for each token. marks: texts that rows mostly end with, for engines that
        can't ask `ends` after every token. The token by which a row ends is one of its tokens, unless
        `ends` says that it must not stand: then it is as if it had not been written.
        """
        ...


class TokenEngine(Protocol):
    """A model that reads and writes tokens. context: how many a row may have. stop_ids: which end a text.

    sessions_at_once: how many may be under way, each in a thread of its own; more than 1 where the model is
    elsewhere.
    """

    @property
    def context(self) -> int: ...

    @property
    def stop_ids(self) -> Collection[int]: ...

    @property
    def sessions_at_once(self) -> int: ...

    def rows_at_once(self, max_tokens: int) -> int:
        """How many rows of so many tokens a session has room for. Raises ConfigError when it has for none."""
        ...

    def session(self, num_rows: int, max_tokens: int) -> TokenSession:
        """Rows without tokens, none of which gets longer than max_tokens.

        Raises ConfigError when that is more than the context.
        """
        ...
