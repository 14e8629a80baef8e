"""Contexts: what the options stand for and what they pay, as data. One YAML file per domain in `contexts/`.

The two groups share no domain, so that words not trained on are about matters not trained on.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Annotated, Literal

from pydantic import Field, field_validator

from rmft.errors import ConfigError, UnknownNameError
from rmft.reading import Config, parse_yaml, read

Group = Literal["train", "held_out"]
GROUPS: tuple[Group, ...] = ("train", "held_out")

Words = Annotated[str, Field(pattern=r"^[a-z]+([ '-][a-z]+)*$")]
Sentences = Annotated[str, Field(pattern=r"^[A-Z][^:=\n]*\.$")]


class Context(Config):
    """The words of one situation. More of what is paid is always better.

    name: its own among all contexts. domain: the field it is from. group: which problems it is for.
    arm, arms: an option and several of them. act: what the policy does in a round, as "you" do it. names:
    at least 8 options. reward: what an option brings, with its unit, one and several. situation: what it
    is all about. full, bandit: what is seen after a round under full information and in a bandit. A policy
    is not told whether the means of a bandit rest or move, so `bandit` is true of both.
    """

    name: Words
    domain: Words
    group: Group
    arm: Words
    arms: Words
    act: Words
    names: Annotated[tuple[Words, ...], Field(min_length=8)]
    reward: Words
    unit: Words
    units: Words
    situation: Sentences
    full: Sentences
    bandit: Sentences

    @field_validator("names")
    @classmethod
    def _names_apart(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"found {', '.join(twice)} more than once; name every option once")
        return names


@cache
def contexts() -> dict[str, Context]:
    """Every context that comes with the package, by its name. Raises ConfigError for a wrong file."""
    found: dict[str, Context] = {}
    folder = resources.files("rmft.scenarios") / "contexts"
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        domain, where = file.name.removesuffix(".yaml"), f"contexts/{file.name}"
        data = parse_yaml(file.read_text("utf-8"), where)
        for name, words in data["contexts"].items():
            if name in found or name in (*GROUPS, "all"):
                raise ConfigError(f"{where}: the name '{name}' is taken; give the context another one.")
            whole = {"name": name, "domain": domain, "group": data["group"], **words}
            found[name] = read(Context, whole, f"{where}: {name}")
    return found


def context_group(name: str) -> tuple[Context, ...]:
    """The contexts of a group, `train`, `held_out` or `all`, or the one called `name`.

    Raises UnknownNameError for any other name.
    """
    known = contexts()
    if name in known:
        return (known[name],)
    if name not in (*GROUPS, "all"):
        raise UnknownNameError("context or group of contexts", name, [*GROUPS, "all", *known])
    return tuple(context for context in known.values() if name in (context.group, "all"))
