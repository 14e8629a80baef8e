"""The models that are served: base models, always loaded, and fine-tuned ones, the last few used."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rmft.errors import ConfigError, UnknownNameError
from rmft.generators.loading import load_model
from rmft.generators.local import context_limit, end_tokens
from rmft.models.catalogue import MODELS, find_model
from rmft.policies.checkpoint import adapter_in, model_of, read_policy
from rmft.policies.config import LocalConfig
from rmft.server.conversation import Conversations
from rmft.server.refusals import ApiError

KEPT = 3  # fine-tuned models in memory at once


@dataclass(frozen=True, eq=False)
class Base:
    """A base model; all that is fine-tuned from it shares its tokenizer and its way of writing chats."""

    name: str
    config: LocalConfig
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    conversations: Conversations
    context: int

    def encode(self, text: str) -> list[int]:
        """Tokens of a text, where a control token's name is only text."""
        return self.conversations.with_system.completion(text)


def load_bases(models: Iterable[str], config: LocalConfig) -> dict[str, Base]:
    """The base models by the names that clients use: what `rmft models` lists, or a folder's own name.

    config: the settings of all of them but for the model. Raises ConfigError and UnknownNameError.
    """
    bases: dict[str, Base] = {}
    for given in models:
        known = given in MODELS or not Path(given).expanduser().is_dir()
        place = Path(given).expanduser().absolute()
        name = given if known else place.name
        if name in bases or ":" in name:
            raise ConfigError(f"Can't serve '{given}' as '{name}': a name is used once, and holds no colon.")
        own = config.model_copy(update={"model": given if known else str(place)})
        model, tokenizer = load_model(find_model(own.model), own.precision, own.device)
        written = Conversations.of(tokenizer, end_tokens(model))
        bases[name] = Base(name, own, model, tokenizer, written, context_limit(model))
    return bases


def unknown_model(name: str, known: Iterable[str]) -> ApiError:
    """There is no model of that name; the message names the nearest one."""
    message = str(UnknownNameError("model", name, known))
    return ApiError(message, status=404, code="model_not_found", param="model")


class Loaded:
    """Models by name: base models, adapters, and the last KEPT fine-tuned ones. `get` is for one thread.

    adapters: models with an adapter that a client named, until it lets go of them.
    """

    def __init__(self, bases: dict[str, Base]) -> None:
        self._bases = bases
        self._recent: OrderedDict[str, PreTrainedModel] = OrderedDict()
        self.adapters: dict[str, PreTrainedModel] = {}

    def has(self, name: str) -> bool:
        """Whether it is loaded."""
        return name in self._bases or name in self.adapters or name in self._recent

    def get(self, name: str, folder: Path | None) -> PreTrainedModel:
        """A base model, one with an adapter, or the fine-tuned one in `folder`.

        Raises RunDirectoryError when that is damaged.
        """
        if folder is None:
            return self.adapters[name] if name in self.adapters else self._bases[name].model
        if name not in self._recent:
            while len(self._recent) >= KEPT:
                self._recent.popitem(last=False)
            config = read_policy(folder)
            place = model_of(folder, config)
            self._recent[name] = load_model(place, config.precision, config.device, adapter_in(folder))[0]
        self._recent.move_to_end(name)
        return self._recent[name]
