"""The nouns of a page: blocks that hold what is shown, as data. How they look is the browser's matter (web/).

A page is pieces, a piece is a list of blocks, and `as_json` turns them into what the browser reads.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import plotly.graph_objects as go

from rmft.report.untrusted import Interval, number, shown

MAX_TEXT = 2**18  # characters of one string

Cell = str | int | float | Interval | None
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Style:
    """How a policy looks in every chart. colour: #rrggbb; dash and symbol: plotly's names."""

    colour: str
    dash: str = "solid"
    symbol: str = "circle"
    width: float = 1.8


@dataclass(frozen=True, slots=True)
class Heading:
    text: str
    level: int = 2
    kind: Literal["heading"] = "heading"


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph. role: "lead" and "over" stand around the title, "caption" explains what follows."""

    text: str
    role: Literal["", "lead", "over", "caption"] = ""
    kind: Literal["text"] = "text"


@dataclass(frozen=True, slots=True)
class Note:
    """A sentence and a list set apart; `warn` where something is wrong."""

    text: str
    items: Sequence[str] = ()
    warn: bool = False
    kind: Literal["note"] = "note"


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells below `columns`. signed: columns whose numbers are differences. keys: by row, a policy's
    style; strong: rows that stand out."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""
    signed: Sequence[int] = ()
    keys: Sequence[Style | None] = ()
    strong: Sequence[int] = ()
    kind: Literal["table"] = "table"


@dataclass(frozen=True, slots=True)
class Chart:
    """A figure, how to read it, and its numbers: `rows` of cells below `columns`.

    log_axes: whether a logarithmic view is offered. policies: whether its lines are switched by a Policies
    block, which is then its legend.
    """

    title: str
    caption: str
    figure: go.Figure
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    log_axes: bool = False
    wide: bool = False
    policies: bool = False
    kind: Literal["chart"] = "chart"


@dataclass(frozen=True, slots=True)
class Policies:
    """Switches for the policies in the charts of a piece. shown: those that are on at first."""

    names: Sequence[str]
    labels: Sequence[str]
    styles: Sequence[Style]
    shown: Sequence[str]
    kind: Literal["policies"] = "policies"


@dataclass(frozen=True, slots=True)
class Pairs:
    """Names and what they are."""

    title: str
    pairs: Sequence[tuple[str, str]]
    kind: Literal["pairs"] = "pairs"


@dataclass(frozen=True, slots=True)
class Source:
    """A file as it is."""

    title: str
    text: str
    kind: Literal["source"] = "source"


Block = Heading | Text | Note | Table | Chart | Policies | Pairs | Source


@dataclass(frozen=True, slots=True)
class Piece:
    """What one view shows of one run: its title, and blocks below it."""

    title: str
    blocks: Sequence[Block] = field(default=())


def as_json(value: object) -> Any:
    """What json.dumps writes of a piece. Every string is spelled out by `shown`, every number is finite."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return shown(value, MAX_TEXT)
    if isinstance(value, int | float):
        return number(value)
    if isinstance(value, Interval):
        return [value.mean, value.low, value.high]
    if isinstance(value, go.Figure):
        return as_json(value.to_plotly_json())
    if dataclasses.is_dataclass(value):
        return {each.name: as_json(getattr(value, each.name)) for each in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {shown(str(key)): as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    raise TypeError(f"A page can show no {type(value).__name__}.")
