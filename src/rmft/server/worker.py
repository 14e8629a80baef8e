"""The thread that runs jobs one at a time, each in a process of its own, which answers do not wait for.

What a job writes lies in work/ until it is whole. After a kill at any instant, a job that had not ended
begins anew, from the same start with the same seed, and so ends in the same model.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

from rmft.server.access import KEY_VARIABLE
from rmft.server.fine_tuning import TRAINED, Report, Task
from rmft.server.jobs import Jobs
from rmft.server.models import Base
from rmft.server.store import Record

RETRY_AFTER = 10.0  # seconds, when not even a failure could be written down
_log = logging.getLogger(__name__)


class Worker:
    """Runs what `jobs` owe, from `start` to `close`. num_threads: of the process that trains."""

    def __init__(self, jobs: Jobs, bases: dict[str, Base], num_threads: int) -> None:
        self._jobs, self._bases, self._num_threads = jobs, bases, num_threads
        self._wake = threading.Event()
        self._closing = False
        self._running: tuple[str, subprocess.Popen[str]] | None = None
        self._thread = threading.Thread(target=self._run, name="jobs", daemon=True)

    def start(self) -> None:
        """Begin with what is owed."""
        self._thread.start()

    def wake(self) -> None:
        """Look whether there is a new job."""
        self._wake.set()

    def stop(self, job_id: str) -> None:
        """End the process of a job that was cancelled, if it is the one that is running."""
        running = self._running
        if running is not None and running[0] == job_id:
            running[1].kill()

    def close(self) -> None:
        """End the thread, and the process that trains: its job begins anew with the next server."""
        self._closing = True
        self._wake.set()
        if self._running is not None:
            self._running[1].kill()
        self._thread.join()

    def _run(self) -> None:
        while not self._closing:
            self._wake.clear()
            try:
                owed = self._jobs.owed()
                if owed:
                    self._do(owed[0])
                else:
                    self._wake.wait()
            except Exception:
                _log.exception("A job could not be run; it is tried again")
                self._wake.wait(RETRY_AFTER)

    def _do(self, job: Record) -> None:
        """Run a job to its end, unless it is cancelled or the server ends first."""
        work = self._jobs.store.folder / "work" / str(job["id"])
        if not self._jobs.take_up(job["id"]):
            return
        try:
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir()
            last = self._train(job, work)
            if self._closing:
                return
            if last.wrong is None and last.trained_tokens is not None:
                self._jobs.succeed(job, work / TRAINED, last.trained_tokens)
            else:
                self._jobs.fail(job["id"], last.wrong or "The process that trains ended early.", last.code)
        except OSError as error:
            _log.exception("Job %s has failed", job["id"])
            self._jobs.fail(job["id"], f"The server could not run it: {error}", "server_error")
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def _train(self, job: Record, work: Path) -> Report:
        """Start the process that trains, pass on what it tells, and give its last report."""
        command = [sys.executable, "-m", "rmft.server.fine_tuning"]
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env={name: value for name, value in os.environ.items() if name != KEY_VARIABLE},
        )
        with process:
            self._running = job["id"], process
            try:
                if self._closing or self._jobs.status(job["id"]) != "running":  # cancelled just now
                    return Report()
                return self._listen(job["id"], process, self._task(job, work))
            finally:
                self._running = None
                process.kill()

    def _task(self, job: Record, work: Path) -> Task:
        base, store, chosen = self._bases[job["base"]], self._jobs.store, job["hyperparameters"]
        start = store.find("models", job["model"])
        return Task(
            policy=base.config,
            source=None if start is None else store.model(start["job"]),
            file=store.file(job["training_file"]),
            work=work,
            context=base.context,
            stop_ids=tuple(sorted(base.conversations.stop_ids)),
            epochs=chosen["n_epochs"],
            batch_size=chosen["batch_size"],
            multiplier=chosen["learning_rate_multiplier"],
            seed=job["seed"] % 2**63,
            num_threads=self._num_threads,
        )

    def _listen(self, job_id: str, process: subprocess.Popen[str], task: Task) -> Report:
        assert process.stdin is not None
        assert process.stdout is not None
        last = Report()
        try:
            process.stdin.write(task.model_dump_json() + "\n")
            process.stdin.flush()
            for line in process.stdout:
                last = Report.model_validate_json(line)
                if last.step and self._jobs.status(job_id) == "running":
                    self._jobs.step(job_id, last.step, last.steps, last.loss)
        except BrokenPipeError:  # it was killed
            pass
        if last.wrong is None and last.trained_tokens is None:
            why = f"The process that trains ended with {process.wait()}; the server's log may say why."
            return Report(wrong=why, code="crashed")
        return last
