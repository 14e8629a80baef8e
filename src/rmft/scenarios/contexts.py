"""Contexts: what the options stand for and what they pay, as data. One YAML file per domain in `contexts/`.

The two groups share no domain, so that words not trained on are about matters not trained on. A user's own
contexts are data of the same form, in any language and script; they are checked, since they may be anybody's.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, model_validator

from rmft.errors import ConfigError, UnknownNameError
from rmft.reading import Config, parse_yaml, read

Group = Literal["train", "held_out"]
GROUPS: tuple[Group, ...] = ("train", "held_out")

MAX_NAME, MAX_DESCRIPTION, MAX_SENTENCE = 60, 200, 600  # characters
MAX_CONTEXTS, MAX_BYTES = 1_000, 1_000_000  # of a user's own
JOINERS = "\u200c\u200d"  # invisible, and part of how some scripts are written


def on_one_line(text: str, limit: int) -> str:
    """`text`, if a line of a prompt can hold it. Raises ValueError."""
    if not text or text != text.strip() or len(text) > limit:
        raise ValueError(
            f"found {text[:40]!r} of {len(text)} characters; expected 1 to {limit}, without blanks around"
        )
    for character in text:
        if unicodedata.category(character) in ("Zl", "Zp") or (
            unicodedata.category(character).startswith("C") and character not in JOINERS
        ):
            raise ValueError(
                f"found {text[:40]!r} with the character U+{ord(character):04X}; expected words on one line"
            )
    return text


def _words(text: str) -> str:
    return on_one_line(text, MAX_NAME)


def _description(text: str) -> str:
    return on_one_line(text, MAX_DESCRIPTION)


def _sentences(text: str) -> str:
    if not unicodedata.category(on_one_line(text, MAX_SENTENCE)[-1]).startswith("P"):
        raise ValueError(f"found {text[-40:]!r}; expected a sentence, with a full stop at its end")
    return text


def _pairs(given: object) -> object:
    return tuple(given.items()) if isinstance(given, Mapping) else given


def _apart(names: tuple[str, ...]) -> tuple[str, ...]:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"found {', '.join(twice)} more than once; name every option once")
    return names


def check_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """Names of arms, as they came. Raises ValueError where one can't be told, or is there twice."""
    return _apart(tuple(_words(name) for name in names))


Words = Annotated[str, AfterValidator(_words)]
Sentences = Annotated[str, AfterValidator(_sentences)]
Description = Annotated[str, AfterValidator(_description)]
Names = Annotated[tuple[Words, ...], AfterValidator(_apart)]
"""What options are called: words in any script, none twice."""


class Context(Config):
    """The words of one situation. More of what is paid is always better.

    name: its own among all contexts. domain: the field it is from. group: which problems it is for.
    arm, arms: an option and several of them. act: what the policy does in a round, as "you" do it. names:
    what anonymous options are called; those that are left over are "option 9" and so on. descriptions: more
    about an option, by its name, told once. reward: what an option brings, with its unit, one and several.
    situation: what it is all about. before: what is said of what is shown before a round, where something is.
    full, bandit: what is seen after a round under full information and in a
    bandit. A policy is not told whether the means of a bandit rest or move, so `bandit` is true of both.
    Raises ConfigError.
    """

    name: Words
    domain: Words = "own"
    group: Group = "train"
    arm: Words
    arms: Words
    act: Words
    names: Names = ()
    descriptions: Annotated[tuple[tuple[Words, Description], ...], BeforeValidator(_pairs)] = ()
    reward: Words
    unit: Words
    units: Words
    situation: Sentences
    before: Sentences = (
        "Before each round you are told something about it, on which it may depend what is best."
    )
    full: Sentences = "After the round you are told what each of them would have brought."
    bandit: Sentences = "After the round you are told what your choice brought, which can vary."

    @model_validator(mode="before")
    @classmethod
    def _filled_in(cls, data: Any) -> Any:
        """What is left out: the act is to choose an option, and a reward is called as its unit."""
        if not isinstance(data, Mapping):
            return data
        filled = {"act": f"choose one {data.get('arm')}", "reward": data.get("unit")}
        return {key: value for key, value in filled.items() if value is not None} | dict(data)


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


def context_group(contexts_: str) -> tuple[Context, ...]:
    """The contexts of a group, `train`, `held_out` or `all`, the one of a name, or those of `as_text`.

    Raises UnknownNameError for any other name, and ConfigError for a wrong text.
    """
    if contexts_.startswith("["):
        return _from_text(contexts_)
    known = contexts()
    if contexts_ in known:
        return (known[contexts_],)
    if contexts_ not in (*GROUPS, "all"):
        raise UnknownNameError("context or group of contexts", contexts_, [*GROUPS, "all", *known])
    return tuple(context for context in known.values() if contexts_ in (context.group, "all"))


def own_contexts(data: object, where: str) -> tuple[Context, ...]:
    """A user's own contexts: a mapping of names to their words, or a list of whole ones.

    Raises ConfigError, whose message begins with `where`.
    """
    if isinstance(data, Mapping):
        data = [
            {"name": name, **words} if isinstance(words, Mapping) else words for name, words in data.items()
        ]
    if not isinstance(data, list) or not 1 <= len(data) <= MAX_CONTEXTS:
        raise ConfigError(
            f"{where}: found {type(data).__name__}; expected 1 to {MAX_CONTEXTS} contexts by name, each with "
            "keys such as situation, arm, arms, unit and units."
        )
    found = tuple(read(Context, one, f"{where}: {_name(one)}") for one in data)
    names = [context.name for context in found]
    if len(set(names)) < len(names):
        raise ConfigError(f"{where}: found contexts named {', '.join(names)}; expected no name twice.")
    return found


def read_contexts(path: Path) -> tuple[Context, ...]:
    """The contexts in a user's YAML file, below its key `contexts`. Raises ConfigError."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{path}: found more than {MAX_BYTES:,} bytes; expected a file of contexts.")
        data = parse_yaml(path.read_text("utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: these contexts could not be read: {error}") from None
    if not isinstance(data, dict) or set(data) != {"contexts"}:
        raise ConfigError(
            f"{path}: expected the one key 'contexts', with contexts by name below it, each with keys such "
            "as situation, arm, arms, unit and units."
        )
    return own_contexts(data["contexts"], str(path))


def as_text(own: Sequence[Context]) -> str:
    """Contexts as a text that `context_group` reads again, and that words and records hold."""
    return json.dumps([context.model_dump(exclude_defaults=True) for context in own], ensure_ascii=False)


@lru_cache(maxsize=64)
def _from_text(text: str) -> tuple[Context, ...]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        raise ConfigError(f"contexts: found {text[:60]!r}, which is no JSON list of contexts.") from None
    return own_contexts(data, "contexts")


def _name(context: object) -> str:
    return str(context.get("name"))[:MAX_NAME] if isinstance(context, Mapping) else "a context"
