"""One run of a study in a process of its own: `python -m rmft.studies.worker STUDY FOLDER ENTRY SEED`.

It trains what is owed of the run and plays what is owed of its evaluations. A run that fails, or takes more
memory than there is, so ends alone; what it says goes to its log.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from rmft.errors import ConfigError, RmftError
from rmft.evaluation.evaluate import evaluate
from rmft.files import write_atomically
from rmft.iteration import iterate
from rmft.rivals import baselines, by_strength
from rmft.rollout import MakePolicy
from rmft.run_directory import RunDirectory
from rmft.studies.folder import Evaluated, Job, StudyFolder, baselines_path
from rmft.studies.study import load_study
from rmft.targets import players
from rmft.wiring.backends import backend
from rmft.wiring.policies import torch_threads

BASELINES = "baselines"
"""In place of an entry: what the evaluation at the place SEED has as baselines plays."""
LUCK = 0  # the seed of what policies draw in evaluations, so that all entries have the same luck


def main(arguments: list[str]) -> int:
    """Do the job. The exit code is 0, or 2 where something went wrong, whose last line says what."""
    study, folder, entry, number, *trust = arguments
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        found = StudyFolder(Path(folder), load_study(Path(study)), trust=bool(trust))
        if entry == BASELINES:
            evaluated = found.evaluations[int(number)]
            policies = baselines(evaluated.settings.baselines, evaluated.suite, print)
            rivals = by_strength(policies, evaluated.suite)
            _play(policies, evaluated, baselines_path(found.path, evaluated), rivals)
        else:
            (job,) = (job for job in found.jobs() if (job.entry, job.seed) == (entry, int(number)))
            _train(found, job)
            for evaluated in found.unplayed(job):
                _evaluate(job, evaluated)
    except RmftError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _end_with_parent() -> None:
    """However the study ends, so does this process: its standard input is a pipe that closes then."""
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(1)


def _train(found: StudyFolder, job: Job) -> None:
    with closing(RunDirectory.open(job.path)) as run:
        if run.config != job.config:
            raise ConfigError(
                f"The config in '{job.path}' is not the study's: it was changed. Remove that run, and it is "
                "trained anew."
            )
        if not job.trained:
            suites = found.suites[job.entry]
            with closing(backend(job.config, suites, job.path)) as machinery:
                iterate(run, suites, machinery, lambda _: None)


def _evaluate(job: Job, evaluated: Evaluated) -> None:
    run = RunDirectory.open(job.path, lock=False)
    if job.config.policy.kind != "hosted":
        torch_threads(job.config.num_threads)
    with players(evaluated.suite, one_at_a_time=True) as playing:
        policies = {"best": playing(run.policy(run.best_iteration()))}
        if job.start:
            policies["start"] = playing(run.policy(0))
        _play(policies, evaluated, job.evaluation(evaluated))


def _play(
    policies: Mapping[str, MakePolicy],
    evaluated: Evaluated,
    target: Path,
    rivals: Sequence[str] | None = None,
) -> None:
    """Let policies play an evaluation's problems, and keep what they did in the file `target`.

    rivals: the baselines among them, the strongest first.
    """
    suite, given = evaluated.suite, evaluated.settings
    problems = suite.draw(given.part, evaluated.num_problems)
    result = evaluate(policies, problems, given.num_rollouts, LUCK, suite=suite.name, part=given.part)
    ranked = result.model_copy(update={"rivals": rivals})
    write_atomically(target, ranked.to_json().encode())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
