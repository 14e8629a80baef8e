"""The README's pictures from a run directory that has been evaluated.

    python benchmarks/readme_picture.py RUN [--target docs/pictures]

writes curves.png, the regret curves of the evaluation, and panels.png, the report in four panels.
Names, colours and dashes are the report's. The same run gives the same pictures.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rmft.report.charts import Style, ordered, run_styles
from rmft.report.evaluation_reader import SettingResult
from rmft.report.run_reader import Run, read_run
from rmft.report.training_charts import baseline_levels, reference_names
from rmft.report.words import BEST, BOUNDS, START, digits, headline, label

DASHES = {"solid": "-", "dash": "--", "dashdot": "-.", "longdash": (0, (8, 3)), "dot": ":"}
MARKERS = {"circle": "o", "square": "s", "diamond": "D", "triangle-up": "^", "triangle-down": "v",
           "pentagon": "p", "star": "*", "x": "X"}  # fmt: skip
NUM_LINES = 7
STYLE = {
    "figure.dpi": 160, "font.size": 10, "font.family": "DejaVu Sans", "axes.spines.top": False,
    "axes.spines.right": False, "axes.edgecolor": "#5b6470", "axes.labelcolor": "#5b6470",
    "xtick.color": "#5b6470", "ytick.color": "#5b6470", "text.color": "#1c2024", "axes.grid": True,
    "axes.grid.axis": "y", "grid.color": "#e6e8eb", "axes.axisbelow": True, "axes.titlelocation": "left",
    "axes.titlesize": 11, "axes.titleweight": "bold", "legend.frameon": False,
}  # fmt: skip


def draw_curves(axes: Axes, setting: SettingResult, styles: dict[str, Style]) -> None:
    """Regret by round with confidence bands; each line is named at its end."""
    chosen = [row for row in ordered(setting) if row.curve and row.name != "oracle"]
    named = (BEST, START, "uniform", "thompson", "ucb1")
    chosen = sorted(chosen, key=lambda row: row.name not in named)[:NUM_LINES]
    ends = {}
    for row in chosen:
        assert row.curve is not None
        mean, low, high = row.curve
        style, rounds = styles[row.name], range(1, len(mean) + 1)
        axes.fill_between(rounds, low, high, color=style.colour, alpha=0.16, linewidth=0)
        axes.plot(rounds, mean, color=style.colour, linestyle=DASHES[style.dash], linewidth=style.width)
        ends[row.name] = mean[-1]
    axes.margins(x=0)
    axes.set(xlabel="round", ylabel="regret so far", title="Regret by round")
    bottom, top = axes.get_ylim()
    places = spread(list(ends.values()), 0.065 * (top - bottom))
    for (name, level), place in zip(ends.items(), places, strict=True):
        axes.annotate(
            f"{label(name)} {digits(level)}", (axes.get_xlim()[1], place), xytext=(5, 0), va="center",
            textcoords="offset points", color=styles[name].colour, fontsize=9, annotation_clip=False,
            fontweight="bold" if name == BEST else "normal",
        )  # fmt: skip


def spread(levels: list[float], gap: float) -> list[float]:
    """`levels` moved apart, as little as can be, until they are `gap` from each other."""
    groups: list[list[float]] = []  # of levels that touch, drawn around their mean
    for level in sorted(levels):
        groups.append([level])
        while len(groups) > 1 and _bottom(groups[-1], gap) < _bottom(groups[-2], gap) + gap * len(groups[-2]):
            groups[-2:] = [groups[-2] + groups[-1]]
    placed = [_bottom(group, gap) + gap * place for group in groups for place in range(len(group))]
    order = sorted(range(len(levels)), key=lambda index: levels[index])
    return [placed[order.index(index)] for index in range(len(levels))]


def _bottom(group: list[float], gap: float) -> float:
    return sum(group) / len(group) - gap * (len(group) - 1) / 2


def draw_iterations(axes: Axes, run: Run, styles: dict[str, Style]) -> None:
    """Validation regret by iteration with the kept iteration, and the baselines' levels."""
    rows = [(row.index, row.regret) for row in run.iterations if row.regret]
    colour = styles[BEST].colour
    x, mean = [index for index, _ in rows], [regret.mean for _, regret in rows]
    low = [regret.mean if regret.low is None else regret.low for _, regret in rows]
    high = [regret.mean if regret.high is None else regret.high for _, regret in rows]
    axes.fill_between(x, low, high, color=colour, alpha=0.16, linewidth=0)
    axes.plot(x, mean, color=colour, linewidth=2.2, label="validation")
    levels = baseline_levels(run)
    for name in reference_names(levels, ("uniform", "thompson")):
        level = levels[name]["regret"].mean
        axes.axhline(level, color=styles[name].colour, linestyle="--", linewidth=1.2, label=label(name))
    if run.kept and run.kept.regret:
        axes.plot(run.kept.index, run.kept.regret.mean, "*", color=colour, markersize=13, label="kept")
    axes.set(xlabel="iteration", ylabel="regret", title="Regret by iteration")
    axes.legend(fontsize=8)


