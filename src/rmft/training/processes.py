"""One training step in several processes, one for each GPU: started here, as `accelerate launch` would."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch.multiprocessing.spawn import spawn

from rmft.errors import TrainingError

Work = Callable[[Path, Path], dict[str, float]]
"""What every process does, each its part, with the folder of a policy and that of the next: the first process
writes it, and figures are the same in all. It has to be known to new processes."""

Launch = Callable[[int, Work, Path, Path], dict[str, float]]
"""Starts so many processes that do the work with these folders. Raises TrainingError as the work does."""


def inside() -> bool:
    """Whether this is one of several processes already, started here, by torchrun or by accelerate."""
    return "LOCAL_RANK" in os.environ


def in_processes(count: int, work: Work, source: Path, target: Path) -> dict[str, float]:
    """Implements `Launch` on this machine."""
    with socket.socket() as free, TemporaryDirectory() as folder:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        result, threads = Path(folder) / "figures.json", max(1, torch.get_num_threads() // count)
        spawn(_process, (count, port, threads, result, partial(work, source, target)), nprocs=count)  # type: ignore[no-untyped-call]
        found = json.loads(result.read_text("utf-8"))
    if "error" in found:
        raise TrainingError(found["error"])
    return {name: float(value) for name, value in found.items()}


def _process(
    rank: int, count: int, port: int, threads: int, result: Path, work: Callable[[], dict[str, float]]
) -> None:
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": str(threads),
    }
    torch.set_num_threads(threads)
    try:
        found: dict[str, float | str] = dict(work())
    except TrainingError as error:  # which all of them raise
        found = {"error": str(error)}
    if rank == 0:
        result.write_text(json.dumps(found), "utf-8")
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
