"""What policies played, problem by problem -> measures, differences and their intervals."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy

import rmft
from rmft import statistics
from rmft.evaluation.measures import (
    INDICATORS,
    MEASURES,
    OF_GAMES,
    RECORDED,
    late_round,
    regression_check,
    reported,
    trend_check,
)
from rmft.problems.suites import ProblemBatch
from rmft.records.lines import five_digits
from rmft.regret import curve
from rmft.results import (
    Comparison,
    Curve,
    Evaluation,
    Histogram,
    PolicyResult,
    RegressionResult,
    SeedResult,
    SettingResult,
    TrendResult,
)
from rmft.types import FloatArray, IntArray

MAX_REGRETS = 100_000  # numbers kept per problem; of the first policies, as many as have room
REGRET = MEASURES.index("regret")
START = "start"
"""The policy from whose regret the way to the optimum is measured."""


@dataclass(frozen=True, slots=True)
class Played:
    """What one policy did in one setting: per problem, means over its rollouts.

    measures: (B, m), in the order of `recorded_in`. curves: (B, T). counts, edges: the histogram of
    best-arm pulls.
    """

    measures: FloatArray
    curves: FloatArray
    counts: IntArray
    edges: FloatArray


PlayedBy = Mapping[str, Sequence[Played]]
"""By policy, what it did in a setting: once, or once for every training seed."""


def recorded_in(batches: Sequence[ProblemBatch]) -> tuple[str, ...]:
    """The names of what is measured of play in any of these batches."""
    games = any(batch.table.other is not None for batch in batches)
    return (*RECORDED, *OF_GAMES) if games else RECORDED


def evaluation_of(
    batches: Sequence[ProblemBatch],
    played: Sequence[PlayedBy],
    num_rollouts: int,
    seed: int,
    *,
    suite: str = "",
    part: str = "",
    seeds: Sequence[int] | None = None,
    trained: Collection[str] = (),
    optima: Mapping[str, float] | None = None,
) -> Evaluation:
    """The evaluation that comes of what was played in each of the batches.

    seeds: the training seeds; None where they do not matter. trained: the policies that were trained with
    them, which have played once for each, in that order. seed is that of the policies' luck and of the
    bootstrap. optima: the expected regret of optimal play, by setting, where it is known.
    """
    problems = sum(len(batch.indices) for batch in batches)
    known, measures = optima or {}, (*MEASURES, *recorded_in(batches)[len(RECORDED) :])
    with_regrets = list(played[0])[: MAX_REGRETS // problems]
    measured = [
        np.stack([_by_seed(each, "measures", seeds) for each in one.values()], axis=2) for one in played
    ]

    def compared(
        values: FloatArray, optimum: float | None, sizes: Sequence[int] | None = None
    ) -> dict[str, Comparison]:
        found = _compare(list(played[0]), measures, values, seed, sizes, optimum)
        return found if seeds is None else _with_seeds(found, values, seed, sizes, seeds, trained)

    settings, comparisons = {}, {}
    for batch, one, values in zip(batches, played, measured, strict=True):
        name = batch.setting.name
        comparisons = compared(values, known.get(name))
        result = _setting_result(batch, comparisons, one, seed, seeds, with_regrets)
        settings[name] = result.model_copy(update={"optimum": known.get(name)})
    sizes = [len(batch.indices) for batch in batches]
    optimum = None
    if known.keys() >= settings.keys():
        optimum = float(np.average([known[name] for name in settings], weights=sizes))
    if len(settings) > 1:
        comparisons = compared(np.concatenate(measured, axis=1), optimum, sizes)
    return Evaluation(
        suite=suite,
        part=part,
        num_problems=problems,
        num_rollouts=num_rollouts,
        seed=seed,
        confidence=statistics.CONFIDENCE,
        versions={
            "rmft": rmft.__version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "scipy": scipy.__version__,
        },
        fingerprint=fingerprint(batches),
        optimum=optimum,
        settings=settings,
        overall=comparisons,
    )


def fingerprint(batches: Sequence[ProblemBatch]) -> str:
    """32 hexadecimal digits of all that makes these problems what they are, but no names.

    Rules, the kind of regret, the environment or the opponent, reward tables, the seeds of words and the
    arms' names where they have some, in order. Evaluations with the same can be paired, problem by problem,
    whichever suite they name.
    """
    digest = hashlib.sha256()
    for batch in batches:
        setting, rules = batch.setting, batch.setting.rules
        facts = (rules.feedback, rules.horizon, rules.num_arms, rules.reward_range, batch.words.contexts)
        played_in = setting.environment or setting.opponent
        about = json.dumps([*facts, setting.regret_kind, played_in, batch.indices.tolist()])
        digest.update(about.encode())
        other = batch.table.other
        hidden = () if other is None else (other.payoffs, other.seeds)
        for array in (batch.words.seeds, batch.table.rewards, batch.table.expected_rewards, *hidden):
            digest.update(np.ascontiguousarray(array).tobytes())
        if batch.words.names is not None:
            digest.update(json.dumps(batch.words.names.tolist()).encode())
    return digest.hexdigest()[:32]


def _by_seed(played: Sequence[Played], name: str, seeds: Sequence[int] | None) -> FloatArray:
    """(S, n, ...) of a policy, repeated along S where it was played once; S is 1 without seeds."""
    arrays = np.stack([np.asarray(getattr(each, name)) for each in played])
    return np.broadcast_to(arrays, (len(seeds or [0]), *arrays.shape[1:]))


def _compare(
    names: list[str],
    measures: Sequence[str],
    values: FloatArray,
    seed: int,
    sizes: Sequence[int] | None,
    optimum: float | None,
) -> dict[str, Comparison]:
    """Every policy against every other, from per-problem means (S, n, P, m) of the measures.

    sizes: the numbers of problems of several settings. optimum: the expected regret of optimal play.
    """
    means = statistics.over_seeds(values, reported, seed, sizes)

    def differ(each: FloatArray) -> FloatArray:
        found = reported(each)
        return np.asarray(found[..., :, None, :] - found[..., None, :, :])

    differences = statistics.over_seeds(values, differ, seed, sizes)
    ratios = statistics.over_seeds(
        values[..., REGRET],
        lambda each: statistics.ratio(each[..., :, None], each[..., None, :]),
        seed,
        sizes,
    )
    shares = None
    if optimum is not None and START in names:
        start = names.index(START)
        shares = statistics.over_seeds(
            values[..., REGRET],
            lambda each: statistics.ratio(each[..., start, None] - each, each[..., start, None] - optimum),
            seed,
            sizes,
        )
    per_problem = values.mean(axis=0)
    return {
        name: Comparison(
            measures={
                measure: statistics.of_share(means.interval(i, m), per_problem[:, i, m])
                if measure in INDICATORS
                else means.interval(i, m)
                for m, measure in enumerate(measures)
            },
            paired_difference={
                other: {measure: differences.interval(i, j, m) for m, measure in enumerate(measures)}
                for j, other in enumerate(names)
                if i != j
            },
            relative_regret={other: ratios.interval(i, j) for j, other in enumerate(names) if i != j},
            share_to_optimum=shares.interval(i) if shares and name != START else None,
        )
        for i, name in enumerate(names)
    }


def _with_seeds(
    comparisons: dict[str, Comparison],
    values: FloatArray,
    seed: int,
    sizes: Sequence[int] | None,
    seeds: Sequence[int],
    trained: Collection[str],
) -> dict[str, Comparison]:
    """`_compare`'s, and of policies that have training seeds what each seed's came to."""
    regrets = statistics.bootstrap(np.moveaxis(values[..., REGRET], 0, -1), lambda each: each, seed, sizes)
    return {
        name: comparison.model_copy(
            update={
                "seeds": [
                    SeedResult(seed=number, regret=regrets.interval(place, s))
                    for s, number in enumerate(seeds)
                ]
            }
        )
        if name in trained
        else comparison
        for place, (name, comparison) in enumerate(comparisons.items())
    }


def _setting_result(
    batch: ProblemBatch,
    comparisons: dict[str, Comparison],
    played: PlayedBy,
    seed: int,
    seeds: Sequence[int] | None,
    with_regrets: Sequence[str],
) -> SettingResult:
    rules = batch.setting.rules
    curves = np.stack([_by_seed(each, "curves", seeds) for each in played.values()], axis=2)
    mean = curves.mean(axis=(0, 1))
    low, high = _bands(curves, seed)
    trend, regression = trend_check(mean), _regression(curves, seed)
    policies = {
        name: PolicyResult(
            measures=comparison.measures,
            paired_difference=comparison.paired_difference,
            relative_regret=comparison.relative_regret,
            seeds=comparison.seeds,
            share_to_optimum=comparison.share_to_optimum,
            trend_check=TrendResult(s=int(trend.s[i]), p_trend=float(trend.p_trend[i])),
            regression_check=regression[i],
            regret_curve=Curve(
                mean=mean[i].tolist(),
                low=[statistics.defined(value) for value in low[i]],
                high=[statistics.defined(value) for value in high[i]],
            ),
            best_arm_pulls=Histogram(
                counts=np.sum([each.counts for each in played[name]], axis=0).tolist(),
                edges=played[name][0].edges.tolist(),
            ),
            problem_regrets=five_digits(np.mean([each.measures[:, REGRET] for each in played[name]], axis=0))
            if name in with_regrets
            else None,
        )
        for i, (name, comparison) in enumerate(comparisons.items())
    }
    return SettingResult(
        feedback=rules.feedback,
        horizon=rules.horizon,
        num_arms=rules.num_arms,
        regret=batch.setting.regret_kind,
        num_problems=len(batch.indices),
        policies=policies,
        uniform_check=_uniform_check(batch, seed),
    )


def _regression(curves: FloatArray, seed: int) -> list[RegressionResult]:
    """The regression check of every policy, from curves (S, n, P, T)."""
    late = late_round(curves.shape[-1])
    found = regression_check(curves.mean(axis=(0, 1)))
    exponents = statistics.over_seeds(curves, lambda means: regression_check(means).b0, seed)
    later = statistics.over_seeds(curves, lambda means: regression_check(means, late).b0, seed)
    return [
        RegressionResult(
            b0=statistics.defined(found.b0[i]),
            p_reg=statistics.defined(found.p_reg[i]),
            floored=int(found.floored[i]),
            b0_below_1=statistics.exponent_test(exponents, i),
            b0_late=later.interval(i),
        )
        for i in range(curves.shape[2])
    ]


def _uniform_check(batch: ProblemBatch, seed: int) -> RegressionResult | None:
    """The regression check of uniform play on these problems, from its expected regret.

    None where rewards depend on what is played.
    """
    if batch.setting.adapts:
        return None
    rewards = batch.table.rewards
    played = np.broadcast_to(1 / rewards.shape[-1], rewards.shape)
    (found,) = _regression(curve(batch.table, played, batch.setting.regret_kind)[None, :, None], seed)
    return found


def _bands(curves: FloatArray, seed: int) -> tuple[FloatArray, FloatArray]:
    """low and high (P, T) of curves (S, n, P, T), some rounds at a time to keep the resamples small."""
    num_policies, horizon = curves.shape[2:]
    width = max(1, 2_500 // num_policies)
    blocks = [
        statistics.over_seeds(curves[..., start : start + width], lambda means: means, seed)
        for start in range(0, horizon, width)
    ]
    low, high = (
        np.concatenate(ends, axis=1) for ends in zip(*((b.low, b.high) for b in blocks), strict=True)
    )
    return low, high
