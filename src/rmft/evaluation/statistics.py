"""How sure a mean is: cluster-bootstrap intervals over problems, paired differences, and tests.

The problem is the cluster. Rollouts of one problem share its luck, so they are averaged first and
whole problems are resampled. Policies compared on the same tables are resampled together, so that a
difference keeps the pairing. All intervals are two-sided at `CONFIDENCE`, from scipy.stats.bootstrap.
A measure that is the same on every problem seen has an interval of no width: the bootstrap cannot
know of what was never seen. Where there is one problem only there is no interval.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy import stats

from rmft.errors import ShapeError
from rmft.evaluation.measures import regression_check
from rmft.results import ExponentTest, Interval
from rmft.streams import generator
from rmft.types import FloatArray

CONFIDENCE = 0.95
RESAMPLES = 2_000
BCA_UP_TO = 200  # problems: above it the bias correction is small, and its jackknife slow
BOOTSTRAP = 0xB007  # the path of the bootstrap's own random numbers


@dataclass(frozen=True, slots=True)
class Bootstrapped:
    """estimate, low, high: (*q). replicates: (*q, RESAMPLES). NaN where undefined."""

    estimate: FloatArray
    low: FloatArray
    high: FloatArray
    replicates: FloatArray

    def interval(self, *index: int) -> Interval:
        """The interval of the statistic at `index`."""
        return Interval(
            mean=defined(self.estimate[index]), low=defined(self.low[index]), high=defined(self.high[index])
        )


def bootstrap(
    values: FloatArray, statistic: Callable[[FloatArray], FloatArray], seed: int = 0
) -> Bootstrapped:
    """Cluster bootstrap of statistics of the means over n problems.

    values: (n, *m), one entry per problem. statistic: means (..., *m) to statistics (..., *q). One set
    of resampled problems serves all m, the same for every call with the same n and seed, so that
    differences are paired. BCa intervals up to 200 problems, percentile above. Raises ShapeError
    when there is no problem.
    Source: Efron and Tibshirani (1993), An Introduction to the Bootstrap, ch. 13-14.
    """
    if values.ndim == 0 or not len(values):
        raise ShapeError(f"Values have shape {values.shape}; expected (num_problems >= 1, ...).")
    num_problems = len(values)
    estimate = np.asarray(statistic(values.mean(axis=0)))
    if num_problems == 1:
        unknown = np.full(estimate.shape, np.nan)
        return Bootstrapped(estimate, unknown, unknown, np.full((*estimate.shape, RESAMPLES), np.nan))

    def of_problems(problems: FloatArray, axis: int) -> FloatArray:  # noqa: ARG001, scipy asks for it
        replicates = np.asarray(statistic(_means_over(problems, values)))
        return replicates if problems.ndim == 1 else np.moveaxis(replicates, 0, -1)

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        result = stats.bootstrap(
            (np.arange(num_problems),),
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
    return Bootstrapped(estimate, low, high, replicates)


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


def interval(values: FloatArray, seed: int = 0) -> Interval:
    """Mean of values (num_problems, num_rollouts), or of per-problem means (num_problems,)."""
    return bootstrap(per_problem(values), lambda means: means, seed).interval()


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


def exponent_below_1(curves: FloatArray, seed: int = 0) -> ExponentTest:
    """One-sided test of H0: b0 >= 1 against b0 < 1, for the exponent of the *mean* regret curve.

    curves: (num_problems, T), each problem's mean over its rollouts. Problems are resampled and b0 is
    fitted to the mean curve of each resample; the p-value is the share of resamples with b0 >= 1, so
    a small one says that regret grows sublinearly.

    Why the mean curve: one trajectory's log R_t starts at a few lucky or unlucky rounds, which have
    most leverage in a fit on log t, and its points are sums of one another, so that residuals are
    anything but independent. Fitted to single trajectories whose regret is linear, b0 < 1 comes out
    in about half of them, and p_reg is tiny in nearly all. And why not this test alone: static regret
    under noise has a part that grows as sqrt(t) whatever is played, so that uniform play passes too
    where gaps are small. Compare with uniform play as well.
    """
    return exponent_test(bootstrap(curves, lambda means: regression_check(means).b0, seed))


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
