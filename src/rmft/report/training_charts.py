"""Data -> figures: how a run went, iteration by iteration, each chart with the same numbers as a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import plotly.graph_objects as go

from rmft.report.blocks import Cell, Chart, Style
from rmft.report.charts import (
    COLOURS,
    DASHES,
    FIXED,
    MAX_ROWS,
    add_intervals,
    add_line,
    axes,
    escaped,
    rounded,
    thinned,
)
from rmft.report.run_reader import Iteration, Run
from rmft.report.untrusted import Interval
from rmft.report.words import BEST, BOUNDS, START

ALL, KEPT, REJECTED = FIXED[START], FIXED[BEST], Style(COLOURS[0], DASHES[1])
Line = tuple[str, Style, Callable[[Iteration], float | None]]


def training_charts(run: Run, styles: dict[str, Style]) -> list[Chart]:
    """Every chart of a run's training that there is data for."""
    made = [
        regret_by_iteration(run, styles),
        suff_fail_by_iteration(run, styles),
        k_min_frac_by_iteration(run, styles),
        selection(run),
        first_arm_luck(run),
        loss(run),
        entropy(run),
        reasoning(run),
        failed(run),
        seconds(run),
    ]
    return [chart for chart in made if chart is not None]


def regret_by_iteration(run: Run, styles: dict[str, Style]) -> Chart | None:
    """Validation regret with its interval, rollout regret, the kept iteration, and the baselines as lines."""
    chart = _validated(run, "regret", lambda row: row.regret, lambda row: row.rollout_regret)
    if chart is None:
        return None
    _add_levels(chart, run, styles, "regret", ("uniform", "thompson"))
    caption = "On validation problems, and in that iteration's training rollouts. The star is the one kept."
    return replace(chart, title="Regret by iteration", caption=caption + _said_of_levels(run), wide=True)


def suff_fail_by_iteration(run: Run, styles: dict[str, Style]) -> Chart | None:
    """SuffFailFreq(T/2) on the validation part and in the rollouts, and the baselines as lines."""
    chart = _validated(
        run, "SuffFailFreq", lambda row: row.suff_fail_freq, lambda row: row.rollout_suff_fail_freq
    )
    if chart is None:
        return None
    _add_levels(chart, run, styles, "suff_fail_freq", ("thompson",))
    caption = (
        "Share of rollouts that never play the best arm in the second half. Rising while regret falls "
        "means that training rewards lucky early commitment."
    )
    return replace(chart, title="Suffix failures by iteration", caption=caption)


def k_min_frac_by_iteration(run: Run, styles: dict[str, Style]) -> Chart | None:
    """K·MinFrac on the validation part."""
    chart = _validated(run, "K·MinFrac", lambda row: row.k_min_frac, lambda _: None)
    if chart is None:
        return None
    _add_levels(chart, run, styles, "k_min_frac", ("thompson",))
    caption = (
        "K times the share of the least played arm: 1 for uniform play, which never settles; near 0 it tries "
        "some arm hardly ever."
    )
    columns, rows = chart.columns[:2], [row[:2] for row in chart.rows]
    return replace(chart, title="K·MinFrac by iteration", caption=caption, columns=columns, rows=rows)


def baseline_levels(run: Run) -> dict[str, dict[str, Interval]]:
    """Baselines' measures to draw beside training: on the validation problems, else in the evaluation."""
    if run.baselines or run.evaluation is None:
        return run.baselines
    policies = run.evaluation.overall.policies
    return {name: row.measures for name, row in policies.items() if name not in (START, BEST)}


def reference_names(levels: dict[str, dict[str, Interval]], wanted: Sequence[str]) -> list[str]:
    """Those of `wanted` that there are, and the baseline of lowest regret."""
    baselines = [name for name in levels if name not in BOUNDS]
    best = min(baselines, key=lambda name: levels[name]["regret"].mean, default=None)
    return list(dict.fromkeys(name for name in (*wanted, best) if name in levels and name is not None))


def _add_levels(
    chart: Chart, run: Run, styles: dict[str, Style], measure: str, wanted: Sequence[str]
) -> None:
    levels = baseline_levels(run)
    last = max(row.index for row in run.iterations)
    for name in reference_names(levels, wanted):
        if measure in levels[name]:
            level = levels[name][measure].mean
            style = Style(styles[name].colour, "dash", width=1.4)
            add_line(chart.figure, [0, last], [level, level], escaped(name), style, "lines", "")


def _said_of_levels(run: Run) -> str:
    if not baseline_levels(run):
        return ""
    part = (
        run.evaluation.part.replace("_", "-") if run.evaluation and not run.baselines else "same validation"
    )
    return f" Dashed: baselines on the {part} problems."


def selection(run: Run) -> Chart | None:
    """Regret of all rollouts, of those with advantages above average and of those below."""
    caption = (
        "The gap between rollouts above and below average is the signal. Above are those whose decisions "
        "have advantages that sum to more than the average rollout's; of whole trajectories, those selected."
    )
    return _lines(
        run,
        "Credit",
        caption,
        "regret",
        [
            ("all rollouts", ALL, lambda row: row.rollout_regret),
            ("above average", KEPT, lambda row: row.above_regret),
            ("below", REJECTED, lambda row: row.below_regret),
        ],
        others=[("share of decisions in the loss", lambda row: row.mask_share)],
    )