def draw_exploration(axes: Axes, setting: SettingResult, styles: dict[str, Style]) -> None:
    """SuffFailFreq against regret, one point per policy."""
    for row in ordered(setting):
        fails, regret = row.measures.get("suff_fail_freq"), row.measures["regret"].mean
        if fails and row.name not in BOUNDS:
            style = styles[row.name]
            size = 170 if row.name == BEST else 55
            axes.scatter(
                fails.mean, regret, size, style.colour, marker=MARKERS[style.symbol], label=label(row.name)
            )
    if all(row.measures["regret"].mean > 0 for row in setting.policies.values() if row.name not in BOUNDS):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}")
    axes.set(xlabel="SuffFailFreq", ylabel="regret", title="Exploration against exploitation")
    axes.legend(fontsize=7, loc="best")


def draw_pulls(axes: Axes, setting: SettingResult, styles: dict[str, Style]) -> None:
    """Rollouts by how often they play the best arm."""
    for name in (START, BEST, "thompson"):
        row = setting.policies.get(name)
        if row and row.pulls:
            counts, edges = row.pulls
            shares = [count / sum(counts) for count in counts]
            axes.stairs(shares, edges, color=styles[name].colour, fill=True, alpha=0.14)
            axes.stairs(shares, edges, color=styles[name].colour, linewidth=1.8, label=label(name))
    axes.set(
        xlabel="rounds that play the best arm", ylabel="share of rollouts", title="Pulls of the best arm"
    )
    axes.legend(fontsize=8)


def draw(run: Run, target: Path) -> list[Path]:
    """Both pictures into the folder `target`; their paths. Exits when the run has not been evaluated."""
    if run.evaluation is None:
        raise SystemExit(f"'{run.path}' has no evaluation to draw. Run: rmft evaluate {run.path}")
    target.mkdir(parents=True, exist_ok=True)
    styles, setting = run_styles(run), run.evaluation.settings[0]
    with plt.rc_context(STYLE):
        curves, axes = plt.subplots(figsize=(8, 4.2), layout="constrained")
        draw_curves(axes, setting, styles)
        curves.suptitle(headline(run), x=0.01, ha="left", fontsize=11, fontweight="bold")
        report, panels = plt.subplots(2, 2, figsize=(11, 7.6), layout="constrained")
        report.suptitle(headline(run), x=0.01, ha="left", fontweight="bold")
        draw_curves(panels[0, 0], setting, styles)
        draw_iterations(panels[0, 1], run, styles)
        draw_exploration(panels[1, 0], setting, styles)
        draw_pulls(panels[1, 1], setting, styles)
        return [_save(curves, target / "curves.png"), _save(report, target / "panels.png")]


def _save(figure: Figure, path: Path) -> Path:
    figure.savefig(path, facecolor="white", metadata={"Software": None})
    plt.close(figure)
    return path


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="a run directory with an evaluation.json")
    parser.add_argument(
        "--target", type=Path, default=Path("docs/pictures"), help="the folder for the pictures"
    )
    arguments = parser.parse_args()
    for written in draw(read_run(arguments.run), arguments.target):
        print(written)
