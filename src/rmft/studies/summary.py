"""What the runs of a study came to together: from their evaluations to `rmft.study_results`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rmft import statistics
from rmft.errors import ConfigError
from rmft.files import write_atomically
from rmft.results import Evaluation, Interval, SeedResult
from rmft.rivals import optima
from rmft.run_directory import package_versions
from rmft.studies.folder import RESULTS, Evaluated, Job, StudyFolder, baselines_path
from rmft.studies.study import START
from rmft.study_results import EntryResult, EvaluationResult, PairResult, StudyResults
from rmft.types import FloatArray


@dataclass(frozen=True, slots=True)
class Seeds:
    """Regrets (S, n) of an entry by seed and problem; a baseline has no seeds, and S is 1."""

    seeds: tuple[int, ...]
    regrets: FloatArray

    def of(self, seeds: Sequence[int]) -> FloatArray:
        """(len(seeds), n) regrets of these seeds; a baseline's are the same for all."""
        if not self.seeds:
            return np.repeat(self.regrets, len(seeds), axis=0)
        return self.regrets[[self.seeds.index(seed) for seed in seeds]]


def summarize(folder: StudyFolder, failed: Mapping[str, str]) -> StudyResults:
    """Results of all that is there, written to the study's folder. Raises ConfigError for a damaged file."""
    results = StudyResults(
        name=folder.study.settings.name,
        confidence=statistics.CONFIDENCE,
        versions=package_versions(),
        evaluations=_corrected([_evaluation(folder, each) for each in folder.evaluations]),
        failed=dict(failed),
    )
    write_atomically(folder.path / RESULTS, (results.model_dump_json(indent=1) + "\n").encode())
    return results


def _evaluation(folder: StudyFolder, evaluated: Evaluated) -> EvaluationResult:
    jobs = folder.jobs()
    batches = evaluated.suite.draw(evaluated.settings.part, evaluated.num_problems)
    sizes = [len(batch.indices) for batch in batches]
    known = optima(batches, lambda _: None)
    optimum = None
    if len(known) == len(batches):
        optimum = float(np.average([known[batch.setting.name] for batch in batches], weights=sizes))
    found: dict[str, Seeds] = {}
    starts: dict[str, Seeds] = {}
    entries = {}
    for name in filter(evaluated.plays, folder.study.entries):
        own = [job for job in jobs if job.entry == name]
        done = {job: _read(path) for job in own if (path := job.evaluation(evaluated)).exists()}
        if done:
            regrets = np.stack([_regrets(played, "best", evaluated) for played in done.values()])
            found[name] = Seeds(tuple(job.seed for job in done), regrets)
            for played in (played for job, played in done.items() if job.start):
                starts[name] = Seeds((), _regrets(played, START, evaluated)[None])
            entries[name] = _entry(found[name], starts.get(name), own, done, sizes, optimum)
    baselines = {}
    path = baselines_path(folder.path, evaluated)
    if evaluated.settings.baselines and path.exists():
        played = _read(path)
        for name, policy in zip(evaluated.settings.baselines, played.policies, strict=True):
            of_name = Seeds((), _regrets(played, policy, evaluated)[None])
            found[name] = of_name
            baselines[policy] = _mean(of_name, sizes)
        strength = {name: place for place, name in enumerate(played.rivals or ())}
        baselines = {
            name: baselines[name]
            for name in sorted(baselines, key=lambda name: strength.get(name, len(strength)))
        }
    pairs = []
    for first, second in folder.study.settings.pairs:
        one = starts.get(second) if first == START else found.get(first)
        other = starts.get(first) if second == START else found.get(second)
        if one and other:
            pairs.append(_pair(first, second, one, other, sizes))
    return EvaluationResult(
        suite=evaluated.suite.name,
        part=evaluated.settings.part,
        num_problems=sum(sizes),
        optimum=optimum,
        entries=entries,
        baselines=baselines,
        pairs=[pair for pair in pairs if pair is not None],
    )


def _read(path: Path) -> Evaluation:
    try:
        return Evaluation.model_validate_json(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"'{path}' is damaged: {reason:.200}. Remove it, and 'rmft study' plays it again."
        ) from None


