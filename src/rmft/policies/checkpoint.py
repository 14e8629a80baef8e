"""What lies in the folder of a local policy.

policy.json                 its settings: the model that it starts from, the wording, ...
adapter_config.json, adapter_model.safetensors      low-rank adapters, as PEFT writes them; or
config.json, model.safetensors, tokenizer files     the whole model, as transformers writes it; or
                            neither: the model as it is
optimizer.safetensors       what its trainer goes on with
"""

from __future__ import annotations

from pathlib import Path

from rmft.errors import RunDirectoryError
from rmft.models.catalogue import find_model
from rmft.policies.config import LocalConfig
from rmft.reading import read_stored, write_stored

POLICY = "policy.json"
ADAPTER = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
WHOLE = "config.json"


def write_policy(folder: Path, config: LocalConfig) -> None:
    """Write the settings of the policy in `folder`."""
    write_stored(folder / POLICY, config)


def read_policy(folder: Path) -> LocalConfig:
    """The settings of the policy in `folder`. Raises RunDirectoryError when they are missing or damaged."""
    return read_stored(LocalConfig, folder / POLICY)


def model_of(folder: Path, config: LocalConfig) -> str:
    """Where the weights lie that the folder's policy plays, its adapter aside: itself, or its model."""
    return str(folder) if (folder / WHOLE).exists() else find_model(config.model)


def adapter_in(folder: Path) -> Path | None:
    """The folder itself when it holds an adapter. Raises RunDirectoryError when it holds half of one."""
    missing = [name for name in (ADAPTER, ADAPTER_CONFIG) if not (folder / name).exists()]
    if len(missing) == 1:
        raise RunDirectoryError(f"The adapter in '{folder}' is missing or damaged: it lacks {missing[0]}.")
    return None if missing else folder
