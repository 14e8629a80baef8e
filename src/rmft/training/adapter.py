"""What is trained of a language model, low-rank adapters or all of it: made, loaded and saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
from peft import PeftModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rmft.errors import ConfigError, RunDirectoryError, UnknownNameError
from rmft.generators.loading import HeldModel, load_model, no_progress_bars
from rmft.generators.local import head_of
from rmft.policies.checkpoint import ADAPTER, ADAPTER_CONFIG, adapter_in, model_of
from rmft.policies.config import LocalConfig, LoraConfig
from rmft.training.sharding import gathered

Trained = PreTrainedModel | PeftModel


def load_trainable(
    folder: Path, config: LocalConfig, held: HeldModel | None = None
) -> tuple[Trained, PreTrainedTokenizerBase]:
    """The policy in `folder`, ready to be trained; a first adapter is drawn from torch's generator.

    held: its model, if that is loaded already; `give_back` it after training with an adapter. A model that
    is trained as a whole is in float32, whatever the precision: its steps are small. Raises
    RunDirectoryError when the folder is damaged, UnknownNameError and ConfigError when `config.lora` or
    the model does not suit.
    """
    if held is not None and config.lora is not None:
        held.adapt(None)
        model, tokenizer = held.model, held.tokenizer
    else:
        precision = "float32" if config.lora is None else config.precision
        model, tokenizer = load_model(model_of(folder, config), precision, "cpu")
    if config.lora is None:
        return model.requires_grad_(True), tokenizer
    adapted = peft.get_peft_model(model, peft_settings(config.lora, model))
    assert isinstance(adapted, PeftModel)
    if adapter_in(folder) is not None:
        _load(adapted, folder / ADAPTER)
    return adapted, tokenizer


def give_back(model: PeftModel, attention: str) -> None:
    """Leave a held model as it was before training. attention: the name of its own attention function."""
    bare = model.unload()
    bare.set_attn_implementation(attention)
    bare.gradient_checkpointing_disable()
    bare.eval().requires_grad_(False)


def _load(model: PeftModel, path: Path) -> None:
    try:
        state = load_file(path)
        expected = {name: each.shape for name, each in peft.get_peft_model_state_dict(model).items()}
        if {name: each.shape for name, each in state.items()} != expected:
            raise ValueError(f"it holds {len(state)} weights, not the {len(expected)} of policy.lora")
        peft.set_peft_model_state_dict(model, state)
    except (OSError, SafetensorError, ValueError) as error:
        raise RunDirectoryError(f"The adapter '{path}' is missing or damaged: {error}.") from None


def peft_settings(lora: LoraConfig, model: PreTrainedModel) -> peft.LoraConfig:
    """Those of PEFT. Raises UnknownNameError and ConfigError for what the model does not have."""
    head, config = head_of(model), model.config
    linear = {
        path.rpartition(".")[2]
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not head
    }
    for target in lora.targets or ():
        if target not in linear:
            raise UnknownNameError("linear layer in policy.lora.targets", target, linear)
    layers, trained = config.num_hidden_layers, lora.num_layers
    if trained is not None and trained > layers:
        raise ConfigError(
            f"policy.lora.num_layers is {trained}; expected at most {layers}, the layers of the model."
        )
    return peft.LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # any number will do
        lora_dropout=lora.dropout,
        target_modules=sorted(lora.targets or linear),
        layers_to_transform=None if trained is None else list(range(layers - trained, layers)),
        task_type="CAUSAL_LM",
    )


def trained_weights(model: Trained, *, keep: bool = True) -> dict[str, Tensor]:
    """The adapter's weights, or the whole model's, as `gathered` gives them."""
    adapted = isinstance(model, PeftModel)
    return gathered(peft.get_peft_model_state_dict(model) if adapted else model.state_dict(), keep=keep)


def save_trained(
    model: Trained, tokenizer: PreTrainedTokenizerBase, name: str, weights: dict[str, Tensor], target: Path
) -> None:
    """Write the adapter of the model `name`, or the whole model: the same bytes for the same weights.

    weights: what `trained_weights` gives.
    """
    if not isinstance(model, PeftModel):
        save_whole(model, tokenizer, target, weights)
        return
    settings: dict[str, Any] = {
        key: sorted(value) if isinstance(value, set) else value
        for key, value in model.peft_config["default"].to_dict().items()
    } | {"inference_mode": True, "base_model_name_or_path": name}
    text = json.dumps(settings, indent=1, sort_keys=True) + "\n"
    (target / ADAPTER_CONFIG).write_text(text, encoding="utf-8")
    (target / ADAPTER).write_bytes(save(weights, {"format": "pt"}))


def save_whole(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    target: Path,
    weights: dict[str, Tensor] | None = None,
) -> None:
    """Write a model to `target` as transformers does: weights, configs, tokenizer, chat template.

    weights: to be written in place of those that it has.
    """
    with no_progress_bars():
        model.save_pretrained(target, state_dict=weights)
    tokenizer.save_pretrained(target)
