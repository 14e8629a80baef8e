"""Suites: named sets of problems in three parts, for training, for choosing and for reporting.

A suite is a YAML file. Those in `suites/` next to this file are known by name; any other by its path.
The parts differ in seeds always and, where the file says so, in their settings. Nothing is ever
chosen by the held-out part.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, model_validator

from rmft.errors import ConfigError, UnknownNameError
from rmft.lenient import check_name
from rmft.problems.encoding import Encoder
from rmft.problems.logged import Logged, PartName
from rmft.problems.setting import Setting
from rmft.problems.tasks import Task, in_words_of_a_task, is_task, task_file
from rmft.reading import Config, parse_yaml, read
from rmft.streams import generator, seed_sequence
from rmft.types import IntArray, RewardTable, Words

PART_ID = {"train": 1_000_000_001, "validation": 1_000_000_002, "held_out": 1_000_000_003}
"""Where each part's random streams branch off; so large that no other branch (an iteration, a
setting's index) has the same number."""

PARTS: tuple[PartName, ...] = ("train", "validation", "held_out")

WORDS = 1
"""Where the stream of a problem's words branches off that of its rewards."""

MAX_CELLS = 10**8  # rewards, rounds x arms, of all problems that are drawn together


def _or_a_task(given: Any, info: ValidationInfo) -> Any:
    """A setting as it is; of {task: FOLDER} that of the task, whose place starts from the suite's folder."""
    if not isinstance(given, Mapping) or "task" not in given:
        return given
    if len(given) > 1 or not isinstance(given["task"], str):
        raise ConfigError(
            f"found {', '.join(map(str, given))}; expected a setting, or 'task' alone with a task's place."
        )
    source = info.context or {}
    file = task_file(Path(source.get("folder", ".")) / Path(given["task"]).expanduser())
    data = parse_yaml(_text_of(file), str(file))
    if not is_task(data):
        raise ConfigError(f"{file}: found a suite; expected a task.")
    return _suite_of_a_task(data, file, trust=source.get("trust", False)).train.settings[0]


Settings = tuple[Annotated[Setting, BeforeValidator(_or_a_task)], ...]


def _named_apart(settings: Settings | None) -> Settings | None:
    if settings is not None:
        names = [setting.name for setting in settings]
        if not names or len(set(names)) < len(names):
            raise ConfigError(f"found settings named {names}; expected one or more, and no name twice.")
    return settings


class Train(Config):
    """The part to train on; its problems are drawn anew in every iteration, as many as wanted.

    A setting, here as in the other parts, may be that of a task: {task: FOLDER}.
    """

    settings: Annotated[Settings, AfterValidator(_named_apart)]


class Validation(Config):
    """The part to choose by: the best iteration, a baseline's parameters. settings: None for train's."""

    settings: Annotated[Settings | None, AfterValidator(_named_apart)] = None
    num_problems: int = Field(default=500, ge=1, le=1_000_000)


class HeldOut(Config):
    """The part to report. settings: None for train's."""

    settings: Annotated[Settings | None, AfterValidator(_named_apart)] = None
    num_problems: int = Field(default=2000, ge=1, le=1_000_000)


@dataclass(frozen=True, slots=True)
class ProblemBatch:
    """Problems of one setting.

    indices: (B,) each one's number in its part. table: (B, T, K). words: of B rows, those around each,
    from seeds apart from those of its rewards.
    """

    setting: Setting
    indices: IntArray
    table: RewardTable
    words: Words


