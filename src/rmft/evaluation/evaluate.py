"""Play every policy on the same problems with the same luck, and compare them."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import scipy

import rmft
from rmft.errors import ConfigError
from rmft.evaluation import statistics
from rmft.evaluation.measures import MEASURES, histogram, measure, regression_check, trend_check
from rmft.problems.suites import ProblemBatch
from rmft.records.lines import five_digits
from rmft.regret import regret_curve
from rmft.results import (
    Comparison,
    Curve,
    Evaluation,
    Histogram,
    PolicyResult,
    RegressionResult,
    SettingResult,
    TrendResult,
    check_name,
)
from rmft.rollout import MakePolicy, rollout_in_pieces
from rmft.types import FloatArray, IntArray, Trajectories

Keep = Callable[[str, ProblemBatch, IntArray, IntArray, Trajectories], None]
"""Told of everything that is played: the policy, the batch, for each row its problem's place in the batch and
its number among that problem's rollouts, and the trajectories."""

MAX_REGRETS = 100_000  # numbers kept per problem; of the first policies, as many as have room
PLAYING = 0xE7A1  # the path of the policies' random numbers, apart from those that tables are drawn from


def evaluate(
    policies: Mapping[str, MakePolicy],
    batches: Sequence[ProblemBatch],
    num_rollouts: int,
    seed: int,
    progress: Callable[[str], None] | None = None,
    *,
    suite: str = "",
    part: str = "",
    keep: Keep | None = None,
) -> Evaluation:
    """Every policy plays `num_rollouts` rollouts of every problem, on the same tables.

    Rollout l of a problem draws from the same stream whichever policy plays it. `progress` is told
    in words what is played next; suite and part are names to record; `keep` is given what was
    played. Kept in memory: 8 bytes x policies x problems x (T + 9), and while playing about 300 MB more.
    Raises ConfigError when there is nothing to play, a setting is given twice or a name can't be printed.
    """
    names = [batch.setting.name for batch in batches]
    if not policies or not names or num_rollouts < 1 or not all(len(batch.indices) for batch in batches):
        raise ConfigError(
            f"An evaluation needs a policy, a problem in every setting and a rollout; found {len(policies)} "
            f"policies, {[len(batch.indices) for batch in batches]} problems and {num_rollouts} rollouts."
        )
    if len(set(names)) < len(names):
        raise ConfigError(f"Settings need names of their own; found {names}.")
    try:
        for name in (*policies, *names, suite, part):
            check_name(name)
    except ValueError as error:
        raise ConfigError(f"A policy, setting, suite or part has a wrong name: {error}.") from None
    settings, pooled = {}, []
    with_regrets = list(policies)[: MAX_REGRETS // sum(len(batch.indices) for batch in batches)]
    for number, batch in enumerate(batches):
        played = []
        for turn, (name, make_policy) in enumerate(policies.items(), start=1):
            if progress is not None:
                progress(f"{batch.setting.name}: {name} ({turn} of {len(policies)})")
            kept = None if keep is None else partial(keep, name, batch)
            played.append(_play(make_policy, batch, number, num_rollouts, seed, kept))
        per_problem = np.stack([each.measures for each in played], axis=1)
        comparisons = _compare(list(policies), per_problem, seed)
        settings[batch.setting.name] = _setting_result(batch, comparisons, played, seed, with_regrets)
        pooled.append(per_problem)
    overall = comparisons if len(settings) == 1 else _compare(list(policies), np.concatenate(pooled), seed)
    return Evaluation(
        suite=suite,
        part=part,
        num_problems=sum(len(batch.indices) for batch in batches),
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
        settings=settings,
        overall=overall,
    )


def fingerprint(batches: Sequence[ProblemBatch]) -> str:
    """32 hexadecimal digits of all that makes these problems what they are, but no names.

    Rules, the kind of regret, the environment, reward tables and the seeds of words, in order. Evaluations
    with the same can be paired, problem by problem, whichever suite they name.
    """
    digest = hashlib.sha256()
    for batch in batches:
        setting, rules = batch.setting, batch.setting.rules
        facts = (rules.feedback, rules.horizon, rules.num_arms, rules.reward_range, rules.contexts)
        about = json.dumps([*facts, setting.regret_kind, setting.environment, batch.indices.tolist()])
        digest.update(about.encode())
        for array in (batch.word_seeds, batch.table.rewards, batch.table.expected_rewards):
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class _Played:
    """What one policy did in one setting: per problem, means over its rollouts.

    measures: (B, len(MEASURES)). curves: (B, T). counts, edges: the histogram of best-arm pulls.
    """

    measures: FloatArray
    curves: FloatArray
    counts: IntArray
    edges: FloatArray


def _play(
    make_policy: MakePolicy,
    batch: ProblemBatch,
    setting_number: int,
    num_rollouts: int,
    seed: int,
    keep: Callable[[IntArray, IntArray, Trajectories], None] | None,
) -> _Played:
    setting, rules = batch.setting, batch.setting.rules
    num_problems, horizon = len(batch.indices), rules.horizon
    measures = np.zeros((num_problems, len(MEASURES)))
    curves = np.zeros((num_problems, horizon))
    counts, edges = histogram(np.zeros(0), horizon)
    rows = np.arange(num_problems * num_rollouts) // num_rollouts
    paths = [
        (PLAYING, setting_number, problem, turn)
        for problem in batch.indices.tolist()
        for turn in range(num_rollouts)
    ]
    done = 0
    for trajectories in rollout_in_pieces(
        make_policy, setting.play, rules, batch.table, batch.word_seeds, rows, seed, paths
    ):
        problems = rows[done : done + len(trajectories)]
        if keep is not None:
            keep(problems, np.arange(done, done + len(trajectories)) % num_rollouts, trajectories)
        done += len(trajectories)
        measured = measure(trajectories, setting.regret_kind)
        np.add.at(measures, problems, np.stack([measured[name] for name in MEASURES], axis=1))
        np.add.at(curves, problems, regret_curve(trajectories, setting.regret_kind))
        counts += histogram(horizon * measured["best_arm_freq"], horizon)[0]
    return _Played(measures / num_rollouts, curves / num_rollouts, counts, edges)


def _compare(names: list[str], per_problem: FloatArray, seed: int) -> dict[str, Comparison]:
    """Every policy against every other, from per-problem means (n, P, len(MEASURES))."""
    regret = MEASURES.index("regret")
    means = statistics.bootstrap(per_problem, lambda each: each, seed)
    differences = statistics.bootstrap(
        per_problem, lambda each: each[..., :, None, :] - each[..., None, :, :], seed
    )
    ratios = statistics.bootstrap(
        per_problem[..., regret], lambda each: statistics.ratio(each[..., :, None], each[..., None, :]), seed
    )
    return {
        name: Comparison(
            measures={measure: means.interval(i, m) for m, measure in enumerate(MEASURES)},
            paired_difference={
                other: {measure: differences.interval(i, j, m) for m, measure in enumerate(MEASURES)}
                for j, other in enumerate(names)
                if i != j
            },
            relative_regret={other: ratios.interval(i, j) for j, other in enumerate(names) if i != j},
        )
        for i, name in enumerate(names)
    }


def _setting_result(
    batch: ProblemBatch,
    comparisons: dict[str, Comparison],
    played: list[_Played],
    seed: int,
    with_regrets: Sequence[str],
) -> SettingResult:
    rules = batch.setting.rules
    curves = np.stack([each.curves for each in played], axis=1)
    mean = curves.mean(axis=0)
    low, high = _bands(curves, seed)
    exponents = statistics.bootstrap(curves, lambda means: regression_check(means).b0, seed)
    trend, regression = trend_check(mean), regression_check(mean)
    policies = {
        name: PolicyResult(
            measures=comparison.measures,
            paired_difference=comparison.paired_difference,
            relative_regret=comparison.relative_regret,
            trend_check=TrendResult(s=int(trend.s[i]), p_trend=float(trend.p_trend[i])),
            regression_check=RegressionResult(
                b0=statistics.defined(regression.b0[i]),
                p_reg=statistics.defined(regression.p_reg[i]),
                floored=int(regression.floored[i]),
                b0_below_1=statistics.exponent_test(exponents, i),
            ),
            regret_curve=Curve(
                mean=mean[i].tolist(),
                low=[statistics.defined(value) for value in low[i]],
                high=[statistics.defined(value) for value in high[i]],
            ),
            best_arm_pulls=Histogram(counts=played[i].counts.tolist(), edges=played[i].edges.tolist()),
            problem_regrets=five_digits(played[i].measures[:, MEASURES.index("regret")])
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
    )


def _bands(curves: FloatArray, seed: int) -> tuple[FloatArray, FloatArray]:
    """low and high (P, T) of curves (n, P, T), some rounds at a time to keep the resamples small."""
    num_policies, horizon = curves.shape[1:]
    width = max(1, 2_500 // num_policies)
    blocks = [
        statistics.bootstrap(curves[..., start : start + width], lambda means: means, seed)
        for start in range(0, horizon, width)
    ]
    low, high = (
        np.concatenate(ends, axis=1) for ends in zip(*((b.low, b.high) for b in blocks), strict=True)
    )
    return low, high
