"""The machine's own limit, which speeds are set beside."""

from __future__ import annotations

import time

import torch


def matmul_rate() -> float:
    """FLOP/s of a 2048^3 fp32 matrix product: the best of 5."""
    a, b = torch.rand(2048, 2048), torch.rand(2048, 2048)
    seconds = []
    for _ in range(6):
        begun = time.perf_counter()
        a @ b
        seconds.append(time.perf_counter() - begun)
    return 2 * 2048**3 / min(seconds[1:])
