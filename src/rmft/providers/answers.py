"""What comes back from an endpoint as JSON, which is not trusted: checked on reading, by pydantic."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Generic, Self, TypeVar

from pydantic import (
    AliasPath,
    BaseModel,
    BeforeValidator,
    Field,
    FiniteFloat,
    TypeAdapter,
    ValidationError,
    WrapValidator,
)

from rmft.messages import estimate_tokens

Value = TypeVar("Value")


def _or_none(found: Any, check: Callable[[Any], Any]) -> Any:
    try:
        return check(found)
    except ValidationError:
        return None


def _whole(found: Any) -> Any:
    """JSON can hold halves of a character, which become a question mark."""
    return found.encode("utf-8", "replace").decode() if isinstance(found, str) else found


Text = Annotated[str, BeforeValidator(_whole)]
Name = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(strict=True, ge=0)]
Maybe = Annotated[Value | None, WrapValidator(_or_none)]
"""A value that is only told: None where it is of another form."""


class Reply(BaseModel):
    """A JSON object, of which what is not needed is not looked at."""

    @classmethod
    def from_json(cls, body: Any) -> Self:
        """The reply in an answer's JSON. Raises ValueError, which says what is wrong in one line."""
        try:
            return cls.model_validate(body)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            raise ValueError(f"{'.'.join(map(str, first['loc'])) or 'all of it'}: {first['msg']}") from None


class Page(Reply, Generic[Value]):
    """Some of the objects that there are."""

    data: list[Value]
    has_more: Maybe[bool] = None


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A sampled token, its log probability, and those of the likeliest tokens in its place (maybe none).

    Tokens of no probability are not among these, whether an endpoint says minus infinity or nothing of them.
    """

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
    logprobs: tuple[TokenLogprob, ...] | None = None


kept_answer = TypeAdapter(Answer)
"""Reads an answer from the JSON of what `dataclasses.asdict` made of it."""


class _Top(Reply):
    token: Text
    logprob: Maybe[FiniteFloat] = None


class _Token(Reply):
    token: Text
    logprob: FiniteFloat
    top_logprobs: list[_Top] | None = None

    def read(self) -> TokenLogprob:
        top = {each.token: each.logprob for each in self.top_logprobs or () if each.logprob is not None}
        return TokenLogprob(self.token, self.logprob, top)


class _Completion(Reply):
    text: Text | None = Field(validation_alias=AliasPath("choices", 0, "message", "content"))
    finish_reason: Maybe[str] = Field(None, validation_alias=AliasPath("choices", 0, "finish_reason"))
    tokens: list[_Token] | None = Field(None, validation_alias=AliasPath("choices", 0, "logprobs", "content"))
    read: Maybe[Count] = Field(None, validation_alias=AliasPath("usage", "prompt_tokens"))
    written: Maybe[Count] = Field(None, validation_alias=AliasPath("usage", "completion_tokens"))


def read_answer(body: Any, request: Mapping[str, Any]) -> Answer:
    """The answer in the JSON of a chat completion. Raises ValueError when it is none."""
    found = _Completion.from_json(body)
    prompt = "".join(str(each.get("content", "")) for each in request.get("messages", ()))
    text = found.text or ""
    return Answer(
        text=text,
        finish_reason=found.finish_reason or "",
        prompt_tokens=estimate_tokens(prompt) if found.read is None else found.read,
        completion_tokens=estimate_tokens(text) if found.written is None else found.written,
        logprobs=None if found.tokens is None else tuple(each.read() for each in found.tokens),
    )
