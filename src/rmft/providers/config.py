"""The settings of an endpoint, and of what a run with hosted models may cost."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from rmft.reading import Config


class EndpointConfig(Config):
    """How an endpoint is asked. What it can do is probed once, where None, and then kept with the run."""

    concurrency: Annotated[int, Field(ge=1, le=1024)] = 16
    """Rollouts under way at once."""
    retries: Annotated[int, Field(ge=0, le=100)] = 8
    """After a first attempt that timed out or found the endpoint busy, broken or incomprehensible."""
    timeout: Annotated[float, Field(gt=0, le=3600)] = 120.0
    """Seconds that one attempt may take."""
    requests_per_minute: Annotated[int, Field(ge=1)] | None = None
    tokens_per_minute: Annotated[int, Field(ge=1)] | None = None
    azure_api_version: str | None = None
    """Makes it an Azure OpenAI resource, at https://NAME.openai.azure.com."""
    temperature: bool | None = None
    """Whether it takes a temperature; models that reason on their own often take none."""
    seed: bool | None = None
    logprobs: bool | None = None
    structured: bool | None = None
    """Whether it holds answers to a JSON schema."""
    max_completion_tokens: bool | None = None
    """Whether it calls its limit so, instead of max_tokens."""
    sampling: bool | None = None
    """Whether it takes top_k and repetition_penalty, which are then sent so that they do nothing."""


class BudgetConfig(Config):
    """What a run with hosted models may cost; it stops, to be resumed, before it would cost more."""

    max_usd: Annotated[float, Field(gt=0)] | None = None
    max_tokens: Annotated[int, Field(gt=0)] | None = None
    """Read, written and trained on."""
