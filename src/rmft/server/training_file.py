"""Training files: JSON Lines, each a chat with `messages`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from rmft.server.conversation import Conversations
from rmft.server.failures import ApiError
from rmft.server.schemas import TrainingExample
from rmft.training.tokens import TokenSequence

CODE = "invalid_training_file"


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
            raise _wrong(number, error.message) from None
        if one is None:
            continue
        if len(one.ids) + 1 > context:
            raise _wrong(number, f"it has {len(one.ids) + 1} tokens; the model reads {context}.")
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
            if not line.strip():
                continue
            some = True
            try:
                yield number, TrainingExample.model_validate_json(line)
            except ValidationError as error:
                first = error.errors(include_url=False, include_input=False)[0]
                place = ".".join(map(str, first["loc"]))
                raise _wrong(number, f"{place}: {first['msg']}." if place else f"{first['msg']}.") from None
    if not some:
        raise ApiError("The file is empty; expected a chat in each line.", code=CODE, param="file")


def _wrong(number: int, why: str) -> ApiError:
    return ApiError(
        f'Line {number} is no chat to learn from: {why} Expected {{"messages": [{{"role": "user", '
        '"content": "..."}, {"role": "assistant", "content": "..."}]}.',
        code=CODE,
        param="file",
    )
