"""Tasks of one's own, `rmft task new` and `task check`; problems for other frameworks, `export-env`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rmft.cli.app import app, say
from rmft.errors import command

task_app = typer.Typer(
    help="A decision of your own that repeats: options by name, in your words, with your data.",
    no_args_is_help=True,
)
app.add_typer(task_app, name="task")


@task_app.command()
def new(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new folder, such as my-task.")],
) -> None:
    """Write a task that runs as it is: task.yaml, its rewards, and train.yaml with settings to train it."""
    from rmft.problems.tasks import new_task

    for file in new_task(folder):
        print(file)
    say(
        f"Next: change them to yours, then: {command('task', 'check', folder)}; "
        f"{command('train', '--task', folder)}"
    )


@task_app.command()
def check(folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A task's folder or file.")]) -> None:
    """Say what is wrong with a task, or show how it is told: an opening, two rounds, counts of tokens."""
    from rmft.commands import check_task

    say("Reading the task, and a model's tokenizer where there is one")
    for line in check_task(folder):
        print(line)


@app.command("export-env")
def export_environment(
    suite: Annotated[
        str, typer.Argument(metavar="SUITE", help="A named suite ('rmft suites') or a YAML file.")
    ],
    framework: Annotated[str, typer.Option("--as", metavar="verifiers|openenv", help="Whose environment.")],
    target: Annotated[Path, typer.Option("-o", help="The folder to write.")],
) -> None:
    """Write a suite's problems, told in words, as a folder that another framework takes as an environment.

    The folder has a README and a test, and needs rmft's core and the framework only.
    """
    from rmft.environments.folder import export_env

    print(export_env(suite, framework, target))
