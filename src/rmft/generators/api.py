"""Answers of a model behind an API. What was asked before comes from the journal, and costs nothing again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Protocol

from rmft.errors import EndpointError
from rmft.generators.engine import NEUTRAL
from rmft.messages import Message, most_tokens
from rmft.providers.answers import Answer, kept_answer
from rmft.providers.config import EndpointConfig
from rmft.providers.connection import Connection
from rmft.providers.journal import Journal

Cost = Callable[[int, int], float | None]
"""USD of so many tokens read and written; None where the price is not known."""

TOP = 20  # the most alternatives to a token that the API gives
PROBE_SCHEMA = {
    "type": "object",
    "properties": {"choice": {"type": "string", "enum": ["K", "T"]}},
    "required": ["choice"],
    "additionalProperties": False,
}


@dataclass(frozen=True)
class Features:
    """What an endpoint can do; see `EndpointConfig`."""

    temperature: bool
    seed: bool
    logprobs: bool
    structured: bool
    max_completion_tokens: bool
    sampling: bool = False


@dataclass(frozen=True)
class Question:
    """messages: the chat. seed: sent as `seed`; part of the key of what is kept, so that repeated
    prompts stay independent samples.

    schema: of the answer, where the endpoint has structured outputs.
    """

    messages: Sequence[Message]
    seed: int
    max_tokens: int
    temperature: float
    schema: Mapping[str, Any] | None = None


class Asks(Protocol):
    """What a hosted policy needs of a model; see `ApiModel`."""

    @property
    def features(self) -> Features: ...

    def ask(self, question: Question) -> Answer: ...


class ApiModel:
    """One model at one endpoint. Thread-safe. cost: of its answers, to hold the journal's budget."""

    def __init__(
        self, connection: Connection, journal: Journal, model: str, features: Features, cost: Cost
    ) -> None:
        self.connection, self.journal, self.model = connection, journal, model
        self.features, self.cost = features, cost

    def ask(self, question: Question) -> Answer:
        """The answer. Raises BudgetError, and EndpointError and AnswerError as `Connection.chat` does."""
        seed, most = question.seed, question.max_tokens
        request: dict[str, Any] = {"model": self.model, "messages": list(question.messages)}
        request |= _limit(most, self.features.max_completion_tokens)
        if self.features.temperature:
            request["temperature"] = question.temperature
        if self.features.seed:
            request["seed"] = seed
        if self.features.logprobs:
            request |= {"logprobs": True, "top_logprobs": TOP}
        if question.schema is not None:
            request["response_format"] = _format(question.schema)
        key = hashlib.sha256(json.dumps([request, seed], sort_keys=True).encode()).hexdigest()
        if self.features.temperature:
            request["top_p"] = 1
        if self.features.sampling:
            request |= NEUTRAL
        known = self.journal.get(key)
        if known is not None:
            return kept_answer.validate_python(known)
        read = most_tokens(question.messages)
        with self.journal.within_budget(read + most, self.cost(read, most)):
            answer = self.connection.chat(request, read + most)
            self.journal.put(key, {
                "model": self.model,
                **asdict(answer),
                "tokens": answer.prompt_tokens + answer.completion_tokens,
                "usd": self.cost(answer.prompt_tokens, answer.completion_tokens),
            })  # fmt: skip
        return answer


def probe(connection: Connection, journal: Journal, model: str, config: EndpointConfig) -> Features:
    """What the endpoint can do: as `config` says, or else as one short call each shows; then kept.

    Raises EndpointError and AnswerError when not even the plainest call succeeds.
    """
    key = f"features of {model} at {connection.host}"
    known = journal.get(key) or {}
    found: dict[str, Any] = {each.name: known.get(each.name) for each in fields(Features)}
    found |= {name: getattr(config, name) for name in found if getattr(config, name) is not None}
    if None in found.values():
        plain: dict[str, Any] = {
            "model": model,
            "messages": [
                {"role": "user", "content": 'Reply with one letter, K or T, as JSON: {"choice": "K"}'}
            ],
        }
        if found["max_completion_tokens"] is None:
            found["max_completion_tokens"] = _takes(connection, plain | _limit(16, True))
        plain |= _limit(16, found["max_completion_tokens"])
        if not _takes(connection, plain, must=True):
            raise EndpointError(f"{connection.host} gave no answer to a plain question.")
        trials: dict[str, dict[str, Any]] = {
            "temperature": {"temperature": 0.9},
            "seed": {"seed": 1},
            "logprobs": {"logprobs": True, "top_logprobs": TOP},
            "structured": {"response_format": _format(PROBE_SCHEMA)},
            "sampling": NEUTRAL,
        }
        for name, trial in trials.items():
            if found[name] is None:
                found[name] = _takes(connection, plain | trial)
        journal.put(key, found)
    return Features(**found)


def _takes(connection: Connection, request: Mapping[str, Any], *, must: bool = False) -> bool:
    """Whether the endpoint answers `request`, and with what was asked for."""
    try:
        answer = connection.chat(request)
    except EndpointError as error:
        if must or error.status not in (400, 422):
            raise
        return False
    if "logprobs" in request and not answer.logprobs:
        return False
    if "response_format" in request:
        try:
            return json.loads(answer.text).get("choice") in ("K", "T")
        except (ValueError, AttributeError, RecursionError):
            return False
    return True


def _limit(tokens: int, completion: bool) -> dict[str, int]:
    return {"max_completion_tokens" if completion else "max_tokens": tokens}


def _format(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "json_schema",
        "json_schema": {"name": "decision", "strict": True, "schema": schema},
    }
