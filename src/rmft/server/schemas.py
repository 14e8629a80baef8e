"""What clients may send, checked on reading. What is not supported is refused, never ignored."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, model_validator

MAX_MESSAGES = 4096
MAX_TOKENS = 1_000_000
NEUTRAL: dict[str, tuple[Any, ...]] = {  # settings that change nothing when they have one of these values
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "tools": ([],),
    "tool_calls": ([],),
    "tool_choice": ("none",),
    "parallel_tool_calls": (True, False),
    "annotations": ([],),
    "modalities": (["text"],),
    "reasoning_effort": ("none",),
    "verbosity": ("medium",),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "refusal": ("",),
    "integrations": ([],),
    "top_k": (-1,),
    "repetition_penalty": (1,),
    "n": (1,),
    "stream": (False,),
}
NAMES = frozenset({"name", "prompt_cache_key", "safety_identifier"})
"""Texts that a client may give, and that change nothing here."""


def _characters(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("it holds half of a surrogate pair, which is no character") from None
    return text


Text = Annotated[str, AfterValidator(_characters)]
Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Name = Annotated[str, Field(min_length=1, max_length=300)]
TokenId = Annotated[int, Field(ge=0, lt=2**31)]
Metadata = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]], Field(max_length=16)
]


class Request(BaseModel):
    """Base of all: unknown fields are mistakes, and a null is a field left out."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _without_nothings(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {
            key: value
            for key, value in values.items()
            if value is not None and (key in cls.model_fields or not _changes_nothing(key, value))
        }


def _changes_nothing(key: str, value: Any) -> bool:
    return value in NEUTRAL.get(key, ()) or (key in NAMES and isinstance(value, str))


class TextPart(Request):
    """A piece of a message; pictures and sound are not read."""

    type: Literal["text"]
    text: Text


class Message(Request):
    """One message of a chat."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | Annotated[list[TextPart], Field(max_length=1000)]

    @property
    def text(self) -> str:
        """All of its words."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


def _whole(weight: Any) -> Any:
    """1.0 is 1, as some programs write it."""
    return int(weight) if isinstance(weight, float) and weight.is_integer() else weight


class TrainingMessage(Message):
    """One message of a training file. weight: whether an assistant's is learned from; 1 unless given."""

    weight: Annotated[int, BeforeValidator(_whole), Field(ge=0, le=1)] = 1


class TrainingExample(Request):
    """One line of a training file."""

    messages: Annotated[list[TrainingMessage], Field(min_length=1, max_length=MAX_MESSAGES)]


class TextFormat(Request):
    """Any text."""

    type: Literal["text"]


class JsonSchema(Request):
    """A named schema; see `rmft.server.grammar` for those that can be followed."""

    name: Name
    json_schema: Annotated[dict[str, JsonValue], Field(alias="schema")]
    strict: bool = True
    description: Text = ""


class JsonFormat(Request):
    """JSON that follows a schema."""

    type: Literal["json_schema"]
    json_schema: JsonSchema


class StreamOptions(Request):
    """Of an answer that is streamed. include_usage: a last chunk with the tokens counted."""

    include_usage: bool = False


class ChatRequest(Request):
    """POST /v1/chat/completions."""

    model: Name
    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)]
    n: Annotated[int, Field(ge=1, le=128)] = 1
    max_tokens: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    seed: Seed | None = None
    stop: Text | Annotated[list[Text], Field(max_length=4)] = Field(default_factory=list)
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: Annotated[TextFormat | JsonFormat, Field(discriminator="type")] | None = None
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    user: Text = ""
    metadata: Metadata = Field(default_factory=dict)

    @model_validator(mode="after")
    def _top_logprobs_of_logprobs(self) -> ChatRequest:
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs: true")
        return self

    @property
    def stops(self) -> tuple[str, ...]:
        """Texts that end an answer."""
        given = [self.stop] if isinstance(self.stop, str) else self.stop
        return tuple(text for text in given if text)

    @property
    def most_tokens(self) -> int | None:
        """How many tokens an answer may have; None: as many as the server allows."""
        given = [most for most in (self.max_tokens, self.max_completion_tokens) if most is not None]
        return min(given, default=None)


