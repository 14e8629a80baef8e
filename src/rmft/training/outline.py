"""A language model in numbers, of which no weights are loaded: what a forecast needs to know."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import peft
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from rmft.errors import ConfigError
from rmft.generators.local import context_limit, end_tokens
from rmft.models.catalogue import find_model
from rmft.policies.config import LocalConfig
from rmft.training.adapter import peft_settings


@dataclass(frozen=True)
class Outline:
    """weights: of the model. per_token: of these, by how many every token is multiplied: all but an embedding
    that is no head too. adapted: those of layers with an adapter. trained: the adapter's, or all.

    context: tokens that it reads. filler: a token of plain text.
    """

    tokenizer: PreTrainedTokenizerBase
    context: int
    stop_ids: Sequence[int]
    filler: int
    weights: int
    per_token: int
    adapted: int
    trained: int


def outline(config: LocalConfig) -> Outline:
    """That of the policy's model. Raises ConfigError for a model that is not there or has no such layers."""
    place = find_model(config.model)
    local = Path(place).is_dir()
    try:
        settings = AutoConfig.from_pretrained(place, local_files_only=local, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(place, local_files_only=local, trust_remote_code=False)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(settings)  # type: ignore[no-untyped-call]
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise ConfigError(f"The model '{config.model}' can't be read: {error!s:.200}") from None
    weights = trained = _count(model.parameters())
    embedding = 0 if settings.tie_word_embeddings else _count(model.get_input_embeddings().parameters())
    adapted = 0
    context, stop_ids = context_limit(model), end_tokens(model)
    if config.lora is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft's own use of transformers
            with_adapter = peft.get_peft_model(model, peft_settings(config.lora, model))
        trained = _count(each for each in with_adapter.parameters() if each.requires_grad)
        layers = (each for each in with_adapter.modules() if isinstance(each, BaseTunerLayer))
        adapted = sum(_count(layer.get_base_layer().parameters()) for layer in layers)
    (*_, filler) = tokenizer.encode("a", add_special_tokens=False)
    return Outline(tokenizer, context, stop_ids, filler, weights, weights - embedding, adapted, trained)


def _count(parameters: Iterable[nn.Parameter]) -> int:
    return sum(each.numel() for each in parameters)