class Suite(Config):
    """A named set of problems.

    baselines: the names of those that it is natural to be compared with. validation and held_out may
    leave out their settings: they are then the training part's.
    """

    name: Annotated[str, Field(min_length=1), AfterValidator(check_name)]
    title: str
    description: str = ""
    source: str = ""
    baselines: tuple[str, ...] = ()
    train: Train
    validation: Validation = Validation()
    held_out: HeldOut = HeldOut()

    @model_validator(mode="after")
    def _groups_for_every_part(self) -> Suite:
        for part in PARTS:
            for setting in self.settings(part):
                _ = setting.groups  # raises where a log has none for it
        return self

    @property
    def context(self) -> Encoder | None:
        """How the columns that a log shows before decisions are encoded, for `Agent.episode`."""
        process = self.train.settings[0].reward_process
        return process.encoder if isinstance(process, Logged) else None

    def changed(self, change: Callable[[Setting], Setting]) -> Suite:
        """The same suite with every setting changed."""
        parts: dict[str, Any] = {}
        for name, part in (
            ("train", self.train),
            ("validation", self.validation),
            ("held_out", self.held_out),
        ):
            if part.settings is not None:
                parts[name] = part.model_copy(update={"settings": tuple(map(change, part.settings))})
        return self.model_copy(update=parts)

    def settings(self, part: PartName) -> tuple[Setting, ...]:
        """The settings of a part, which are the training part's where it names none."""
        own = {"validation": self.validation.settings, "held_out": self.held_out.settings}
        return tuple(setting.for_part(part) for setting in own.get(part) or self.train.settings)

    def mean_horizon(self, part: PartName) -> float:
        """Rounds of a problem of a part, the mean over its settings."""
        settings = self.settings(part)
        return sum(setting.horizon for setting in settings) / len(settings)

    def own_files(self) -> dict[str, Path]:
        """The files of the user's own classes that it names, by their names below its folder."""
        settings = (setting for part in PARTS for setting in self.settings(part))
        return {name: file for setting in settings for name, file in setting.own_files().items()}

    def draw(
        self, part: PartName, num_problems: int, seed: int = 0, iteration: int = 0
    ) -> list[ProblemBatch]:
        """The problems 0..num_problems-1 of a part, one batch for each setting that has any.

        Problem i has setting i mod the number of settings, an even mixture, and its table depends on
        (part, seed, iteration, i) only, so it is the same however many are drawn. A run's seed and
        iteration belong to the training part; for the other two leave them 0, so that every run and
        every policy is measured on the same problems. Of a log of groups, such as households, these two have
        each group once and no more, however many problems are asked for.
        """
        if part not in PART_ID:
            raise UnknownNameError("part", part, PART_ID)
        if num_problems < 1:
            raise ConfigError(f"found num_problems {num_problems}; expected at least 1.")
        settings = self.settings(part)
        cells = num_problems * max(setting.horizon * setting.num_arms for setting in settings)
        if cells > MAX_CELLS:
            raise ConfigError(
                f"found num_problems {num_problems:,}, which come to {cells:,} rewards; expected at most "
                f"{MAX_CELLS:,}, so {MAX_CELLS * num_problems // cells:,} problems."
            )
        batches = []
        for first, setting in enumerate(settings[:num_problems]):
            indices, groups = np.arange(first, num_problems, len(settings), dtype=np.int64), setting.groups
            if groups is not None:
                indices = indices[: len(groups)]
                groups = groups[: len(indices)]
            batches.append(_problems(setting, part, indices, groups, seed, iteration))
        return batches

    def problem(self, part: PartName, index: int) -> ProblemBatch:
        """Problem number `index` of a part alone, as `draw` has it with seed and iteration 0.

        Of a setting with groups they come again once all were there.
        """
        settings = self.settings(part)
        place, first = divmod(index, len(settings))
        groups = settings[first].groups
        if groups is not None:
            place %= len(groups)
            groups = [groups[place]]
        indices = np.array([first + place * len(settings)], dtype=np.int64)
        return _problems(settings[first], part, indices, groups, 0, 0)


