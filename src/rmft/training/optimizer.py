"""An optimizer's state on disk, and the scale of its steps, as safetensors beside the weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from rmft.errors import RunDirectoryError
from rmft.policies.checkpoint import OPTIMIZER
from rmft.training.sharding import gathered, like

SCALE = "scale"  # of the steps; see `rmft.training.schedule`


def state_of(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, torch.nn.Parameter], *, keep: bool = True
) -> dict[str, torch.Tensor]:
    """What `optimizer` keeps of each of the named parameters, as `gathered` gives it."""
    state = {
        f"{name}/{key}": value
        for name, parameter in parameters.items()
        for key, value in optimizer.state[parameter].items()
    }
    return gathered(state, keep=keep)


def save_optimizer(folder: Path, state: Mapping[str, torch.Tensor] | None = None, scale: float = 1.0) -> None:
    """Write what `state_of` gives, or an empty state."""
    found = dict(state or {})
    if scale != 1.0:
        found[SCALE] = torch.tensor(scale, dtype=torch.float64)
    (folder / OPTIMIZER).write_bytes(save(found))


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
            optimizer.state[of][key] = value if value.ndim == 0 else like(value, of)
    except (OSError, SafetensorError, KeyError) as error:
        raise RunDirectoryError(f"'{path}' is missing or damaged: {error}") from None
    return scale
