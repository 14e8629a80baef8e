"""One answer while it is written: which token comes next, and the text that can be told already."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from threading import Event
from typing import TYPE_CHECKING, Literal

import numpy as np

from rmft.server.grammar import Node
from rmft.types import FloatArray, IntArray

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BLOCK = 256  # tokens of a vocabulary whose probabilities are summed together
BROKEN = "\ufffd"  # what part of a character is decoded to


@dataclass(frozen=True, slots=True)
class Token:
    """A token of an answer: its log probability among those that were allowed, and the likeliest of these."""

    id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Piece:
    """What is new of an answer: text, tokens, and at the end why it ended. failure: it can't go on."""

    text: str = ""
    tokens: tuple[Token, ...] = ()
    finish: Literal["stop", "length"] | None = None
    failure: Exception | None = None


@dataclass(slots=True)
class Wishes:
    """What was asked of an answer. limit: its most tokens. top: how many likeliest tokens are told.

    asked: the tokens that are told in place of the likeliest. allowed: those that may be written; None: all.
    keeps_stop: whether the token by which it ends is one of its own.
    """

    limit: int
    temperature: float = 1.0
    top_p: float = 1.0
    stops: tuple[str, ...] = ()
    top: int = 0
    legal: Node | None = None
    asked: IntArray | None = None
    allowed: IntArray | None = None
    keeps_stop: bool = False


class Writer:
    """An answer that is written a token at a time; `emit` is given every piece as soon as it is sure.

    generator: its own, one uniform for each token that is sampled, so that an answer does not depend
    on which others are written beside it. cancelled: set it, and nothing more is written.
    """

    def __init__(
        self,
        prompt: list[int],
        wishes: Wishes,
        generator: np.random.Generator,
        tokenizer: PreTrainedTokenizerBase,
        stop_ids: Collection[int],
        emit: Callable[[Piece], None],
    ) -> None:
        self.prompt, self.wishes, self.emit = prompt, wishes, emit
        self.cancelled = Event()
        self.done = False
        self._generator, self._stop_ids = generator, stop_ids
        self._node = wishes.legal
        self._text = _Text(tokenizer, wishes.stops)
        self._count = 0

    @property
    def length(self) -> int:
        """The most tokens that it may have, its prompt included."""
        return len(self.prompt) + self.wishes.limit

    def begin(self) -> list[int]:
        """What is read first: the prompt, and what has to follow."""
        return self.prompt + self._forced()

    def go_on(self, logprobs: FloatArray) -> list[int]:
        """Choose the next token, and what has to follow it; empty when the answer is `done`.

        logprobs: (V,), of the model at temperature 1, single or double precision.
        """
        if self.cancelled.is_set():
            self.done = True
        if self.done:
            return []
        if self._node is None:
            token = self._sampled(logprobs, self.wishes.allowed)
            if token.id in self._stop_ids:
                self._end("stop", (token,) if self.wishes.keeps_stop else ())
                return []
        else:
            token = self._sampled(logprobs, np.array(list(self._node), dtype=np.int64))
            self._node = self._node[token.id]
        self._add(token)
        read = [token.id, *self._forced()]
        return [] if self.done else read

    def fail(self, failure: Exception) -> None:
        """Say that it can't go on."""
        if not self.done:
            self.done = True
            self.emit(Piece(failure=failure))

    def _sampled(self, logprobs: FloatArray, legal: IntArray | None) -> Token:
        """A token drawn by inverse CDF, among the `legal` ones if there are any."""
        logs = logprobs if legal is None else logprobs[legal].astype(np.float64)
        logs = logs if legal is None else logs - np.logaddexp.reduce(logs)
        ids = np.arange(len(logs)) if legal is None else legal
        pick = self._pick(logs)
        top: tuple[tuple[int, float], ...] = ()
        if self.wishes.asked is not None:
            asked = self.wishes.asked
            top = tuple(zip(asked.tolist(), logprobs[asked].tolist(), strict=True))
        elif self.wishes.top:
            best = np.argpartition(-logs, min(self.wishes.top, len(logs)) - 1)[: self.wishes.top]
            best = best[np.argsort(-logs[best], kind="stable")]
            top = tuple((int(ids[place]), float(logs[place])) for place in best)
        return Token(int(ids[pick]), float(logs[pick]), top)

    def _pick(self, logs: FloatArray) -> int:
        wishes, uniform = self.wishes, self._generator.random()
        if wishes.temperature == 0:
            return int(logs.argmax())
        weights = np.exp((logs - logs.max()) / wishes.temperature)
        if wishes.top_p < 1:
            order = np.argsort(-weights, kind="stable")
            before = np.cumsum(weights[order]) - weights[order]
            weights[order[before >= wishes.top_p * weights.sum()]] = 0  # the likeliest is always kept
        return _drawn(weights, uniform)

    def _forced(self) -> list[int]:
        """Add the tokens that are the only legal ones."""
        forced: list[int] = []
        while not self.done and self._node is not None and len(self._node) <= 1:
            if not self._node:
                self._end("stop")
                break
            ((token, self._node),) = self._node.items()
            forced.append(token)
            self._add(Token(token, 0.0, ((token, 0.0),) if self.wishes.top else ()))
        return forced

    def _add(self, token: Token) -> None:
        self._count += 1
        text, tokens, stopped = self._text.add(token)
        if stopped:
            self.done = True
            self.emit(Piece(text, tokens, "stop"))
        elif self._count == self.wishes.limit and not (self._node is not None and not self._node):
            self.done = True
            rest, late = self._text.rest()
            self.emit(Piece(text + rest, tokens + late, "length"))
        elif text or tokens:
            self.emit(Piece(text, tokens))

    def _end(self, finish: Literal["stop", "length"], last: tuple[Token, ...] = ()) -> None:
        self.done = True
        text, tokens = self._text.rest()
        self.emit(Piece(text, tokens + last, finish))


