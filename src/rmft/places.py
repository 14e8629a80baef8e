"""Where the paths in a file of settings start: from the folder that the file lies in.

Paths on the command line, in --set too, and in Python start from the current directory. In a config they
did so before version 0.2: what is there, and not beside the file, is taken until 0.3, with a message.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rmft.models.catalogue import MODELS, own_models
from rmft.problems.suites import is_named

PATHS = (
    ("init_from",),
    ("policy", "catalogue"),
    ("policy", "engine", "adapter_folder"),
    ("tracking", "folder"),
)
"""Settings that are always a path; a suite, a model and an opponent may have a name instead."""


def placed(values: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """Settings that `file` holds, or a part of them, with paths that are right from the current directory.

    Warns (FutureWarning) of a path that is there from the current directory only.
    """
    found = dict(values)
    for key in ("suite", "task"):
        if _is_path(found.get(key), file):
            found[key] = _place(found[key], file, key)
    for path in PATHS:
        _replace(found, path, file)
    if os.sep in str(found.get("opponent")):
        found["opponent"] = _place(found["opponent"], file, "opponent")
    policy = found.get("policy")
    if isinstance(policy, Mapping) and _is_path(policy.get("model"), file):
        found["policy"] = {**policy, "model": _place(policy["model"], file, "policy.model")}
    if isinstance(stages := found.get("stages"), list):
        found["stages"] = [placed(each, file) if isinstance(each, Mapping) else each for each in stages]
    return found


def _replace(values: dict[str, Any], keys: tuple[str, ...], file: Path) -> None:
    """Place the path at `keys`, in copies of the mappings that lead to it."""
    *parents, last = keys
    for parent in parents:
        if not isinstance(inner := values.get(parent), Mapping):
            return
        values[parent] = dict(inner)
        values = values[parent]
    if last in values:
        values[last] = _place(values[last], file, ".".join(keys))


def _is_path(value: Any, file: Path) -> bool:
    """Whether a suite or a model is a path, and not the name of one."""
    if not isinstance(value, str) or is_named(value) or value in MODELS or value in own_models():
        return False
    there = os.path.exists(file.parent / value) or os.path.exists(value)
    return there or value.endswith((".yaml", ".yml")) or value.startswith(".")


def _place(value: Any, file: Path, key: str) -> Any:
    """A path, from the current directory; what is no relative path is left as it is."""
    if not isinstance(value, str) or not value.strip() or Path(value).expanduser().is_absolute():
        return value
    beside = file.parent / value
    if os.path.exists(value) and not beside.exists():
        warnings.warn(
            f"{file}: {key} '{value}' is there from the current directory only. Paths in a file start from "
            f"the file's folder: write {os.path.relpath(value, file.parent)}, since from version 0.3 on no "
            "other place is looked at.",
            FutureWarning,
            stacklevel=2,
        )
        return value
    short = os.path.relpath(beside)
    return os.path.abspath(beside) if short.startswith(os.pardir) else short
