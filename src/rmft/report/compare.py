"""Runs beside each other: their results, and the settings in which they differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table
from rich.text import Text

from rmft.report.folders import expanded
from rmft.report.paired import pairings, unpaired
from rmft.report.run_reader import Run, read_run
from rmft.report.untrusted import Interval, shown
from rmft.report.words import BEST, digits, plain, with_bounds

ABSENT = "–"
MAX_DIFFERENCES = 60


@dataclass(frozen=True, slots=True)
class RunSummary:
    """One run's results. None is what the run does not hold (yet); regret is that of the kept iteration.

    evaluated_on: the suite, part and number of problems of the evaluation, in words. gains: by rival,
    this run's regret minus the rival's on the same problems. differing: by dotted config key, this
    run's value of every setting in which the compared runs differ.
    """

    name: str
    path: Path
    status: str
    best_iteration: int | None
    num_iterations: int
    seconds: float | None
    validation_regret: Interval | None
    validation_suff_fail_freq: Interval | None
    evaluated_on: str | None
    evaluation_regret: Interval | None
    evaluation_suff_fail_freq: Interval | None
    gains: dict[str, Interval]
    differing: dict[str, str]
    notes: list[str]


def compare_runs(run_dirs: Sequence[Path]) -> list[RunSummary]:
    """A summary of every run, in the order given. Raises RunDirectoryError for what is no run directory."""
    return summarize([read_run(path) for path in expanded(run_dirs)])


def summarize(runs: Sequence[Run]) -> list[RunSummary]:
    """A summary of every run, in the order given."""
    keys = dict.fromkeys(key for run in runs for key in run.config)
    differing = [key for key in keys if len({run.config.get(key, ABSENT) for run in runs}) > 1]
    return [_summary(run, differing) for run in runs]


def comparison_table(run_dirs: Sequence[Path]) -> Table:
    """One column per run, one row per result and per differing setting. Raises RunDirectoryError.

    run_dirs: runs, and folders of seeds, each of which stands for its runs.
    """
    runs = [read_run(path) for path in expanded(run_dirs)]
    summaries = summarize(runs)
    names = [summary.name for summary in summaries]
    if len(set(names)) < len(names):
        names = [str(summary.path) for summary in summaries]
    table = Table(title="Runs")
    table.add_column("", no_wrap=True)
    for name in names:
        table.add_column(Text(shown(name)), justify="right")
    rows: dict[str, list[str]] = {
        "status": [summary.status for summary in summaries],
        "best iteration": [best_of(summary) for summary in summaries],
        "seconds": [digits(summary.seconds) for summary in summaries],
        "validation regret": [with_bounds(summary.validation_regret) for summary in summaries],
        "validation SuffFailFreq": [with_bounds(summary.validation_suff_fail_freq) for summary in summaries],
        "evaluated on": [summary.evaluated_on or ABSENT for summary in summaries],
        "regret": [with_bounds(summary.evaluation_regret) for summary in summaries],
        "SuffFailFreq": [with_bounds(summary.evaluation_suff_fail_freq) for summary in summaries],
    }
    for title, cells in rows.items():
        table.add_row(Text(title), *(Text(plain(shown(cell))) for cell in cells))
    table.add_section()
    paired = pairings(runs)
    for pairing in paired:
        for other in pairing.runs:
            found = [pairing.differences.get((place, other)) for place in range(len(runs))]
            cells = [with_bounds(each) for each in found]
            table.add_row(Text(shown(f"minus {names[other]}", 60)), *(Text(plain(cell)) for cell in cells))
    table.add_section()
    keys = list(summaries[0].differing) if summaries else []
    for key in keys[:MAX_DIFFERENCES]:
        table.add_row(
            Text(shown(key, 80)), *(Text(shown(summary.differing[key], 80)) for summary in summaries)
        )
    captions = warnings(summaries)
    captions += [f"Minus a run: regret on the same {pairing.on}, paired." for pairing in paired]
    captions += [f"No paired difference. {why}" for why in unpaired(runs, names, paired)]
    captions += [f"{summary.name}: {note}" for summary in summaries for note in summary.notes]
    table.caption = Text(shown("\n".join(captions), 4000)) if captions else None
    return table


def warnings(summaries: Sequence[RunSummary]) -> list[str]:
    """What a reader of these results beside each other has to know."""
    count = len(summaries[0].differing) if summaries else 0
    said = [f"{count - MAX_DIFFERENCES} more settings differ."] if count > MAX_DIFFERENCES else []
    if len({summary.evaluated_on for summary in summaries if summary.evaluated_on}) > 1:
        said.append("The runs were evaluated on different problems, so their regrets do not compare.")
    return said


def _summary(run: Run, differing: list[str]) -> RunSummary:
    evaluation = run.evaluation
    best = evaluation.overall.policies.get(BEST) if evaluation else None
    count = f", {evaluation.num_problems:,} problems" if evaluation and evaluation.num_problems else ""
    return RunSummary(
        name=run.name,
        path=run.path,
        status=run.status or "not ended",
        best_iteration=run.best_iteration,
        num_iterations=run.iterations[-1].index if run.iterations else 0,
        seconds=sum(run.seconds.values()) if run.seconds else None,
        validation_regret=run.kept.regret if run.kept else None,
        validation_suff_fail_freq=run.kept.suff_fail_freq if run.kept else None,
        evaluated_on=f"{evaluation.suite} {evaluation.part}{count}" if evaluation else None,
        evaluation_regret=best.measures["regret"] if best else None,
        evaluation_suff_fail_freq=best.measures.get("suff_fail_freq") if best else None,
        gains={name: found["regret"] for name, found in best.difference.items() if "regret" in found}
        if best
        else {},
        differing={key: run.config.get(key, ABSENT) for key in differing},
        notes=run.notes,
    )


def best_of(summary: RunSummary) -> str:
    """The best iteration, of how many."""
    if summary.best_iteration is None:
        return f"{ABSENT} of {summary.num_iterations}"
    return f"{summary.best_iteration} of {summary.num_iterations}"
