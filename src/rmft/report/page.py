"""A run directory -> one self-contained HTML page.

The page opens offline and asks the network for nothing: plotly.js is inlined once, and a content
security policy forbids every request and every script but the page's own two. Without JavaScript
all tables remain. Whatever the run directory says is escaped here, in `escape`, and nowhere else.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
from importlib import resources
from pathlib import Path
from string import Template

from plotly.offline import get_plotlyjs

from rmft.errors import RunDirectoryError
from rmft.report import charts, training_charts
from rmft.report.charts import Chart, Style
from rmft.report.evaluation_reader import EvaluationResult, PolicyResult, SettingResult
from rmft.report.run_reader import Run, read_run
from rmft.report.untrusted import Interval
from rmft.report.words import (
    BEST,
    bounds,
    digits,
    headline,
    label,
    problems,
    rival,
    second_line,
    shown,
    signed,
)

MAX_LISTED = 200
MEASURES = {
    "suff_fail_freq": "SuffFailFreq",
    "k_min_frac": "K·MinFrac",
    "greedy_frac": "GreedyFrac",
    "best_arm_freq": "BestArmFreq",
}

PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8"/>
<meta name="viewport" content="width=device-width, initial-scale=1"/>
<meta http-equiv="Content-Security-Policy" content="$policy"/>
<meta name="referrer" content="no-referrer"/>
<title>$title</title>
<style>$style</style>
</head>
<body>
$body
<script type="application/json" id="charts-data">$data</script>
<script>$plotly</script>
<script>$script</script>
</body>
</html>
""")


def write_report(run_dir: Path, target: Path | None = None) -> Path:
    """Write the report on `run_dir` to `target`, by default `run_dir`/report.html; returns its path.

    Parts of the run that are missing or damaged are named in the page, and the rest is shown. A report
    that exists is replaced, at once and whole. Raises RunDirectoryError when `run_dir` is no run
    directory or the page cannot be written.
    """
    page = report_page(read_run(run_dir))
    target = run_dir / "report.html" if target is None else target
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        try:
            partial.write_text(page, encoding="utf-8")
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise RunDirectoryError(
            f"Cannot write the report to '{target}': {error.strerror}. Name a file in a folder "
            "that exists and can be written."
        ) from error
    return target


