"""What a study is: a YAML file of entries, seeds, evaluations and comparisons, checked and resolved.

name: selection
config: ../configs/demo-numeric.yaml      # what the entries have in common; paths start from this folder
entries:
  policy gradient: {}
  top k: {credit: {kind: top_k_regret, num_selected: 4}, training: {objective: {kind: cross_entropy}}}
seeds: 0-2
evaluate: [{num_problems: 1000, baselines: [thompson]}]
compare: [[top k, policy gradient]]
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from rmft.config import RunConfig, config_file, configs, over, parse_config
from rmft.errors import ConfigError, UnknownNameError
from rmft.places import placed
from rmft.problems.suites import Suite, as_data
from rmft.reading import Config, read, read_mapping
from rmft.seeds import parse_seeds

NAME = r"^[A-Za-z0-9][A-Za-z0-9 ._+-]{0,63}$"
EntryName = Annotated[str, Field(pattern=NAME)]
MAX_ENTRIES = 200
START = "start"
"""In a comparison: what the other of the pair began from."""


def _as_seeds(given: object) -> object:
    """0, "0-4" and [0, 1] name seeds."""
    if isinstance(given, int) and not isinstance(given, bool):
        return (given,)
    return parse_seeds(given) if isinstance(given, str) else given


class EvaluationConfig(Config):
    """Problems that runs play, and the baselines beside them."""

    suite: str | None = None
    """A named suite or a YAML file; None: the run's own, which all entries must then share."""
    part: Literal["held_out", "validation"] = "held_out"
    num_problems: Annotated[int, Field(ge=2, le=1_000_000)] | None = None
    """None: as many as the suite says."""
    num_rollouts: Annotated[int, Field(ge=1, le=100_000)] = 1
    baselines: tuple[str, ...] = ()
    """Such as `thompson` or `tuned:bayes-ucb`; they play the same problems."""
    entries: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Which of the study's entries play, and are compared; None: all."""


class StudyConfig(Config):
    """A study, as its file says it."""

    name: EntryName
    config: str | None = None
    """A config that all entries start from: a file, from this one's folder, or a name of `rmft configs`."""
    settings: Annotated[dict[str, Any], Field(default_factory=dict)]
    """Of all entries, over `config`."""
    entries: Annotated[dict[EntryName, dict[str, Any]], Field(min_length=1, max_length=MAX_ENTRIES)]
    """By name, the settings in which each differs from what all have in common."""
    seeds: Annotated[tuple[Annotated[int, Field(ge=0, lt=2**63)], ...], BeforeValidator(_as_seeds)] = (
        0,
        1,
        2,
    )
    evaluate: Annotated[tuple[EvaluationConfig, ...], Field(min_length=1)] = (EvaluationConfig(),)
    compare: tuple[tuple[str, str], ...] | None = None
    """Pairs of entries, or of an entry and a baseline or `start`, from which it began; None: the first entry
    with every other."""

    @model_validator(mode="after")
    def _names_are_there(self) -> StudyConfig:
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"found the seeds {list(self.seeds)}; expected at least one, and none twice")
        if START in self.entries:
            raise ValueError(f"found an entry '{START}', which is what entries begin from; name it otherwise")
        known = [*self.entries, START, *(name for each in self.evaluate for name in each.baselines)]
        for name in (name for pair in self.compare or () for name in pair):
            if name not in known:
                raise ConfigError(str(UnknownNameError("entry or baseline", name, known)))
        for name in (name for each in self.evaluate for name in each.entries or ()):
            if name not in self.entries:
                raise ConfigError(str(UnknownNameError("entry", name, self.entries)))
        return self

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """What is compared with what."""
        first, *others = self.entries
        return tuple((first, other) for other in others) if self.compare is None else self.compare


@dataclass(frozen=True, slots=True)
class Study:
    """A study with the whole config of each entry, seeds apart."""

    settings: StudyConfig
    entries: Mapping[str, RunConfig]


def load_study(path: Path) -> Study:
    """The study in a YAML file. Raises ConfigError, and UnknownNameError for a name nobody has.

    An entry's settings go over those of the study, and these over its config, key by key. Paths in a file
    start from its folder.
    """
    if not path.exists() and str(path) in configs():
        raise ConfigError(
            f"'{path}' is a config; expected a study, a YAML file with 'config: {path}' and entries that "
            "differ from it (docs/studies.md)."
        )
    data = read_mapping(path, "study")
    if isinstance(evaluations := data.get("evaluate"), list):
        data["evaluate"] = [placed(each, path) if isinstance(each, dict) else each for each in evaluations]
    settings = read(StudyConfig, data, str(path))
    base: Mapping[str, Any] = {}
    if settings.config is not None:
        file = config_file(settings.config, path.parent)
        base = placed(read_mapping(file), file)
    entries = {}
    for name, changes in settings.entries.items():
        given = over(over(base, placed(settings.settings, path)), placed(changes, path))
        where = f"{path}: entry '{name}'"
        if "seed" in changes or "seed" in settings.settings:
            raise ConfigError(f"{where}: found seed; the study's seeds are those of all entries.")
        entries[name] = parse_config({**given, "name": _file_name(name), "seed": 0}, source=where)
    same = {_file_name(name) for name in entries}
    if len(same) < len(entries):
        raise ConfigError(f"{path}: two entries differ in blanks or signs alone; give them other names.")
    suites = {config.suite for config in entries.values()}
    if len(suites) > 1 and any(each.suite is None for each in settings.evaluate):
        raise ConfigError(
            f"{path}: the entries are of the suites {', '.join(sorted(suites))}, so name the one to evaluate "
            "on: evaluate: [{suite: NAME}]"
        )
    return Study(settings, entries)


def folder_name(name: str, config: RunConfig, suites: Mapping[str, Suite]) -> str:
    """Where an entry's runs lie: its name, and 8 digits of all that its runs depend on but their seed."""
    about = [
        config.model_dump(mode="json"),
        as_data(suites),
    ]
    return f"{_file_name(name)}-{digest(about)}"


def digest(value: object) -> str:
    """8 hexadecimal digits of a value that JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:8]


def _file_name(name: str) -> str:
    return name.replace(" ", "-").replace("+", "-")
