"""A suite as the folder of another framework's environment, which needs rmft's core and that framework
only."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import yaml

from rmft import __version__
from rmft.environments.env import Env
from rmft.errors import ConfigError, RunDirectoryError, UnknownNameError
from rmft.problems.suites import PARTS, Suite, load_suite

Framework = Literal["verifiers", "openenv"]
SUITE_PLACE = {"verifiers": "{package}/suite.yaml", "openenv": "server/suite.yaml"}
ENDING = ".tpl"


def export_env(suite_name: str | Path, framework: str, target: Path) -> Path:
    """Write the suite's problems, told in words, to the new folder `target` as an environment of `framework`.

    It has a README, and a test that two resets with one seed tell the same. Raises UnknownNameError for a
    framework, RunDirectoryError when `target` exists or can't be written, and ConfigError when the suite
    can't be told in words, or needs files beside it: classes or logs of one's own.
    """
    if framework not in get_args(Framework):
        raise UnknownNameError("framework", framework, get_args(Framework))
    if os.path.lexists(target):
        raise RunDirectoryError(f"'{target}' exists already, and nothing is overwritten. Choose another.")
    suite = load_suite(suite_name)
    data = suite.model_dump(mode="json")
    if any(":" in kind or os.sep in kind or kind == "logged" for kind in _kinds(data)):
        raise ConfigError(
            f"The suite {suite.name} names classes, logs or runs of its own, which an exported folder lacks."
        )
    for part in PARTS:
        for number in range(len(suite.settings(part))):
            Env(suite, part).reset(number)
    words = _words(suite)
    place = SUITE_PLACE[framework].format(package=words["__PACKAGE__"])
    staged = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        for name, text in _files(resources.files("rmft.environments") / "templates" / framework, ""):
            path = staged / name.replace("package/", f"{words['__PACKAGE__']}/")
            path.parent.mkdir(parents=True, exist_ok=True)
            for word, meaning in words.items():
                text = text.replace(word, meaning)
            path.write_text(text, "utf-8")
        (staged / place).write_text(yaml.safe_dump(data, sort_keys=False, allow_unicode=True), "utf-8")
        load_suite(staged / place)
        os.rename(staged, target)
    except OSError as error:
        raise RunDirectoryError(f"Can't write '{target}': {error.strerror or error}.") from None
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return target


def _words(suite: Suite) -> dict[str, str]:
    """What stands for what in the templates."""
    name = "rmft-" + re.sub(r"[^a-z0-9]+", "-", suite.name.lower()).strip("-")
    ranges = np.array([setting.rules.reward_range for part in PARTS for setting in suite.settings(part)])
    if not np.isfinite(ranges).all():
        ranges = np.array([[-1e9, 1e9]])  # a range has to be declared
    title = re.sub(r"[\s\"\\]+", " ", suite.title).strip().rstrip(".")
    return {
        "__NAME__": name,
        "__PACKAGE__": name.replace("-", "_"),
        "__TITLE__": title,
        "__VERSION__": __version__,
        "__LOW__": repr(float(ranges.min())),
        "__HIGH__": repr(float(ranges.max())),
    }


def _files(folder: Traversable, path: str) -> Iterator[tuple[str, str]]:
    """The templates in a folder and below, each by the place of what it becomes."""
    for item in sorted(folder.iterdir(), key=lambda each: each.name):
        if item.is_dir():
            yield from _files(item, f"{path}{item.name}/")
        else:
            yield f"{path}{item.name.removesuffix(ENDING)}", item.read_text("utf-8")


def _kinds(data: object) -> set[str]:
    """All kinds of processes, classes of environments and opponents in a suite's data."""
    if isinstance(data, list):
        return set().union(*(_kinds(each) for each in data))
    if not isinstance(data, dict):
        return set()
    own = {str(data[key]) for key in ("kind", "environment", "opponent") if data.get(key)}
    return own.union(*(_kinds(value) for value in data.values()))
