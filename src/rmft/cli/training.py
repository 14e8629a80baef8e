"""How `rmft train` and `rmft resume` do what is owed of a run: progress, how it ended, how it was stopped."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from rmft.cli.app import say
from rmft.config import RunConfig
from rmft.errors import BudgetError, HostedError, RmftError, RunDirectoryError, TrainingJobError, command
from rmft.problems.suites import Suite
from rmft.run_directory import RunDirectory
from rmft.seeds import COLLAPSED, Experiment

if TYPE_CHECKING:
    from rmft.hosting import HostedBackend
    from rmft.iteration import Outcome
    from rmft.wiring.backends import FolderBackend


def train_run(
    run: RunDirectory,
    suites: dict[str, Suite],
    machinery: FolderBackend | HostedBackend,
    of: str | None = None,
) -> Outcome:
    """Do what is owed of a run, tell of it and of its end. of: what it is called among several."""
    from rmft.iteration import iterate
    from rmft.progress import TrainingProgress, rounds_of
    from rmft.rivals import best_baseline

    config: RunConfig = run.config
    suite = suites[config.suite]
    tell = teller(run)
    try:
        tell(f"{run.path}: {suite.title}, {config.iterations} iterations")
        if changes := run.changes():
            tell(f"Not as when the run began, so results may differ: {'; '.join(changes)}.")
        yardstick = best_baseline(run, suite, tell)
        rounds = rounds_of(config, suites) // config.iterations
        before = run.metrics()
        with TrainingProgress(config.iterations, rounds, yardstick, of, before, log=run.log) as progress:
            machinery.say = progress.on_step
            outcome = iterate(run, suites, machinery, progress.on_iteration, progress.on_step)
    except (Exception, KeyboardInterrupt) as error:
        run.log(f"Stopped by {type(error).__name__}: {error}")
        if isinstance(error, RmftError) or not isinstance(error, OSError):
            raise
        raise RunDirectoryError(
            f"Can't write to '{run.path}': {error.strerror or error}. What was finished is kept; "
            f"make room or mend its permissions, then go on with: {command('resume', run.path)}"
        ) from None
    for line in outcome.findings:
        run.log(line)
        print(line if of is None else f"{of}: {line}")
    return outcome


def teller(run: RunDirectory) -> Callable[[str], None]:
    """What says a line, and keeps it in the run's log."""

    def tell(text: str) -> None:
        say(text)
        run.log(text)

    return tell


def ended(outcome: Outcome, path: Path) -> None:
    say(f"Next: {command('evaluate', path)}")
    if outcome.status == "collapsed":
        raise typer.Exit(1)


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Around training: what stops it from without is told with the way to go on.

    SIGTERM, by which batch systems end a job, does what Ctrl-C does.
    """
    code = 130

    def terminated(*_: object) -> None:
        nonlocal code
        code = 143
        raise KeyboardInterrupt

    here = threading.current_thread() is threading.main_thread()  # else there is no handling of signals
    before = signal.signal(signal.SIGTERM, terminated) if here else None
    try:
        yield
    except KeyboardInterrupt:
        say(f"\nStopped; nothing finished is lost. Go on with: {command('resume', path)}")
        raise typer.Exit(code) from None
    except (HostedError, TrainingJobError, BudgetError) as error:
        say(f"Error: {error}\nNothing that was paid for is lost; go on with: {command('resume', path)}")
        raise typer.Exit(2) from None
    finally:
        if here:
            signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def train_seeds(
    experiment: Experiment, max_usd: float | None = None, max_tokens: int | None = None, *, trust: bool
) -> None:
    """Do what is owed of every seed. Exit code 1 where one failed or collapsed, named at the end.

    trust: whether classes that the runs' suites name may be run.
    """
    from rmft.wiring.backends import backend
    from rmft.wiring.suites import suites_of

    def train(seed: int) -> str:
        with closing(RunDirectory.open(experiment.run(seed))) as run:
            suites = suites_of(run, trust=trust, say=teller(run))
            run.set_budget(max_usd, max_tokens)
            with closing(backend(run.config, suites, run.path)) as machinery:
                return train_run(run, suites, machinery, f"seed {seed}").status

    with experiment.locked(), told(experiment.path):
        wrong = experiment.train(train, say)
    for seed, what in wrong.items():
        say(f"Seed {seed}: {what}")
    failed = [seed for seed, what in wrong.items() if what != COLLAPSED]
    if failed:
        say(
            f"{len(failed)} of {len(experiment.seeds)} seeds failed. Try again: "
            f"{command('resume', experiment.path)}"
        )
    say(f"Next: {command('evaluate', experiment.path)}")
    if wrong:
        raise typer.Exit(1)