def report_page(run: Run) -> str:
    """The whole page, as HTML."""
    styles = charts.run_styles(run)
    drawn: dict[str, Chart] = {}
    main = [
        _notes(run),
        _evaluation(run.evaluation, styles, drawn) if run.evaluation else "",
        _training(run, styles, drawn),
        _about(run),
    ]
    plotly = _inline(get_plotlyjs())
    script = _inline(_resource("page.js"))
    policy = (
        f"default-src 'none'; script-src {_hash(plotly)} {_hash(script)}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
    return PAGE.substitute(
        policy=policy,
        title=escape(f"{run.name}: {headline(run)}"),
        style=_resource("page.css"),
        body=_header(run) + "<main>" + "\n".join(part for part in main if part) + "</main>" + _footer(run),
        data=_json({key: chart.figure.to_plotly_json() for key, chart in drawn.items()}),
        plotly=plotly,
        script=script,
    )


def escape(value: object, limit: int = 400) -> str:
    """Text for HTML content and attributes, with control and bidirectional characters spelled out."""
    return html.escape(shown(str(value), limit))


def _header(run: Run) -> str:
    facts = [
        run.name,
        *(f"{key} {run.about[key]}" for key in ("suite", "seed", "started") if key in run.about),
    ]
    title = escape(headline(run)).replace(" → ", "\N{NO-BREAK SPACE}→\N{NO-BREAK SPACE}")
    second = second_line(run)
    return (
        f'<header><p class="over">{escape(" · ".join(facts))}</p><h1>{title}.</h1>'
        + (f'<p class="lead">{escape(second)}</p>' if second else "")
        + "</header>"
    )


def _footer(run: Run) -> str:
    made = f" {run.about['rmft']}" if "rmft" in run.about else ""
    return f"<footer><p>Written by rmft from a run of rmft{escape(made)}.</p></footer>"


def _notes(run: Run) -> str:
    kept = f", iteration {run.best_iteration} kept" if run.best_iteration is not None else ""
    last = f" after {run.iterations[-1].index} iterations{kept}" if run.iterations else ""
    status = f"Training {run.status}{last}" if run.status else f"No end of training is recorded{last}"
    findings = "".join(f"<li>{escape(item)}</li>" for item in run.findings[:MAX_LISTED])
    parts = [
        f'<div class="note"><p>{escape(status)}.</p>'
        + (f"<ul>{findings}</ul>" if findings else "")
        + "</div>"
    ]
    if run.notes:
        items = "".join(f"<li>{escape(note)}</li>" for note in run.notes[:MAX_LISTED])
        parts.append(
            f'<div class="note warn" role="note"><p>Not everything could be shown:</p><ul>{items}</ul></div>'
        )
    return "".join(parts)


def _evaluation(evaluation: EvaluationResult, styles: dict[str, Style], drawn: dict[str, Chart]) -> str:
    overall, confidence = evaluation.overall, evaluation.confidence
    several = len(evaluation.settings) > 1
    rollouts = f", rollouts of each: {evaluation.num_rollouts}" if evaluation.num_rollouts else ""
    caption = (
        f"{problems(evaluation).capitalize()} of {evaluation.suite}{rollouts}; in brackets "
        f"{100 * confidence:g}% confidence intervals. All policies meet the same reward tables, so that "
        "differences (after training minus the row's policy) are paired; b0 is the exponent of its growth."
    )
    parts = ["<section><h2>Before and after</h2>", _policy_table(overall, styles, caption)]
    for setting in evaluation.settings or [overall]:
        facts = "; ".join(f"{key.replace('_', ' ')} {value}" for key, value in setting.facts.items())
        if several:
            parts.append(f"<h2>Setting: {escape(setting.name)}</h2><p>{escape(facts)}</p>")
            parts.append(_policy_table(setting, styles, f"Setting {setting.name}"))
        shown_charts = [
            (charts.regret_curves(setting, styles, confidence), True),
            (charts.exploration(setting, styles), False),
            (charts.best_arm_pulls(setting, styles), False),
        ]
        parts.append(_charts(shown_charts, drawn))
    return "".join(parts) + "</section>"


def _policy_table(setting: SettingResult, styles: dict[str, Style], caption: str) -> str:
    rows = charts.ordered(setting)
    measures = {key: title for key, title in MEASURES.items() if any(key in row.measures for row in rows)}
    best, opponent = setting.policies.get(BEST), rival(setting)
    heads = ["policy", "regret"] + (["difference"] if best else []) + list(measures.values())
    slopes = any(row.b0 for row in rows)
    body = []
    for row in rows:
        cells = [_cell(row.measures["regret"])]
        if best:
            cells.append(_cell(best.difference.get(row.name, {}).get("regret"), sign=True))
        cells += [_cell(row.measures.get(key), brief=key != "suff_fail_freq") for key in measures]
        cells += [_cell(row.b0, brief=True)] if slopes else []
        body.append(_policy_row(row, styles[row.name], cells, row is opponent))
    if slopes:
        heads.append("b0")
    return f'<p class="caption">{escape(caption)}</p>' + _scrolling(heads, body, "Policies")


def _policy_row(row: PolicyResult, style: Style, cells: list[str], is_rival: bool) -> str:
    line = {"solid": "solid", "dot": "dotted"}.get(style.dash, "dashed")
    key = f'<span class="key" style="border-top: 3px {line} {style.colour}" aria-hidden="true"></span>'
    name = f'<span title="{escape(row.name)}">{escape(label(row.name))}</span>' + (
        " <small>(best baseline)</small>" if is_rival else ""
    )
    first = f'<th scope="row">{key}{name}</th>'
    opening = '<tr class="best">' if row.name == BEST else "<tr>"
    return f"{opening}{first}{''.join(cells)}</tr>"


def _cell(found: Interval | None, sign: bool = False, brief: bool = False) -> str:
    if found is None:
        return "<td>–</td>"
    mean = signed(found.mean) if sign else digits(found.mean)
    return f"<td>{mean}</td>" if brief else f"<td>{mean} <small>{bounds(found)}</small></td>"


def _training(run: Run, styles: dict[str, Style], drawn: dict[str, Chart]) -> str:
    found = _charts(
        [
            (training_charts.regret_by_iteration(run, styles), False),
            (training_charts.suff_fail_by_iteration(run, styles), False),
            (training_charts.selection(run), False),
            (training_charts.entropy(run), False),
        ],
        drawn,
    )
    return f"<section><h2>During training</h2>{found}{_times(run)}</section>" if run.iterations else ""


def _times(run: Run) -> str:
    if not run.seconds:
        return ""
    total = sum(run.seconds.values()) or 1.0
    rows = [
        [phase, digits(seconds), f"{100 * seconds / total:.0f}%"]
        for phase, seconds in sorted(run.seconds.items(), key=lambda item: -item[1])[:MAX_LISTED]
    ]
    return "<h3>Time spent</h3>" + _table(
        ["phase", "seconds", "share"], [*rows, ["all", digits(total), "100%"]], "Time spent"
    )


def _charts(shown_charts: list[tuple[Chart | None, bool]], drawn: dict[str, Chart]) -> str:
    """Figures beside each other, a wide one on its own; `drawn` gains those that there is data for."""
    parts = []
    for chart, wide in shown_charts:
        if chart is not None:
            key = f"chart-{len(drawn) + 1}"
            drawn[key] = chart
            parts.append(_figure(key, chart, wide))
    return f'<div class="charts">{"".join(parts)}</div>' if parts else ""


def _figure(key: str, chart: Chart, wide: bool) -> str:
    buttons = (
        '<div class="buttons" role="group" aria-label="Axes" hidden="hidden">'
        '<button type="button" value="linear" aria-pressed="true">linear</button>'
        '<button type="button" value="log" aria-pressed="false">logarithmic</button></div>'
        if chart.log_axes
        else ""
    )
    opening = '<figure class="wide">' if wide else "<figure>"
    alternative = escape(f"Chart: {chart.title}. {chart.caption} The same numbers are in the table below it.")
    return (
        f"{opening}{buttons}<h3>{escape(chart.title)}</h3>"
        f"<figcaption>{escape(chart.caption)}</figcaption>"
        f'<div class="chart" id="{key}" role="img" aria-label="{alternative}">'
        "<noscript>Charts need JavaScript; the numbers are in the table below.</noscript></div>"
        f"<details><summary>{escape(chart.title)} as a table</summary>"
        f"{_table(chart.columns, chart.rows, chart.title)}</details></figure>"
    )


def _table(columns: list[str], rows: list[list[str]], name: str) -> str:
    body = [
        f'<tr><th scope="row">{escape(row[0])}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows
    ]
    return _scrolling(columns, body, name)


def _scrolling(columns: list[str], body: list[str], name: str) -> str:
    """A table of rows that are HTML already; it scrolls by itself where the page is narrow."""
    head = "".join(f'<th scope="col">{escape(title)}</th>' for title in columns)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(name)} (scrolls)">'
        f'<table aria-label="{escape(name)}"><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody>'
        "</table></div>"
    )


def _about(run: Run) -> str:
    config = "" if run.config_text is None else f"<pre>{escape(run.config_text, 2**18)}</pre>"
    about = {**run.about, **run.versions}
    pairs = "".join(
        f"<dt>{escape(key, 80)}</dt><dd>{escape(value)}</dd>"
        for key, value in list(about.items())[:MAX_LISTED]
    )
    return (
        f'<section class="pair"><div><h2>Config</h2>{config or "<p>There is none to show.</p>"}</div>'
        f"<div><h2>Versions</h2><dl>{pairs}</dl></div></section>"
    )


def _json(value: object) -> str:
    """JSON that no HTML parser can mistake for a tag."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _inline(script: str) -> str:
    """A script of our own or plotly's, refused if it could end the element that holds it."""
    if "</script" in script.lower() or "<!--" in script:
        raise ValueError("An inlined script contains '</script' or '<!--'; it needs another way in.")
    return script


def _hash(script: str) -> str:
    """How a content security policy names an inline script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _resource(name: str) -> str:
    return (resources.files("rmft.report") / name).read_text(encoding="utf-8")
