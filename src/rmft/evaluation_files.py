"""Where an evaluation lies in its run, so that none replaces another, and whether it can be kept there."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rmft.errors import RunDirectoryError
from rmft.files import check_place, write_atomically
from rmft.run_directory import write_lines


@dataclass(frozen=True, slots=True)
class EvaluationFiles:
    """Where an evaluation is kept in its run or folder of seeds.

    name: "" of the run's own suite as `rmft evaluate` plays it by itself; else -SUITE-PART-DIGITS, of which
    the digits stand for the suite and all settings, so that no evaluation replaces another one.
    """

    name: str = ""

    @classmethod
    def named(cls, suite: Mapping[str, Any], part: str, settings: Mapping[str, Any]) -> EvaluationFiles:
        """Those of a suite, as data, that is not the run's own, or that is played with other settings."""
        about = json.dumps([suite, part, settings], sort_keys=True)
        digits = hashlib.sha256(about.encode()).hexdigest()[:8]
        legible = re.sub(r"[^\w.-]+", "-", suite["name"])[:40]
        return cls(f"-{legible}-{part}-{digits}")

    def results(self, folder: Path) -> Path:
        return folder / f"evaluation{self.name}.json"

    def conversations(self, folder: Path) -> Path:
        return folder / f"conversations{self.name}.jsonl.gz"

    def check(self, folder: Path) -> None:
        """Raises RunDirectoryError when nothing can be written there."""
        try:
            check_place(self.results(folder))
            check_place(self.conversations(folder))
        except OSError as error:
            raise RunDirectoryError(
                f"Can't write to '{folder}', where the evaluation would be kept: {error.strerror or error}. "
                "Mend that, or evaluate a checkpoint's folder with --suite, which writes nothing."
            ) from None

    def write(self, folder: Path, results: str, conversations: Iterable[Mapping[str, Any]] = ()) -> None:
        """Keep an evaluation, as JSON, and what was said and done in it. Raises RunDirectoryError."""
        try:
            write_atomically(self.results(folder), results.encode())
            write_lines(self.conversations(folder), conversations)
        except OSError as error:
            raise RunDirectoryError(
                f"The evaluation could not be kept in '{folder}': {error.strerror or error}. Keep what was "
                "printed, or make room and evaluate again."
            ) from None
