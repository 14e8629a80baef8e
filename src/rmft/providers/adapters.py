"""Who fine-tunes: OpenAI's API, also at `rmft serve` or any like it; Azure OpenAI; Together AI's REST API.

From a provider's facts, `connect` makes a connection to it and `adapter` what fine-tunes there.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

from rmft.errors import ConfigError, EndpointError, UnknownNameError
from rmft.providers.answers import Maybe, Name, Page, Reply
from rmft.providers.catalogue import ProviderFacts
from rmft.providers.config import EndpointConfig
from rmft.providers.connection import Connection
from rmft.providers.keys import find_key
from rmft.providers.provider import FineTuneProvider, JobRequest

AZURE_API_VERSION = "2024-10-21"
NOT_READY = {"pending", "running", "notrunning"}  # of Azure's files
FILE_PAUSE = 2.0  # seconds between two looks at a file that is not ready yet
TOGETHER_RATE = 1e-5  # the learning rate of Together's own, which a multiplier is of
LARGEST_SEED = 2**31


class _File(Reply):
    status: Maybe[str] = None


class _Model(Reply):
    id: Maybe[str] = None
    shutdown_date: Maybe[date] = None


class OpenAIProvider(FineTuneProvider):
    """Fine-tuning as OpenAI's API has it."""

    files, jobs = "/files", "/fine_tuning/jobs"
    form: ClassVar = {"purpose": "fine-tune"}
    page: ClassVar = {"limit": "100"}

    def check(self, model: str) -> date | None:
        """See `FineTuneProvider`."""
        models = self.connection.request("GET", "/models", Page[_Model].from_json).data
        known = {each.id or "": each for each in models}
        if model not in known:
            raise EndpointError(f"{self.connection.host}: {UnknownNameError('model', model, known)}")
        return known[model].shutdown_date

    def upload(self, path: Path) -> str:
        """See `FineTuneProvider`. Raises EndpointError, too, when the provider can't read the file."""
        file = super().upload(path)
        while True:
            found = self.connection.request("GET", f"{self.files}/{quote(file, safe='')}", _File.from_json)
            status = (found.status or "").lower()
            if status == "error":
                raise EndpointError(f"{self.connection.host} can't use the uploaded file '{path}' ({file}).")
            if status not in NOT_READY:
                return file
            time.sleep(FILE_PAUSE)

    def serve(self, model: str, say: Callable[[str], None]) -> str | None:  # noqa: ARG002
        """See `FineTuneProvider`: a fine-tuned model answers by its name at once."""
        return model

    def job_body(self, request: JobRequest) -> dict[str, Any]:
        multiplier = request.learning_rate_multiplier
        rates = {} if multiplier is None else {"learning_rate_multiplier": multiplier}
        hyperparameters = {"n_epochs": request.epochs, **rates}
        return {
            "model": request.model,
            "training_file": request.file,
            "suffix": request.suffix,
            "seed": request.seed % LARGEST_SEED,
            "method": {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}},
        }


class AzureProvider(OpenAIProvider):
    """Azure OpenAI, where fine-tuned models have to be deployed."""

    def serve(self, model: str, say: Callable[[str], None]) -> str | None:
        """See `FineTuneProvider`. Deploying takes rights over the resource that the key does not give."""
        name = f"rmft-{hashlib.sha256(model.encode()).hexdigest()[:16]}"
        ask = {"model": name, "messages": [{"role": "user", "content": "1"}], "max_tokens": 1}
        try:
            self.connection.chat(ask)
        except EndpointError as error:
            if error.status != 404:
                raise
            say(
                f"Deploy the model to go on: az cognitiveservices account deployment create --name RESOURCE "
                f"--resource-group GROUP --deployment-name {name} --model-name '{model}' --model-version 1 "
                "--model-format OpenAI --sku-name Standard --sku-capacity 50"
            )
            return None
        return name


class _Limits(Reply):
    max_num_epochs: Maybe[float] = None
    lora_training: Any = None
    message: Maybe[Name] = None


class _Endpoint(Reply):
    model: Maybe[str] = None
    state: Maybe[str] = None
    name: Maybe[Name] = None


class TogetherProvider(FineTuneProvider):
    """Fine-tuning at Together AI, by its own REST API: https://docs.together.ai/reference."""

    files, jobs = "/files/upload", "/fine-tunes"
    form: ClassVar = {"purpose": "fine-tune", "file_name": "{name}", "file_type": "jsonl"}

    def check(self, model: str) -> date | None:
        """See `FineTuneProvider`; Together tells no dates."""
        query = {"model_name": model}
        limits = self.connection.request("GET", "/fine-tunes/models/limits", _Limits.from_json, query=query)
        if limits.max_num_epochs is None and limits.lora_training is None:
            said = limits.message or "it tells no limits for it"
            raise EndpointError(f"{self.connection.host} can't fine-tune '{model}': {said:.200}")
        return None

    def serve(self, model: str, say: Callable[[str], None]) -> str | None:
        """See `FineTuneProvider`: the name of the dedicated endpoint that the user started."""
        query = {"type": "dedicated", "mine": "true"}
        endpoints = self.connection.request("GET", "/endpoints", Page[_Endpoint].from_json, query=query).data
        for endpoint in endpoints:
            if endpoint.model == model:
                if endpoint.state == "STARTED" and endpoint.name:
                    return endpoint.name
                say(f"The endpoint of {model} is {endpoint.state or 'not ready'}")
                return None
        say(
            "To go on, put the model on a dedicated endpoint (billed by the minute until you delete it): "
            f"together endpoints create --model {model} --hardware HARDWARE"
        )
        return None

    def job_body(self, request: JobRequest) -> dict[str, Any]:
        """What a job before made is gone on from as that job's last checkpoint."""
        source = {"model": request.base} if request.job is None else {"from_checkpoint": request.job}
        return {
            **source,
            "training_file": request.file,
            "n_epochs": request.epochs,
            "n_checkpoints": 1,
            "batch_size": "max",
            "learning_rate": TOGETHER_RATE * (request.learning_rate_multiplier or 1.0),
            "training_method": {"method": "sft", "train_on_inputs": False},
            "random_seed": request.seed % LARGEST_SEED,
            "suffix": request.suffix,
        }


ADAPTERS = {"openai": OpenAIProvider, "azure": AzureProvider, "together": TogetherProvider}


def adapter(facts: ProviderFacts, connection: Connection) -> FineTuneProvider:
    """What fine-tunes at the provider."""
    return ADAPTERS[facts.api](connection, facts)


def connect(
    facts: ProviderFacts, base_url: str | None, key: str | None, endpoint: EndpointConfig
) -> Connection:
    """A connection to the provider. base_url, key: address and variable instead of the provider's own.

    Raises ConfigError for an address that is missing or none, and EndpointError for a missing key.
    """
    address, variable = base_url or facts.base_url, key or facts.key
    if address is None:
        raise ConfigError(
            f"policy.provider {facts.name} has no address of its own: set policy.base_url, for instance to "
            + ("https://NAME.openai.azure.com" if facts.api == "azure" else "http://127.0.0.1:8000/v1")
        )
    return Connection(
        base_url=address,
        key=find_key(variable) if variable else None,
        azure_api_version=endpoint.azure_api_version or (AZURE_API_VERSION if facts.api == "azure" else None),
        concurrency=endpoint.concurrency,
        retries=endpoint.retries,
        timeout=endpoint.timeout,
        requests_per_minute=endpoint.requests_per_minute,
        tokens_per_minute=endpoint.tokens_per_minute,
    )
