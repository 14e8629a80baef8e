"""Which suite a run's trajectories are of, by name. Lenient: a damaged file says nothing."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from rmft.reading import parse_yaml
from rmft.report.untrusted import get, lies_in, shown, text

MAX_BYTES = 64 * 2**20
MAX_NAME = 80


def suite_name(run_dir: Path, played: str = "") -> str:
    """The run's own suite, or that of an evaluation; "" where it is not known.

    played: what the evaluation's files are called by, "words-bandits-held_out-0a1b2c3d"; in version 0.1
    without digits, and the run's own suite too.
    """
    own = _said_by(run_dir / "suite.yaml", "name") or _said_by(run_dir / "run.json", "suite")
    if not played:
        return own
    if name := _said_by(run_dir / f"evaluation-{played}.json", "suite"):
        return name
    dashed, _, part = played.rpartition("-")
    return own if own.replace("/", "-") == dashed else shown(dashed or part, MAX_NAME)


def _said_by(path: Path, key: str) -> str:
    try:
        if not lies_in(path, path.parent):
            return ""
        stamp = path.stat()
    except OSError:
        return ""
    return _read(path, key, stamp.st_mtime_ns) if stamp.st_size <= MAX_BYTES else ""


@cache
def _read(path: Path, key: str, stamp: int) -> str:
    """What the file says of `key`. stamp: when it was written."""
    del stamp
    try:
        content = path.read_text(encoding="utf-8")
        found = parse_yaml(content, path.name) if path.suffix == ".yaml" else json.loads(content)
    except (OSError, ValueError, RecursionError):
        return ""
    return shown(text(get(found, key)) or "", MAX_NAME)
