"""Looking at runs and at agents: `rmft report`, `view`, `show`, `compare`, `play`."""

from __future__ import annotations

import sys
import webbrowser
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from rmft.cli.app import RunArgument, RunsArgument, TrustOption, app, print_table
from rmft.errors import ConfigError


@app.command()
def report(
    runs: RunsArgument,
    output: Annotated[
        Path | None, typer.Option("-o", help="(default: report.html in the run, or the first)")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is no report, too.")] = False,
) -> None:
    """Write one self-contained HTML file about a run, or several beside each other; it opens offline.

    It holds a sample of the trajectories and says so; `rmft view` shows all of them.
    """
    from rmft.report.page import write_report

    print(write_report(runs, output, replace=force))


@app.command()
def view(
    runs: RunsArgument,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 0,
    browser: Annotated[bool, typer.Option(help="Open it in the browser.")] = True,
) -> None:
    """Show runs in the browser, from this machine to this machine alone; a run going on is followed.

    The same page as `rmft report` writes, with every trajectory on demand. Ctrl-C ends it.
    """
    from rmft.report.server import ViewServer

    with ViewServer(runs, port) as server:
        print(server.address, flush=True)
        if browser:
            webbrowser.open(server.address)
        with suppress(KeyboardInterrupt):
            server.serve_forever()


@app.command()
def show(run: RunArgument) -> None:
    """Print what a run, or a folder of seeds, came to in at most 40 lines."""
    from rmft.report.over_seeds import summary_lines
    from rmft.report.terminal import NARROWEST, WIDTH

    console = Console()
    width = min(max(console.width, NARROWEST), WIDTH) if console.is_terminal else WIDTH
    print("\n".join(summary_lines(run, width)))


@app.command()
def compare(runs: RunsArgument) -> None:
    """Several runs side by side: results, and the settings in which they differ.

    A folder of seeds stands for its runs, and has a row of its own with means over seeds and their spread.
    """
    from rmft.report.compare import comparison_table
    from rmft.report.over_seeds import summary_in_terminal

    over_seeds = summary_in_terminal(runs)
    if over_seeds is not None:
        print_table(over_seeds)
    print_table(comparison_table(runs))


@app.command()
def play(
    policy: Annotated[
        str, typer.Argument(metavar="POLICY", help="A run, a checkpoint's folder or a baseline.")
    ],
    scenario: Annotated[
        str | None, typer.Option(metavar="CONTEXT", help="What it is about, such as 'meadows'; or a group.")
    ] = None,
    suite: Annotated[
        str | None, typer.Option(help="Where the problem is from (default: the run's own, or words/bandits).")
    ] = None,
    setting: Annotated[str | None, typer.Option(help="One of the suite's settings (default: any).")] = None,
    problem: Annotated[int, typer.Option(min=0, max=10**9, help="Its number in the validation part.")] = 0,
    me: Annotated[bool, typer.Option("--me", help="Play it yourself first.")] = False,
    seed: Annotated[
        int, typer.Option(min=0, help="Of the agent's random draws; the problem stays the same.")
    ] = 0,
    trust_code: TrustOption = False,
) -> None:
    """Watch an agent decide round by round, or play the same problem yourself first (--me).

    At the end: your regret, the agent's and Thompson sampling's, and what was hidden.
    """
    from rmft.commands import play_problem

    interactive = sys.stdin.isatty() and sys.stdout.isatty()

    def pause() -> None:
        if interactive:
            input("[Enter]")

    try:
        regrets = play_problem(
            policy, suite, setting, problem, scenario, seed, input if me else None, print, pause, trust_code
        )
    except EOFError:
        raise ConfigError(
            "The input ended in the middle of the game; answer with a letter each round."
        ) from None
    table = Table("player", "regret", title="Lost to the best option")
    for name, regret in regrets.items():
        table.add_row(name, f"{regret:.2f}")
    print_table(table)
