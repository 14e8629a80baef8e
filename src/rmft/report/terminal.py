"""A run in the terminal: the overview in at most 40 lines, plain text, safe to print."""

from __future__ import annotations

import textwrap

from rmft.report.charts import ordered
from rmft.report.curves import MEASURES
from rmft.report.run_reader import Iteration, Run
from rmft.report.untrusted import shown
from rmft.report.words import BEST, about, digits, findings, headline, label, second_line, status, with_bounds

MAX_LINES = 40
MAX_ITERATIONS = 9
MAX_POLICIES = 8
MAX_NOTES = 3
MAX_FINDINGS = 5
WIDTH = 110
SHOWN_MEASURES = ("suff_fail_freq", "k_min_frac", "greedy_frac")


def overview_lines(run: Run) -> list[str]:
    """At most MAX_LINES lines of text, each at most WIDTH wide, with control characters spelled out."""
    said = [*run.findings, *findings(run)]
    lines = [
        " · ".join(about(run, ("suite", "seed"))),
        *_wrapped(f"{headline(run)}."),
        *_wrapped(second_line(run)),
    ]
    lines.append(f"{status(run)}.")
    lines += [line for sentence in said[:MAX_FINDINGS] for line in _wrapped(sentence, "  - ")]
    lines += [f"  ! {note}" for note in run.notes[:MAX_NOTES]]
    more = len(run.notes) - MAX_NOTES
    lines += [f"  ! and {more} more; rmft report shows all."] if more > 0 else []
    lines += [*_iterations(run), *_policies(run), *_spent(run)]
    safe = [shown(line.replace("\n", " ")).replace("\t", " ") for line in lines[:MAX_LINES]]
    return [line if len(line) <= WIDTH else line[: WIDTH - 1] + "…" for line in safe]


def _wrapped(text: str, mark: str = "") -> list[str]:
    """At most two lines, the first after `mark`."""
    lines = textwrap.wrap(text, WIDTH - len(mark), max_lines=2, placeholder="…")
    return [f"{' ' * len(mark) if place else mark}{line}" for place, line in enumerate(lines)]


def _iterations(run: Run) -> list[str]:
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
    return ["", *_aligned(cells)]


def _iteration(row: Iteration, is_best: bool) -> list[str]:
    measured = [with_bounds(row.regret), digits(row.suff_fail_freq.mean if row.suff_fail_freq else None)]
    others = (row.rollout_regret, row.above_regret, row.below_regret, row.loss, row.entropy)
    return [f"{row.index}{' *' if is_best else '  '}", *measured, *map(digits, others)]


def _policies(run: Run) -> list[str]:
    """A table of policies on unseen problems, with what training gained on each."""
    if run.evaluation is None:
        return []
    setting = run.evaluation.overall
    best = setting.policies.get(BEST)
    cells = [["policy", "regret", "difference", *(MEASURES[key] for key in SHOWN_MEASURES)]]
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
    return ["", *_aligned(cells)]


def _spent(run: Run) -> list[str]:
    parts = [f"{phase} {digits(seconds)} s" for phase, seconds in list(run.seconds.items())[:6]]
    parts += [f"{amount:,.{0 if name == 'tokens' else 2}f} {name}" for name, amount in run.paid.items()]
    parts += [] if run.peak_memory_gb is None else [f"at most {run.peak_memory_gb:.2g} GB of memory"]
    return ["", f"Spent: {', '.join(parts)}."] if parts else []


def _aligned(rows: list[list[str]]) -> list[str]:
    """Rows of cells as lines, the first column to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