def _problems(
    setting: Setting,
    part: PartName,
    indices: IntArray,
    groups: Sequence[int] | None,
    seed: int,
    iteration: int,
) -> ProblemBatch:
    """The problems of these numbers, all of one setting, and of these groups of a log where it has some."""
    paths = [(PART_ID[part], iteration, int(index)) for index in indices]
    seeds = [int(seed_sequence(seed, *path, WORDS).generate_state(1)[0]) for path in paths]
    table = setting.draw([generator(seed, *path) for path in paths], groups)
    return ProblemBatch(setting, indices, table, setting.words(seeds))


def is_named(name: object) -> bool:
    """Whether a suite that comes with the package has this name."""
    return name in _named()


def suite_names() -> dict[str, str]:
    """The name of every suite that comes with the package, with its title."""
    return {
        name: str(parse_yaml(file.read_text("utf-8"), f"suite {name}")["title"])
        for name, file in _named().items()
    }


def load_suite(name_or_path: str | Path, *, trust: bool = False) -> Suite:
    """The suite of a name, that of a user's own YAML file (.yaml, .yml), or that of a task's folder or file.

    Classes of one's own that the file names are run, since it is the user who named the file; but for a
    file inside a run directory, which may be somebody else's, only with `trust`. Raises UnknownNameError
    for a name nobody has, and ConfigError, naming file and key, for a file that is missing, no YAML, or
    wrong.
    """
    text, where = str(name_or_path), Path(name_or_path)
    named = _named()
    if text in named:
        return suite_from(parse_yaml(named[text].read_text("utf-8"), f"suite {text}"), f"suite {text}")
    if where.is_dir():
        where = task_file(where)
    if where.suffix not in (".yaml", ".yml"):
        raise UnknownNameError("suite", text, [*named, "FILE.yaml", "TASK_FOLDER"])
    trusted, data = trust or not _in_a_run(where), parse_yaml(_text_of(where), str(where))
    if is_task(data):
        return _suite_of_a_task(data, where, trust=trusted)
    return suite_from(data, str(where), str(where.parent), trust=trusted)


def _text_of(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: this suite file could not be read: {error}") from error


def _suite_of_a_task(data: Any, file: Path, *, trust: bool) -> Suite:
    """The suite that a task stands for, of what its file held."""
    task, folder = read(Task, data, str(file), str(file.parent)), str(file.parent)
    try:
        return suite_from(task.as_suite(file.resolve().parent.name), str(file), folder, trust=trust)
    except ConfigError as error:
        raise ConfigError(in_words_of_a_task(str(error))) from None


def suite_from(data: object, where: str, folder: str = ".", *, trust: bool = False) -> Suite:
    """The suite of what a YAML or JSON file held; `where` names that file in messages.

    `suite.model_dump(mode="json")` is such data and gives the same suite again. Relative file names
    in it start from `folder`. trust: whether classes of one's own that it names may be run; without it
    nothing of them is. Raises ConfigError and UnknownNameError.
    """
    if not isinstance(data, dict):
        found = type(data).__name__
        raise ConfigError(f"{where}: found {found}; expected keys such as name, title and train.")
    return read(Suite, data, where, folder, trust=trust)


def _in_a_run(file: Path) -> bool:
    """Whether a file lies in a run directory, or is a link into one."""
    folders = (*Path(os.path.abspath(file)).parents, *Path(os.path.realpath(file)).parents)
    return any(os.path.exists(folder / "run.json") for folder in folders)


def _named() -> dict[str, Traversable]:
    """The package's suite files by name: the path below `suites/` without its ending."""

    def below(folder: Traversable, prefix: str) -> dict[str, Traversable]:
        found: dict[str, Traversable] = {}
        for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
            if entry.is_dir():
                found |= below(entry, f"{prefix}{entry.name}/")
            elif entry.name.endswith(".yaml"):
                found[prefix + entry.name.removesuffix(".yaml")] = entry
        return found

    return below(resources.files("rmft.problems") / "suites", "")


def as_data(suites: Mapping[str, Suite]) -> dict[str, Any]:
    """Suites by name, each as JSON can hold it."""
    return {name: suite.model_dump(mode="json") for name, suite in suites.items()}
