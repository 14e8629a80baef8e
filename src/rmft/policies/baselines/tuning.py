"""Parameters from a small grid, chosen by regret on problems that are not the reported ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from rmft.errors import ConfigError
from rmft.policies.baselines.catalogue import (
    CATALOGUE,
    GRIDS,
    TUNED,
    baseline_names,
    describe,
    make_baseline,
    parse_spec,
    spec_of,
)
from rmft.problems.environment import Game
from rmft.regret import RegretKind, regret
from rmft.rollout import rollout
from rmft.streams import Streams
from rmft.types import RewardTable

WIDENINGS = 3
"""How often a grid is widened at most where what is chosen lies on its border."""

Problems = list[tuple[Game, RewardTable, RegretKind]]


def mean_regret(spec: str, problems: Problems, seed: int) -> float:
    """The mean regret of one rollout of every problem, in units of reward; problems count equally."""
    regrets = []
    for number, (play, table, kind) in enumerate(problems):
        streams = Streams.at(seed, [(number, row) for row in range(len(table.rewards))])
        policy = make_baseline(spec)
        regrets.append(regret(rollout(policy, play(table, policy), streams), kind))
    return float(np.concatenate(regrets).mean())


def tune(name: str, problems: Problems, seed: int, say: Callable[[str], None] = lambda _: None) -> str:
    """The spec of the grid of `name` whose mean regret over the problems is lowest; the first of equals.

    name: with or without `tuned:`. problems: how they are played, tables (B, T, K) and the kind of regret,
    from the training or validation part of a suite, never the held-out. Every spec plays the same tables with
    the same streams. Where rewards have no range, parameters in units of reward are multiples of their
    `noise_std`. Where the chosen parameters lie on the border of the grid, it is widened there, up to
    `WIDENINGS` times while that lowers regret, and `say` is told. A baseline without parameters to tune is
    its own answer. Raises UnknownNameError, and ConfigError without problems or when the baseline does not
    suit them.
    """
    name = name.removeprefix(TUNED)
    if name not in baseline_names() or name not in GRIDS:
        return describe(name).name
    if not problems or not any(len(table.rewards) for _, table, _ in problems):
        raise ConfigError(f"Tuning '{name}' needs at least one problem to play; found none.")
    regrets = {spec: mean_regret(spec, problems, seed) for spec in grid_of(name, noise_std(problems))}
    chosen = min(regrets, key=regrets.__getitem__)
    for _ in range(WIDENINGS):
        wider = [spec for spec in beyond(chosen, regrets) if spec not in regrets]
        if not wider:
            return chosen
        regrets |= {spec: mean_regret(spec, problems, seed) for spec in wider}
        border, chosen = chosen, min(regrets, key=regrets.__getitem__)
        found = "regret is not lower there" if chosen == border else f"regret is lower at {chosen}"
        say(f"{border} lies on the border of its grid; tried beyond: {', '.join(wider)}; {found}")
        if chosen == border:
            return chosen
    if list(beyond(chosen, regrets)):
        say(f"{chosen} lies on the border of its grid still, widened {WIDENINGS} times")
    return chosen


def grid_of(name: str, scale: float = 1.0) -> tuple[str, ...]:
    """The specs that tuning tries; parameters in units of reward are multiplied by `scale`."""
    if scale == 1:
        return GRIDS[name]
    stretched = []
    for spec in GRIDS[name]:
        values = parse_spec(spec)[1]
        for key in CATALOGUE[name].in_noise:
            value = values[key]
            values[key] = value * scale if isinstance(value, float) else value
        stretched.append(spec_of(name, values))
    return tuple(stretched)


def noise_std(problems: Problems) -> float:
    """The standard deviation of rewards around their means, to two digits; 1 where all have a finite range.

    Around each arm's average where the means are not known, and the rewards stand for them.
    """
    unbounded = [table for game, table, _ in problems if not np.isfinite(game.rules.reward_range).all()]
    if not unbounded:
        return 1.0
    variances = []
    for table in unbounded:
        around = (table.rewards - table.expected_rewards) ** 2
        if not around.any():
            around = table.rewards.var(axis=1, ddof=1 if table.rewards.shape[1] > 1 else 0)
        variances.append(around.mean())
    return float(f"{np.sqrt(np.mean(variances)):.2g}") or 1.0


def beyond(chosen: str, specs: Iterable[str]) -> Iterator[str]:
    """Of every number of `chosen` that is the largest or least in `specs`, `chosen` with one beyond it.

    The next number in the ratio of the last two or, where the baseline refuses that, in the ratio of their
    distances from 1. None beyond 0, which is an end by itself, and none that the baseline refuses.
    """
    name, values = parse_spec(chosen)
    tried = [parse_spec(spec)[1] for spec in specs]
    for key, value in values.items():
        if not isinstance(value, float) or value == 0:
            continue
        others = sorted({number for each in tried if isinstance(number := each.get(key), float)} - {value})
        if not others or others[0] < value < others[-1]:
            continue
        last = others[0] if value < others[0] else others[-1]
        for number in _after(last, value):
            spec = spec_of(name, {**values, key: number})
            if _is_valid(spec):
                yield spec
                break


def _after(last: float, value: float) -> Iterator[float]:
    """What may follow `value`, after `last`, to two digits."""
    if last:
        yield float(f"{value * value / last:.2g}")
    else:
        yield 2 * value
    if value != 1 != last:
        yield 1 - float(f"{(1 - value) ** 2 / (1 - last):.2g}")


def _is_valid(spec: str) -> bool:
    try:
        make_baseline(spec)
    except ConfigError:
        return False
    return True
