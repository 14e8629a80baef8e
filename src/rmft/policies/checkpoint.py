"""What lies in the folder of a local policy.

policy.json                 its settings: the model that it starts from, the wording, ...
adapter_config.json, adapter_model.safetensors      low-rank adapters, as PEFT writes them; or
config.json, model.safetensors, tokenizer files     the whole model, as transformers writes it; or
                            neither: the model as it is, before any training
optimizer.safetensors       what its trainer goes on with, which holds nothing before any training
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
OPTIMIZER = "optimizer.safetensors"


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
    """The folder itself when it holds an adapter; None when it holds a whole model, or an untrained policy.

    Raises RunDirectoryError when something is gone that training wrote.
    """
    missing = [name for name in (ADAPTER, ADAPTER_CONFIG) if not (folder / name).exists()]
    if not missing:
        return folder
    if len(missing) == 1:
        raise RunDirectoryError(f"The adapter in '{folder}' is missing or damaged: it lacks {missing[0]}.")
    if not (folder / WHOLE).exists() and not untrained(folder):
        raise RunDirectoryError(
            f"'{folder}' has lost what training made: it holds neither an adapter ({ADAPTER_CONFIG} and "
            f"{ADAPTER}) nor a whole model ({WHOLE}). Put the files back; without them the untrained model "
            "would play."
        )
    return None


def untrained(folder: Path) -> bool:
    """Whether the folder says that its policy was not trained: by an optimizer's state that holds nothing."""
    try:
        return (folder / OPTIMIZER).read_bytes()[8:].strip() == b"{}"  # all of safetensors' header
    except OSError:
        return False
