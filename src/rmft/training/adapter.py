"""What is trained of a language model, low-rank adapters or all of it: made, loaded and saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
import torch
from peft import PeftModel
from safetensors import SafetensorError
from safetensors.torch import save
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from rmft.config import LocalConfig, LoraConfig
from rmft.errors import ConfigError, RunDirectoryError, UnknownNameError

POLICY = "policy.json"
ADAPTER = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
WHOLE = "config.json"


def load_trainable(
    folder: Path, config: LocalConfig
) -> tuple[PreTrainedModel | PeftModel, PreTrainedTokenizerBase]:
    """The policy in `folder`, ready to be trained; a first adapter is drawn from torch's generator.

    Raises RunDirectoryError when it is damaged, UnknownNameError and ConfigError when `config.lora` does
    not suit the model.
    """
    source = str(folder) if (folder / WHOLE).exists() else config.model
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(source)
    if config.lora is None:
        return model, tokenizer
    model.requires_grad_(False)
    if (folder / ADAPTER_CONFIG).exists():
        try:
            return PeftModel.from_pretrained(model, folder, is_trainable=True), tokenizer
        except (OSError, SafetensorError, ValueError, TypeError, RuntimeError, KeyError) as error:
            reason = str(error).splitlines()[0]
            raise RunDirectoryError(f"The adapter in '{folder}' is damaged: {reason}") from None
    return peft.get_peft_model(model, _adapter(config.lora, model, config.model)), tokenizer


def _adapter(lora: LoraConfig, model: PreTrainedModel, name: str) -> peft.LoraConfig:
    head = model.get_output_embeddings()
    linear = {
        path.rpartition(".")[2]
        for path, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    }
    for target in lora.targets or ():
        if target not in linear:
            raise UnknownNameError("linear layer of the model", target, linear)
    layers = model.config.get_text_config().num_hidden_layers
    if lora.num_layers is not None and lora.num_layers > layers:
        raise ConfigError(
            f"policy.lora.num_layers is {lora.num_layers}, but the model '{name}' has {layers} layers; "
            f"expected at most {layers}."
        )
    return peft.LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=sorted(lora.targets or linear),
        layers_to_transform=None
        if lora.num_layers is None
        else list(range(layers - lora.num_layers, layers)),
        task_type="CAUSAL_LM",
        base_model_name_or_path=name,
    )


def save_trained(
    model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase, start: Path, target: Path
) -> None:
    """Write the policy to `target`: the same bytes for the same weights."""
    (target / POLICY).write_bytes((start / POLICY).read_bytes())
    if not isinstance(model, PeftModel):
        model.save_pretrained(target)
        tokenizer.save_pretrained(target)
        return
    config = model.peft_config["default"]
    settings: dict[str, Any] = {
        key: sorted(value) if isinstance(value, set) else value for key, value in config.to_dict().items()
    }
    settings["inference_mode"] = True
    (target / ADAPTER_CONFIG).write_text(
        json.dumps(settings, indent=1, sort_keys=True) + "\n", encoding="utf-8"
    )
    state = {name: each.cpu().contiguous() for name, each in peft.get_peft_model_state_dict(model).items()}
    (target / ADAPTER).write_bytes(save(state, {"format": "pt"}))
