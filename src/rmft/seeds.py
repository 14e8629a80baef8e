"""An experiment: one config trained with several seeds, each an ordinary run, side by side in one folder.

    seeds.json       the config's name and the seeds, which says what the folder is
    seed-0/, ...     the run of each seed (`rmft.run_directory`)
    evaluation.json  held-out results over seeds, written by `rmft evaluate`

All of it is there at once or not at all; then the runs are trained one after the other.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rmft import __version__
from rmft.config import RunConfig
from rmft.errors import ConfigError, RmftError, RunDirectoryError, command
from rmft.files import write_atomically
from rmft.locks import hold_lock
from rmft.run_directory import RunDirectory, read_json

SEEDS_FILE = "seeds.json"
FORMAT = 1
MAX_SEEDS = 1_000
COLLAPSED = "collapsed"


def parse_seeds(text: str) -> tuple[int, ...]:
    """The seeds in "0,1,2" or "0-4", or both as in "0-2,7", in that order. Raises ConfigError."""
    seeds: list[int] = []
    for part in (part.strip() for part in text.split(",") if text.strip()):
        found = re.fullmatch(r"(\d{1,19})(?:-(\d{1,19}))?", part)
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
        if last < first or last >= 2**63:
            raise ConfigError(
                f"--seeds: found '{part[:40]}'; expected whole numbers from 0 to 2^63 - 1, such as 0,1,2, or "
                "a range from the lower to the higher, such as 0-4."
            )
        if len(seeds) + last - first >= MAX_SEEDS:
            raise ConfigError(f"--seeds: found more than {MAX_SEEDS:,} seeds; give fewer.")
        seeds += range(first, last + 1)
    if not seeds:
        raise ConfigError("--seeds is empty; expected seeds such as 0,1,2 or 0-4.")
    twice = sorted({seed for seed in seeds if seeds.count(seed) > 1})
    if twice:
        listed = ", ".join(map(str, twice[:10]))
        raise ConfigError(f"--seeds: found {listed} more than once; give every seed once.")
    return tuple(seeds)


@dataclass(frozen=True, slots=True)
class Experiment:
    """A folder of runs that differ in their seed alone."""

    path: Path
    seeds: tuple[int, ...]

    @classmethod
    def create(
        cls, path: Path, config: RunConfig, seeds: tuple[int, ...], suites: Mapping[str, Any]
    ) -> Experiment:
        """The folder with a run for every seed, none of them begun. suites: as for `RunDirectory.create`.

        Raises RunDirectoryError when `path` exists or can't be written.
        """
        if os.path.lexists(path):
            raise RunDirectoryError(
                f"'{path}' exists already, and no run is ever overwritten. Choose another --run-dir, "
                f"continue it with {command('resume', path)}, or remove it."
            )
        staged = cls(path.with_name(f".{path.name}.{os.getpid()}"), seeds)
        about = {"format": FORMAT, "rmft": __version__, "name": config.name, "suite": config.suite}
        try:
            shutil.rmtree(staged.path, ignore_errors=True)
            staged.path.mkdir(parents=True)
            for seed in seeds:
                of_seed = config.model_copy(update={"seed": seed})
                RunDirectory.create(staged.run(seed), of_seed, dict(suites)).close()
            write_atomically(
                staged.path / SEEDS_FILE, json.dumps({**about, "seeds": seeds}, indent=1).encode() + b"\n"
            )
            os.rename(staged.path, path)
        except OSError as error:
            shutil.rmtree(staged.path, ignore_errors=True)
            raise RunDirectoryError(
                f"Can't write the folder of runs '{path}': {error.strerror or error}. "
                "Choose a place you may write to with --run-dir."
            ) from None
        return cls(path, seeds)

    @classmethod
    def open(cls, path: Path) -> Experiment:
        """The experiment in a folder. Raises RunDirectoryError when it is damaged or a run is missing."""
        about = read_json(path / SEEDS_FILE)
        seeds = about.get("seeds")
        if about.get("format") != FORMAT:
            raise RunDirectoryError(
                f"'{path / SEEDS_FILE}' has format {about.get('format')!r:.40}; rmft {__version__} reads "
                f"format {FORMAT}. Use the version that wrote it: {about.get('rmft', 'unknown')!r:.40}."
            )
        if not (isinstance(seeds, list) and seeds and all(type(seed) is int and seed >= 0 for seed in seeds)):
            raise RunDirectoryError(f"'{path / SEEDS_FILE}' is damaged: it holds no list of seeds.")
        found = cls(path, tuple(dict.fromkeys(seeds)))
        missing = [found.run(seed).name for seed in found.seeds if not found.run(seed).is_dir()]
        if missing:
            raise RunDirectoryError(
                f"'{path}' lacks {', '.join(missing[:10])}, which its {SEEDS_FILE} names."
            )
        return found

    def run(self, seed: int) -> Path:
        """Where the run of a seed is."""
        return self.path / f"seed-{seed}"

    def locked(self) -> AbstractContextManager[None]:
        """Held while its runs are trained. Raises RunDirectoryError when another process does."""
        return hold_lock(self.path)

    def train(self, train: Callable[[int], str], say: Callable[[str], None]) -> dict[int, str]:
        """Do what is owed of every seed, one after the other, by `train`, which returns how its run ended.

        A seed that fails does not keep the others from being trained. Returns what went wrong, by seed: the
        message of what was raised, or COLLAPSED.
        """
        wrong = {}
        for place, seed in enumerate(self.seeds, start=1):
            try:
                result = self.run(seed) / "result.json"
                if not result.exists():
                    say(f"Seed {seed} ({place} of {len(self.seeds)})")
                    ended = train(seed)
                else:
                    ended = str(read_json(result).get("status"))
                    say(f"Seed {seed} ({place} of {len(self.seeds)}) has ended before: {ended}")
            except RmftError as error:
                say(f"Seed {seed} failed: {error}")
                wrong[seed] = str(error)
            else:
                if ended == COLLAPSED:
                    wrong[seed] = ended
        return wrong


def is_experiment(path: Path) -> bool:
    """Whether a folder is that of several seeds."""
    return os.path.isfile(path / SEEDS_FILE)
