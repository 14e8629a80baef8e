"""What the runs in a folder of seeds came to together: means over seeds, and how far seeds lie apart."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rich.table
import rich.text

from rmft.errors import command
from rmft.report.blocks import Block, Cell, Table
from rmft.report.folders import folder_of, is_folder, runs_in
from rmft.report.run_reader import EVALUATION, MAX_BYTES, Run, read_run
from rmft.report.terminal import MAX_LINES, WIDTH, overview_lines, safe_lines
from rmft.report.untrusted import Interval, get, interval, items_of, lies_in, mapping, number, shown, text
from rmft.report.words import BEST, START, digits, label, plain, with_bounds

MAX_POLICIES = 50
COLUMNS = (
    "folder", "seeds", "validation regret", "lowest seed", "highest seed",
    "regret", "lowest seed", "highest seed", "SuffFailFreq", "minus before training", "share to optimum",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class PolicyOverSeeds:
    """A policy in the folder's evaluation. by_seed: pairs of a seed's number and its mean regret."""

    name: str
    regret: Interval
    suff_fail_freq: Interval | None
    minus_start: Interval | None
    share_to_optimum: Interval | None
    by_seed: list[tuple[int, float]]


@dataclass(frozen=True, slots=True)
class OverSeeds:
    """A folder of seeds. validation: the regret of each run's kept iteration, as far as they are."""

    path: Path
    runs: list[Run]
    validation: list[float]
    policies: list[PolicyOverSeeds]
    evaluated_on: str


def over_seeds(path: Path) -> OverSeeds:
    """Read a folder of seeds. Raises RunDirectoryError when one of its runs is none."""
    runs = [read_run(run) for run in runs_in(path)]
    evaluation = _evaluation(
        path / next((run.evaluation_file for run in runs if run.evaluation_file), EVALUATION)
    )
    found = [_policy(name, each) for name, each in mapping(get(evaluation, "overall")).items()]
    problems = number(get(evaluation, "num_problems"))
    count = f", {problems:,.0f} problems" if problems else ""
    suite, part = text(get(evaluation, "suite")) or "unknown suite", text(get(evaluation, "part")) or ""
    return OverSeeds(
        path,
        runs,
        [run.kept.regret.mean for run in runs if run.kept and run.kept.regret],
        [each for each in found if each][:MAX_POLICIES],
        f"{suite} {part}{count}",
    )


def _evaluation(file: Path) -> object:
    """What the folder's evaluation holds; None where there is none, or a damaged one."""
    if not file.is_file() or not lies_in(file, file.parent) or file.stat().st_size > MAX_BYTES:
        return None
    try:
        return json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None


def _policy(name: str, value: object) -> PolicyOverSeeds | None:
    regret = interval(get(value, "measures", "regret"))
    if regret is None:
        return None
    seeds = [
        (number(get(each, "seed")), interval(get(each, "regret"))) for each in items_of(get(value, "seeds"))
    ]
    return PolicyOverSeeds(
        name,
        regret,
        interval(get(value, "measures", "suff_fail_freq")),
        interval(get(value, "paired_difference", START, "regret")),
        interval(get(value, "share_to_optimum")),
        [(int(seed), found.mean) for seed, found in seeds if seed is not None and found is not None],
    )


def summary_row(found: OverSeeds) -> list[Cell]:
    """A folder in one row of `COLUMNS`."""
    best = next((policy for policy in found.policies if policy.name == BEST), None)
    spread = [mean for _, mean in best.by_seed] if best else []
    return [
        found.path.resolve().name[:80],
        len(found.runs),
        float(np.mean(found.validation)) if found.validation else None,
        *_ends(found.validation),
        best.regret if best else None,
        *_ends(spread),
        best.suff_fail_freq if best else None,
        best.minus_start if best else None,
        best.share_to_optimum if best else None,
    ]


def _ends(values: Sequence[float]) -> list[Cell]:
    return [min(values), max(values)] if values else [None, None]


