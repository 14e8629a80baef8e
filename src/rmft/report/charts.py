"""Data -> figures: how policies compare, each chart with the same numbers as a table.

The figures carry no font or background colours: the page adds those for its light or dark theme.
Line colours have a contrast of at least 3 to 1 on both, and differ for colour-blind eyes in
lightness or dash.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
import plotly.graph_objects as go

from rmft.report.blocks import Cell, Chart, Style
from rmft.report.evaluation_reader import PolicyResult, SettingResult
from rmft.report.run_reader import Run
from rmft.report.untrusted import Interval
from rmft.report.words import BEST, BOUNDS, START, label

MAX_POINTS = 240  # per line; more cannot be seen
MAX_ROWS = 400  # of a table beside a chart
SHOWN_AT_FIRST = (BEST, START, "uniform", "thompson")  # and four others; the rest wait to be switched on

FIXED = {
    BEST: Style("#0072b2", width=3.2, symbol="star"),
    START: Style("#7f7f7f", width=2.4, symbol="x"),
    "uniform": Style("#8a6d3b", "dot"),
    "oracle": Style("#7f7f7f", "dot"),
}
COLOURS = ("#d55e00", "#009e73", "#8e6cc0", "#b8860b", "#cc79a7", "#3a9fbf")
DASHES = ("solid", "dash", "dashdot", "longdash")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "pentagon")


def policy_styles(names: Iterable[str]) -> dict[str, Style]:
    """A style for every policy: fixed for `best`, `start` and the bounds, else by order of first mention."""
    styles: dict[str, Style] = {}
    place = 0
    for name in dict.fromkeys(names):
        if name in FIXED:
            styles[name] = FIXED[name]
            continue
        turn, colour = divmod(place, len(COLOURS))
        styles[name] = Style(COLOURS[colour], DASHES[(turn + colour) % len(DASHES)], SYMBOLS[colour])
        place += 1
    return styles


def run_styles(run: Run) -> dict[str, Style]:
    """One style per policy of a run, the same in every chart and picture."""
    settings = [
        setting
        for evaluation in run.evaluations.values()
        for setting in (evaluation.overall, *evaluation.settings)
    ]
    return policy_styles([*(name for setting in settings for name in setting.policies), *run.baselines])


def ordered(setting: SettingResult) -> list[PolicyResult]:
    """The trained policy, the untrained one, the baselines by strength, and the bounds.

    Strength is low regret on the validation part; where that is not known, in the evaluation itself.
    """
    places = {BEST: 0, START: 1, **dict.fromkeys(BOUNDS, 3)}
    strength = {name: place for place, name in enumerate(setting.rivals)}

    def place(row: PolicyResult) -> tuple[int, int, float]:
        return places.get(row.name, 2), strength.get(row.name, len(strength)), row.measures["regret"].mean

    return sorted(setting.policies.values(), key=place)


def shown_at_first(setting: SettingResult) -> list[str]:
    """The policies whose lines are drawn unless asked otherwise."""
    names = [row.name for row in ordered(setting)]
    others = [name for name in names if name not in (*SHOWN_AT_FIRST, *BOUNDS)]
    return [name for name in names if name in (*SHOWN_AT_FIRST, *others[:4])]


def regret_curves(setting: SettingResult, styles: dict[str, Style], confidence: float) -> Chart | None:
    """Cumulative regret by round, with a confidence band for each policy."""
    policies = [(row, row.curve) for row in ordered(setting) if row.curve]
    if not policies:
        return None
    chart = axes("round", "regret so far")
    for row, (mean, low, high) in policies:
        at = thinned(len(mean))
        rounds = [index + 1 for index in at]
        style = styles[row.name]
        add_band(chart, rounds, [low[i] for i in at], [high[i] for i in at], style.colour, row.name)
        add_line(chart, rounds, [mean[i] for i in at], escaped(row.name), style, "lines", row.name)
    longest = max(len(curve[0]) for _, curve in policies)
    rows: list[list[Cell]] = [
        [index + 1, *(_at(curve, index) for _, curve in policies)] for index in thinned(longest, MAX_ROWS)
    ]
    caption = (
        f"Mean regret up to each round; bands are {100 * confidence:g}% confidence intervals. Lower is "
        "better, and a curve that flattens has learned."
    )
    columns = ["round", *(label(row.name) for row, _ in policies)]
    return Chart("Regret by round", caption, chart, columns, rows, log_axes=True, wide=True, policies=True)


def best_arm_pulls(setting: SettingResult, styles: dict[str, Style]) -> Chart | None:
    """How often the best arm was played, as a histogram over rollouts."""
    policies = [(row, row.pulls) for row in ordered(setting) if row.pulls]
    if not policies:
        return None
    chart = axes("rounds that play the best arm", "share of rollouts")
    table: list[list[Cell]] = []
    for row, (counts, edges) in policies:
        shares = [count / sum(counts) for count in counts]
        style = styles[row.name]
        chart.add_scatter(
            x=rounded(edges),
            y=rounded([*shares, shares[-1]]),
            name=escaped(row.name),
            legendgroup=row.name,
            mode="lines",
            line={"color": style.colour, "width": style.width, "dash": style.dash, "shape": "hv"},
            fill="tozeroy" if row.name in (START, BEST) else "none",
            fillcolor=faint(style.colour),
        )
        table += [
            [label(row.name), *pair, share] for pair, share in zip(pairwise(edges), shares, strict=True)
        ]
    caption = (
        "Two humps, one of them near zero, are a policy that locks in: it finds the best arm or never does, "
        "which a mean hides."
    )
    columns = ["policy", "rounds from", "to", "share of rollouts"]
    return Chart("Pulls of the best arm", caption, chart, columns, table, wide=True, policies=True)


def exploration(setting: SettingResult, styles: dict[str, Style]) -> Chart | None:
    """SuffFailFreq against K·MinFrac, one point per policy."""
    chart = _points(setting, styles, "suff_fail_freq", "SuffFailFreq", "k_min_frac", "K·MinFrac", ())
    if chart is None:
        return None
    caption = (
        "Each policy by its two ways to fail (Krishnamurthy et al. 2024). To the right it stops trying too "
        "early and never finds the best arm; at the top it never settles, as uniform play. Bars are "
        "confidence intervals."
    )
    title = "Exploration against exploitation"
    return Chart(title, caption, chart[0], chart[1], chart[2], policies=True)


def frontier(setting: SettingResult, styles: dict[str, Style]) -> Chart | None:
    """SuffFailFreq against regret, one point per policy, and the frontier of the baselines."""
    found = _points(setting, styles, "suff_fail_freq", "SuffFailFreq", "regret", "regret", BOUNDS)
    if found is None:
        return None
    chart, columns, rows = found
    policies = [row for row in ordered(setting) if row.name not in BOUNDS]
    if all(row.measures["regret"].mean > 0 for row in policies):
        chart.update_yaxes(type="log", title="regret (logarithmic)")
    baselines = sorted(
        (row.measures["suff_fail_freq"].mean, row.measures["regret"].mean)
        for row in policies
        if row.name not in (START, BEST) and "suff_fail_freq" in row.measures
    )
    lowest = [(x, y) for x, y in baselines if all(y <= other for less, other in baselines if less <= x)]
    chart.add_scatter(
        x=rounded([x for x, _ in lowest]),
        y=rounded([y for _, y in lowest]),
        mode="lines",
        line={"color": "#7f7f7f", "dash": "dot", "width": 1.2, "shape": "hv"},
        hoverinfo="skip",
        name="frontier of the baselines",
    )
    caption = (
        "Down and to the left is better. No baseline beats a point below the dotted line in both. Bars are "
        "confidence intervals; uniform play and the oracle are left out."
    )
    return Chart("Regret against suffix failures", caption, chart, columns, rows, policies=True)


def _points(
    setting: SettingResult,
    styles: dict[str, Style],
    x_measure: str,
    x_title: str,
    y_measure: str,
    y_title: str,
    without: Sequence[str],
) -> tuple[go.Figure, list[str], list[list[Cell]]] | None:
    """A chart of one point per policy, and its table; None where fewer than two policies have both."""
    points = [
        (row, row.measures[x_measure], row.measures[y_measure])
        for row in ordered(setting)
        if {x_measure, y_measure} <= row.measures.keys() and row.name not in without
    ]
    if len(points) < 2:
        return None
    chart = axes(x_title, y_title)
    for row, x, y in points:
        style = styles[row.name]
        chart.add_scatter(
            x=rounded([x.mean]),
            y=rounded([y.mean]),
            mode="markers",
            name=escaped(row.name),
            legendgroup=row.name,
            marker={"color": style.colour, "symbol": style.symbol, "size": 15 if row.name == BEST else 10},
            error_x=error_bar(x, style.colour),
            error_y=error_bar(y, style.colour),
        )
    return chart, ["policy", x_title, y_title], [[label(row.name), x, y] for row, x, y in points]


def axes(x_title: str, y_title: str) -> go.Figure:
    axis = {"zeroline": False, "ticks": "outside", "automargin": True}
    return go.Figure(
        layout={
            "template": {},
            "margin": {"l": 56, "r": 12, "t": 30, "b": 44},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "xaxis": {**axis, "title": {"text": x_title}, "showgrid": False},
            "yaxis": {**axis, "title": {"text": y_title}},
            "legend": {"orientation": "h", "x": 0, "y": 0, "yref": "container", "yanchor": "bottom"},
            "modebar": {"bgcolor": "rgba(0,0,0,0)"},
            "hovermode": "closest",
        }
    )


def add_line(
    chart: go.Figure, x: Sequence[int], y: Sequence[float], name: str, style: Style, mode: str, group: str
) -> None:
    chart.add_scatter(
        x=x,
        y=rounded(y),
        mode=mode,
        name=name,
        legendgroup=group,
        line={"color": style.colour, "dash": style.dash, "width": style.width},
        marker={"size": 5},
    )


def add_band(
    chart: go.Figure, x: Sequence[int], low: Sequence[float], high: Sequence[float], colour: str, group: str
) -> None:
    """The area between `low` and `high`, which is switched with the line of the same group."""
    chart.add_scatter(
        x=[*x, *reversed(x)],
        y=rounded([*high, *reversed(low)]),
        fill="toself",
        fillcolor=faint(colour),
        mode="lines",
        line={"width": 0},
        hoverinfo="skip",
        showlegend=False,
        legendgroup=group,
    )


def add_intervals(
    chart: go.Figure, points: Sequence[tuple[int, Interval]], name: str, style: Style, group: str
) -> None:
    """Means by iteration as a line, and their intervals as a band."""
    x = [index for index, _ in points]
    low = [found.mean if found.low is None else found.low for _, found in points]
    high = [found.mean if found.high is None else found.high for _, found in points]
    add_band(chart, x, low, high, style.colour, group)
    add_line(chart, x, [found.mean for _, found in points], name, style, "lines+markers", group)


def thinned(count: int, most: int = MAX_POINTS) -> list[int]:
    """At most `most` places out of `count`, evenly spread, the first and the last among them."""
    return [int(place) for place in np.unique(np.linspace(0, count - 1, min(count, most)).round())]


def rounded(values: Sequence[float | None]) -> list[float | None]:
    return [None if value is None else float(f"{value:.5g}") for value in values]


def escaped(policy: str) -> str:
    """A policy's name as plotly shows text, which reads tags and entities."""
    return html.escape(label(policy), quote=False)


def faint(colour: str) -> str:
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.16)"


def _at(curve: tuple[list[float], list[float], list[float]], index: int) -> Cell:
    mean, low, high = curve
    return Interval(mean[index], low[index], high[index]) if index < len(mean) else None


def error_bar(found: Interval, colour: str) -> dict[str, object] | None:
    if found.low is None or found.high is None:
        return None
    above, below = max(found.high - found.mean, 0.0), max(found.mean - found.low, 0.0)
    return {"array": rounded([above]), "arrayminus": rounded([below]), "color": colour, "width": 0}
