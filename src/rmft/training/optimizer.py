"""An optimizer's state on disk, as safetensors beside the weights that it belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from rmft.errors import RunDirectoryError

OPTIMIZER = "optimizer.safetensors"


def save_optimizer(
    folder: Path,
    optimizer: torch.optim.Optimizer | None = None,
    parameters: Mapping[str, torch.nn.Parameter] | None = None,
) -> None:
    """Write what `optimizer` keeps of each of the named parameters; without one, an empty state."""
    state = {
        f"{name}/{key}": value.detach().cpu().contiguous()
        for name, parameter in (parameters or {}).items()
        for key, value in (optimizer.state[parameter].items() if optimizer else ())
    }
    (folder / OPTIMIZER).write_bytes(save(state))


def load_optimizer(
    folder: Path, optimizer: torch.optim.Optimizer, parameters: Mapping[str, torch.nn.Parameter]
) -> None:
    """Give `optimizer` the state in `folder`. Raises RunDirectoryError when it is missing or damaged."""
    path = folder / OPTIMIZER
    try:
        for name, value in load_file(path).items():
            parameter, _, key = name.rpartition("/")
            of = parameters[parameter]
            optimizer.state[of][key] = value if value.ndim == 0 else value.to(of.device)
    except (OSError, SafetensorError, KeyError) as error:
        raise RunDirectoryError(f"'{path}' is missing or damaged: {error}") from None
