"""Weights, their gradients and the optimizer's state shared out over processes, by torch's FSDP2.

Every process holds a part of each tensor, and all of a layer only while the layer computes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def shard(model: torch.nn.Module, base: PreTrainedModel, device: torch.device) -> None:
    """Share `model` out over all processes, a layer at a time. base: the model beneath its adapters."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    layers = set(base._no_split_modules or ())
    for module in base.modules():
        if type(module).__name__ in layers:
            fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh)


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor, on the processor. Where it is shared out all processes have to ask for it."""
    full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    assert isinstance(full, Tensor)
    return full.detach().cpu().contiguous()


def gathered(tensors: Mapping[str, Tensor], *, keep: bool) -> dict[str, Tensor]:
    """All of each tensor, as `whole` gives it, in the process that keeps them; the others only take part."""
    found = {}
    for name, tensor in tensors.items():
        if keep:
            found[name] = whole(tensor)
        elif isinstance(tensor, DTensor):
            tensor.full_tensor()
    return found


def like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """A whole tensor where and as `parameter` is: this process's part, if that is shared out."""
    if isinstance(parameter, DTensor):
        there = tensor.to(parameter.device_mesh.device_type)
        return distribute_tensor(there, parameter.device_mesh, parameter.placements)
    return tensor.to(parameter.device)
