"""A run in the terminal: the overview in at most 40 lines, plain text, safe to print."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Sequence

from rmft.report.charts import ordered
from rmft.report.curves import MEASURES
from rmft.report.run_reader import Iteration, Run
from rmft.report.untrusted import shown
from rmft.report.words import (
    BEST,
    about,
    digits,
    findings,
    headline,
    label,
    plain,
    second_line,
    status,
    with_bounds,
)

MAX_LINES = 40
MAX_ITERATIONS = 9
MAX_POLICIES = 8
MAX_NOTES = 3
MAX_FINDINGS = 5
WIDTH = 110
NARROWEST = 40
SHOWN_MEASURES = ("suff_fail_freq", "k_min_frac", "greedy_frac")


def overview_lines(run: Run, width: int = WIDTH) -> list[str]:
    """At most MAX_LINES lines of text, each at most `width` wide, with control characters spelled out."""
    said = [*run.findings, *findings(run)]
    lines = [
        " · ".join(about(run, ("suite", "seed"))),
        *_wrapped(f"{headline(run)}.", width),
        *_wrapped(second_line(run), width),
    ]
    lines.append(f"{status(run)}.")
    lines += [line for sentence in said[:MAX_FINDINGS] for line in _wrapped(sentence, width, "  - ")]
    lines += [f"  ! {note}" for note in run.notes[:MAX_NOTES]]
    more = len(run.notes) - MAX_NOTES
    lines += [f"  ! and {more} more; rmft report shows all."] if more > 0 else []
    for table in (_iterations(run), _policies(run)):
        lines += ["", *_aligned(table, width)] if table else []
    lines += _spent(run)
    return safe_lines(lines[:MAX_LINES], width)


def safe_lines(lines: Sequence[str], width: int) -> list[str]:
    """The lines as a terminal may show them: on one line each, no wider, with the signs that are typed."""
    safe = [plain(shown(line.replace("\n", " ")).replace("\t", " ")) for line in lines]
    return [line if len(line) <= width else line[: width - 1] + "…" for line in safe]


def _wrapped(text: str, width: int, mark: str = "") -> list[str]:
    """At most two lines, the first after `mark`."""
    lines = textwrap.wrap(text, width - len(mark), max_lines=2, placeholder="…")
    return [f"{' ' * len(mark) if place else mark}{line}" for place, line in enumerate(lines)]


def _iterations(run: Run) -> list[list[str]]:
    """A table of a few iterations: the first, the kept, the last, and some between."""
    rows = [row for row in run.iterations if row.regret] or run.iterations
    if not rows:
        return []
    step = -(-len(rows) // (MAX_ITERATIONS - 2)) or 1
    chosen = {row.index for row in (*rows[::step], rows[-1])} | {run.best_iteration}
    head = ["iteration", "regret", "SuffFailFreq", "rollouts", "above", "below", "loss", "entropy"]
    reasons = any(row.cut is not None for row in run.iterations)
    cells = [[*head, "cut", "says", "does"] if reasons else head]
    for row in (row for row in rows if row.index in chosen):
        of_reasoning = [digits(each) for each in (row.cut, row.says, row.says_does)] if reasons else []
        cells.append([*_iteration(row, row.index == run.best_iteration), *of_reasoning])
    return cells


def _iteration(row: Iteration, is_best: bool) -> list[str]:
    measured = [with_bounds(row.regret), digits(row.suff_fail_freq.mean if row.suff_fail_freq else None)]
    others = (row.rollout_regret, row.above_regret, row.below_regret, row.loss, row.entropy)
    return [f"{row.index}{' *' if is_best else '  '}", *measured, *map(digits, others)]


def _policies(run: Run) -> list[list[str]]:
    """A table of policies on unseen problems, with the regret of training minus each one's."""
    if run.evaluation is None:
        return []
    setting = run.evaluation.overall
    best = setting.policies.get(BEST)
    cells = [["policy", "regret", "training minus it", *(MEASURES[key] for key in SHOWN_MEASURES)]]
    for row in ordered(setting)[:MAX_POLICIES]:
        gain = best.difference.get(row.name, {}).get("regret") if best else None
        measures = [row.measures.get(key) for key in SHOWN_MEASURES]
        cells.append(
            [
                label(row.name),
                with_bounds(row.measures["regret"]),
                with_bounds(gain),
                *(digits(found.mean if found else None) for found in measures),
            ]
        )
    return cells


def _spent(run: Run) -> list[str]:
    parts = [f"{phase} {digits(seconds)} s" for phase, seconds in list(run.seconds.items())[:6]]
    parts += [f"{amount:,.{0 if name == 'tokens' else 2}f} {name}" for name, amount in run.paid.items()]
    parts += [] if run.peak_memory_gb is None else [f"at most {run.peak_memory_gb:.2g} GB of memory"]
    return ["", f"Spent: {', '.join(parts)}."] if parts else []


def _aligned(rows: list[list[str]], width: int) -> list[str]:
    """Rows of cells as lines, the first column to the left, the others to the right, while there is room."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    fitting = [end for end in itertools.accumulate(each + 2 for each in widths) if end - 2 <= width]
    return [
        "  ".join(
            cell.ljust(widths[column]) if column == 0 else cell.rjust(widths[column])
            for column, cell in enumerate(row[: max(len(fitting), 2)])
        ).rstrip()
        for row in rows
    ]