def _drawn(weights: FloatArray, uniform: float) -> int:
    """Inverse CDF: the place of weights (N,) that `uniform`, of their sum, falls on.

    A cumulative sum of a whole vocabulary takes long, so there is one of blocks, and of the block drawn.
    """
    blocks = np.add.reduceat(weights, np.arange(0, len(weights), BLOCK), dtype=np.float64).cumsum()
    drawn = uniform * blocks[-1]
    block = int(np.searchsorted(blocks, drawn, side="right").clip(max=len(blocks) - 1))
    edges = weights[block * BLOCK : (block + 1) * BLOCK].cumsum(dtype=np.float64)
    left = min(drawn - (blocks[block - 1] if block else 0.0), edges[-1] * (1 - 1e-9))
    return block * BLOCK + int(np.searchsorted(edges, left, side="right"))


@dataclass(slots=True)
class _Text:
    """The text of tokens as they come, held back while a character or a stop may be half written."""

    tokenizer: PreTrainedTokenizerBase
    stops: tuple[str, ...]
    ids: list[int] = field(default_factory=list)
    first: int = 0  # where the tokens begin that are decoded again, for what comes after
    read: int = 0  # before which they are known to make whole characters
    held: str = ""
    waiting: list[Token] = field(default_factory=list)

    def add(self, token: Token) -> tuple[str, tuple[Token, ...], bool]:
        """The text and tokens that are sure now, and whether a stop was written (it is left out)."""
        self.ids.append(token.id)
        self.waiting.append(token)
        before, after = self._decode(self.ids[self.first : self.read]), self._decode(self.ids[self.first :])
        if after.endswith(BROKEN) and len(self.ids) - self.read < 8:
            return "", (), False
        self.held += after[len(before) :]
        self.first, self.read = self.read, len(self.ids)
        found = [place for stop in self.stops if (place := self.held.find(stop)) >= 0]
        if found:
            return self.held[: min(found)], self._release(), True
        back = max((self._started(stop) for stop in self.stops), default=0)
        text = self.held[: len(self.held) - back]
        self.held = self.held[len(self.held) - back :]
        return text, () if back else self._release(), False

    def rest(self) -> tuple[str, tuple[Token, ...]]:
        """All that was held back."""
        before, after = self._decode(self.ids[self.first : self.read]), self._decode(self.ids[self.first :])
        return self.held + after[len(before) :], self._release()

    def _started(self, stop: str) -> int:
        """How much of `stop`, from its start, is at the end of what is held."""
        most = min(len(stop) - 1, len(self.held))
        return next((size for size in range(most, 0, -1) if self.held.endswith(stop[:size])), 0)

    def _release(self) -> tuple[Token, ...]:
        tokens, self.waiting = tuple(self.waiting), []
        return tokens

    def _decode(self, ids: list[int]) -> str:
        text = self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        assert isinstance(text, str)
        return text
