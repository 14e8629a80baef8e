"""From a provider's facts to its connection and its adapter."""

from __future__ import annotations

from rmft.errors import ConfigError
from rmft.providers.catalogue import ProviderFacts
from rmft.providers.config import EndpointConfig
from rmft.providers.connection import Connection
from rmft.providers.keys import find_key
from rmft.providers.openai import AzureProvider, OpenAIProvider
from rmft.providers.provider import FineTuneProvider
from rmft.providers.together import TogetherProvider

AZURE_API_VERSION = "2024-10-21"


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


def adapter(facts: ProviderFacts, connection: Connection) -> FineTuneProvider:
    """What fine-tunes at the provider."""
    if facts.api == "together":
        return TogetherProvider(connection, facts)
    if facts.api == "azure":
        return AzureProvider(connection, facts)
    return OpenAIProvider(connection, facts)
