"""Parameters from a small grid, chosen by regret on problems that are not the reported ones."""

from __future__ import annotations

import numpy as np

from rmft.errors import ConfigError
from rmft.policies.baselines.catalogue import GRIDS, TUNED, baseline_names, describe, make_baseline
from rmft.problems.environment import TableEnvironment
from rmft.regret import RegretKind, regret
from rmft.rollout import rollout
from rmft.streams import Streams
from rmft.types import RewardTable, Rules


def mean_regret(spec: str, problems: list[tuple[Rules, RewardTable, RegretKind]], seed: int) -> float:
    """The mean regret of one rollout of every problem, in units of reward; problems count equally."""
    regrets = []
    for number, (rules, table, kind) in enumerate(problems):
        streams = Streams.at(seed, [(number, row) for row in range(len(table.rewards))])
        played = rollout(make_baseline(spec), TableEnvironment(rules, table), streams)
        regrets.append(regret(played, kind))
    return float(np.concatenate(regrets).mean())


def tune(name: str, problems: list[tuple[Rules, RewardTable, RegretKind]], seed: int) -> str:
    """The spec of the grid of `name` whose mean regret over the problems is lowest; the first of equals.

    name: with or without `tuned:`. problems: rules, tables (B, T, K) and the kind of regret, from the
    training or validation part of a suite, never the held-out. Every spec plays the same tables with
    the same streams. A baseline without parameters to tune is its own answer. Raises UnknownNameError,
    and ConfigError without problems or when the baseline does not suit them.
    """
    name = name.removeprefix(TUNED)
    if name not in baseline_names() or name not in GRIDS:
        return describe(name).name
    if not problems or not any(len(table.rewards) for _, table, _ in problems):
        raise ConfigError(f"Tuning '{name}' needs at least one problem to play; found none.")
    return min(GRIDS[name], key=lambda spec: mean_regret(spec, problems, seed))
