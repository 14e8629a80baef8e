"""Training and what follows from it: `rmft train`, `resume`, `evaluate`, `export`."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rmft.cli.app import RunArgument, SetOption, TrustOption, app, print_table, say
from rmft.cli.forecast import show_forecast
from rmft.cli.training import ended, teller, told, train_run, train_seeds
from rmft.config import load_config
from rmft.errors import ConfigError
from rmft.problems.suites import as_data
from rmft.problems.tasks import CONFIG_FILE, task_file
from rmft.run_directory import RunDirectory
from rmft.seeds import Experiment, is_experiment, parse_seeds

if TYPE_CHECKING:
    from rmft.results import Evaluation


@app.command()
def train(
    config: Annotated[
        Path | None,
        typer.Argument(metavar="CONFIG", help="A YAML file of settings, or a name of 'rmft configs'."),
    ] = None,
    task: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="A task of your own to train on (default CONFIG: its train.yaml)."
        ),
    ] = None,
    run_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where to keep the run (default: runs/<name>-<time>).")
    ] = None,
    settings: SetOption = None,
    seeds: Annotated[
        str | None,
        typer.Option(
            metavar="LIST", help="Train several seeds, such as 0,1,2 or 0-4: a folder with a run for each."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Language models: only forecast tokens, time, memory or cost.")
    ] = False,
    calls: Annotated[
        int,
        typer.Option(
            min=0, help="What the forecast asks for: real calls, or problems really played. 0: nothing."
        ),
    ] = 0,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Whose tokens are counted: a folder, or a name of `rmft models` or the hub.",
        ),
    ] = None,
    no_budget: Annotated[
        bool, typer.Option("--no-budget", help="Hosted models: start without a limit to what it may cost.")
    ] = False,
    trust_code: TrustOption = False,
) -> None:
    """Train a policy by Iterative RMFT, and keep everything about the run in a new directory.

    Every iteration draws problems, rolls the policy out on each, scores whole trajectories by regret,
    gives credit to decisions as the config's `credit` says, and fine-tunes on them. The iteration that is
    best on the suite's validation part is the result. Killed at any instant, `rmft resume` finishes the run.

    With --seeds the folder holds a run for every seed, seed-0, seed-1 and so on, trained one after the other;
    `rmft resume`, `evaluate`, `report`, `show`, `view` and `compare` take the folder as they take a run.
    """
    from rmft.api import default_run_dir
    from rmft.costs import check_budget
    from rmft.policies.baselines.catalogue import TUNED
    from rmft.rivals import baselines
    from rmft.wiring.backends import backend
    from rmft.wiring.suites import load_suites

    if task is not None:
        file = task_file(task)
        config = config or file.parent / CONFIG_FILE
        settings = [*(settings or ()), f"suite={json.dumps(str(task))}"]
    if config is None:
        raise ConfigError("Found no settings to train with; give a CONFIG, or a task by --task FOLDER.")
    if not dry_run and (calls or tokenizer is not None):
        option = "--calls" if calls else "--tokenizer"
        raise ConfigError(
            f"{option} is of the forecast, which --dry-run makes; without it a run would start."
        )
    checked = load_config(config, settings)
    several = None if seeds is None else parse_seeds(seeds)
    if several and any(each.partition("=")[0].strip() == "seed" for each in settings or ()):
        raise ConfigError("Found --seeds together with --set seed=...; give one of them.")
    suites = load_suites(checked, trust=trust_code)
    if dry_run:
        show_forecast(checked, suites, calls, tokenizer)
        if several and len(several) > 1:
            say(f"For one seed; {len(several)} seeds cost {len(several)} times as much.")
        return
    if not no_budget:
        check_budget(checked)
    suite = suites[checked.suite]
    baselines((spec.removeprefix(TUNED) for spec in suite.baselines), suite)
    where = run_dir or default_run_dir(checked)
    if several:
        backend(checked, suites, where).close()  # what is wrong so far leaves nothing behind
        train_seeds(Experiment.create(where, checked, several, as_data(suites)), trust=True)
        return
    with (
        closing(backend(checked, suites, where)) as machinery,  # what is wrong so far leaves nothing behind
        closing(RunDirectory.create(where, checked, as_data(suites))) as created,
        told(where),
    ):
        ended(train_run(created, suites, machinery), where)


@app.command()
def resume(
    run: RunArgument,
    max_usd: Annotated[float | None, typer.Option(min=0, help="A new budget for hosted models.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="A new budget for hosted models.")] = None,
    iterations: Annotated[
        int | None, typer.Option(min=1, help="Extend it: go on to so many iterations in all.")
    ] = None,
    trust_code: TrustOption = False,
) -> None:
    """Finish a run or a folder of seeds that was stopped or killed: only what is owed is computed.

    With --iterations a run is extended, finished or not: what is beyond its config becomes a stage like the
    last, with a learning rate that takes its course anew, and config.yaml says so. The result is that of a
    run that had these stages from the start.
    """
    from rmft.wiring.backends import backend
    from rmft.wiring.suites import suites_of

    if is_experiment(run):
        several = Experiment.open(run)
        for seed in several.seeds if iterations else ():
            with closing(RunDirectory.open(several.run(seed))) as each:
                each.extend(iterations)
        train_seeds(several, max_usd, max_tokens, trust=trust_code)
        return
    with closing(RunDirectory.open(run)) as opened:
        opened.check()
        suites = suites_of(opened, trust=trust_code, say=teller(opened))
        opened.set_budget(max_usd, max_tokens)
        opened.extend(iterations)
        with closing(backend(opened.config, suites, run)) as machinery, told(run):
            ended(train_run(opened, suites, machinery), run)


@app.command()
def evaluate(
    target: Annotated[
        str,
        typer.Argument(
            metavar="RUN_OR_POLICY", help="A run, a folder of seeds, a checkpoint's folder or a baseline."
        ),
    ],
    suite: Annotated[str | None, typer.Option(help="Another suite than the run's own.")] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(
            metavar="start|BASELINE|RUN",
            help="Rivals, one per option: 'start' (the run before training), another run or checkpoint's "
            "folder, a baseline such as "
            "'ucb(coefficient=0.4)', or 'tuned:NAME' (default: start and the suite's baselines).",
        ),
    ] = None,
    part: Annotated[str, typer.Option(help="held_out or validation.")] = "held_out",
    num_problems: Annotated[
        int | None, typer.Option(min=2, help="(default: as many as the suite says)")
    ] = None,
    num_rollouts: Annotated[int, typer.Option(min=1, help="Rollouts of each problem.")] = 1,
    seed: Annotated[
        int, typer.Option(min=0, help="Of the policies' random draws; the problems stay the same.")
    ] = 0,
    opponent: Annotated[
        str | None,
        typer.Option(
            metavar="BASELINE|RUN|self",
            help="Games: who plays the other side (default: whom the suite names).",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print docs/evaluation-json.md's JSON.")] = False,
    trust_code: TrustOption = False,
) -> None:
    """Play unseen problems, and compare with baselines on the same reward tables.

    A run's best and first policies are compared with the rivals; every mean has a 95% interval
    from a cluster bootstrap over problems. Baselines named `tuned:` take their parameters from the
    suite's validation part. Written to the run's evaluation.json, and with another suite or other settings to
    a file beside it; `rmft report` shows all of them.

    Of a folder of seeds all runs are evaluated, each into a file of its own too: means over seeds and
    problems, with intervals that cluster by both, and each seed's own mean.
    """
    from rmft.commands import evaluate_target

    result, keep = evaluate_target(
        target, suite, against, part, num_problems, num_rollouts, seed, say, trust_code, opponent
    )
    if as_json:
        print(result.to_json(), end="")
    else:
        print_table(result.table(against=_rivals(result)), keys=1 + (len(result.settings) > 1))
    written = keep()
    if written is not None:
        say(f"Written to {written}. Next: rmft report {target}")


@app.command()
def export(
    run: RunArgument,
    target: Annotated[Path, typer.Option("-o", help="The folder or file to write.")],
    what: Annotated[
        str,
        typer.Option(
            "--as",
            metavar="model|messages|tokens",
            help="The best model, or what was trained on: JSON lines of chats, or of token ids.",
        ),
    ] = "model",
    merge: Annotated[
        bool,
        typer.Option(help="A whole model that needs no PEFT, with the adapter in its weights (float32)."),
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Load it, and compare its answers with the policy's.")
    ] = False,
    iteration: Annotated[
        list[int] | None, typer.Option(help="Messages and tokens: of this one only (default: all).")
    ] = None,
) -> None:
    """Write a run's best language model as a folder that transformers, PEFT or vLLM loads.

    Without --merge it is a PEFT adapter; either way a README.md tells of base model, data, and regret, and
    rmft itself loads it too. With --check, or --merge, it is loaded as other programs do, and its answers to
    recorded rounds are compared with the policy's and those before training. With --as messages or --as
    tokens, write the rollouts that were kept for training, with their weights, for other trainers
    (docs/records.md).
    """
    from rmft.commands import export_run, export_training_data

    if what == "model":
        if iteration:
            raise ConfigError("Found --iteration, which goes with --as messages or tokens.")
        export_run(run, target, say, merge=merge, check=check)
        print(target)
        return
    count = export_training_data(run, what, target, iteration or ())
    print(target)
    say(f"{count:,} rollouts.")


@app.command()
def track(
    run: RunArgument,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Another tracker: tracking.kind=tensorboard."),
    ] = None,
) -> None:
    """Send a run's figures to an experiment tracker: those that it does not have yet.

    A run whose config has `tracking:` does so by itself while it trains (docs/trackers.md).
    """
    from rmft.commands import track_run

    id, count = track_run(run, settings or ())
    print(id)
    say(f"{count:,} iterations sent.")


def _rivals(result: Evaluation) -> list[str]:
    """Whom the table shows differences to: the start, other policies, and the best baseline on validation."""
    from rmft.rivals import BOUNDS

    baselines = {*(result.rivals or [])[1:], *BOUNDS}
    return [name for name in result.policies[1:] if name not in baselines]
