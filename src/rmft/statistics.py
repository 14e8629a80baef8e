"""How sure a mean is: bootstrap intervals that cluster by problem and training seed, differences, tests.

The problem is the cluster. Rollouts of one problem share its luck, so they are averaged first and
whole problems are resampled. Policies compared on the same tables are resampled together, so that a
difference keeps the pairing. Settings are fixed, so that problems are resampled within each. All intervals
are two-sided at `CONFIDENCE`, from scipy.stats.bootstrap. A measure that is the same on every problem seen
has an interval of no width: the bootstrap cannot know of what was never seen. A share of problems has an
exact binomial interval instead (`share`). Where there is one problem only there is no interval.

Results of several training seeds are clustered by seed and by problem (`over_seeds`).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from rmft.errors import ShapeError
from rmft.results import ExponentTest, Interval
from rmft.streams import generator
from rmft.types import FloatArray

CONFIDENCE = 0.95
RESAMPLES = 2_000
BCA_UP_TO = 200  # problems: above it the bias correction is small, and its jackknife slow
BOOTSTRAP = 0xB007  # the path of the bootstrap's own random numbers
SEEDS = 1  # below it, the path of those that resample training seeds


@dataclass(frozen=True, slots=True)
class Bootstrapped:
    """estimate, low, high: (*q). replicates: (*q, RESAMPLES). NaN where undefined.

    degrees: (*q) degrees of freedom of the replicates' variance, infinite where it comes of problems alone.
    """

    estimate: FloatArray
    low: FloatArray
    high: FloatArray
    replicates: FloatArray
    degrees: FloatArray

    def interval(self, *index: int) -> Interval:
        """The interval of the statistic at `index`."""
        return Interval(
            mean=defined(self.estimate[index]), low=defined(self.low[index]), high=defined(self.high[index])
        )

    def p_value(self, *index: int) -> float | None:
        """Two-sided, of the statistic at `index` being 0: Student's t of estimate and replicates' spread."""
        estimate, spread = self.estimate[index], self.replicates[index].std()
        if not (np.isfinite(estimate) and np.isfinite(spread)):
            return None
        if spread <= 1e-12 * max(1.0, abs(estimate)):
            return float(abs(estimate) <= 1e-12)
        return float(2 * stats.t.sf(abs(estimate) / spread, self.degrees[index]))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values of several comparisons, so that the chance of any false one stays below the level.

    Source: Holm (1979), A simple sequentially rejective multiple test procedure.
    """
    order = np.argsort(p_values, kind="stable")
    factors = len(order) - np.arange(len(order))
    adjusted = np.minimum(np.maximum.accumulate(factors * np.asarray(p_values)[order]), 1.0)
    return [float(each) for each in adjusted[np.argsort(order, kind="stable")]]


