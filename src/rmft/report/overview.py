"""A run -> what is seen of it first: the result in words, how training went, what it cost, the settings."""

from __future__ import annotations

from rmft.report.blocks import Block, Cell, Heading, Note, Pairs, Piece, Source, Style, Table, Text
from rmft.report.over_seeds import seeds_blocks
from rmft.report.run_reader import Run
from rmft.report.training_charts import training_charts
from rmft.report.words import about, findings, headline, second_line, status

MAX_LISTED = 200
MAX_ITEM = 400


def overview(run: Run, styles: dict[str, Style]) -> Piece:
    """The Overview of a run."""
    blocks: list[Block] = [
        Text(" · ".join(fact[:MAX_ITEM] for fact in about(run, ABOUT)), "over"),
        Heading(f"{headline(run)}.", 1),
    ]
    second = second_line(run)
    blocks += [Text(second, "lead")] if second else []
    blocks.append(Note(f"{status(run)}.", _items([*run.findings, *findings(run)])))
    if run.notes:
        blocks.append(Note("Not everything could be shown:", _items(run.notes), warn=True))
    blocks += seeds_blocks(run)
    charts = training_charts(run, styles)
    if charts:
        blocks += [Heading("During training"), *charts]
    spent = _spent(run)
    blocks += [spent] if spent else []
    versions = [*run.about.items(), *run.versions.items()][:MAX_LISTED]
    blocks += [Heading("Settings"), Source("Config", run.config_text or "There is none to show.")]
    blocks.append(Pairs("Versions", [(key[:80], value[:MAX_ITEM]) for key, value in versions]))
    return Piece(f"{run.name}: {headline(run)}", blocks)


ABOUT = ("suite", "seed", "started")


def _items(lines: list[str]) -> list[str]:
    return [line if len(line) <= MAX_ITEM else line[:MAX_ITEM] + "…" for line in lines[:MAX_LISTED]]


def _spent(run: Run) -> Table | None:
    """Time by phase, and tokens and money where they are counted."""
    total = sum(run.seconds.values())
    phases = sorted(run.seconds.items(), key=lambda item: -item[1])[:MAX_LISTED]
    rows: list[list[Cell]] = [[f"{phase}, seconds", value, value / (total or 1.0)] for phase, value in phases]
    rows += [["all, seconds", total, 1.0]] if rows else []
    rows += [[name, value, None] for name, value in run.paid.items()]
    rows += [] if run.peak_memory_gb is None else [["peak memory, GB", run.peak_memory_gb, None]]
    return (
        Table("Time, memory, tokens and money spent", ["spent on", "amount", "share"], rows) if rows else None
    )
