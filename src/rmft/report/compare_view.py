"""Runs beside each other, for the page: results, paired differences, settings in which they differ."""

from __future__ import annotations

from collections.abc import Sequence

from rmft.report.blocks import Block, Cell, Chart, Heading, Note, Piece, Style, Table, Text
from rmft.report.charts import COLOURS, DASHES, add_intervals, axes, escaped, thinned
from rmft.report.compare import MAX_DIFFERENCES, RunSummary, best_of, summarize, warnings
from rmft.report.folders import short_name
from rmft.report.over_seeds import summary_table
from rmft.report.paired import pairings, unpaired
from rmft.report.run_reader import Run
from rmft.report.study import study_blocks
from rmft.report.words import START, label, rival

MAX_NAME = 80


def compare_piece(runs: Sequence[Run]) -> Piece:
    """The Compare view: results, paired differences and differing settings in tables, and one chart."""
    summaries, names = summarize(runs), run_names(runs)
    found = [*study_blocks([run.path for run in runs]), Heading("Runs beside each other", 1)]
    said = warnings(summaries)
    found += [Note("Read with care:", said, warn=True)] if said else []
    columns = ["run", "status", "best iteration", "seconds", "validation regret", "regret", "SuffFailFreq"]
    rows: list[list[Cell]] = [
        [
            name,
            summary.status[:MAX_NAME],
            best_of(summary),
            summary.seconds,
            summary.validation_regret,
            summary.evaluation_regret,
            summary.evaluation_suff_fail_freq,
        ]
        for name, summary in zip(names, summaries, strict=True)
    ]
    evaluated = "; ".join(dict.fromkeys(each.evaluated_on for each in summaries if each.evaluated_on))
    caption = f"Regret and SuffFailFreq after training on {evaluated[:400]}." if evaluated else ""
    found.append(Table("Results", columns, rows, caption, keys=_run_styles(runs)))
    over_seeds = summary_table([run.path for run in runs])
    found += [over_seeds] if over_seeds else []
    chart = _regret_by_iteration(runs)
    found += [chart] if chart else []
    found += _each_other(runs, names)
    found += _rivals(runs, summaries, names)
    keys = list(summaries[0].differing)[:MAX_DIFFERENCES] if summaries else []
    if keys:
        columns = ["setting", *names]
        table = [[key[:MAX_NAME], *(each.differing[key][:200] for each in summaries)] for key in keys]
        found.append(Table("Settings in which they differ", columns, table))
    elif len(runs) > 1:
        found.append(Text("Their configs are the same."))
    if len(runs) < 2:
        found.append(Text("One run alone. To compare several: rmft view RUN RUN..."))
    return Piece("Runs beside each other", found)


def run_names(runs: Sequence[Run]) -> list[str]:
    """What each run is called: its name and, where several have the same, its folder's."""
    names = [run.name for run in runs]
    unique = len(set(names)) == len(names)
    return [
        name[:MAX_NAME] if unique else f"{name[:MAX_NAME]} ({short_name(run.path)[:MAX_NAME]})"
        for name, run in zip(names, runs, strict=True)
    ]


def _run_styles(runs: Sequence[Run]) -> list[Style]:
    count = len(COLOURS)
    return [
        Style(COLOURS[place % count], DASHES[place // count % len(DASHES)], width=2.4)
        for place in range(len(runs))
    ]


def _each_other(runs: Sequence[Run], names: Sequence[str]) -> list[Block]:
    """Runs that played the same problems set against each other, and why others are not."""
    found: list[Block] = []
    paired = pairings(runs)
    for pairing in paired:
        rows: list[list[Cell]] = [
            [names[place], *(pairing.differences.get((place, other)) for other in pairing.runs)]
            for place in pairing.runs
        ]
        caption = (
            f"Each run's regret minus another's on the same {pairing.on}, whichever of them was evaluated "
            "first: differences problem by problem, with 95% confidence intervals. Below 0 is better."
        )
        columns = ["run", *(f"minus {names[other]}" for other in pairing.runs)]
        styles = _run_styles(runs)
        keys = [styles[place] for place in pairing.runs]
        signed = list(range(1, len(columns)))
        found.append(Table("Runs against each other", columns, rows, caption, signed, keys=keys))
    said = unpaired(runs, names, paired)
    return [*found, Note("No paired difference between runs:", said)] if said else found


def _rivals(runs: Sequence[Run], summaries: Sequence[RunSummary], names: Sequence[str]) -> list[Block]:
    """Each run's gain on rivals in its evaluation: before training, baselines, other policies."""
    rivals = dict.fromkeys((START, "thompson"))
    for run in runs:
        best = rival(run.evaluation.overall) if run.evaluation else None
        rivals |= {best.name: None} if best else {}
    for summary in summaries:
        rivals |= dict.fromkeys(name for name in summary.gains if "/" in name)  # a run's folder
    present = [name for name in rivals if any(name in summary.gains for summary in summaries)]
    if not present:
        return []
    rows: list[list[Cell]] = [
        [name, *(summary.gains.get(rival) for rival in present)]
        for name, summary in zip(names, summaries, strict=True)
    ]
    caption = "Each run's regret minus a rival's on the same reward tables, so paired: below 0 is better."
    columns = ["run", *(f"minus {label(name)}" for name in present)]
    signed = list(range(1, len(columns)))
    return [Table("Paired differences", columns, rows, caption, signed, keys=_run_styles(runs))]


def _regret_by_iteration(runs: Sequence[Run]) -> Chart | None:
    """Validation regret of every run, with its intervals."""
    chart = axes("iteration", "validation regret")
    rows: list[list[Cell]] = []
    for run, name, style in zip(runs, run_names(runs), _run_styles(runs), strict=True):
        measured = [(row.index, row.regret) for row in run.iterations if row.regret]
        points = [measured[place] for place in thinned(len(measured))] if measured else []
        add_intervals(chart, points, escaped(name), style, name)
        rows += [[name, index, found] for index, found in points]
    if not rows:
        return None
    caption = "On each run's own validation problems; bands are 95% confidence intervals."
    columns = ["run", "iteration", "validation regret"]
    return Chart("Regret by iteration", caption, chart, columns, rows, log_axes=True, wide=True)
