"""What a study came to, for the Compare view of its runs: dots with intervals, the seeds beside them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import rmft.results
from rmft.report.blocks import Block, Cell, Chart, Heading, Note, Style, Table
from rmft.report.charts import COLOURS, axes, error_bar, escaped, rounded
from rmft.report.folders import study_of
from rmft.report.untrusted import Interval, lies_in
from rmft.study_results import EvaluationResult, StudyResults

RESULTS, MAX_BYTES = "results.json", 2**24
GREY = "#7f7f7f"


def study_blocks(runs: Sequence[Path]) -> list[Block]:
    """Of the study that the runs are in, every evaluation; nothing of other runs."""
    folder = study_of(runs[0]) if runs else None
    if folder is None:
        return []
    path = folder / RESULTS
    try:
        if not lies_in(path, folder):
            raise ValueError("it is a link out of the study")
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"it has more than {MAX_BYTES:,} bytes")
        results = StudyResults.model_validate_json(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0][:200]
        return [Note("The study's results are missing or damaged:", [f"{path.name}: {reason}"], warn=True)]
    found: list[Block] = [Heading(f"The study {results.name}", 1)]
    if results.failed:
        found.append(
            Note(
                "Runs that failed:",
                [f"{name}: {what[:400]}" for name, what in results.failed.items()],
                warn=True,
            )
        )
    for evaluation in results.evaluations:
        found += _evaluation(evaluation)
    return found


def _evaluation(found: EvaluationResult) -> list[Block]:
    where = f"{found.suite}, {found.part}, {found.num_problems:,} problems"
    rows: list[list[Cell]] = [
        [
            name,
            _shown(entry.regret),
            ", ".join(
                f"{seed.seed}: {seed.regret.mean:.2f}" for seed in entry.seeds if seed.regret.mean is not None
            ),
            _shown(entry.start),
            _shown(entry.share),
            entry.suff_fail_freq,
            entry.minutes,
            entry.tokens,
        ]
        for name, entry in found.entries.items()
    ]
    rows += [[name, _shown(each), "", None, None, None, None, None] for name, each in found.baselines.items()]
    columns = [
        "",
        "regret",
        "by seed",
        "before training",
        "share of the way",
        "SuffFailFreq",
        "minutes",
        "tokens",
    ]
    caption = (
        "Means over seeds and problems, with intervals over both; minutes and tokens of one run's training."
    )
    blocks: list[Block] = [_dots(found, where), Table(where, columns, rows, caption)]
    if found.pairs:
        pairs: list[list[Cell]] = [
            [
                f"{pair.first} minus {pair.second}",
                _shown(pair.difference),
                _shown(pair.ratio),
                pair.p_value,
                pair.p_holm,
            ]
            for pair in found.pairs
        ]
        caption = (
            "On the same problems and seeds; below 0 the first is better. Holm: corrected for all of them."
        )
        blocks.append(
            Table("Comparisons", ["", "difference", "ratio", "p", "p (Holm)"], pairs, caption, signed=[1])
        )
    return blocks


def _dots(found: EvaluationResult, where: str) -> Chart:
    chart = axes("regret", "")
    rows: list[list[Cell]] = []
    entries = {
        name: (entry.regret, [seed.regret.mean for seed in entry.seeds])
        for name, entry in found.entries.items()
    }
    entries |= {name: (interval, []) for name, interval in found.baselines.items()}
    for place, (name, (regret, seeds)) in enumerate(entries.items()):
        style = Style(COLOURS[place % len(COLOURS)] if name in found.entries else GREY)
        of_seeds = [mean for mean in seeds if mean is not None]
        chart.add_scatter(
            x=rounded(of_seeds), y=[escaped(name)] * len(of_seeds), mode="markers", showlegend=False,
            marker={"color": style.colour, "symbol": "line-ns-open", "size": 11}, name=escaped(name),
        )  # fmt: skip
        interval = _shown(regret)
        if interval is None:
            continue
        chart.add_scatter(
            x=rounded([interval.mean]), y=[escaped(name)], mode="markers", name=escaped(name),
            marker={"color": style.colour, "size": 11}, error_x=error_bar(interval, style.colour),
            showlegend=False,
        )  # fmt: skip
        rows.append([name, interval])
    chart.update_yaxes(autorange="reversed", type="category")
    caption = (
        "A dot with its interval for each entry, a stroke for each of its seeds; baselines are grey. Left is "
        "better."
    )
    return Chart(f"Regret on {where}", caption, chart, ["", "regret"], rows, wide=True)


def _shown(found: rmft.results.Interval | None) -> Interval | None:
    return None if found is None or found.mean is None else Interval(found.mean, found.low, found.high)
