"""Comparing settings: `rmft study`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rmft.cli.app import TrustOption, app, print_table, say
from rmft.errors import command


@app.command()
def study(
    study: Annotated[Path, typer.Argument(metavar="STUDY", help="A YAML file; see docs/studies.md.")],
    folder: Annotated[
        Path | None, typer.Option("--dir", metavar="DIR", help="Where to keep it (default: runs/<its name>).")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, max=1000, help="Runs to train at once.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
    trust_code: TrustOption = False,
) -> None:
    """Train entries that differ in settings, with the same seeds, and compare them on unseen problems.

    All runs lie in one folder. Stopped or killed at any instant, the same command computes what is owed:
    runs that are there are never trained twice, and a changed entry is a new run beside the old one. A run
    that fails stops no other; it is named at the end, with exit code 1.

    For each evaluation: means with 95% intervals over seeds and problems, differences on the same problems,
    and p-values corrected for the number of comparisons (Holm).
    """
    from rmft.locks import hold_lock
    from rmft.studies.folder import StudyFolder
    from rmft.studies.running import owed, run_all
    from rmft.studies.study import load_study
    from rmft.studies.summary import summarize

    loaded = load_study(study)
    where = folder or Path("runs") / loaded.settings.name.replace(" ", "-")
    found = StudyFolder(where, loaded, trust=trust_code)
    found.prepare()
    with hold_lock(where):
        works = owed(found)
        say(f"{where}: {len(loaded.entries)} entries, {len(loaded.settings.seeds)} seeds; {len(works)} to do")
        try:
            failed = run_all(found, study, works, jobs, trust=trust_code) if works else {}
        except KeyboardInterrupt:
            say(f"\nStopped; nothing finished is lost. Go on with: {command('study', study, '--dir', where)}")
            raise typer.Exit(130) from None
        results = summarize(found, failed)
    if as_json:
        print(results.model_dump_json(indent=1))
    else:
        for table in results.tables():
            print_table(table, keys=1)
    say(f"Written to {where / 'results.json'}.")
    for name, what in failed.items():
        say(f"{name} failed: {what}")
    if failed:
        raise typer.Exit(1)
