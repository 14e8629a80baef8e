"""An optimizer's state on disk, and the scale of its steps, as safetensors beside the weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from rmft.errors import RunDirectoryError
from rmft.policies.checkpoint import OPTIMIZER

SCALE = "scale"  # of the steps; see `rmft.training.schedule`


def save_optimizer(
    folder: Path,
    optimizer: torch.optim.Optimizer | None = None,
    parameters: Mapping[str, torch.nn.Parameter] | None = None,
    scale: float = 1.0,
) -> None:
    """Write what `optimizer` keeps of each of the named parameters; without one, an empty state."""
    state = {
        f"{name}/{key}": value.detach().cpu().contiguous()
        for name, parameter in (parameters or {}).items()
        for key, value in (optimizer.state[parameter].items() if optimizer else ())
    }
    if scale != 1.0:
        state[SCALE] = torch.tensor(scale, dtype=torch.float64)
    (folder / OPTIMIZER).write_bytes(save(state))


def load_optimizer(
    folder: Path, optimizer: torch.optim.Optimizer, parameters: Mapping[str, torch.nn.Parameter]
) -> float:
    """Give `optimizer` the state in `folder`, and return the scale of its steps.

    Raises RunDirectoryError when it is missing or damaged.
    """
    path, scale = folder / OPTIMIZER, 1.0
    try:
        state = load_file(path)
        if SCALE in state:
            scale = float(state.pop(SCALE))
            if not 0 < scale < float("inf"):
                raise KeyError(f"the scale {scale}")
        for name, value in state.items():
            parameter, _, key = name.rpartition("/")
            of = parameters[parameter]
            optimizer.state[of][key] = value if value.ndim == 0 else value.to(of.device)
    except (OSError, SafetensorError, KeyError) as error:
        raise RunDirectoryError(f"'{path}' is missing or damaged: {error}") from None
    return scale
