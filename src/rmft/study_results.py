"""What a study came to: the definition of its results.json, and its table.

A file read back is checked, as that of an evaluation is (`rmft.results`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field
from rich.table import Table
from rich.text import Text

from rmft.lenient import Count, Each, Name, Number, OrNone, Part
from rmft.results import Interval, SeedResult

FORMAT: Literal["rmft-study/1"] = "rmft-study/1"


class EntryResult(Part):
    """An entry on one evaluation's problems, over its seeds.

    regret: mean with an interval over seeds and problems. seeds: each seed's mean, with an interval over
    problems. missing: seeds that are not trained or evaluated. start: the regret before training. share: of
    the way from there to the optimum, 1 at the optimum; None where it is not known. suff_fail_freq: the mean
    over seeds. b0, start_b0: the exponent of regret after training and before it, the mean over settings and
    seeds. minutes, tokens: of one run's training, the mean over seeds; tokens of language models.
    """

    regret: Interval
    seeds: list[SeedResult]
    missing: Annotated[list[Count], Field(default_factory=list)]
    start: Annotated[Interval | None, OrNone] = None
    share: Annotated[Interval | None, OrNone] = None
    suff_fail_freq: Number = None
    b0: Number = None
    start_b0: Number = None
    minutes: Number = None
    tokens: Number = None


class PairResult(Part):
    """One entry or baseline against another on the same problems, over the seeds that both have.

    difference: of regret, the first's minus the second's; below 0 the first is better. ratio: of their means.
    p_value: two-sided, of no difference; p_holm: corrected for all pairs of the study.
    """

    first: Name
    second: Name
    num_seeds: Count
    difference: Interval
    ratio: Interval
    p_value: Number
    p_holm: Number


class EvaluationResult(Part):
    """What entries and baselines did on one evaluation's problems. optimum: expected, of optimal play.

    baselines: the strongest on the validation part first.
    """

    suite: Name
    part: Name
    num_problems: Count
    entries: Annotated[dict[Name, EntryResult], Each]
    baselines: Annotated[dict[Name, Interval], Each]
    optimum: Number = None
    pairs: Annotated[list[PairResult], Field(default_factory=list)]


class StudyResults(Part):
    """All evaluations of a study. failed: what went wrong, by run."""

    format: Literal["rmft-study/1"] = FORMAT
    name: Name
    confidence: Annotated[float, Field(gt=0, lt=1)]
    versions: Annotated[dict[Name, Name], Each]
    evaluations: list[EvaluationResult]
    failed: Annotated[dict[Name, str], Field(default_factory=dict)]

    def tables(self) -> Iterator[Table]:
        """For the terminal: of each evaluation its entries and baselines, then what is compared."""
        for each in self.evaluations:
            yield _entries(each)
            if each.pairs:
                yield _pairs(each)


def _entries(found: EvaluationResult) -> Table:
    table = Table(title=f"{found.suite}, {found.part}, {found.num_problems:,} problems")
    columns = ("", "regret", "each seed", "before", "share", "SuffFailFreq", "b0", "minutes", "tokens")
    for place, name in enumerate(columns):
        table.add_column(name, justify="right" if place else "left")
    for name, entry in found.entries.items():
        seeds = " ".join(_digits(seed.regret.mean) for seed in entry.seeds)
        missing = f" ({len(entry.missing)} missing)" if entry.missing else ""
        table.add_row(
            Text(name), with_bounds(entry.regret), seeds + missing, with_bounds(entry.start),
            with_bounds(entry.share), _digits(entry.suff_fail_freq), _digits(entry.b0),
            _digits(entry.minutes), f"{entry.tokens:,.0f}" if entry.tokens else "",
        )  # fmt: skip
    for name, interval in found.baselines.items():
        table.add_row(Text(name), with_bounds(interval))
    return table


def _pairs(found: EvaluationResult) -> Table:
    table = Table(title="Regret of the first minus that of the second, on the same problems")
    for place, name in enumerate(("", "difference", "ratio", "p", "p (Holm)")):
        table.add_column(name, justify="right" if place else "left")
    for pair in found.pairs:
        table.add_row(
            Text(f"{pair.first} - {pair.second}"), with_bounds(pair.difference, signed=True),
            with_bounds(pair.ratio), _p(pair.p_value), _p(pair.p_holm),
        )  # fmt: skip
    return table


def with_bounds(found: Interval | None, *, signed: bool = False) -> str:
    """A mean with its interval; "" where there is none."""
    if found is None or found.mean is None:
        return ""
    shape = "+.2f" if signed else ".2f"
    if found.low is None or found.high is None:
        return f"{found.mean:{shape}}"
    return f"{found.mean:{shape}} [{found.low:{shape}}, {found.high:{shape}}]"


def _digits(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _p(value: float | None) -> str:
    if value is None:
        return ""
    return "<.001" if value < 0.001 else f"{value:.3f}"
