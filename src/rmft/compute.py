"""Where rollouts are played: in this process, or by workers on a Ray cluster."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from rmft.reading import Config, by_kind


class LocalCompute(Config):
    """In this process."""

    kind: Literal["local"] = "local"


class RayCompute(Config):
    """By workers on a Ray cluster (`rmft.cluster`); this process draws problems, and trains."""

    kind: Literal["ray"] = "ray"
    address: str = "auto"
    """`auto`: the cluster that this machine is part of; `local`: one on this machine for as long as the run
    lasts; or host:port of a cluster's head."""
    workers: Annotated[int, Field(ge=1, le=10_000)] = 2
    gpus_per_worker: Annotated[float, Field(ge=0, le=64)] = 0.0
    rows: Annotated[int, Field(ge=1, le=100_000)] = 256
    """Rollouts that are handed out together, of whole problems."""


ComputeConfig = Annotated[
    LocalCompute | RayCompute,
    by_kind("compute", "local", LocalCompute, RayCompute),
]
"""Where rollouts are played; `kind` is `local` unless given."""