def bootstrap(
    values: FloatArray,
    statistic: Callable[[FloatArray], FloatArray],
    seed: int = 0,
    settings: Sequence[int] | None = None,
) -> Bootstrapped:
    """Cluster bootstrap of statistics of the means over n problems.

    values: (n, *m), one entry per problem. statistic: means (..., *m) to statistics (..., *q). settings: how
    many problems, one after the other, are of each setting, at least 2; each setting's are resampled among
    themselves, so that what differs between settings is no noise. None: all are of one. One set of resampled
    problems serves all m, the same for every call with the same settings and seed, so that differences are
    paired. BCa intervals up to 200 problems, percentile above; none where a setting has one problem. Raises
    ShapeError when there is no problem, or the settings do not add up.
    Source: Efron and Tibshirani (1993), An Introduction to the Bootstrap, ch. 8, 13 and 14.
    """
    if values.ndim == 0 or not len(values):
        raise ShapeError(f"Values have shape {values.shape}; expected (num_problems >= 1, ...).")
    num_problems = len(values)
    sizes = [num_problems] if settings is None else list(settings)
    if sum(sizes) != num_problems or min(sizes) < 1:
        raise ShapeError(f"Settings of {sizes} problems do not add up to the {num_problems} that there are.")
    estimate = np.asarray(statistic(values.mean(axis=0)))
    if min(sizes) == 1:
        unknown = np.full(estimate.shape, np.nan)
        drawn = np.full((*estimate.shape, RESAMPLES), np.nan)
        return Bootstrapped(estimate, unknown, unknown, drawn, np.full(estimate.shape, np.inf))
    parts = np.split(values, np.cumsum(sizes)[:-1])

    def of_problems(*problems: FloatArray, axis: int) -> FloatArray:  # noqa: ARG001, scipy asks for it
        means = [_means_over(rows, part) for rows, part in zip(problems, parts, strict=True)]
        weighed = [mean * (size / num_problems) for mean, size in zip(means, sizes, strict=True)]
        replicates = np.asarray(statistic(np.asarray(sum(weighed[1:], weighed[0]))))
        return replicates if problems[0].ndim == 1 else np.moveaxis(replicates, 0, -1)

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        result = stats.bootstrap(
            tuple(np.arange(size) for size in sizes),
            of_problems,
            n_resamples=RESAMPLES,
            batch=max(1, 2_000_000 // max(values.size // num_problems, num_problems)),
            confidence_level=CONFIDENCE,
            method="bca" if num_problems <= BCA_UP_TO else "percentile",
            rng=generator(seed, BOOTSTRAP),
        )
    replicates = result.bootstrap_distribution
    tail = (1 - CONFIDENCE) / 2
    plain = np.quantile(replicates, [tail, 1 - tail], axis=-1)
    ends = np.stack([result.confidence_interval.low, result.confidence_interval.high])
    ends = np.where(np.isfinite(ends), ends, plain)  # BCa is undefined where the data hardly vary
    constant = np.ptp(replicates, axis=-1) <= 1e-12 * np.maximum(1, np.abs(estimate))
    low, high = np.where(constant, estimate, ends)
    return Bootstrapped(estimate, low, high, replicates, np.full(estimate.shape, np.inf))


def over_seeds(
    values: FloatArray,
    statistic: Callable[[FloatArray], FloatArray],
    seed: int = 0,
    settings: Sequence[int] | None = None,
) -> Bootstrapped:
    """Bootstrap of statistics of the means over S training seeds and n problems, clustered by both.

    values: (S, n, *m), each seed's policy on the same problems; the rest is as for `bootstrap`, and so is the
    result where S is 1. What does not depend on the training seed, such as a baseline, is repeated along S.

    Seeds and problems are crossed: a hard problem is hard for every seed. So problems are resampled as in
    `bootstrap`, for all seeds together, and seeds are resampled apart from them; to resample problems anew
    within each seed would divide the variance between problems by S. With x the statistic of all and x_p, x_s
    those of resampled problems and of resampled seeds, a replicate is x_p + x_s - x, of variance
    V = V_p + V_s. S - 1 seeds are drawn, which makes V_s unbiased for a mean. A percentile interval cannot
    reach beyond the lowest and highest seed, and so covers at most 1 - 2^(1 - S) of the seeds' luck, .75 for
    3 seeds. Hence the interval is x -+ t sqrt(V), where t is Student's with the degrees of freedom
    V^2 / (V_s^2 / (S - 1) + V_p^2 / (n - 1)); where no seed differs from another it is that of `bootstrap`.
    Sources: Owen (2007), The pigeonhole bootstrap (crossed factors); McCarthy and Snowden (1985), The
    bootstrap and finite population sampling (S - 1 draws); Satterthwaite (1946) (degrees of freedom).
    """
    if values.ndim < 2 or not len(values):
        raise ShapeError(f"Values have shape {values.shape}; expected (num_seeds >= 1, num_problems, ...).")
    num_seeds, num_problems = values.shape[:2]
    of_problems = bootstrap(values.mean(axis=0), statistic, seed, settings)
    if num_seeds == 1:
        return of_problems
    draw = generator(seed, BOOTSTRAP, SEEDS)
    shares = draw.multinomial(num_seeds - 1, np.full(num_seeds, 1 / num_seeds), RESAMPLES) / (num_seeds - 1)
    drawn = statistic(np.tensordot(shares, values.mean(axis=1), axes=1))  # (RESAMPLES, *q)
    estimate, by_seed = of_problems.estimate, np.moveaxis(drawn, 0, -1)
    with np.errstate(all="ignore"):
        between_seeds, between_problems = by_seed.var(axis=-1), of_problems.replicates.var(axis=-1)
        total = between_seeds + between_problems
        scatter = between_seeds**2 / (num_seeds - 1) + between_problems**2 / (num_problems - 1)
        degrees = total**2 / scatter
        reach = stats.t.ppf((1 + CONFIDENCE) / 2, degrees) * np.sqrt(total)
        alike = np.ptp(by_seed, axis=-1) <= 1e-12 * np.maximum(1, np.abs(estimate))
    return Bootstrapped(
        estimate,
        np.where(alike, of_problems.low, estimate - reach),
        np.where(alike, of_problems.high, estimate + reach),
        of_problems.replicates + by_seed - estimate[..., None],
        np.where(alike, np.inf, degrees),
    )


def share(values: FloatArray) -> Interval:
    """The share of ones among values (n,) that are all 0 or 1, with the exact interval of a binomial share.

    It covers at least `CONFIDENCE`, also where few or none are 1, and where problems are of settings with
    shares of their own (Hoeffding 1956). No interval of one problem. Raises ShapeError for other values.
    Source: Clopper and Pearson (1934), The use of confidence or fiducial limits.
    """
    if not are_indicators(values):
        raise ShapeError("A share is of at least one value, each 0 or 1; found others.")
    size, ones = len(values), int(values.sum())
    tail = (1 - CONFIDENCE) / 2
    low = float(stats.beta.ppf(tail, ones, size - ones + 1)) if ones else 0.0
    high = float(stats.beta.ppf(1 - tail, ones + 1, size - ones)) if ones < size else 1.0
    known = size > 1
    return Interval(mean=ones / size, low=low if known else None, high=high if known else None)


def are_indicators(values: FloatArray) -> bool:
    """Whether values (n,) are all 0 or 1, and there is one."""
    return bool(values.ndim == 1 and len(values) and np.isin(values, (0.0, 1.0)).all())


def of_share(found: Interval, values: FloatArray) -> Interval:
    """The interval of a mean of indicators, from that of the bootstrap and the per-problem values (n,).

    `share` where each problem has 0 or 1; else, with several rollouts or training seeds, the bootstrap's
    within 0 and 1.
    """
    if are_indicators(values):
        return share(values)
    if found.low is None or found.high is None:
        return found
    return Interval(mean=found.mean, low=max(found.low, 0.0), high=min(found.high, 1.0))


def _means_over(problems: FloatArray, values: FloatArray) -> FloatArray:
    """(..., *m) means of values (n, *m) over the resampled problems (..., size), as one product."""
    num_problems, size = len(values), problems.shape[-1]
    rows = problems.reshape(-1, size).astype(np.int64)
    offsets = num_problems * np.arange(len(rows))[:, None]
    counts = np.bincount((rows + offsets).ravel(), minlength=num_problems * len(rows))
    means = counts.reshape(len(rows), num_problems) @ values.reshape(num_problems, -1) / size
    return np.asarray(means.reshape((*problems.shape[:-1], *values.shape[1:])))


def defined(value: float | np.floating) -> float | None:
    """The number, or None when it is NaN or infinite."""
    return float(value) if np.isfinite(value) else None


def per_problem(values: FloatArray) -> FloatArray:
    """(n,) means over rollouts of values (n,) or (n, num_rollouts)."""
    return np.asarray(values.mean(axis=1) if values.ndim == 2 else values, dtype=np.float64)


def interval(values: FloatArray, seed: int = 0, settings: Sequence[int] | None = None) -> Interval:
    """Mean of values (num_problems, num_rollouts), or of per-problem means (num_problems,).

    settings: as for `bootstrap`.
    """
    return bootstrap(per_problem(values), lambda means: means, seed, settings).interval()


def paired_difference(a: FloatArray, b: FloatArray, seed: int = 0) -> Interval:
    """Mean of a - b on the same problems, each (num_problems, num_rollouts) or (num_problems,).

    Below 0 means that a has less of it. Raises ShapeError when the numbers of problems differ.
    """
    return interval(_paired(a, b) @ np.array([1.0, -1.0]), seed)


def relative_regret(a: FloatArray, b: FloatArray, seed: int = 0) -> Interval:
    """Mean regret of a over mean regret of b on the same problems; 0.9 is 10% less.

    The ratio of means, not the mean of ratios. None where b's regret is not positive, and no
    interval where it is not in every resample. Shapes and errors as for `paired_difference`.
    """
    return bootstrap(_paired(a, b), lambda means: ratio(means[..., 0], means[..., 1]), seed).interval()


def ratio(a: FloatArray, b: FloatArray) -> FloatArray:
    """a / b, NaN where b is not positive."""
    a, b = np.broadcast_arrays(a, b)
    return np.asarray(np.divide(a, b, out=np.full(a.shape, np.nan), where=b > 1e-9))


def _paired(a: FloatArray, b: FloatArray) -> FloatArray:
    a, b = per_problem(a), per_problem(b)
    if a.shape != b.shape:
        raise ShapeError(f"A pair needs the same problems; found {len(a)} and {len(b)} of them.")
    return np.stack([a, b], axis=1)


def exponent_test(bootstrapped: Bootstrapped, *index: int) -> ExponentTest:
    """The test, when the statistic at `index` is the b0 of a mean curve."""
    replicates = bootstrapped.replicates[index]
    at_least_1 = (1 + (replicates >= 1 - 1e-9).sum()) / (1 + len(replicates))
    return ExponentTest(
        p_value=float(at_least_1) if np.isfinite(replicates).all() else None,
        low=defined(bootstrapped.low[index]),
        high=defined(bootstrapped.high[index]),
    )


def dominated_by(points: Mapping[str, tuple[float, float]]) -> dict[str, list[str]]:
    """For each policy's (regret, suff_fail_freq), who is no worse in both and better in one.

    Policies with an empty list are the frontier: none is better in both.
    """
    return {
        name: [
            other
            for other, theirs in points.items()
            if theirs[0] <= own[0] and theirs[1] <= own[1] and theirs != own
        ]
        for name, own in points.items()
    }
