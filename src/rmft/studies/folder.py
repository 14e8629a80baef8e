"""A study on disk: what lies where, and what is owed.

    study.json                       the study as it was asked for last
    ENTRY-0a1b2c3d/seed-0/           the run of an entry and a seed (`rmft.run_directory`)
    ENTRY-0a1b2c3d/seed-0.log        what went wrong in its last process, if anything did
    ENTRY-0a1b2c3d/seed-0-5e6f7a8b.json  what it did on the problems of an evaluation
    baselines-0a1b2c3d.json          what the baselines of an evaluation did there
    results.json                     what it all came to (`rmft.study_results`)

The digits name all that a run or an evaluation depends on, so what is there is never computed again, and a
changed entry is another folder beside the old one.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from rmft.config import RunConfig
from rmft.costs import check_budget
from rmft.errors import RunDirectoryError
from rmft.problems.suites import Suite, as_data, load_suite
from rmft.reading import write_stored
from rmft.run_directory import RunDirectory, read_json
from rmft.studies.study import EvaluationConfig, Study, digest, folder_name
from rmft.wiring.suites import load_suites, seated

STUDY, RESULTS = "study.json", "results.json"


@dataclass(frozen=True, slots=True)
class Evaluated:
    """One evaluation of a study: the suite, and how much of it is played."""

    suite: Suite
    settings: EvaluationConfig

    @property
    def num_problems(self) -> int:
        own = self.suite.held_out if self.settings.part == "held_out" else self.suite.validation
        return self.settings.num_problems or own.num_problems

    @property
    def rounds(self) -> int:
        """How many each policy plays."""
        each = self.settings.num_rollouts * self.suite.mean_horizon(self.settings.part)
        return int(self.num_problems * each)

    def plays(self, entry: str) -> bool:
        """Whether the entry's runs play it."""
        return self.settings.entries is None or entry in self.settings.entries

    @property
    def key(self) -> str:
        """8 digits of the problems and how often each is played."""
        given = self.settings
        return digest([self.suite.model_dump(mode="json"), given.part, self.num_problems, given.num_rollouts])

    @property
    def baselines_key(self) -> str:
        return digest([self.key, list(self.settings.baselines)])


@dataclass(frozen=True, slots=True)
class Job:
    """The run of one entry and seed. start: whether it also plays what it started from."""

    entry: str
    seed: int
    path: Path
    config: RunConfig
    start: bool

    @property
    def log(self) -> Path:
        return self.path.with_name(f"{self.path.name}.log")

    @property
    def trained(self) -> bool:
        return (self.path / "result.json").exists()

    def evaluation(self, evaluated: Evaluated) -> Path:
        """Where what it did on these problems is kept."""
        return self.path.with_name(f"{self.path.name}-{evaluated.key}.json")


class StudyFolder:
    """A study's folder, made or gone on with.

    Raises RunDirectoryError when another study lies there, and ConfigError for what can't be run.
    """

    def __init__(self, path: Path, study: Study, *, trust: bool = False) -> None:
        self.path, self.study = path, study
        self._check()
        self.suites = {name: load_suites(config, trust=trust) for name, config in study.entries.items()}
        first, config = next(iter(study.entries.items()))
        self.evaluations = [
            Evaluated(
                self.suites[first][config.suite]
                if each.suite is None
                else seated(load_suite(each.suite, trust=trust)),
                each,
            )
            for each in study.settings.evaluate
        ]

    def _check(self) -> None:
        if not os.path.lexists(self.path):
            return
        if not (self.path / STUDY).is_file():
            raise RunDirectoryError(f"'{self.path}' is there and is no study. Choose another --dir.")
        name = read_json(self.path / STUDY).get("name")
        if name != self.study.settings.name:
            raise RunDirectoryError(
                f"'{self.path}' holds the study {name!r:.80}, not '{self.study.settings.name}'. Choose "
                "another --dir."
            )

    def jobs(self) -> list[Job]:
        """All runs of the study, seed by seed."""
        seeds = self.study.settings.seeds
        folders = {
            name: self.path / folder_name(name, config, self.suites[name])
            for name, config in self.study.entries.items()
        }
        return [
            Job(
                name,
                seed,
                folders[name] / f"seed-{seed}",
                config.model_copy(update={"seed": seed}),
                seed == seeds[0],
            )
            for seed in seeds
            for name, config in self.study.entries.items()
        ]

    def prepare(self) -> None:
        """Write the study, and make the runs that are not there yet. Raises RunDirectoryError."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            write_stored(self.path / STUDY, self.study.settings)
        except OSError as error:
            raise RunDirectoryError(
                f"Can't write the study's folder '{self.path}': {error.strerror or error}."
            ) from None
        for job in self.jobs():
            check_budget(job.config)
            if not job.path.exists():
                RunDirectory.create(job.path, job.config, as_data(self.suites[job.entry])).close()

    def owed(self, job: Job) -> bool:
        """Whether a run is to be trained or evaluated still."""
        return not job.trained or bool(self.unplayed(job))

    def unplayed(self, job: Job) -> list[Evaluated]:
        """The evaluations that a run has yet to play."""
        own = [each for each in self.evaluations if each.plays(job.entry)]
        return [each for each in own if not job.evaluation(each).exists()]


def baselines_path(folder: Path, evaluated: Evaluated) -> Path:
    """Where what an evaluation's baselines did is kept."""
    return folder / f"baselines-{evaluated.baselines_key}.json"
