"""`rmft doctor`: what a bug report needs to know of a machine, and what is missing there. No keys."""

from __future__ import annotations

import os
import platform
import re
import sys
import timeit
from collections.abc import Iterator
from importlib.metadata import requires
from typing import TYPE_CHECKING

from rmft import __version__
from rmft.models.catalogue import MODELS, cache_folder, own_models
from rmft.run_directory import package_versions

if TYPE_CHECKING:
    import torch

REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9._-]+).*extra == ['\"](?P<extra>[a-z]+)['\"]")

PRODUCT = 1024  # rows of the matrices that are multiplied to see how fast a processor is


def examine() -> Iterator[tuple[str, str]]:
    """What was looked at, and what was found there, in pairs."""
    yield "rmft", __version__
    yield "Python", f"{platform.python_version()} ({platform.python_implementation()}), {sys.executable}"
    yield "system", f"{platform.system()} {platform.release()} {platform.machine()}, {os.cpu_count()} cores"
    yield from _torch()
    for extra, packages in sorted(_extras().items()):
        found = package_versions(packages)
        missing = [name for name in packages if name not in found]
        lacks = f"lacks {', '.join(missing)}: pip install 'rmft[{extra}]'" if missing else ""
        there = ", ".join(f"{name} {number}" for name, number in found.items())
        yield f"extra {extra}", "; ".join(filter(None, (there, lacks)))
    yield "models", f"in {cache_folder()}"
    for name, model in MODELS.items():
        yield f"model {name}", "there" if model.present else f"not there: rmft models add {name}"
    for name in own_models():
        yield f"model {name}", "there, added by you"


def _torch() -> Iterator[tuple[str, str]]:
    try:
        import torch
    except ImportError as error:
        yield "torch", f"not there: {error}"
        return
    cuda = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    devices = cuda + (["Apple GPU (mps)"] if torch.backends.mps.is_available() else [])
    yield "torch", f"{torch.__version__}, {torch.get_num_threads()} threads, {', '.join(devices) or 'no GPU'}"
    precisions = torch.float32, torch.bfloat16
    single, half = (_product_rate(torch.ones(PRODUCT, PRODUCT, dtype=each)) for each in precisions)
    found = (
        f"matrix products of {single / 1e9:,.0f} GFLOP/s in float32, {half / single:.1f}x that in bfloat16"
    )
    pays = "pays" if half > 1.5 * single else "only saves memory"
    yield "processor", f"{found}: policy.precision bfloat16 {pays} for language models here"


def _product_rate(factor: torch.Tensor) -> float:
    """FLOP/s of its product with itself: the best of 4."""
    return 2 * len(factor) ** 3 / min(timeit.repeat(lambda: factor @ factor, number=1, repeat=4))


def _extras() -> dict[str, list[str]]:
    """The packages that every extra asks for, but for those that are for working on rmft itself."""
    found: dict[str, list[str]] = {}
    for line in requires("rmft") or ():
        if (match := REQUIREMENT.fullmatch(line.strip())) and match["extra"] != "dev":
            found.setdefault(match["extra"], []).append(match["name"])
    return {extra: [name for name in names if name != "rmft"] for extra, names in found.items()}
