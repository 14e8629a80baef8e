"""How often the intervals of an evaluation hold the truth, and how often its test of b0 >= 1 rejects.

    python benchmarks/interval_coverage.py [--repeats 400] [--seed 0]

On synthetic results whose truth is known. The first table has, for every kind of interval, the share of
repeats in which it held the true value and its mean width; all are 95% intervals. Where another method is
shown beside ours, it says why ours is another one: settings that are pooled as if drawn at random, the
bootstrap of a rare share, and over training seeds the percentile bootstrap that resamples problems anew
within each seed. The second has the share of repeats in which p of b0 >= 1 is below .05, for policies that
learn nothing. Repeats share the bootstrap's draws of problems, which makes it quick: less than a minute.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
from rich.console import Console
from rich.table import Table

from rmft.evaluation.measures import regression_check
from rmft.regret import dynamic_regret_curve, pseudo_regret_curve, static_regret_curve
from rmft.statistics import Bootstrapped, bootstrap, exponent_test, over_seeds, share

Draw = np.random.Generator
Found = dict[str, tuple[np.ndarray, np.ndarray]]
"""By method, the ends of the interval of every repeat."""


def means(values: np.ndarray) -> np.ndarray:
    return values


def ends(found: Bootstrapped) -> tuple[np.ndarray, np.ndarray]:
    return found.low, found.high


def regrets(draw: Draw, *shape: int) -> np.ndarray:
    """Skewed like regret: gamma with mean 2 and standard deviation 2."""
    return draw.gamma(1.0, 2.0, shape)


def mean_regret(size: int) -> Callable[[Draw, int], Found]:
    return lambda draw, repeats: {"": ends(bootstrap(regrets(draw, size, repeats), means))}


def difference(draw: Draw, repeats: int) -> Found:
    """Of two policies on 300 problems, whose hardness both share."""
    problem = regrets(draw, 300, repeats)
    ours, theirs = (problem * draw.uniform(0.5, 1.5, problem.shape) for _ in range(2))
    return {"": ends(bootstrap(ours - theirs, means))}


def rare_share(size: int, truth: float) -> Callable[[Draw, int], Found]:
    def of(draw: Draw, repeats: int) -> Found:
        seen = (draw.random((size, repeats)) < truth).astype(float)
        exact = [share(column) for column in seen.T]
        low, high = (np.array([getattr(each, end) for each in exact]) for end in ("low", "high"))
        return {"": (low, high), "bootstrap": ends(bootstrap(seen, means))}

    return of


SETTINGS = (-9.4, 5.1, 3.1)  # mean regret in each of a mixture's settings


def mixture(draw: Draw, repeats: int) -> Found:
    """Settings of regrets as far apart as those of full information and bandits, 100 problems each."""
    values = np.concatenate([draw.normal(mean, 2.0, (100, repeats)) for mean in SETTINGS])
    stratified = bootstrap(values, means, settings=[100] * len(SETTINGS))
    return {"": ends(stratified), "one setting": ends(bootstrap(values, means))}


def seeds(count: int, spread: float) -> Callable[[Draw, int], Found]:
    """Seeds x 300 problems: what a seed adds, what a problem adds, and the luck of each pair."""

    def of(draw: Draw, repeats: int) -> Found:
        values = draw.normal(0, spread, (count, 1, repeats)) + regrets(draw, 300, repeats)
        values = values + draw.normal(0, 1, (count, 300, repeats))
        return {"": ends(over_seeds(values, means)), "nested percentile": nested(values, draw)}

    return of


def nested(values: np.ndarray, draw: Draw, resamples: int = 500) -> tuple[np.ndarray, np.ndarray]:
    """Percentiles over means of seeds drawn again, and of problems drawn anew within each of them."""
    count, size, _ = values.shape
    drawn = np.zeros((resamples, values.shape[2]))
    chosen = draw.integers(count, size=(resamples, count))
    problems = draw.multinomial(size, np.full(size, 1 / size), (resamples, count)) / (size * count)
    for seed in range(count):
        drawn += (problems * (chosen == seed)[..., None]).sum(axis=1) @ values[seed]
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    return low, high


COVERED: dict[str, tuple[float, Callable[[Draw, int], Found]]] = {
    "mean regret, 100 problems": (2.0, mean_regret(100)),
    "mean regret, 300 problems": (2.0, mean_regret(300)),
    "paired difference, 300 problems": (0.0, difference),
    "SuffFailFreq .04, 50 problems": (0.04, rare_share(50, 0.04)),
    "SuffFailFreq .04, 300 problems": (0.04, rare_share(300, 0.04)),
    "SuffFailFreq .01, 50 problems": (0.01, rare_share(50, 0.01)),
    "SuffFailFreq .01, 300 problems": (0.01, rare_share(300, 0.01)),
    "three settings, 100 problems each": (float(np.mean(SETTINGS)), mixture),
    "3 seeds that differ by .3, 300 problems": (2.0, seeds(3, 0.3)),
    "3 seeds that are alike, 300 problems": (2.0, seeds(3, 0.0)),
    "5 seeds that differ by .3, 300 problems": (2.0, seeds(5, 0.3)),
    "10 seeds that differ by .3, 300 problems": (2.0, seeds(10, 0.3)),
}

PROBLEMS, ROUNDS, ARMS = 100, 20, 3  # of an evaluation whose test is made


def rewards_of(kind: str, draw: Draw, repeats: int) -> tuple[np.ndarray, np.ndarray]:
    """Means and rewards (PROBLEMS, repeats, ROUNDS, ARMS)."""
    shape = (PROBLEMS, repeats, ROUNDS, ARMS)
    resting = (PROBLEMS, repeats, 1, ARMS)
    if kind.startswith("static"):
        means = np.broadcast_to(draw.normal(0, 0.5 if "unequal" in kind else 0, resting), shape)
        return means, draw.normal(means, 1.0)
    if kind.startswith("dynamic"):  # all drawn anew at two rounds
        of_stretch = draw.random((PROBLEMS, repeats, 3, ARMS))
        stretch = (np.arange(ROUNDS) >= draw.integers(1, ROUNDS, (PROBLEMS, repeats, 2, 1))).sum(axis=2)
        means = np.take_along_axis(of_stretch, stretch[..., None], axis=2)
    elif "gap" in kind:
        means = np.broadcast_to(np.where(draw.random(resting).argsort(axis=-1) == 0, 0.6, 0.4), shape)
    else:
        means = np.broadcast_to(draw.random(resting), shape)
    return means, means


def plays(means: np.ndarray, full: bool, draw: Draw) -> dict[str, np.ndarray]:
    """What each policy plays, of the shape of the means: one-hot, or distributions."""
    one = np.eye(ARMS)
    first = np.repeat(draw.integers(ARMS, size=means.shape[:2])[..., None], ROUNDS, axis=2)
    in_turn = np.where(np.arange(ROUNDS) < ARMS, (first + np.arange(ROUNDS)) % ARMS, first)
    uniform = np.full(means.shape, 1 / ARMS) if full else one[draw.integers(ARMS, size=means.shape[:-1])]
    return {
        "uniform": uniform,
        "always worst": one[means.argmin(axis=-1)],
        "one arm": one[first],
        "each once, then the first": one[in_turn],
    }


CURVES = {"pseudo": pseudo_regret_curve, "dynamic": dynamic_regret_curve, "static": static_regret_curve}
TESTED = (
    "pseudo, uniform means",
    "pseudo, one arm ahead by a gap of .2",
    "dynamic, means redrawn twice",
    "static, means equal",
    "static, means unequal",
)


def rejected(kind: str, draw: Draw, repeats: int) -> dict[str, float]:
    """The share of repeats with p < .05, by policy."""
    means, rewards = rewards_of(kind, draw, repeats)
    curve = CURVES[kind.partition(",")[0]]
    found = {}
    for policy, played in plays(means, kind.startswith("static"), draw).items():
        exponents = bootstrap(curve(rewards, played), lambda each: regression_check(each).b0)
        tests = [exponent_test(exponents, repeat) for repeat in range(repeats)]
        found[policy] = float(np.mean([test.p_value is not None and test.p_value < 0.05 for test in tests]))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    table = Table("interval", "covers", "mean width", "instead", "covers", "mean width")
    for number, (name, (truth, draw_ends)) in enumerate(COVERED.items()):
        cells = []
        for method, (low, high) in draw_ends(
            np.random.default_rng([given.seed, number]), given.repeats
        ).items():
            covers = f"{np.mean((low <= truth) & (truth <= high)):.1%}"
            cells += [*([method] if method else []), covers, f"{np.mean(high - low):.3f}"]
        table.add_row(name, *cells)
    console = Console(width=120)
    console.print(table)
    title = f"p of b0 >= 1 below .05: {PROBLEMS} problems, T = {ROUNDS}, K = {ARMS}"
    tests: Table | None = None
    for number, kind in enumerate(TESTED):
        found = rejected(kind, np.random.default_rng([given.seed, 100 + number]), given.repeats)
        tests = tests or Table("regret", *found, title=title)
        tests.add_row(kind, *(f"{share_of:.1%}" for share_of in found.values()))
    console.print(tests)


if __name__ == "__main__":
    main()
