"""How often the intervals of an evaluation hold the truth, on synthetic results whose truth is known.

    python benchmarks/interval_coverage.py [--repeats 200]

Prints, for every kind of interval, the share of repeats in which it held the true value and its mean width.
All are 95% intervals. Where another method is shown beside ours, it says why ours is another one: settings
that are pooled as if drawn at random, the bootstrap of a rare share, and over training seeds the percentile
bootstrap that resamples problems anew within each seed. One to two minutes on one core.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
from rich.console import Console
from rich.table import Table

from rmft.evaluation.statistics import Interval, interval, over_seeds, paired_difference, share

Ends = tuple[float, float]
Draw = np.random.Generator


def ends(found: Interval) -> Ends:
    assert found.low is not None
    assert found.high is not None
    return found.low, found.high


def regrets(draw: Draw, size: int) -> np.ndarray:
    """(size,) skewed like regret: gamma with mean 2 and standard deviation 2."""
    return draw.gamma(1.0, 2.0, size)


def mean_regret(size: int) -> Callable[[Draw], dict[str, Ends]]:
    return lambda draw: {"": ends(interval(regrets(draw, size)))}


def difference(size: int) -> Callable[[Draw], dict[str, Ends]]:
    def of(draw: Draw) -> dict[str, Ends]:
        problem = regrets(draw, size)
        ours, theirs = (problem * draw.uniform(0.5, 1.5, size) for _ in range(2))
        return {"": ends(paired_difference(ours, theirs))}

    return of


def rare_share(size: int, truth: float) -> Callable[[Draw], dict[str, Ends]]:
    def of(draw: Draw) -> dict[str, Ends]:
        seen = (draw.random(size) < truth).astype(float)
        return {"": ends(share(seen)), "bootstrap": ends(interval(seen))}

    return of


SETTINGS = (-9.4, 5.1, 3.1)  # mean regret in each of a mixture's settings


def mixture(size: int) -> Callable[[Draw], dict[str, Ends]]:
    """Settings of regrets as far apart as those of full information and bandits."""

    def of(draw: Draw) -> dict[str, Ends]:
        values = np.concatenate([draw.normal(mean, 2.0, size) for mean in SETTINGS])
        sizes = [size] * len(SETTINGS)
        return {"": ends(interval(values, settings=sizes)), "one setting": ends(interval(values))}

    return of


def seeds(count: int, size: int, spread: float) -> Callable[[Draw], dict[str, Ends]]:
    """Seeds x problems: what a seed adds, what a problem adds, and the luck of each pair."""

    def of(draw: Draw) -> dict[str, Ends]:
        values = draw.normal(0, spread, (count, 1)) + regrets(draw, size) + draw.normal(0, 1, (count, size))
        within = percentiles(nested(values, draw))
        return {"": ends(over_seeds(values, lambda means: means).interval()), "nested percentile": within}

    return of


def nested(values: np.ndarray, draw: Draw, resamples: int = 2_000) -> np.ndarray:
    """(resamples,) means of seeds drawn again, and of problems drawn anew within each of them."""
    count, size = values.shape
    counts = draw.multinomial(size, np.full(size, 1 / size), (count, resamples))
    means = np.einsum("srn,sn->rs", counts, values) / size
    chosen = draw.integers(count, size=(resamples, count))
    return np.take_along_axis(means, chosen, axis=1).mean(axis=1)


def percentiles(replicates: np.ndarray) -> Ends:
    low, high = np.quantile(replicates, [0.025, 0.975])
    return float(low), float(high)


CASES: dict[str, tuple[float, Callable[[Draw], dict[str, Ends]]]] = {
    "mean regret, 100 problems": (2.0, mean_regret(100)),
    "mean regret, 300 problems": (2.0, mean_regret(300)),
    "paired difference, 300 problems": (0.0, difference(300)),
    "SuffFailFreq .04, 50 problems": (0.04, rare_share(50, 0.04)),
    "SuffFailFreq .04, 300 problems": (0.04, rare_share(300, 0.04)),
    "SuffFailFreq .01, 50 problems": (0.01, rare_share(50, 0.01)),
    "SuffFailFreq .01, 300 problems": (0.01, rare_share(300, 0.01)),
    "three settings, 100 problems each": (float(np.mean(SETTINGS)), mixture(100)),
    "3 seeds that differ by .3, 300 problems": (2.0, seeds(3, 300, 0.3)),
    "3 seeds that are alike, 300 problems": (2.0, seeds(3, 300, 0.0)),
    "5 seeds that differ by .3, 300 problems": (2.0, seeds(5, 300, 0.3)),
    "10 seeds that differ by .3, 300 problems": (2.0, seeds(10, 300, 0.3)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=200)
    repeats = parser.parse_args().repeats
    table = Table("interval", "covers", "mean width", "instead", "covers", "mean width")
    for number, (name, (truth, draw_ends)) in enumerate(CASES.items()):
        draw = np.random.default_rng([0, number])
        found: dict[str, list[Ends]] = {}
        for _ in range(repeats):
            for method, each in draw_ends(draw).items():
                found.setdefault(method, []).append(each)
        cells = []
        for method, each in found.items():
            low, high = np.array(each).T
            covers = f"{np.mean((low <= truth) & (truth <= high)):.1%}"
            cells += [*([method] if method else []), covers, f"{np.mean(high - low):.3f}"]
        table.add_row(name, *cells)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
