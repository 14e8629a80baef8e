"""Known algorithms as policies, all in numpy, all over a whole batch at a time."""

from rmft.policies.baselines.catalogue import (
    GRIDS,
    Description,
    baseline_names,
    baselines_for,
    describe,
    make_baseline,
)
from rmft.policies.baselines.reference import Oracle
from rmft.policies.baselines.tuning import tune

__all__ = [
    "GRIDS",
    "Description",
    "Oracle",
    "baseline_names",
    "baselines_for",
    "describe",
    "make_baseline",
    "tune",
]
