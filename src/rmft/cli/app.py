"""The program `rmft`, which its commands are added to, and how they speak to whoever calls them."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from rmft import __version__
from rmft.errors import ConfigError

app = typer.Typer(
    name="rmft",
    help="Iterative Regret-Minimization Fine-Tuning: policies that learn to decide under uncertainty "
    "from their own trajectories of lowest regret.",
    epilog="Start with: rmft train smoke",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

models_app = typer.Typer(
    help="List the language models that rmft can fetch by itself, or add one. Any folder that transformers "
    "can load, or a name on a model hub, can be a config's policy.model without being listed here.",
    invoke_without_command=True,
)
app.add_typer(models_app, name="models")

RunArgument = Annotated[
    Path, typer.Argument(metavar="RUN", help="A run, such as runs/demo-..., or a folder of seeds.")
]


def _each_once(runs: list[Path]) -> list[Path]:
    places = [os.path.realpath(run) for run in runs]
    for run, place in zip(runs, places, strict=True):
        if places.count(place) > 1:
            raise ConfigError(f"Found the run '{run}' more than once; name each once.")
    return runs


RunsArgument = Annotated[
    list[Path],
    typer.Argument(metavar="RUN", help="Runs, or folders of seeds.", callback=_each_once),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a setting: --set rollout.num_rollouts=16."),
]

TrustOption = Annotated[
    bool,
    typer.Option(
        "--trust-code", help="Run the classes that a run directory's suite names. Read their files first."
    ),
]


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        print(f"rmft {__version__}")
        raise typer.Exit


def say(text: str) -> None:
    """One line to the error stream, which a pipe leaves alone."""
    print(text, file=sys.stderr, flush=True)


def print_table(table: Table, keys: int | None = None) -> None:
    """A table, as wide as the terminal, or 200 characters in a pipe. The first column is never cut.

    keys: of a table of figures how many first columns name a row; where it is too wide it becomes several
    tables below one another, which all have these.
    """
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    table.columns[0].no_wrap = True
    for part in [table] if keys is None else _fitting(table, console.width, keys):
        console.print(part)


def _fitting(table: Table, width: int, keys: int) -> list[Table]:
    """The table in parts that are no wider, where its columns allow that; cells are never cut."""
    cells = [[column.header, *column.cells] for column in table.columns]
    widths = [max(cell_len(str(cell)) for cell in column) + 3 for column in cells]
    groups: list[list[int]] = [[]]
    room = width - 1 - sum(widths[:keys])
    for place in range(keys, len(widths)):
        if groups[-1] and sum(widths[each] for each in groups[-1]) + widths[place] > room:
            groups.append([])
        groups[-1].append(place)
    if len(groups) == 1:
        return [table]
    parts = []
    for number, group in enumerate(groups):
        last = number == len(groups) - 1
        part = Table(title=table.title if number == 0 else None, caption=table.caption if last else None)
        chosen = [*range(keys), *group]
        for place in chosen:
            column = table.columns[place]
            part.add_column(column.header, justify=column.justify, overflow="fold")
        for row, about in enumerate(table.rows, start=1):
            part.add_row(*(cells[place][row] for place in chosen), end_section=about.end_section)
        parts.append(part)
    return parts


def print_pairs(left: str, right: str, pairs: dict[str, str]) -> None:
    """A table of two columns with these headings."""
    table = Table(left, right)
    for pair in pairs.items():
        table.add_row(*pair)
    print_table(table)
