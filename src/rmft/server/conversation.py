"""Chats as the tokens that a policy reads and writes: the model's own template, only appended to.

A training file is JSON Lines, each a chat with `messages`.
"""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import ValidationError

from rmft.generators.chat import ChatFormat
from rmft.server.refusals import ApiError
from rmft.server.schemas import Message, TrainingExample, TrainingMessage
from rmft.training.tokens import TokenSequence

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CODE = "invalid_training_file"


@dataclass(frozen=True, slots=True)
class Conversations:
    """How one model's chats are written, with and without a system message. Make it with `of`.

    end: the tokens after what the model wrote, up to the one by which it ends its turn.
    """

    with_system: ChatFormat
    without: ChatFormat
    end: tuple[int, ...]

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, stop_ids: Iterable[int]) -> Conversations:
        """Those of a tokenizer's chat template; stop_ids: also end the model's turn. Raises ConfigError."""
        stop_ids = tuple(stop_ids)
        with_system = ChatFormat.from_tokenizer(tokenizer, stop_ids=stop_ids)
        without = ChatFormat.from_tokenizer(tokenizer, system=False, stop_ids=stop_ids)
        between = with_system.turn("")
        stops = [place for place, token in enumerate(between) if token in with_system.stop_ids]
        return cls(with_system, without, tuple(between[: stops[0] + 1]) if stops else ())

    @property
    def stop_ids(self) -> frozenset[int]:
        """The tokens by which the model ends its turn."""
        return self.with_system.stop_ids

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """Tokens of a chat up to where the model begins to write.

        Raises ApiError (400) when it is not the user who spoke last, or the roles do not take turns.
        """
        if messages[-1].role != "user":
            raise _wrong(len(messages) - 1, messages[-1].role, "user")
        return [token for ids in self._spans(messages) for token in ids]

    def opening(self, messages: Sequence[Message]) -> list[int]:
        """Tokens up to where the model begins to write for the first time. Raises ApiError (400)."""
        return self._spans(messages)[0]

    def written(self, messages: Sequence[TrainingMessage]) -> TokenSequence | None:
        """A whole chat as a trajectory: the assistant's messages of weight 1 are learned, each with its end.

        None when there is nothing to learn from. Raises ApiError (400) when it is not the assistant who
        spoke last, or the roles do not take turns.
        """
        if messages[-1].role != "assistant":
            raise _wrong(len(messages) - 1, messages[-1].role, "assistant")
        spans = self._spans(messages)
        speakers = [None, *messages[-(len(spans) - 1) :]]
        ids: list[int] = []
        targets: list[int] = []
        for speaker, span in zip(speakers, spans, strict=True):
            if speaker is not None and speaker.role == "assistant" and speaker.weight:
                targets += range(len(ids), len(ids) + len(span) + len(self.end))
            ids += span
        ids += self.end
        if not targets:
            return None
        return TokenSequence.of_tokens(np.array(ids, dtype=np.int64), len(spans[0]), np.array(targets))

    def _spans(self, messages: Sequence[Message]) -> list[list[int]]:
        """Tokens of the opening, up to the model's first words, and then of every message."""
        system = [message.text for message in messages[:1] if message.role in ("system", "developer")]
        turns = messages[len(system) :]
        if not turns:
            raise _wrong(1, "end", "user")
        for index, message in enumerate(turns):
            expected = ("user", "assistant")[index % 2]
            if message.role != expected:
                raise _wrong(index + len(system), message.role, expected)
        form = self.with_system if system else self.without
        return [
            form.opening("".join(system), turns[0].text),
            *(form.turn(m.text) if m.role == "user" else form.completion(m.text) for m in turns[1:]),
        ]


def _wrong(index: int, found: str, expected: str) -> ApiError:
    return ApiError(
        f"Message {index}: found the {found}, expected the {expected}. After one system message at most, "
        "user and assistant take turns; the user speaks first, and last where the model is to answer.",
        code="invalid_value",
        param=f"messages.{index}.role",
    )


def check_training_file(path: Path) -> None:
    """Raises ApiError (400) when a line is no chat, or there is none; it names the line."""
    for _ in _examples(path):
        pass


def read_training_file(path: Path, conversations: Conversations, context: int) -> list[list[TokenSequence]]:
    """The chats that there is something to learn from, those with one opening together.

    Raises ApiError when a chat's roles do not take turns, one has more tokens than `context`, or nothing
    is learned.
    """
    groups: dict[bytes, list[TokenSequence]] = {}
    for number, example in _examples(path):
        try:
            one = conversations.written(example.messages)
        except ApiError as error:
            raise _no_chat(number, error.message) from None
        if one is None:
            continue
        if len(one.ids) + 1 > context:
            raise _no_chat(number, f"it has {len(one.ids) + 1} tokens; the model reads {context}.")
        groups.setdefault(one.ids[: one.prefix].tobytes(), []).append(one)
    if not groups:
        raise ApiError(
            "The file has no assistant's message of weight 1 to learn from.", code=CODE, param="training_file"
        )
    return list(groups.values())


def _examples(path: Path) -> Iterator[tuple[int, TrainingExample]]:
    """Each line's number, from 1, and its chat."""
    some = False
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if number == 1:
                line = line.removeprefix(BOM_UTF8)
            if not line.strip():
                continue
            some = True
            try:
                yield number, TrainingExample.model_validate_json(line)
            except ValidationError as error:
                first = error.errors(include_url=False, include_input=False)[0]
                place = ".".join(map(str, first["loc"]))
                raise _no_chat(number, f"{place}: {first['msg']}." if place else f"{first['msg']}.") from None
    if not some:
        raise ApiError("The file is empty; expected a chat in each line.", code=CODE, param="file")


def _no_chat(number: int, why: str) -> ApiError:
    return ApiError(
        f'Line {number} is no chat to learn from: {why} Expected {{"messages": [{{"role": "user", '
        '"content": "..."}, {"role": "assistant", "content": "..."}]}.',
        code=CODE,
        param="file",
    )
