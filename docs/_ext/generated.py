"""Pages of reference that are made from the code at each build: reference/*.md.

command-line.md   every command and option, from typer
settings.md       every setting of a config, a suite, a study and a task, from pydantic
suites.md         every suite in full
baselines.md      every baseline, its parameters and its source
python.md         the public face, by autodoc
"""

from __future__ import annotations

import re
import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer
from typer.cli import get_docs_for_click

import rmft
from rmft.cli import app
from rmft.config import RunConfig
from rmft.policies.baselines.catalogue import baseline_names, describe
from rmft.problems.suites import Suite, as_data, load_suite, suite_names
from rmft.problems.tasks import Task
from rmft.studies.study import StudyConfig

SIGNS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
"""Of the bounds that annotated_types and pydantic put on a setting."""


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", write)
    app.connect("autodoc-process-docstring", as_rst)
    return {"parallel_read_safe": True}


def write(sphinx: Sphinx) -> None:
    folder = Path(sphinx.srcdir) / "reference"
    folder.mkdir(exist_ok=True)
    pages = {
        "command-line": command_line(),
        "settings": settings(),
        "suites": suites(),
        "baselines": baselines(),
        "python": python(),
    }
    for name, text in pages.items():
        page = folder / f"{name}.md"
        if not page.exists() or page.read_text("utf-8") != text:  # else it is not read again
            page.write_text(text, "utf-8")


def as_rst(*given: Any) -> None:
    """Docstrings are plain text: what stands in backticks is code, and so are lines that are indented."""
    lines: list[str] = given[-1]
    made: list[str] = []
    for line in lines:
        if line.startswith("    ") and not (made and (made[-1].startswith("    ") or made[-1] == "")):
            made += ["", "::", ""]
        elif line.startswith("    ") and made[-1] == "" and "::" not in made[-2:]:
            made += ["::", ""]
        plain = re.sub(r"(`[^`]*`)|([*|_\\])", lambda hit: hit[1] or "\\" + hit[2], line)
        made.append(line if line.startswith("    ") else plain.replace("`", "``"))
    lines[:] = made


def command_line() -> str:
    group = typer.main.get_command(app)
    context = typer.Context(group, info_name="rmft")
    text = get_docs_for_click(obj=group, ctx=context, name="rmft")
    text = re.sub(r"^\* `--(install|show)-completion`.*\n", "", text, flags=re.MULTILINE)
    return text.replace("# `rmft`", "# Command line", 1)


def suites() -> str:
    parts = [
        "# Suites\n\nNamed families of problems, each in three parts, as `rmft suites NAME` shows them.\n"
    ]
    for name in suite_names():
        data = as_data({name: load_suite(name)})[name]
        title, told = data.pop("title"), data.pop("description", "")
        source = data.pop("source", "")
        shown = yaml.safe_dump(data, sort_keys=False, width=100)
        parts.append(f"## {name}\n\n**{title}.** {told}\n\nSource: {source}\n\n```yaml\n{shown}```\n")
    return "\n".join(parts)


def baselines() -> str:
    parts = [
        "# Baselines\n\nParameters are given as in `ucb(coefficient=0.3)`; `tuned:ucb` takes them from a "
        "grid.\n"
    ]
    for name in baseline_names():
        about = describe(name)
        parameters = ", ".join(f"`{key}` {value}" for key, value in about.parameters.items()) or "none"
        feedback = about.feedback or "bandit and full"
        parts.append(
            f"## {name}\n\n{about.summary}\n\n- Feedback: {feedback}\n- Parameters: {parameters}\n"
            f"- Source: {about.source}\n"
        )
    return "\n".join(parts)


def python() -> str:
    parts = ["# Python\n\nThe names in `rmft.__all__` are the public face. Everything else may change.\n"]
    for name in sorted(rmft.__all__, key=lambda name: (name[0].isupper(), name)):
        found = getattr(rmft, name)
        kind = "autoclass" if isinstance(found, type) else "autofunction"
        parts.append(f"## {name}\n\n```{{eval-rst}}\n.. {kind}:: {found.__module__}.{name}\n```\n")
    return "\n".join(parts)


def settings() -> str:
    parts = [
        "# Settings\n\nEvery key of a config, a suite, a task and a study. A group that comes in kinds is a "
        "section for each; `kind` says which one is meant.\n"
    ]
    seen: set[type[BaseModel]] = set()
    for title, top in {"Config": RunConfig, "Suite": Suite, "Task": Task, "Study": StudyConfig}.items():
        parts.append(f"## {title}\n")
        parts += map(section, models_in(top, seen))
    return "\n".join(parts)


def models_in(top: type[BaseModel], seen: set[type[BaseModel]]) -> Iterator[type[BaseModel]]:
    """The model and all that its fields hold, each once."""
    if top in seen:
        return
    seen.add(top)
    yield top
    for field in top.model_fields.values():
        for model in held(field.annotation):
            yield from models_in(model, seen)


def held(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in typing.get_args(annotation):
        yield from held(inner)


def section(model: type[BaseModel]) -> str:
    about = (model.__doc__ or "").strip().partition("\n\n")[0]
    rows = ["| setting | type | default | |", "|---|---|---|---|"]
    for name, field in model.model_fields.items():
        cells = [f"`{name}`", type_of(field), default_of(field), doc_of(model, name)]
        rows.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    return f"### {model.__name__}\n\n{escaped(about)}\n\n" + "\n".join(rows) + "\n"


def type_of(field: FieldInfo) -> str:
    bounds = [
        f"{sign} {getattr(each, bound)}"
        for each in field.metadata
        for bound, sign in SIGNS.items()
        if hasattr(each, bound)
    ]
    return ", ".join([named(field.annotation), *bounds])


def named(annotation: object) -> str:
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return named(inner[0])
    if origin is typing.Literal:
        return ", ".join(f"`{each}`" for each in inner)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(named(each) for each in inner)
    if annotation is type(None):
        return "none"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"[{annotation.__name__}](#{annotation.__name__.lower()})"
    if origin is not None:
        listed = ", ".join(named(each) for each in inner if each is not Ellipsis)
        return f"{getattr(origin, '__name__', origin)} of {listed}" if listed else str(origin)
    return getattr(annotation, "__name__", str(annotation))


def default_of(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    default = field.get_default(call_default_factory=False)
    if isinstance(default, BaseModel):
        kind = getattr(default, "kind", None)
        return f"`{kind}`" if kind else "its own"
    return "" if default is PydanticUndefined else f"`{'none' if default is None else default}`"


def doc_of(model: type[BaseModel], name: str) -> str:
    for each in model.__mro__:
        if each.__module__ in sys.modules and each.__module__.startswith("rmft"):
            docs = ModuleAnalyzer.for_module(each.__module__).find_attr_docs()
            if found := docs.get((each.__name__, name)):
                return escaped(" ".join(found).strip())
    return ""


def escaped(text: str) -> str:
    """Text of a docstring as Markdown: what stands in backticks stays."""
    return re.sub(
        r"(`[^`]*`)|([<>*_\[\]])", lambda found: found[1] or "\\" + found[2], " ".join(text.split())
    )
