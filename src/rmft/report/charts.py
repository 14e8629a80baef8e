"""Data -> figures: how policies compare, each chart with the same numbers as a table.

The figures carry no font or background colours: the page adds those for its light or dark theme.
Line colours have a contrast of at least 3 to 1 on both, and differ for colour-blind eyes in
lightness or dash.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from rmft.report.evaluation_reader import PolicyResult, SettingResult
from rmft.report.run_reader import Run
from rmft.report.untrusted import Interval
from rmft.report.words import BEST, BOUNDS, START, digits, label, rival, with_bounds

MAX_POINTS = 240  # per line; more cannot be seen
MAX_ROWS = 40  # of a table beside a chart
SHOWN_AT_FIRST = (BEST, START, "uniform", "thompson")  # and four others; the rest wait in the legend


@dataclass(frozen=True, slots=True)
class Style:
    """How a policy looks in every chart. colour: #rrggbb; dash and symbol: plotly's names."""

    colour: str
    dash: str = "solid"
    symbol: str = "circle"
    width: float = 1.8


@dataclass(frozen=True, slots=True)
class Chart:
    """A figure, how to read it, and its numbers: `rows` of cells below `columns`."""

    title: str
    caption: str
    figure: go.Figure
    columns: list[str]
    rows: list[list[str]]
    log_axes: bool = False  # whether a logarithmic view is offered


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
    evaluation = run.evaluation
    settings = [evaluation.overall, *evaluation.settings] if evaluation else []
    return policy_styles([*(name for setting in settings for name in setting.policies), *run.baselines])


def ordered(setting: SettingResult) -> list[PolicyResult]:
    """The trained policy, the untrained one, the baselines by regret, and the bounds."""
    places = {BEST: 0, START: 1, **dict.fromkeys(BOUNDS, 3)}
    rows = setting.policies.values()
    return sorted(rows, key=lambda row: (places.get(row.name, 2), row.measures["regret"].mean))


def regret_curves(setting: SettingResult, styles: dict[str, Style], confidence: float) -> Chart | None:
    """Cumulative regret by round, with a confidence band for each policy."""
    policies = [(row, row.curve) for row in ordered(setting) if row.curve]
    if not policies:
        return None
    chart = axes("round", "regret so far")
    others = [row.name for row, _ in policies if row.name not in (*SHOWN_AT_FIRST, *BOUNDS)]
    at_first = (*SHOWN_AT_FIRST, *others[:4])
    for row, (mean, low, high) in policies:
        at = thinned(len(mean))
        rounds = [index + 1 for index in at]
        name = escaped(row.name)
        style = styles[row.name]
        visible: bool | str = row.name in at_first or "legendonly"
        chart.add_scatter(
            x=rounds + rounds[::-1],
            y=rounded([high[index] for index in at] + [low[index] for index in reversed(at)]),
            fill="toself",
            fillcolor=faint(style.colour),
            line={"width": 0},
            hoverinfo="skip",
            showlegend=False,
            legendgroup=row.name,
            visible=visible,
            mode="lines",
        )
        chart.add_scatter(
            x=rounds,
            y=rounded([mean[index] for index in at]),
            mode="lines",
            name=name,
            legendgroup=row.name,
            visible=visible,
            line={"color": style.colour, "dash": style.dash, "width": style.width},
        )
    longest = max(len(curve[0]) for _, curve in policies)
    table_rows = [
        [str(index + 1)]
        + [
            with_bounds(Interval(curve[0][index], curve[1][index], curve[2][index]))
            if index < len(curve[0])
            else "–"
            for _, curve in policies
        ]
        for index in thinned(longest, 12)
    ]
    caption = (
        f"Mean regret up to each round; bands are {100 * confidence:g}% confidence intervals. Lower is "
        "better, and a curve that flattens has learned. Click a name to show or hide it."
    )
    columns = ["round", *(label(row.name) for row, _ in policies)]
    return Chart("Regret by round", caption, chart, columns, table_rows, log_axes=True)


