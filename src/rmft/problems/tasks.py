"""Tasks: a decision that repeats, its options by name, in words and with data of one's own.

A task is a file, task.yaml in a folder of its own, that is a short way to write a suite: one setting with
named arms and one context. `rmft task new FOLDER` writes one that runs as it is; docs/your-task.md explains
it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from rmft.errors import ConfigError
from rmft.reading import Config
from rmft.regret import RegretKind
from rmft.scenarios.contexts import Description, Sentences, Words, check_names
from rmft.types import Feedback

TASK_FILE, CONFIG_FILE, DATA_FILE = "task.yaml", "train.yaml", "visits.csv"
BASELINES = {
    "bandit": ["uniform", "greedy", "thompson", "tuned:ucb", "tuned:bayes-ucb"],
    "full": ["uniform", "ftl", "hedge", "tuned:hedge"],
}


class Called(Config):
    """What something is called, one and several of it."""

    one: Words
    several: Words


class Option(Config):
    """What can be chosen: its name, and if wanted more about it, which is told once."""

    name: Words
    description: Description | None = None


def _called(given: Any) -> Any:
    return {"one": given, "several": f"{given}s"} if isinstance(given, str) else given


def _option(given: Any) -> Any:
    return {"name": given} if isinstance(given, str) else given


OneAndSeveral = Annotated[Called, BeforeValidator(_called)]


class Task(Config):
    """A task, as its file has it.

    name: unless given, that of its folder. situation: a sentence or two that a policy is told first. option,
    reward: what they are called, `brand` or {one: brand, several: brands}. decide: what "you" do in a round;
    unless given, choose one option. after: a sentence on what is seen after a round. options: each a name, or
    {name, description}. arms: `named`, so that what names mean can be learned, or `anonymous`: each problem
    then gives every name to another option at random. feedback: `bandit`, the reward of the chosen option is
    seen, or `full`, that of each. horizon: rounds of a problem. rewards: the name of a log whose columns are
    the options, or a reward process such as {kind: bernoulli}; group, parts, context, label: as of a log
    (`rmft.problems.logged`). features: what is shown of every option: by name, the column of each option that
    tells it. before: a sentence on what is shown before a round. regret, reward_range: as of a setting.
    validation_problems, held_out_problems: how many those parts have, or as many as there are groups.
    baselines: those that it is compared with.
    """

    name: Words | None = None
    title: str = ""
    situation: Sentences
    option: OneAndSeveral
    reward: OneAndSeveral
    decide: Words | None = None
    before: Sentences | None = None
    after: Sentences | None = None
    options: Annotated[
        tuple[Annotated[Option, BeforeValidator(_option)], ...], Field(min_length=2, max_length=1_000)
    ]
    arms: Literal["named", "anonymous"] = "named"
    feedback: Feedback
    horizon: int = Field(ge=1)
    rewards: str | dict[str, Any]
    group: str | None = None
    parts: dict[str, float] | None = None
    context: tuple[str, ...] | None = None
    features: dict[str, dict[str, str]] | None = None
    label: str | None = None
    regret: RegretKind | None = None
    reward_range: tuple[float, float] | None = None
    validation_problems: int = Field(default=100, ge=1)
    held_out_problems: int = Field(default=300, ge=1)
    baselines: tuple[str, ...] | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> Task:
        check_names(tuple(option.name for option in self.options))
        of_a_log = (self.group, self.parts, self.context, self.features, self.label)
        if not isinstance(self.rewards, str) and any(of_a_log):
            raise ConfigError(
                "group, parts, context, features and label are of a log: give rewards as its file's name."
            )
        names = [option.name for option in self.options]
        for feature, columns in (self.features or {}).items():
            if set(columns) != set(names):
                raise ConfigError(
                    f"features: {feature}: found the columns of {', '.join(columns)}; expected one for each "
                    f"option: {', '.join(names)}."
                )
        return self

    def as_suite(self, name: str) -> dict[str, Any]:
        """The suite that it stands for, as data. name: of its folder."""
        names = [option.name for option in self.options]
        words = {
            "arm": self.option.one, "arms": self.option.several, "unit": self.reward.one,
            "units": self.reward.several, "act": self.decide, "situation": self.situation, "names": names,
            "full": self.after, "bandit": self.after, "before": self.before,
            "descriptions": {each.name: each.description for each in self.options if each.description},
        }  # fmt: skip
        process: dict[str, Any] | None = None if isinstance(self.rewards, str) else self.rewards
        if process is None:
            process = {"kind": "logged", "rewards": self.rewards, "columns": names}
            process |= _given({name: getattr(self, name) for name in ("group", "parts", "context", "label")})
            if self.features:
                of_arms = self.features.items()
                process["features"] = {
                    feature: [columns[name] for name in names] for feature, columns in of_arms
                }
        called = self.name or name
        setting = {
            "name": called, "feedback": self.feedback, "horizon": self.horizon, "num_arms": len(names),
            "arms": names if self.arms == "named" else "anonymous",
            "reward_process": process, "contexts": {called: _given(words)},
            **_given({"regret": self.regret, "reward_range": self.reward_range}),
        }  # fmt: skip
        return {
            "name": called,
            "title": self.title or f"{len(names)} {self.option.several}, {self.horizon} rounds",
            "baselines": BASELINES[self.feedback] if self.baselines is None else self.baselines,
            "train": {"settings": [setting]},
            "validation": {"num_problems": self.validation_problems},
            "held_out": {"num_problems": self.held_out_problems},
        }


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def is_task(data: object) -> bool:
    """Whether what a YAML file held is a task, and not a suite."""
    return isinstance(data, Mapping) and "train" not in data and bool({"options", "situation"} & data.keys())


def in_words_of_a_task(message: str) -> str:
    """A message about the suite of a task by the names that the task's file has for its keys."""
    for suite, task in (
        ("train.settings.0.reward_process", "rewards"),
        ("train.settings.0.contexts", "words"),
        ("train.settings.0.", ""),
        ("train.settings.0: ", ""),
    ):
        message = message.replace(suite, task)
    return message


def task_file(place: str | Path) -> Path:
    """The file of a task that is named by its folder or by itself.

    Raises ConfigError when there is none.
    """
    where = Path(place)
    file = where / TASK_FILE if where.is_dir() else where
    if not file.is_file():
        found = "no folder" if not where.exists() else f"no {TASK_FILE}"
        raise ConfigError(f"'{place}': found {found}; expected a task. Make one with: rmft task new {place}")
    return file


def new_task(folder: Path) -> list[Path]:
    """Write a task that runs as it is into a new folder: the files. Raises ConfigError when it exists."""
    if folder.exists():
        raise ConfigError(f"'{folder}' exists already; choose another name, and nothing is overwritten.")
    name = folder.resolve().name
    folder.mkdir(parents=True)
    for file in (TASK_FILE, CONFIG_FILE, DATA_FILE):
        with resources.as_file(resources.files("rmft.problems") / "new_task" / file) as source:
            shutil.copyfile(source, folder / file)
    config = (folder / CONFIG_FILE).read_text("utf-8")
    safe = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in name).lstrip("._-")
    (folder / CONFIG_FILE).write_text(config.replace("NAME", json.dumps(safe[:64] or "task")), "utf-8")
    return [folder / file for file in (TASK_FILE, CONFIG_FILE, DATA_FILE)]