class CompletionRequest(Request):
    """POST /v1/completions: rows of token ids, each of which is gone on with.

    logprobs: how many likeliest tokens are told of each that was written; the logs are of the model at
    temperature 1, over all tokens or those allowed. logprob_token_ids: those whose are told in their place.
    """

    model: Name
    prompt: (
        Annotated[list[TokenId], Field(min_length=1, max_length=MAX_TOKENS)]
        | Annotated[
            list[Annotated[list[TokenId], Field(min_length=1, max_length=MAX_TOKENS)]],
            Field(min_length=1, max_length=4096),
        ]
    )
    max_tokens: Annotated[int, Field(ge=1, le=10_000_000)] = 16
    temperature: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    seed: Seed | None = None
    stop: str | Annotated[list[str], Field(max_length=4)] = Field(default_factory=list)
    stop_token_ids: Annotated[list[TokenId], Field(max_length=128)] = Field(default_factory=list)
    logprobs: Annotated[int, Field(ge=0, le=128)] | None = None
    logprob_token_ids: Annotated[list[TokenId], Field(min_length=1, max_length=128)] | None = None
    allowed_token_ids: Annotated[list[TokenId], Field(min_length=1, max_length=4096)] | None = None
    return_token_ids: bool = False
    return_tokens_as_token_ids: bool = False

    @property
    def rows(self) -> list[list[int]]:
        """The prompts."""
        given: list[Any] = self.prompt
        return given if isinstance(given[0], list) else [given]

    @property
    def stops(self) -> tuple[str, ...]:
        """Texts that end a row."""
        given = [self.stop] if isinstance(self.stop, str) else self.stop
        return tuple(text for text in given if text)


class TokenizeRequest(Request):
    """POST /tokenize."""

    model: Name
    prompt: Annotated[str, Field(max_length=100_000)]
    add_special_tokens: Literal[False] = False


class LoadAdapter(Request):
    """POST /v1/load_lora_adapter. lora_path: a folder that the server sees."""

    lora_name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$")]
    lora_path: Annotated[str, Field(min_length=1, max_length=4096)]


class UnloadAdapter(Request):
    """POST /v1/unload_lora_adapter."""

    lora_name: Name


class Hyperparameters(Request):
    """How a job trains."""

    n_epochs: Annotated[int, Field(ge=1, le=100)] | Literal["auto"] = "auto"
    batch_size: Annotated[int, Field(ge=1, le=256)] | Literal["auto"] = "auto"
    learning_rate_multiplier: Annotated[float, Field(gt=0, le=100)] | Literal["auto"] = "auto"


class Supervised(Request):
    """The settings of the method `supervised`."""

    hyperparameters: Hyperparameters = Hyperparameters()


class Method(Request):
    """How to train; `supervised` is the only way."""

    type: Literal["supervised"]
    supervised: Supervised = Supervised()


class JobRequest(Request):
    """POST /v1/fine_tuning/jobs."""

    model: Name
    training_file: Name
    suffix: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9. _-]{0,63}$")] | None = None
    seed: Seed | None = None
    hyperparameters: Hyperparameters | None = None
    method: Method | None = None
    metadata: Metadata = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_place(self) -> JobRequest:
        if self.hyperparameters is not None and self.method is not None:
            raise ValueError("give hyperparameters, or method.supervised.hyperparameters, not both")
        return self

    @property
    def chosen(self) -> Hyperparameters:
        """The hyperparameters, wherever they were given."""
        if self.method is not None:
            return self.method.supervised.hyperparameters
        return self.hyperparameters or Hyperparameters()
