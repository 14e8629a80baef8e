"""What lies in the folder of a local policy.

policy.json                 its settings: the model that it starts from, the wording, ...
adapter_config.json, adapter_model.safetensors      low-rank adapters, as PEFT writes them; or
config.json, model.safetensors, tokenizer files     the whole model, as transformers writes it; or
                            neither: the model as it is
optimizer.safetensors       what its trainer goes on with
"""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from rmft.errors import RunDirectoryError
from rmft.models.catalogue import find_model
from rmft.policies.config import LocalConfig

POLICY = "policy.json"
ADAPTER = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
WHOLE = "config.json"


def write_policy(folder: Path, config: LocalConfig) -> None:
    """Write the settings of the policy in `folder`."""
    (folder / POLICY).write_text(config.model_dump_json(indent=1) + "\n", encoding="utf-8")


def read_policy(folder: Path) -> LocalConfig:
    """The settings of the policy in `folder`. Raises RunDirectoryError when they are missing or damaged."""
    path = folder / POLICY
    try:
        return LocalConfig.model_validate_json(path.read_bytes())
    except (OSError, ValidationError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise RunDirectoryError(f"'{path}' is missing or damaged: {reason}") from None


def model_of(folder: Path, config: LocalConfig) -> str:
    """Where the weights lie that the folder's policy plays, its adapter aside: itself, or its model."""
    return str(folder) if (folder / WHOLE).exists() else find_model(config.model)


def adapter_in(folder: Path) -> Path | None:
    """The folder itself when it holds an adapter."""
    return folder if (folder / ADAPTER_CONFIG).exists() else None
