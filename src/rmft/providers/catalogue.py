"""What is known of providers: addresses, models, formats, limits, prices and dates. One YAML file each.

The files lie in `catalogue/`; each says when it was looked up and what could not be verified. A file of the
user's own, of the same form with the providers' names on top, goes before them, key by key.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from rmft.errors import UnknownNameError
from rmft.reading import Config, parse_yaml, read, read_mapping

Usd = Annotated[float, Field(ge=0)]


class ModelFacts(Config):
    """A model that can be fine-tuned. Prices in USD per million tokens; None: unknown.

    input, output: of the model itself. tuned_input, tuned_output: of what was made from it. training: per
    token and epoch. trains_until, retires: the last day of new jobs, and the day from which neither the
    model nor what was made from it answers. example_tokens: of one training example, at most. also: other
    names. unverified: what of this was not seen on the provider's own pages.
    """

    also: tuple[str, ...] = ()
    input: Usd | None = None
    output: Usd | None = None
    tuned_input: Usd | None = None
    tuned_output: Usd | None = None
    training: Usd | None = None
    trains_until: date | None = None
    retires: date | None = None
    example_tokens: Annotated[int, Field(ge=1)] | None = None
    unverified: str = ""

    def usd(self, prompt_tokens: int, completion_tokens: int, *, tuned: bool) -> float | None:
        """What a call costs, None when that is unknown. tuned: of a model made from this one."""
        read, write = (self.tuned_input, self.tuned_output) if tuned else (self.input, self.output)
        if read is None or write is None:
            return None
        return (read * prompt_tokens + write * completion_tokens) / 1e6

    def training_usd(self, tokens: int) -> float | None:
        """What training on `tokens` costs, all epochs together; None when that is unknown."""
        return None if self.training is None else self.training * tokens / 1e6


class ProviderFacts(Config):
    """A provider.

    api: which adapter speaks to it. base_url: None where it is the user's own. key: the variable that
    holds the key; None where none is needed unless the user names one. min_examples, max_file_mb: of a
    training file. byte_order_mark: whether it begins with one. weights: whether single answers can be left
    out of the loss. serving: what has to be done
    before a fine-tuned model answers. looked_up: the day; sources: where. models: those known; others may
    work and are `other`.
    """

    name: str
    about: str
    api: Literal["openai", "azure", "together"]
    base_url: str | None = None
    key: str | None = None
    min_examples: Annotated[int, Field(ge=1)] = 1
    max_file_mb: Annotated[int, Field(ge=1)] | None = None
    byte_order_mark: bool = False
    weights: bool = True
    continues: bool = True
    serving: str = ""
    notes: str = ""
    looked_up: date | None = None
    sources: tuple[str, ...] = ()
    models: Annotated[dict[str, ModelFacts], Field(default_factory=dict)]
    other: ModelFacts = ModelFacts()

    def model(self, name: str) -> ModelFacts:
        """What is known of the model `name`; next to nothing for one that is not listed."""
        for known, facts in self.models.items():
            if name == known or name in facts.also:
                return facts
        return self.other


@cache
def _packaged() -> dict[str, dict[str, Any]]:
    folder = resources.files("rmft.providers") / "catalogue"
    files = sorted((each for each in folder.iterdir() if each.name.endswith(".yaml")), key=lambda f: f.name)
    return {file.name.removesuffix(".yaml"): parse_yaml(file.read_text("utf-8"), file.name) for file in files}


def providers(own: Path | None = None) -> dict[str, ProviderFacts]:
    """All providers by name. own: a YAML file whose entries go before the packaged ones.

    Raises ConfigError, for a file that can't be read or has wrong keys or values.
    """
    data = dict(_packaged())
    for name, facts in (read_mapping(own, "catalogue") if own else {}).items():
        data[name] = _merged(data.get(name, {"about": "your own"}), facts)
    source = f"'{own}'" if own else "catalogue"
    return {
        name: read(ProviderFacts, {**facts, "name": name} if isinstance(facts, dict) else facts, source)
        for name, facts in data.items()
    }


def find_provider(name: str, own: Path | None = None) -> ProviderFacts:
    """The provider called `name`. Raises as `providers` does, and UnknownNameError."""
    known = providers(own)
    if name not in known:
        raise UnknownNameError("provider", name, known)
    return known[name]


def _merged(below: Any, above: Any) -> Any:
    """`above` over `below`, key by key."""
    if not (isinstance(below, Mapping) and isinstance(above, Mapping)):
        return above
    return {**below, **{key: _merged(below.get(key), value) for key, value in above.items()}}
