"""Iterative RMFT: one iteration after another, each kept in the run's directory before the next begins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rmft.errors import TrainingError
from rmft.evaluation.conversations import told_of
from rmft.evaluation.findings import best_iteration, describe_end, describe_training
from rmft.evaluation.measures import INDICATORS, measure
from rmft.improve import Backend, Clock, improve, rollouts_of, seed_of
from rmft.own_code import keep
from rmft.problems.suites import ProblemBatch, Suite
from rmft.records.arrays import to_arrays
from rmft.records.batch import RecordedBatch
from rmft.records.lines import lines
from rmft.rollout import Player, peak_memory_gb
from rmft.run_directory import RunDirectory
from rmft.statistics import interval, of_share
from rmft.tracking.follow import followed
from rmft.types import FloatArray, PolicyRef, TrainingBatch

VALIDATED = ("regret", "suff_fail_freq", "k_min_frac", "entropy", "failed")
VALIDATION_SEED = 0  # every iteration and every run is judged with the same luck

Suites = dict[str, Suite]
"""Those of a run by the names that its config has for them."""


@dataclass
class Outcome:
    """How a run ended: "finished", "stopped" (patience ran out) or "collapsed"."""

    status: str
    best_iteration: int
    findings: list[str] = field(default_factory=list)


def iterate(
    run: RunDirectory,
    suites: Suites,
    backend: Backend,
    on_iteration: Callable[[dict[str, Any]], None],
    on_step: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Do what is owed of a run, from wherever it stands, and write its result.

    suites: those that the run and its stages name. `on_iteration` is called with the metrics of every
    iteration when it is committed, `on_step` with what is done next, in words. Training that diverges ends
    the run as collapsed, with the best iteration before it as the result.
    """
    with followed(run.path, run.config.tracking) as tell:

        def and_tell(metrics: dict[str, Any]) -> None:
            tell()
            on_iteration(metrics)

        return _iterate(run, suites, backend, and_tell, on_step)


def _iterate(
    run: RunDirectory,
    suites: Suites,
    backend: Backend,
    on_iteration: Callable[[dict[str, Any]], None],
    on_step: Callable[[str], None],
) -> Outcome:
    run.check()
    run.discard_unfinished()
    suite = suites[run.config.suite]
    history = run.metrics()
    if not history:
        for number, each in enumerate(suites.values()):
            keep(each.own_files(), run.own_code(number))
        on_step("validating the start")
        policy = backend.start(run.staged_checkpoint(0), seed_of(run.config.seed, 0))
        with_validation = {"iteration": 0, "validation": validate(backend, policy, suite, run)}
        run.commit(with_validation, {}, {})
        history.append(with_validation)
        on_iteration(with_validation)
    status = "finished"
    for iteration in range(len(history), run.config.iterations + 1):
        if _patience_is_out(history, run.config.validation.patience):
            status = "stopped"
            break
        try:
            metrics = _one_iteration(run, suites, backend, iteration, on_step)
        except TrainingError as error:
            run.discard_unfinished()
            outcome = Outcome("collapsed", best_iteration(history), [f"In iteration {iteration}: {error}"])
            _finish(run, outcome, history)
            return outcome
        history.append(metrics)
        _prune(run, history)
        on_iteration(metrics)
    outcome = Outcome(status, best_iteration(history))
    _finish(run, outcome, history)
    return outcome


def _one_iteration(
    run: RunDirectory, suites: Suites, backend: Backend, iteration: int, on_step: Callable[[str], None]
) -> dict[str, Any]:
    """One iteration of the stage that it belongs to, committed."""
    config = run.config
    stage, progress = config.stage_of(iteration)
    policy, made = improve(
        run.policy(iteration - 1),
        backend,
        suites[stage.suite].draw("train", stage.rollout.num_problems, config.seed, iteration),
        stage,
        run.staged_checkpoint(iteration),
        iteration=iteration,
        seed=config.seed,
        progress=progress,
        start=run.policy(0),
        on_step=on_step,
    )
    everything = made.problems, made.batches, made.regrets
    metrics = {"iteration": iteration, **describe_training(*everything), "train": made.figures}
    record = recorded(*everything)
    clock = Clock()
    if config.validates(iteration):
        on_step("validating")
        with clock("evaluate"):
            metrics["validation"] = validate(backend, policy, suites[config.suite], run)
    spent = made.seconds | clock.seconds | {"memory": {"peak_gb": round(peak_memory_gb(), 3)}}
    run.commit(metrics, spent, to_arrays(record), lines(record))
    return metrics


def validate(backend: Backend, policy: PolicyRef, suite: Suite, run: RunDirectory) -> dict[str, Any]:
    """Measures on the validation part, the same problems and luck every time, with 95% intervals."""
    player = Player(policy)
    parts: dict[str, list[FloatArray]] = {name: [] for name in VALIDATED}
    problems = suite.draw("validation", run.config.validation.num_problems)
    sizes = [len(batch.indices) for batch in problems]
    for number, batch in enumerate(problems):
        paths = [(number, int(problem)) for problem in batch.indices]
        for trajectories in backend.play(player, rollouts_of(batch, 1, VALIDATION_SEED, paths)):
            measured = measure(trajectories, batch.setting.regret_kind)
            for name in VALIDATED:
                parts[name].append(measured[name])
    found = {}
    for name, values in parts.items():
        together = np.concatenate(values)
        mean = interval(together, settings=sizes)
        found[name] = (of_share(mean, together) if name in INDICATORS else mean).model_dump()
    return found


def recorded(
    problems: Sequence[ProblemBatch], batches: Sequence[TrainingBatch], regrets: Sequence[FloatArray]
) -> list[RecordedBatch]:
    """The record of an iteration. Rows of a batch are in the order of its problems."""
    record = []
    for problem, learned, regret in zip(problems, batches, regrets, strict=True):
        rollout = np.arange(len(regret)) % (len(regret) // len(problem.indices))
        told = told_of(learned.trajectories.histories)
        setting = problem.setting
        record.append(RecordedBatch(setting.name, setting.regret_kind, learned, rollout, regret, told))
    return record


def _patience_is_out(history: list[dict[str, Any]], patience: int | None) -> bool:
    if patience is None:
        return False
    best = best_iteration(history)
    return sum("validation" in metrics for metrics in history if metrics["iteration"] > best) >= patience


def _prune(run: RunDirectory, history: list[dict[str, Any]]) -> None:
    newest = len(history) - 1
    run.prune({0, best_iteration(history), newest - 1, newest})


def _finish(run: RunDirectory, outcome: Outcome, history: list[dict[str, Any]]) -> None:
    _prune(run, history)
    outcome.findings += describe_end(history, outcome.best_iteration)
    run.write_json("result.json", {
        "status": outcome.status,
        "best_iteration": outcome.best_iteration,
        "findings": outcome.findings,
    })  # fmt: skip
