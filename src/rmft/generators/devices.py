"""Where a model's arithmetic is done, and how precisely, by what this machine has."""

from __future__ import annotations

from typing import Literal

import torch

from rmft.errors import ConfigError


def find_device(name: str) -> torch.device:
    """`auto`: a GPU where there is one. Raises ConfigError for a device that is not there."""
    found = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device("cuda" if found["cuda"] else "mps" if found["mps"] else "cpu")
    if not found.get(name.partition(":")[0], False):
        there = ", ".join(kind for kind, is_there in found.items() if is_there)
        raise ConfigError(
            f"device is '{name}', but torch finds none here. Set it to auto, or to one of: {there}."
        )
    return torch.device(name)


def find_precision(device: str) -> Literal["float32", "bfloat16"]:
    """`bfloat16` where the device multiplies it by instructions of its own, which is a multiple as fast.

    device: see `find_device`.
    """
    place = find_device(device)
    if place.type == "cpu":
        can = torch.cpu.get_capabilities()
        fast = any(can.get(name, False) for name in ("amx_bf16", "avx512_bf16"))
    else:
        fast = place.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bfloat16" if fast else "float32"
