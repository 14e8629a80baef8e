"""A run on disk: what lies where, written atomically, and what is owed after a kill.

    config.yaml              the resolved config
    run.json                 format and package versions, suite, seed, start time
    suite.yaml               the suite as it was, so that a changed file can't change a run
    stage-suites.yaml        other suites that stages train on, by the name that the config has for them
    baselines.json           the suite's baselines on the validation problems
    metrics.jsonl            one line per finished iteration, from 0: the commit log
    timings.jsonl            seconds spent, by iteration and step, and the most memory that the process held
    trajectories/000001.npz  every rollout in numbers, with its credit (docs/records.md)
    trajectories/000001.jsonl.gz  of language policies: every rollout, one per line, in words and tokens
    checkpoints/000001/      the policy after that iteration (the first, the best and the newest two)
    result.json              how the run ended; absent while it is going on
    log.txt                  what was told while it trained, each line with its time (UTC)
    own-code/0/my_module.py  the files of classes of one's own that its suites name, suite by suite
    answers.jsonl            of hosted policies: every answer and job that was paid for, as it came
    fine-tuning/000001.jsonl, .json  of hosted policies: what was uploaded, and how far its job is
    evaluation.json          held-out results of the run's own suite, written by `rmft evaluate`
    conversations.jsonl.gz   what was said and done there on the first 50 problems
    evaluation-SUITE-PART-0a1b2c3d.json, conversations-...  of another suite, or with other settings

An iteration counts once its line in metrics.jsonl is whole, and that line is written last. Whatever
a killed run left beyond it is thrown away and computed again from the same seeds.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
import shutil
import warnings
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from rmft import __version__
from rmft.config import RunConfig, parse_config
from rmft.errors import ConfigError, NoRunError, RunDirectoryError, command, names_of_runs
from rmft.evaluation.findings import best_iteration
from rmft.files import append_line, write_atomically
from rmft.locks import locked
from rmft.policies.config import KIND_OF_FILE
from rmft.reading import read_mapping
from rmft.types import PolicyRef

FORMAT = 2
HALF_WRITTEN = re.compile(r"[\w.-]+\.(npz|json|jsonl|yaml|gz)\.tmp")  # as write_atomically names it
SUITE, STAGE_SUITES = "suite.yaml", "stage-suites.yaml"
LOG, OWN_CODE = "log.txt", "own-code"
READABLE = (1, 2)  # of version 0.1 is 1: it can be looked at and evaluated, not gone on with
PACKAGES = ("numpy", "scipy", "pydantic", "torch", "safetensors", "transformers", "peft", "accelerate")


class RunDirectory:
    """One run's directory. Make it with `create` or `open`; both hold its lock until `close`."""

    def __init__(self, path: Path, config: RunConfig, suites: dict[str, Any]) -> None:
        self.path, self.config, self.suites = path, config, suites
        self._lock: int | None = None

    @classmethod
    def create(cls, path: Path, config: RunConfig, suites: dict[str, Any]) -> RunDirectory:
        """A new run directory. suites: those of the run and its stages, as data, by name.

        Raises RunDirectoryError when `path` exists or can't be written.
        """
        if os.path.lexists(path):
            go_on = f"continue it: {command('resume', path)}" if (path / "run.json").exists() else "remove it"
            raise RunDirectoryError(
                f"'{path}' exists already and is never overwritten. Choose another --run-dir, or {go_on}."
            )
        about = {
            "format": FORMAT,
            "rmft": __version__,
            "name": config.name,
            "suite": config.suite,
            "seed": config.seed,
            "versions": package_versions(),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        staged = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(staged, ignore_errors=True)
            for folder in ("trajectories", "checkpoints"):
                (staged / folder).mkdir(parents=True)
            write_atomically(staged / "config.yaml", config.to_yaml().encode())
            others = {name: suite for name, suite in suites.items() if name != config.suite}
            for name, data in {SUITE: suites[config.suite], STAGE_SUITES: others}.items():
                if data:
                    write_atomically(staged / name, yaml.safe_dump(data, sort_keys=False).encode())
            write_atomically(staged / "run.json", _json({**about, "sha256": _digests(staged)}))
            os.rename(staged, path)
        except OSError as error:
            shutil.rmtree(staged, ignore_errors=True)
            raise RunDirectoryError(
                f"Can't write the run directory '{path}': {error.strerror or error}. "
                "Choose a place you may write to with --run-dir."
            ) from None
        return cls(path, config, suites)._locked()

    @classmethod
    def open(cls, path: Path, *, lock: bool = True) -> RunDirectory:
        """An existing run. Raises RunDirectoryError when it is missing, damaged or in use."""
        if not os.path.isdir(path):
            raise NoRunError(path)
        _refuse_several(path)
        about = read_json(path / "run.json")
        found = about.get("format")
        if found not in READABLE or (lock and found != FORMAT):
            does = "goes on with" if found in READABLE else "reads"
            raise RunDirectoryError(
                f"'{path}' has format {found!r}; rmft {__version__} {does} format {FORMAT}. "
                f"Use the version that wrote it: {about.get('rmft', 'unknown')}."
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # old names are right in an old run
            config = parse_config(read_mapping(path / "config.yaml"), source=str(path / "config.yaml"))
        others = read_mapping(path / STAGE_SUITES) if os.path.exists(path / STAGE_SUITES) else {}
        run = cls(path, config, {**others, config.suite: read_mapping(path / SUITE)})
        return run._locked() if lock else run

    def _locked(self) -> RunDirectory:
        self._lock = locked(self.path)
        return self

    def close(self) -> None:
        """Release the lock."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def set_budget(self, max_usd: float | None, max_tokens: int | None) -> None:
        """Give the run another budget from now on; None leaves a limit as it is."""
        limits = {"max_usd": max_usd, "max_tokens": max_tokens}
        changed = {name: limit for name, limit in limits.items() if limit is not None}
        if changed and self.config.policy.kind != "hosted":
            raise ConfigError(
                f"Found a budget for '{self.path}', which trains no hosted model. Leave out --max-usd and "
                "--max-tokens."
            )
        if changed:
            self._configure({"budget": self.config.budget.model_dump() | changed})

    def extend(self, iterations: int | None) -> None:
        """Let the run go on to so many iterations in all, as a further stage; None: as many as it has.

        Raises RunDirectoryError when it has more, when it was stopped because its patience ran out, and as
        `check` does.
        """
        has = self.config.iterations
        if iterations is None or iterations == has:
            return
        if iterations < has:
            raise RunDirectoryError(
                f"Found --iterations {iterations}; '{self.path}' has {has} already. Give how many there are "
                "to be in all."
            )
        if (self.read_json("result.json") or {}).get("status") == "stopped":
            raise RunDirectoryError(
                f"'{self.path}' was stopped since validation.patience ran out. Go on from its best policy in "
                f"a new run instead: rmft train CONFIG --set init_from={self.path}"
            )
        self.check(iterations)
        (self.path / "result.json").unlink(missing_ok=True)
        self._configure(self.config.extended(iterations).model_dump())

    def _configure(self, changes: Mapping[str, Any]) -> None:
        self.config = parse_config({**self.config.model_dump(), **changes})
        write_atomically(self.path / "config.yaml", self.config.to_yaml().encode())
        if (about := read_json(self.path / "run.json")).get("sha256"):
            self.write_json("run.json", {**about, "sha256": _digests(self.path)})

    def log(self, text: str) -> None:
        """Add what was told to the run's log, with the time. A log that can't be written stops nothing."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        with suppress(OSError), open(self.path / LOG, "a", encoding="utf-8", errors="replace") as file:
            file.writelines(f"{now} {line}\n" for line in text.splitlines())

    def own_code(self, suite: int) -> Path:
        """Where copies of one's own classes lie that the run's suite of this number names."""
        return self.path / OWN_CODE / str(suite)

    def changes(self) -> list[str]:
        """What is not as it was when the run began, in words: packages, and files that somebody edited."""
        about = read_json(self.path / "run.json")
        then, now = about.get("versions"), package_versions()
        found = [
            f"{name} was {version} and is {now.get(name, 'not installed')}"
            for name, version in (then.items() if isinstance(then, dict) else ())
            if now.get(name) != version
        ]
        digests = about.get("sha256")
        for name, digest in digests.items() if isinstance(digests, dict) else ():
            if _digests(self.path).get(name) != digest:
                found.append(f"{name} was edited")
        return found

    def metrics(self) -> list[dict[str, Any]]:
        """The finished iterations' metrics, in order. A torn last line is left out.

        Raises RunDirectoryError when a line before the last is damaged or out of order.
        """
        path = self.path / "metrics.jsonl"
        lines = path.read_bytes().split(b"\n") if path.exists() else []
        records: list[dict[str, Any]] = []
        for number, line in enumerate(lines[:-1]):  # what follows the last newline is torn
            try:
                record = json.loads(line)
                if record["iteration"] != number:
                    raise ValueError("out of order")
                if number == 0 or "validation" in record:
                    float(record["validation"]["regret"]["mean"])
            except (ValueError, KeyError, TypeError, RecursionError):
                again = ""
                if number and self.checkpoint(number - 1).is_dir():
                    again = ", or delete that line and all after it, which 'rmft resume' then computes again"
                raise RunDirectoryError(
                    f"Line {number + 1} of '{path}' is damaged. Restore the file{again}."
                ) from None
            records.append(record)
        return records

    def checkpoint(self, iteration: int) -> Path:
        return self.path / "checkpoints" / f"{iteration:06d}"

    def staged_checkpoint(self, iteration: int) -> Path:
        """An empty folder to write the policy of `iteration` to, before `commit` puts it in place."""
        staged = self.path / "checkpoints" / f".{iteration:06d}"
        shutil.rmtree(staged, ignore_errors=True)
        staged.mkdir()
        return staged

    def policy(self, iteration: int) -> PolicyRef:
        """The policy after `iteration`. Raises RunDirectoryError when its checkpoint is missing."""
        path = self.checkpoint(iteration)
        if not path.is_dir():
            raise RunDirectoryError(f"The checkpoint '{path}' is missing; the run can't go on from there.")
        return policy_in(path)

    def commit(
        self,
        metrics: dict[str, Any],
        timings: Mapping[str, Any],
        arrays: Mapping[str, np.ndarray],
        spoken: Iterable[Mapping[str, Any]] = (),
    ) -> None:
        """Make an iteration part of the run: trajectories, checkpoint, and last the metrics line."""
        iteration = int(metrics["iteration"])
        if arrays:
            packed = io.BytesIO()
            np.savez_compressed(packed, allow_pickle=False, **arrays)
            write_atomically(self.path / "trajectories" / f"{iteration:06d}.npz", packed.getvalue())
        write_lines(self.path / "trajectories" / f"{iteration:06d}.jsonl.gz", spoken)
        final = self.checkpoint(iteration)
        shutil.rmtree(final, ignore_errors=True)
        os.rename(self.path / "checkpoints" / f".{iteration:06d}", final)
        append_line(self.path / "timings.jsonl", {"iteration": iteration, **timings})
        append_line(self.path / "metrics.jsonl", metrics)

    def best_iteration(self) -> int:
        """The validated iteration of lowest mean regret. Raises RunDirectoryError when there is none yet."""
        history = self.metrics()
        if not history:
            raise RunDirectoryError(
                f"'{self.path}' holds no policy yet. Go on with: {command('resume', self.path)}"
            )
        return best_iteration(history)

    def prune(self, keep: set[int]) -> None:
        """Delete the checkpoints of all iterations but `keep`."""
        for number in set(self._checkpoints()) - keep:
            shutil.rmtree(self.checkpoint(number), ignore_errors=True)

    def check(self, iterations: int | None = None) -> None:
        """Whether the run can go on from where its metrics end; nothing is changed.

        iterations: to so many in all; None: to as many as it has.

        Raises RunDirectoryError when files are damaged or missing without which it can't.
        """
        history = self.metrics()
        for folder in ("checkpoints", "trajectories"):
            if not (self.path / folder).is_dir():
                raise RunDirectoryError(f"The folder '{self.path / folder}' is missing. Restore it.")
        last = len(history) - 1
        if not history and (self.path / "result.json").exists():
            raise RunDirectoryError(
                f"'{self.path / 'metrics.jsonl'}' is empty, though the run has a result. Restore it."
            )
        needed = {0, last} if 0 <= last < (iterations or self.config.iterations) else set()
        if gone := [number for number in sorted(needed) if not self.checkpoint(number).is_dir()]:
            there = ", ".join(str(number) for number in self._checkpoints()) or "none"
            raise RunDirectoryError(
                f"'{self.path / 'metrics.jsonl'}' ends at iteration {last}, and the checkpoint "
                f"'{self.checkpoint(gone[0])}' is missing; there are those of {there}. Restore what was cut "
                "or deleted; nothing was changed."
            )

    def _checkpoints(self) -> list[int]:
        return sorted(int(path.name) for path in (self.path / "checkpoints").iterdir() if path.name.isdigit())

    def discard_unfinished(self) -> None:
        """Throw away what a killed run left beyond its last whole line of metrics."""
        path = self.path / "metrics.jsonl"
        if path.exists():
            whole = path.read_bytes()
            write_atomically(path, whole[: whole.rfind(b"\n") + 1])
        for folder in (self.path / "checkpoints").glob(".[0-9]*"):
            shutil.rmtree(folder)
        for place in ("", "trajectories", "fine-tuning"):
            for leftover in (self.path / place).glob("*.tmp"):
                if HALF_WRITTEN.fullmatch(leftover.name) and leftover.is_file():  # what else is there stays
                    leftover.unlink()
        (self.path / "result.json").unlink(missing_ok=True)

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Write `name` (result.json, ...) atomically."""
        write_atomically(self.path / name, _json(value))

    def read_json(self, name: str) -> dict[str, Any] | None:
        """The content of `name`, or None when there is none. Raises RunDirectoryError when damaged."""
        path = self.path / name
        return read_json(path) if path.exists() else None


def policy_in(path: Path) -> PolicyRef:
    """The best policy of the run at `path`, or the policy in that checkpoint's folder."""
    if not os.path.exists(path / "run.json"):
        _refuse_several(path)
        found = [kind for file, kind in KIND_OF_FILE.items() if os.path.exists(path / file)]
        return PolicyRef(found[0] if found else "numeric", path)
    run = RunDirectory.open(path, lock=False)
    return run.policy(run.best_iteration())


def _refuse_several(path: Path) -> None:
    """Raises RunDirectoryError for a folder that is no run but holds some."""
    if not os.path.exists(path / "run.json") and (runs := names_of_runs(path)):
        raise RunDirectoryError(f"'{path}' holds several runs; name one of them, such as {path / runs[0]}.")


def package_versions(packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Versions of those that are installed, unless given of what a result depends on."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises RunDirectoryError when it is missing or damaged."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunDirectoryError(
            f"'{path.parent}' is no run directory, or is damaged: {path.name} {error.strerror or error}."
        ) from None
    except (ValueError, RecursionError):
        raise RunDirectoryError(f"'{path}' is damaged: it is not valid JSON.") from None
    if not isinstance(value, dict):
        raise RunDirectoryError(f"'{path}' is damaged: it holds no JSON object.")
    return value


def write_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write compressed JSON lines atomically; no file where there are none."""
    text = "".join(f"{json.dumps(each, allow_nan=False)}\n" for each in records).encode()
    if text:
        write_atomically(path, gzip.compress(text, compresslevel=6, mtime=0))


def _digests(path: Path) -> dict[str, str]:
    """SHA-256 of the files that say what a run is."""
    files = {name: path / name for name in ("config.yaml", SUITE, STAGE_SUITES)}
    return {
        name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in files.items() if file.exists()
    }


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, indent=1, allow_nan=False).encode() + b"\n"
