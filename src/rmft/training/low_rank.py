"""Linear layers with low-rank adapters by one large matrix product each way, where PEFT takes several passes.

y = x (W + s B A)': the sum of weights is made on the fly, at the cost of a few rows of x, forward and again
backward, and nothing but x is kept. The adapter's gradients are s B' dy' x and s dy' x A'. Only in float32
on a processor: in fewer bits a small adapter would be lost beside W.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn


class _LowRank(torch.autograd.Function):
    """x: (..., in); weight: (out, in), frozen; down: (rank, in); up: (out, rank); bias: (out,) or None."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, scale: float
    ) -> Tensor:
        ctx.save_for_backward(x, weight, down, up)
        ctx.scale = scale
        return nn.functional.linear(x, torch.addmm(weight, up, down, alpha=scale), bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, down, up = ctx.saved_tensors
        flat_x, flat = x.flatten(0, -2), gradients[0].flatten(0, -2)
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = (flat @ torch.addmm(weight, up, down, alpha=ctx.scale)).view_as(x)
        of_down = ctx.scale * ((flat @ up).t() @ flat_x)
        of_up = ctx.scale * (flat.t() @ (flat_x @ down.t()))
        return of_x, None, None, of_down, of_up, None


def fuse(model: nn.Module) -> int:
    """Let every adapted layer of `model` that allows it compute like this; says how many did."""
    fused = 0
    for module in model.modules():
        if isinstance(module, LoraLinear) and _allows(module):
            module.forward = _forward(module)  # type: ignore[method-assign]
            fused += 1
    return fused


def _allows(module: LoraLinear) -> bool:
    weight = module.get_base_layer().weight
    return (
        isinstance(module.get_base_layer(), nn.Linear)
        and weight.dtype == torch.float32
        and weight.device.type == "cpu"
        and not weight.requires_grad
        and list(module.lora_A) == ["default"]
        and not module.lora_variant
        and isinstance(module.lora_dropout["default"], nn.Identity)
    )


def _forward(module: LoraLinear) -> Any:
    base, down, up = module.get_base_layer(), module.lora_A["default"], module.lora_B["default"]
    scale = float(module.scaling["default"])

    def forward(x: Tensor) -> Tensor:
        y: Tensor = _LowRank.apply(  # type: ignore[no-untyped-call]
            x, base.weight, base.bias, down.weight, up.weight, scale
        )
        return y

    return forward
