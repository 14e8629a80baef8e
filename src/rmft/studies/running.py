"""Does what is owed of a study: several processes at once, progress over all, failures named at the end."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from rmft.progress import rounds_of
from rmft.studies.folder import Job, StudyFolder, baselines_path
from rmft.studies.worker import BASELINES

SECONDS_BETWEEN_LOOKS = 0.2
SECONDS_BETWEEN_LINES, SECONDS_AT_MOST = 5.0, 60.0  # where something is new, and where nothing is
TRAINED = 3  # a round that is trained on takes about as long as this many that are played alone
TAIL = 2_000  # characters of a log that are looked at for what went wrong


@dataclass(slots=True)
class Work:
    """What one process does.

    run: what it trains, of so many iterations and, for progress, `training` rounds. evaluations: the files
    that it writes then, and the rounds played for each. Playing baselines counts as next to nothing.
    """

    name: str
    arguments: tuple[str, str]
    log: Path
    run: Path | None = None
    iterations: int = 0
    training: int = 0
    evaluations: Mapping[Path, int] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    before: float = field(init=False)

    def __post_init__(self) -> None:
        self.before = self._there()

    @property
    def size(self) -> float:
        """The rounds that are owed."""
        return max(self.training + sum(self.evaluations.values()) - self.before, 1)

    def done(self) -> float:
        """How many of them are done, since this was made."""
        return self._there() - self.before

    def _there(self) -> float:
        """By the run's commit log and the files that are there."""
        played = sum(rounds for file, rounds in self.evaluations.items() if file.exists())
        if self.run is None or not self.iterations:
            return played
        try:
            lines = (self.run / "metrics.jsonl").read_bytes().count(b"\n")
        except OSError:
            return played
        return played + self.training * min(max(lines - 1, 0) / self.iterations, 1.0)


def owed(folder: StudyFolder) -> list[Work]:
    """What is to be done still: baselines first, then the runs, seed by seed."""
    found = []
    for place, each in enumerate(folder.evaluations):
        path = baselines_path(folder.path, each)
        if each.settings.baselines and not path.exists():
            name = f"baselines on {each.suite.name}"
            found.append(Work(name, (BASELINES, str(place)), path.with_suffix(".log")))
    return found + [_work(folder, job) for job in folder.jobs() if folder.owed(job)]


def _work(folder: StudyFolder, job: Job) -> Work:
    training = TRAINED * rounds_of(job.config, folder.suites[job.entry])
    policies = 1 + job.start
    evaluations = {
        job.evaluation(each): policies * each.rounds for each in folder.evaluations if each.plays(job.entry)
    }
    name = f"{job.entry}, seed {job.seed}"
    iterations = job.config.iterations
    return Work(name, (job.entry, str(job.seed)), job.log, job.path, iterations, training, evaluations)


def run_all(folder: StudyFolder, study: Path, works: list[Work], jobs: int, *, trust: bool) -> dict[str, str]:
    """Do these works, `jobs` at once. Returns what went wrong, by work; a work that fails stops no other."""
    waiting, running, wrong = list(works), list[Work](), dict[str, str]()
    finished = 0.0
    progress = _Progress(works)
    with progress, _ended(running):
        while waiting or running:
            while waiting and len(running) < jobs:
                work = waiting.pop(0)
                work.process = _start(work, study, folder.path, trust=trust)
                running.append(work)
            time.sleep(SECONDS_BETWEEN_LOOKS)
            for work in [each for each in running if each.process and each.process.poll() is not None]:
                running.remove(work)
                finished += work.size
                if what := _failure(work):
                    wrong[work.name] = what
                    progress.say(f"{work.name} failed: {what}")
                else:
                    work.log.unlink(missing_ok=True)
            progress.show(finished + sum(each.done() for each in running), running)
    return wrong


def _start(work: Work, study: Path, folder: Path, *, trust: bool) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "rmft.studies.worker", str(study), str(folder), *work.arguments]
    with work.log.open("wb") as log:
        return subprocess.Popen(
            [*command, *(["trust"] if trust else [])],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C reaches this process alone, which then ends them
        )


def _failure(work: Work) -> str:
    """What a process that has ended failed with; "" where it did not."""
    assert work.process is not None
    work.process.communicate()  # closes its pipe
    code = work.process.returncode
    if code == 0:
        return ""
    said = work.log.read_bytes()[-TAIL:].decode(errors="replace").strip().splitlines()
    reason = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return f"{said[-1] if said else reason} (see {work.log})"


@contextmanager
def _ended(running: list[Work]) -> Iterator[None]:
    """However this ends, its processes end too; what they committed stays."""
    try:
        yield
    finally:
        for work in running:
            if work.process is not None:
                work.process.kill()
                work.process.communicate()


class _Progress:
    """A bar over all that is owed on a terminal, plain lines in a pipe."""

    def __init__(self, works: list[Work]) -> None:
        self.total = sum(work.size for work in works)
        self.begun = self.last = time.perf_counter()
        self.line = ""
        self.console = Console(stderr=True)
        self.bar = Progress(
            TextColumn("{task.percentage:3.0f}%"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[state]}"),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.task = self.bar.add_task("study", total=self.total, state="")

    def __enter__(self) -> _Progress:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False)

    def show(self, done: float, running: list[Work]) -> None:
        share, now = done / self.total, time.perf_counter()
        state = "; ".join(work.name for work in running)
        self.bar.update(self.task, completed=share * self.total, state=state)
        line, since = f"{100 * share:.0f}%: {state}", now - self.last
        news = since >= SECONDS_BETWEEN_LINES and line != self.line
        if not self.console.is_terminal and state and (news or since >= SECONDS_AT_MOST):
            self.last, self.line = now, line
            left = f", {(now - self.begun) * (1 - share) / share:.0f} s left" if share > 0.01 else ""
            self.say(f"{line}{left}")
