"""A rollout in words as the messages of a chat, the same for the model that is asked and for its training."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypedDict

from rmft.decisions import FloatArray, Turn

TOKENS_PER_MESSAGE = 4  # about what a chat template adds: of ChatML the role, two marks and a line break
CHARACTERS_PER_TOKEN = 4  # a usual estimate for English


class _Words(TypedDict):
    """role: system, user or assistant."""

    role: str
    content: str


class Message(_Words, total=False):
    """weight: 0 or 1, of an assistant's message in a training file: whether it is learned from."""

    weight: int


def messages(turns: Sequence[Turn], weights: FloatArray | None = None) -> list[Message]:
    """The chat of one rollout; its last message is the completion of the last turn.

    weights: (rounds,) 0 or 1 for each turn's completion, with which every assistant's message has a weight;
    refused answers have 0. Empty ones, which no endpoint takes, are left out with what was replied to them.
    """
    chat: list[Message] = []

    def answer(text: str, weight: float) -> None:
        chat.append({"role": "assistant", "content": text})
        if weights is not None:
            chat[-1]["weight"] = int(weight)

    for number, turn in enumerate(turns):
        if turn.system:
            chat.append({"role": "system", "content": turn.system})
        chat.append({"role": "user", "content": turn.prompt})
        for said, replied in turn.refused:
            if said.strip():
                answer(said, 0)
                chat.append({"role": "user", "content": replied})
        answer(turn.completion, 0 if weights is None else weights[number])
    return chat


def estimate_tokens(text: str) -> int:
    """About how many tokens `text` is, at four characters a token."""
    return math.ceil(len(text) / CHARACTERS_PER_TOKEN)


def count_tokens(chat: Sequence[Message], count: Callable[[str], int] = estimate_tokens) -> int:
    """About how many tokens a chat has, where `count` says how many a text has."""
    return sum(TOKENS_PER_MESSAGE + count(message["content"]) for message in chat)


def most_tokens(chat: Sequence[Message]) -> int:
    """More tokens than any model reads in a chat: four times as many for each message, one more for what
    begins the answer, and twice as many for its words."""
    words = sum(2 * len(message["content"]) // CHARACTERS_PER_TOKEN for message in chat)
    return 4 * TOKENS_PER_MESSAGE * (len(chat) + 1) + words
