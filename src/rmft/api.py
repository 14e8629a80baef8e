"""Training and evaluation in Python: what `rmft train` and `rmft evaluate` do, without their tables."""

from __future__ import annotations

import itertools
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

from rmft.commands import evaluate_target
from rmft.config import RunConfig, load_config, parse_config
from rmft.costs import check_budget
from rmft.errors import RunDirectoryError
from rmft.iteration import iterate
from rmft.problems.suites import as_data
from rmft.progress import TrainingProgress, rounds_of
from rmft.results import Evaluation
from rmft.rivals import best_baseline
from rmft.run_directory import RunDirectory
from rmft.wiring.backends import backend
from rmft.wiring.suites import load_suites


def train(
    config: str | Path | Mapping[str, Any],
    run_dir: str | Path | None = None,
    *,
    settings: Sequence[str] = (),
    trust_code: bool = False,
    progress: bool = False,
    on_iteration: Callable[[dict[str, Any]], None] = lambda _: None,
) -> Path:
    """Train a policy by Iterative RMFT and return the new directory that holds all of the run.

    config: a YAML file, a name of `rmft configs`, or its keys as a mapping (`rmft.config.RunConfig`).
    run_dir: where the run is kept, which must not exist yet; unless given, runs/NAME-TIME. settings:
    overrides, such as "rollout.num_rollouts=16". trust_code: whether classes that a run directory's suite
    names may be run. progress: whether to show how far the run is, in a notebook too. on_iteration: called
    with every iteration's line of metrics.jsonl, from 0, once it is kept. If the process is killed, `rmft
    resume` finishes the run. Raises ConfigError, UnknownNameError, RunDirectoryError and MissingExtraError
    before anything is played, of a paid model without a budget too, and of hosted models HostedError,
    BudgetError and TrainingJobError.
    """
    checked = (
        parse_config(config, list(settings))
        if isinstance(config, Mapping)
        else load_config(Path(config), list(settings))
    )
    check_budget(checked)
    suites = load_suites(checked, trust=trust_code)
    where = default_run_dir(checked) if run_dir is None else Path(run_dir)
    with (
        closing(backend(checked, suites, where)) as machinery,  # what is wrong so far leaves nothing behind
        closing(RunDirectory.create(where, checked, as_data(suites))) as run,
    ):
        yardstick = best_baseline(run, suites[checked.suite], run.log)
        rounds = rounds_of(checked, suites) // checked.iterations
        with TrainingProgress(checked.iterations, rounds, yardstick, log=run.log, shown=progress) as told:

            def both(metrics: dict[str, Any]) -> None:
                told.on_iteration(metrics)
                on_iteration(metrics)

            for line in iterate(run, suites, machinery, both, told.on_step).findings:
                run.log(line)
    return where


def default_run_dir(config: RunConfig) -> Path:
    """Where a run is kept unless its user says: runs/NAME-TIME-PROCESS, which no other run takes."""
    begun = Path("runs") / f"{config.name}-{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}"
    others = (begun.with_name(f"{begun.name}-{number}") for number in itertools.count(2))
    return next(each for each in itertools.chain([begun], others) if not os.path.lexists(each))


def evaluate(
    target: str | Path,
    suite: str | Path | None = None,
    *,
    against: Sequence[str] | None = None,
    part: str = "held_out",
    num_problems: int | None = None,
    num_rollouts: int = 1,
    seed: int = 0,
    opponent: str | Path | None = None,
    trust_code: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> Evaluation:
    """Play problems that were not trained on, and compare with others on the same reward tables.

    target: a run, a folder of seeds, a checkpoint's folder, or a baseline such as "ucb(coefficient=0.3)".
    suite: a named one or a YAML file; unless given, the run's own. against: rivals, "start" (the run
    before training), folders or baselines; unless given, the start and the suite's baselines. part:
    "held_out" or "validation". num_problems: at least 2; unless given, as many as the suite says.
    num_rollouts: of each problem. seed: of the policies' draws; the problems stay the same. opponent: who
    plays the other side of games, unless it is whom the suite names. progress: told what is played next.

    Returns every policy's measures with 95% intervals, which a run also keeps in its evaluation.json, or of
    another suite or other settings in a file beside it; see docs/evaluation-json.md. Raises ConfigError,
    UnknownNameError and RunDirectoryError before anything is played, and warns when the disk is full at the
    end.
    """
    named = None if suite is None else str(suite)
    rivals = None if against is None else list(against)
    arguments = (part, num_problems, num_rollouts, seed, progress, trust_code)
    other = None if opponent is None else str(opponent)
    result, keep = evaluate_target(str(target), named, rivals, *arguments, other)
    try:
        keep()
    except RunDirectoryError as error:
        warnings.warn(str(error), stacklevel=2)
    return result