def _regrets(played: Evaluation, policy: str, evaluated: Evaluated) -> FloatArray:
    """(n,) a policy's regret on every problem, setting by setting."""
    parts = [setting.policies[policy].problem_regrets for setting in played.settings.values()]
    if any(part is None for part in parts):
        raise ConfigError(
            f"The evaluation on {evaluated.suite.name} holds no regrets by problem, since it has too many "
            "problems. Give fewer with num_problems."
        )
    return np.concatenate([np.asarray(part) for part in parts])


def _entry(
    found: Seeds,
    start: Seeds | None,
    own: Sequence[Job],
    done: Mapping[Job, Evaluation],
    sizes: list[int],
    optimum: float | None,
) -> EntryResult:
    by_seed = statistics.bootstrap(found.regrets.T, lambda each: each, 0, sizes)
    fails = [played.overall["best"].measures["suff_fail_freq"].mean for played in done.values()]
    share = None
    if start and optimum is not None:
        values = np.stack([start.of(found.seeds), found.regrets], axis=-1)
        share = statistics.over_seeds(
            values, lambda m: statistics.ratio(m[..., 0] - m[..., 1], m[..., 0] - optimum), 0, sizes
        ).interval()
    minutes, tokens = zip(*(_spent(job.path) for job in done), strict=True)
    return EntryResult(
        regret=_mean(found, sizes),
        seeds=[
            SeedResult(seed=seed, regret=by_seed.interval(place)) for place, seed in enumerate(found.seeds)
        ],
        missing=[job.seed for job in own if job not in done],
        start=_mean(start, sizes) if start else None,
        share=share,
        suff_fail_freq=statistics.defined(np.mean([np.nan if fail is None else fail for fail in fails])),
        b0=_exponent("best", done.values()),
        start_b0=_exponent(START, [played for job, played in done.items() if job.start]),
        minutes=float(np.mean(minutes)),
        tokens=float(np.mean(tokens)) if any(tokens) else None,
    )


def _mean(found: Seeds, sizes: list[int]) -> Interval:
    return statistics.over_seeds(found.regrets, lambda each: each, 0, sizes).interval()


def _exponent(policy: str, evaluations: Iterable[Evaluation]) -> float | None:
    """Mean of b0 over settings and seeds."""
    checks = (
        setting.policies[policy].regression_check
        for played in evaluations
        for setting in played.settings.values()
    )
    known = [check.b0 for check in checks if check is not None and check.b0 is not None]
    return float(np.mean(known)) if known else None


def _spent(run: Path) -> tuple[float, float]:
    """Minutes and tokens of a run's training."""
    seconds = tokens = 0.0
    for line in (run / "timings.jsonl").read_text("utf-8").splitlines():
        seconds += sum(value for value in json.loads(line).values() if isinstance(value, float))
    for line in (run / "metrics.jsonl").read_text("utf-8").splitlines():
        tokens += json.loads(line).get("train", {}).get("tokens", 0.0)
    return seconds / 60, tokens


def _pair(first: str, second: str, a: Seeds, b: Seeds, sizes: list[int]) -> PairResult | None:
    """None where the two share no seed."""
    seeds = [seed for seed in a.seeds or b.seeds if not b.seeds or seed in b.seeds] or [0] * (not a.seeds)
    if not seeds:
        return None
    values = np.stack([a.of(seeds), b.of(seeds)], axis=-1)
    difference = statistics.over_seeds(values, lambda means: means[..., 0] - means[..., 1], 0, sizes)
    ratio = statistics.over_seeds(
        values, lambda means: statistics.ratio(means[..., 0], means[..., 1]), 0, sizes
    )
    return PairResult(
        first=first,
        second=second,
        num_seeds=len(seeds),
        difference=difference.interval(),
        ratio=ratio.interval(),
        p_value=difference.p_value(),
        p_holm=None,
    )


def _corrected(found: list[EvaluationResult]) -> list[EvaluationResult]:
    """With p-values corrected for all pairs of all evaluations."""
    known = [pair.p_value for each in found for pair in each.pairs if pair.p_value is not None]
    adjusted = iter(statistics.holm(known))
    return [
        each.model_copy(
            update={
                "pairs": [
                    pair if pair.p_value is None else pair.model_copy(update={"p_holm": next(adjusted)})
                    for pair in each.pairs
                ]
            }
        )
        for each in found
    ]
