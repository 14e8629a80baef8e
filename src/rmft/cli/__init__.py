"""The command line: `rmft train`, `resume`, `evaluate`, `export`, `report`, `compare`, `models`, ...

Exit codes: 0; 2 for a user's mistake, told in one message; 1 for a fault; 130 on Ctrl-C and 143 on SIGTERM,
with the run ready to be resumed.
"""

from __future__ import annotations

import sys
from typing import Any

import typer

# isort: off
from rmft.cli import runs  # each adds its commands, in this order
from rmft.cli import tasks
from rmft.cli import looking
from rmft.cli import study
from rmft.cli import lists

# isort: on
from rmft.cli.app import app, say
from rmft.errors import ConfigError, RmftError

__all__ = ["lists", "looking", "main", "runs", "study", "tasks"]


def main(arguments: list[str] | None = None) -> Any:
    """Run the command line; every mistake of a user's ends it with one message and exit code 2."""
    try:
        given = sys.argv if arguments is None else ["rmft", *arguments]
        if "" in given:
            before = given[given.index("") - 1]
            raise ConfigError(
                f"Found an empty argument after '{before}'; is a variable of your shell not set?"
            )
        app(arguments)
    except RmftError as error:
        say(f"Error: {error}")
        sys.exit(2)
    except OSError as error:  # a place that can't be read or written
        say(f"Error: {error.strerror or error}" + (f": '{error.filename}'" if error.filename else "."))
        sys.exit(2)
    except SystemExit as ended:
        if isinstance(ended.__context__, typer.Abort):  # Ctrl-C where no run is under way
            sys.exit(130)
        raise