def best_arm_pulls(setting: SettingResult, styles: dict[str, Style]) -> Chart | None:
    """How often the best arm was played, as a histogram over rollouts: before, after and a rival."""
    best_known = rival(setting)
    wanted = (
        START,
        BEST,
        "thompson" if "thompson" in setting.policies else best_known.name if best_known else "",
    )
    policies = [(row, row.pulls) for name in wanted if (row := setting.policies.get(name)) and row.pulls]
    if not policies:
        return None
    chart = axes("rounds that play the best arm", "share of rollouts")
    table: list[list[str]] = []
    for row, (counts, edges) in policies:
        shares = [count / sum(counts) for count in counts]
        style = styles[row.name]
        chart.add_scatter(
            x=rounded(edges),
            y=rounded([*shares, shares[-1]]),
            name=escaped(row.name),
            mode="lines",
            line={"color": style.colour, "width": style.width, "dash": style.dash, "shape": "hv"},
            fill="tozeroy",
            fillcolor=faint(style.colour),
        )
        step = -(-len(counts) // MAX_ROWS)
        for start in range(0, len(counts), step):
            stop = min(start + step, len(counts))
            share = sum(shares[start:stop])
            table.append([label(row.name), f"{digits(edges[start])} to {digits(edges[stop])}", digits(share)])
    caption = (
        "Two humps, one of them near zero, are a policy that locks in: it finds the best arm or never does, "
        "which a mean hides."
    )
    return Chart("Pulls of the best arm", caption, chart, ["policy", "rounds", "share of rollouts"], table)


def exploration(setting: SettingResult, styles: dict[str, Style]) -> Chart | None:
    """SuffFailFreq against regret, one point per policy, and the frontier of the baselines."""
    points = [
        (row, row.measures["suff_fail_freq"], row.measures["regret"])
        for row in ordered(setting)
        if "suff_fail_freq" in row.measures and row.name not in BOUNDS
    ]
    if len(points) < 2:
        return None
    chart = axes("SuffFailFreq", "regret")
    if all(regret.mean > 0 for _, _, regret in points):
        chart.update_yaxes(type="log", title="regret (logarithmic)")
    baselines = sorted(
        (fail.mean, regret.mean) for row, fail, regret in points if row.name not in (START, BEST)
    )
    frontier = [(x, y) for x, y in baselines if all(y <= other for less, other in baselines if less <= x)]
    chart.add_scatter(
        x=rounded([x for x, _ in frontier]),
        y=rounded([y for _, y in frontier]),
        mode="lines",
        line={"color": "#7f7f7f", "dash": "dot", "width": 1.2, "shape": "hv"},
        hoverinfo="skip",
        name="frontier of the baselines",
    )
    for row, fail, regret in points:
        style = styles[row.name]
        chart.add_scatter(
            x=rounded([fail.mean]),
            y=rounded([regret.mean]),
            mode="markers",
            name=escaped(row.name),
            marker={"color": style.colour, "symbol": style.symbol, "size": 15 if row.name == BEST else 10},
            error_x=_error(fail, style.colour),
            error_y=_error(regret, style.colour),
        )
    table = [[label(row.name), with_bounds(fail), with_bounds(regret)] for row, fail, regret in points]
    caption = (
        "Down and to the left is better. No baseline beats a point below the dotted line in both. Bars are "
        "confidence intervals; uniform play and the oracle are left out."
    )
    return Chart(
        "Exploration against exploitation", caption, chart, ["policy", "SuffFailFreq", "regret"], table
    )


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


def _error(found: Interval, colour: str) -> dict[str, object] | None:
    if found.low is None or found.high is None:
        return None
    above, below = max(found.high - found.mean, 0.0), max(found.mean - found.low, 0.0)
    return {"array": rounded([above]), "arrayminus": rounded([below]), "color": colour, "width": 0}