def first_arm_luck(run: Run) -> Chart | None:
    """How often the first decision is the best arm, in all rollouts and in those above average."""
    caption = (
        "Nobody can know the best arm in round 1. Where rollouts above average start with it more often "
        "than all do, what is learned is in part the luck of the first arm."
    )
    return _lines(
        run,
        "Luck of the first arm",
        caption,
        "starts with the best arm",
        [
            ("all rollouts", ALL, lambda row: row.first_best),
            ("above average", KEPT, lambda row: row.above_first_best),
        ],
    )


def loss(run: Run) -> Chart | None:
    """The training loss."""
    caption = "What training minimizes, averaged over an iteration. Its level depends on what was kept."
    return _lines(run, "Loss by iteration", caption, "loss", [("loss", KEPT, lambda row: row.loss)])


def entropy(run: Run) -> Chart | None:
    """Mean entropy of the decisions' probabilities in the rollouts."""
    caption = "How undecided the policy is in its rollouts. Near zero it repeats itself and explores no more."
    lines: list[Line] = [("training rollouts", ALL, lambda row: row.entropy)]
    return _lines(run, "Entropy by iteration", caption, "entropy", lines)


def reasoning(run: Run) -> Chart | None:
    """How often reasoning names one option last, how often the decision is that one, how often it was cut."""
    caption = (
        "Saying is not doing: of the rounds whose reasoning names exactly one option last, how often the "
        "decision is that one; what that lacks to 1 is the knowing-doing gap. Cut: ended by its budget."
    )
    lines: list[Line] = [
        ("says and does", KEPT, lambda row: row.says_does),
        ("names one option last", ALL, lambda row: row.says),
        ("cut", REJECTED, lambda row: row.cut),
    ]
    return _lines(run, "Saying and doing", caption, "share of rounds", lines)


def failed(run: Run) -> Chart | None:
    """Share of rollouts that failed, where any did."""
    if not any(row.failed for row in run.iterations):
        return None
    caption = "Rollouts that ended early, such as by answers that could not be read. They count as data."
    lines: list[Line] = [("training rollouts", ALL, lambda row: row.failed)]
    return _lines(run, "Failed rollouts by iteration", caption, "share failed", lines)


def seconds(run: Run) -> Chart | None:
    """Seconds spent in each iteration, by phase, and tokens and money where they are counted."""
    phases = list(run.seconds)[: len(COLOURS)]
    lines: list[Line] = [
        (phase, Style(COLOURS[place]), lambda row, phase=phase: row.seconds.get(phase))  # type: ignore[misc]
        for place, phase in enumerate(phases)
    ]
    others = [("tokens", lambda row: row.tokens), ("US dollars", lambda row: row.usd)]
    caption = "Where an iteration's time goes. The table has tokens and money too, where they are counted."
    return _lines(run, "Time by iteration", caption, "seconds", lines, others)


def _lines(
    run: Run,
    title: str,
    caption: str,
    measure: str,
    lines: Sequence[Line],
    others: Sequence[tuple[str, Callable[[Iteration], float | None]]] = (),
) -> Chart | None:
    """Figures by iteration, one line each; `others` are in the table only. None where none was measured."""
    present = [line for line in lines if any(line[2](row) is not None for row in run.iterations)]
    if not present:
        return None
    chart = axes("iteration", measure)
    for name, style, value in present:
        found = [(row.index, level) for row in run.iterations if (level := value(row)) is not None]
        points = [found[place] for place in thinned(len(found))]
        _add_line(chart, points, escaped(name), style)
    columns = [*(name for name, _, _ in present), *(name for name, _ in others)]
    values = [*(value for _, _, value in present), *(value for _, value in others)]
    rows: list[list[Cell]] = [[row.index, *(value(row) for value in values)] for row in run.iterations]
    rows = [row for row in rows if any(cell is not None for cell in row[1:])]
    rows = [rows[place] for place in thinned(len(rows), MAX_ROWS)]
    return Chart(title, caption, chart, ["iteration", *columns], rows)


def _add_line(chart: go.Figure, points: Sequence[tuple[int, float]], name: str, style: Style) -> None:
    mode = "lines+markers" if len(points) < 30 else "lines"
    add_line(chart, [x for x, _ in points], [y for _, y in points], name, style, mode, "")


def _validated(
    run: Run,
    measure: str,
    validation: Callable[[Iteration], Interval | None],
    rollouts: Callable[[Iteration], float | None],
) -> Chart | None:
    measured = [(row.index, found) for row in run.iterations if (found := validation(row))]
    played = [(row.index, level) for row in run.iterations if (level := rollouts(row)) is not None]
    if not measured and not played:
        return None
    chart = axes("iteration", measure)
    lines = [played[index] for index in thinned(len(played))]
    if lines:
        thin = Style("#7f7f7f", width=1.2)
        _add_line(chart, lines, "training rollouts", thin)
    points = [measured[index] for index in thinned(len(measured))]
    if points:
        add_intervals(chart, points, "validation", Style(KEPT.colour, width=2.6), "validation")
    kept = validation(run.kept) if run.kept else None
    if run.kept and kept:
        chart.add_scatter(
            x=[run.kept.index],
            y=rounded([kept.mean]),
            mode="markers",
            name=f"kept: iteration {run.kept.index}",
            marker={"color": KEPT.colour, "symbol": "star", "size": 16},
        )
        chart.add_vline(x=run.kept.index, line={"color": KEPT.colour, "width": 1, "dash": "dot"})
    levels, intervals = dict(played), dict(measured)
    rows: list[list[Cell]] = [
        [index, intervals.get(index), levels.get(index)] for index in sorted({*levels, *intervals})
    ]
    rows = [rows[index] for index in thinned(len(rows), MAX_ROWS)]
    return Chart(measure, "", chart, ["iteration", "validation", "training rollouts"], rows)
