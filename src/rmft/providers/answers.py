"""What a chat completion says, read from an endpoint's JSON, which is not trusted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rmft.providers.replies import an_object

CHARACTERS_PER_TOKEN = 4  # a usual estimate for English


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A sampled token, its log probability, and those of the likeliest tokens in its place (maybe none)."""

    token: str
    logprob: float
    top: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of a model.

    finish_reason: as the endpoint says, such as stop or length; empty where it says nothing. The numbers of
    tokens are the endpoint's; where it counts none, an estimate. logprobs: of the text's tokens, or None.
    """

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    logprobs: Sequence[TokenLogprob] | None = None


def read_answer(body: Any, request: Mapping[str, Any]) -> Answer:
    """The answer in the JSON of a chat completion. Raises ValueError when it is none."""
    choices = an_object(body).get("choices")
    if not (isinstance(choices, list) and choices and isinstance(choices[0], dict)):
        raise ValueError("it has no choices")
    message = choices[0].get("message")
    if not isinstance(message, dict):
        raise ValueError("its first choice has no message")
    text = message.get("content")
    if not isinstance(text, str | None) or "content" not in message:
        raise ValueError("its message has no content")
    text = (text or "").encode("utf-8", "replace").decode()  # JSON can hold halves of a character
    usage = an_object(body).get("usage")
    usage = usage if isinstance(usage, dict) else {}
    reason = choices[0].get("finish_reason")
    asked = "".join(str(each.get("content", "")) for each in request.get("messages", ()))
    return Answer(
        text=text,
        finish_reason=reason if isinstance(reason, str) else "",
        prompt_tokens=_count(usage.get("prompt_tokens"), asked),
        completion_tokens=_count(usage.get("completion_tokens"), text),
        logprobs=_logprobs(choices[0].get("logprobs")),
    )


def estimate_tokens(text: str) -> int:
    """About how many tokens `text` is, at four characters a token."""
    return math.ceil(len(text) / CHARACTERS_PER_TOKEN)


def _count(found: object, text: str) -> int:
    if isinstance(found, int) and not isinstance(found, bool) and found >= 0:
        return found
    return estimate_tokens(text)


def _logprobs(found: object) -> tuple[TokenLogprob, ...] | None:
    tokens = found.get("content") if isinstance(found, dict) else None
    if not isinstance(tokens, list):
        return None
    return tuple(_token(each) for each in tokens)


def _token(found: object) -> TokenLogprob:
    token, logprob = _pair(found)
    top = found.get("top_logprobs") if isinstance(found, dict) else None
    return TokenLogprob(token, logprob, dict(_pair(each) for each in top or []))


def _pair(found: object) -> tuple[str, float]:
    token = found.get("token") if isinstance(found, dict) else None
    logprob = found.get("logprob") if isinstance(found, dict) else None
    if not isinstance(token, str) or not isinstance(logprob, int | float) or math.isnan(logprob):
        raise ValueError("its logprobs are no pairs of a token and a number")
    return token, float(logprob)