def summary_table(paths: Sequence[Path]) -> Table | None:
    """The folders of seeds among some paths, or that some runs are in, a row each; None where none is."""
    folders = dict.fromkeys(path if is_folder(path) else folder_of(path) for path in paths)
    rows = [summary_row(over_seeds(folder)) for folder in folders if folder is not None]
    caption = (
        "Means over training seeds, with the lowest and the highest mean of one seed; intervals are over "
        "seeds and problems, from 'rmft evaluate' of the folder."
    )
    return Table("Over seeds", COLUMNS, rows, caption, signed=[len(COLUMNS) - 2]) if rows else None


def summary_in_terminal(paths: Sequence[Path]) -> rich.table.Table | None:
    """`summary_table` as a table of rich."""
    found = summary_table(paths)
    if found is None:
        return None
    table = rich.table.Table(title=found.title, caption=rich.text.Text(found.caption))
    for place, column in enumerate(found.columns):
        table.add_column(column, justify="right" if place else "left")
    for row in found.rows:
        table.add_row(*(rich.text.Text(plain(shown(_cell(cell)))) for cell in row))
    return table


def _cell(cell: Cell) -> str:
    if isinstance(cell, Interval):
        return with_bounds(cell)
    return digits(cell) if isinstance(cell, float) or cell is None else str(cell)


def seeds_blocks(run: Run) -> list[Block]:
    """For the overview of a run in a folder of seeds: every policy over seeds; nothing for other runs."""
    folder = folder_of(run.path)
    if folder is None:
        return []
    found = over_seeds(folder)
    rows: list[list[Cell]] = [
        [
            label(policy.name),
            policy.regret,
            *_ends([mean for _, mean in policy.by_seed]),
            policy.minus_start,
            policy.share_to_optimum,
            _listed(policy)[:400],
        ]
        for policy in found.policies
    ]
    if not rows:
        return []
    caption = (
        f"All {len(found.runs)} seeds of {folder.name[:80]}, on {found.evaluated_on[:400]}: means over "
        "seeds, with intervals over seeds and problems."
    )
    columns = ["policy", "regret", "lowest seed", "highest seed", "minus before training"]
    columns += ["share to optimum", "by seed"]
    return [Table("Over seeds", columns, rows, caption, signed=[4])]


def _listed(policy: PolicyOverSeeds) -> str:
    return ", ".join(f"{seed}: {digits(mean)}" for seed, mean in policy.by_seed)


def summary_lines(path: Path, width: int = WIDTH) -> list[str]:
    """A run, or a folder of seeds, in at most 40 lines. Raises RunDirectoryError when it is neither."""
    return folder_lines(path, width=width) if is_folder(path) else overview_lines(read_run(path), width)


def folder_lines(path: Path, limit: int = MAX_LINES, width: int = WIDTH) -> list[str]:
    """A folder of seeds in the terminal: its runs, then every policy over seeds. At most `limit` lines."""
    found = over_seeds(path)
    lines = [f"{path.resolve().name}: {len(found.runs)} training seeds", ""]
    room = max(3, limit - 7 - min(len(found.policies), 15))
    for run in found.runs[:room]:
        state = run.status or "not ended"
        kept = run.kept.regret if run.kept else None
        where = "" if run.best_iteration is None else f", best iteration {run.best_iteration}"
        lines.append(f"  {run.path.name}: {state}{where}, validation regret {with_bounds(kept) or '–'}")
    if len(found.runs) > room:
        lines.append(f"  and {len(found.runs) - room} more")
    if found.policies:
        lines += ["", f"Over seeds, on {found.evaluated_on}: regret, intervals over seeds and problems"]
        for policy in found.policies[:15]:
            own = f"   by seed {_listed(policy)}" if policy.by_seed else ""
            way = policy.share_to_optimum
            far = f"   share of the way to the optimum {with_bounds(way)}" if way else ""
            lines.append(f"  {label(policy.name)}: {with_bounds(policy.regret)}{far}{own}")
    else:
        lines += ["", f"Not evaluated over seeds yet: {command('evaluate', path)}"]
    return safe_lines(lines[:limit], width)
