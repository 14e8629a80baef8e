"""Data -> figures: how a run went, iteration by iteration, each chart with the same numbers as a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from rmft.report.charts import FIXED, MAX_ROWS, Chart, Style, axes, escaped, faint, rounded, thinned
from rmft.report.run_reader import Iteration, Run
from rmft.report.untrusted import Interval
from rmft.report.words import BEST, BOUNDS, START, digits, with_bounds


def regret_by_iteration(run: Run, styles: dict[str, Style]) -> Chart | None:
    """Validation regret with its interval, rollout regret, the kept iteration, and the baselines as lines."""
    chart = _by_iteration(run, "regret", lambda row: row.regret, lambda row: row.rollout_regret)
    if chart is None:
        return None
    _add_levels(chart, run, styles, "regret", ("uniform", "thompson"))
    caption = "On validation problems, and in that iteration's training rollouts. The star is the one kept."
    return replace(chart, title="Regret by iteration", caption=caption + _said_of_levels(run))


def suff_fail_by_iteration(run: Run, styles: dict[str, Style]) -> Chart | None:
    """SuffFailFreq(T/2) on the validation part and in the rollouts, and the baselines as lines."""
    chart = _by_iteration(
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
            chart.figure.add_scatter(
                x=[0, last],
                y=rounded([level, level]),
                mode="lines",
                name=escaped(name),
                line={"color": styles[name].colour, "dash": "dash", "width": 1.4},
            )


def _said_of_levels(run: Run) -> str:
    if not baseline_levels(run):
        return ""
    part = (
        run.evaluation.part.replace("_", "-") if run.evaluation and not run.baselines else "same validation"
    )
    return f" Dashed: baselines on the {part} problems."


def entropy(run: Run) -> Chart | None:
    """Mean entropy of the decisions' probabilities in the rollouts."""
    chart = _by_iteration(run, "entropy", lambda _: None, lambda row: row.entropy)
    if chart is None:
        return None
    caption = "How undecided the policy is in its rollouts. Near zero it repeats itself and explores no more."
    rows = [[row[0], row[2]] for row in chart.rows]
    return replace(
        chart, title="Entropy by iteration", caption=caption, columns=["iteration", "entropy"], rows=rows
    )


def selection(run: Run) -> Chart | None:
    """Regret of all rollouts and of those kept to learn from."""
    rows = [row for row in run.iterations if row.kept_regret is not None and row.rollout_regret is not None]
    if not rows:
        return None
    chart = axes("iteration", "regret")
    kept = [row for index, row in enumerate(rows) if index in set(thinned(len(rows)))]
    x = [row.index for row in kept]
    line = FIXED[START]
    chart.add_scatter(
        x=x,
        y=rounded([row.rollout_regret for row in kept]),
        name="all rollouts",
        mode="lines",
        line={"color": line.colour, "width": line.width},
    )
    chart.add_scatter(
        x=x,
        y=rounded([row.kept_regret for row in kept]),
        name="kept",
        mode="lines",
        fill="tonexty",
        fillcolor=faint(FIXED[BEST].colour),
        line={"color": FIXED[BEST].colour, "width": FIXED[BEST].width},
    )
    table = [
        [str(row.index), digits(row.rollout_regret), digits(row.kept_regret), digits(row.kept_share)]
        for row in (rows[index] for index in thinned(len(rows), MAX_ROWS))
    ]
    caption = "What an iteration learns from: the gap between all rollouts and those kept is the signal."
    return Chart("Selection", caption, chart, ["iteration", "all rollouts", "kept", "share kept"], table)


def _by_iteration(
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
        chart.add_scatter(
            x=[index for index, _ in lines],
            y=rounded([level for _, level in lines]),
            mode="lines",
            name="training rollouts",
            line={"color": "#7f7f7f", "width": 1.2},
        )
    points = [measured[index] for index in thinned(len(measured))]
    if points:
        x, colour = [index for index, _ in points], FIXED[BEST].colour
        low = [found.mean if found.low is None else found.low for _, found in points]
        high = [found.mean if found.high is None else found.high for _, found in points]
        chart.add_scatter(
            x=x + x[::-1],
            y=rounded(high + low[::-1]),
            fill="toself",
            fillcolor=faint(colour),
            mode="lines",
            line={"width": 0},
            hoverinfo="skip",
            showlegend=False,
            legendgroup="validation",
        )
        chart.add_scatter(
            x=x,
            y=rounded([found.mean for _, found in points]),
            mode="lines+markers",
            name="validation",
            legendgroup="validation",
            line={"color": colour, "width": 2.6},
            marker={"size": 5},
        )
    kept = validation(run.kept) if run.kept else None
    if run.kept and kept:
        chart.add_scatter(
            x=[run.kept.index],
            y=rounded([kept.mean]),
            mode="markers",
            name=f"kept: iteration {run.kept.index}",
            marker={"color": FIXED[BEST].colour, "symbol": "star", "size": 16},
        )
        chart.add_vline(x=run.kept.index, line={"color": FIXED[BEST].colour, "width": 1, "dash": "dot"})
    table = {index: [str(index), "–", digits(level)] for index, level in played}
    for index, found in measured:
        table.setdefault(index, [str(index), "–", "–"])[1] = with_bounds(found)
    rows = [table[index] for index in sorted(table)]
    rows = [rows[index] for index in thinned(len(rows), MAX_ROWS)]
    return Chart(measure, "", chart, ["iteration", "validation", "training rollouts"], rows)
