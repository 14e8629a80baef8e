"""What a run directory says, read leniently: whatever is missing or damaged becomes a note.

A run may be unfinished, cut off in the middle of a line, or written by someone else, so nothing in
it is believed: numbers are finite floats or None, files larger than a limit are not read, and only
a path that is no run directory at all raises an error.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from rmft.errors import ConfigError, NoRunError, RunDirectoryError
from rmft.reading import parse_yaml
from rmft.report.evaluation_reader import EvaluationResult, read_evaluation
from rmft.report.folders import folder_of
from rmft.report.suite_names import suite_name
from rmft.report.untrusted import (
    Interval,
    get,
    interval,
    intervals,
    items_of,
    lies_in,
    mapping,
    number,
    text,
    whole,
)

RUN_FORMATS = (1, 2)
EVALUATION = "evaluation.json"
FILES = ("config.yaml", "run.json", "metrics.jsonl", "timings.jsonl", "result.json", EVALUATION)
JOURNAL = "answers.jsonl"  # of hosted policies
MAX_EVALUATIONS = 20
MAX_LINES = 10**6
MAX_BYTES = 64 * 2**20
MAX_CONFIG_BYTES = 2**18
MAX_DEPTH, MAX_SETTINGS = 12, 2000


@dataclass(frozen=True, slots=True)
class Iteration:
    """One line of metrics.jsonl. Iteration 0 is before training; None is what was not measured."""

    index: int
    rollout_regret: float | None
    rollout_suff_fail_freq: float | None
    entropy: float | None
    failed: float | None
    first_best: float | None  # share of rollouts whose first decision is the best arm
    above_first_best: float | None  # the same of rollouts whose advantages sum to more than average
    above_regret: float | None
    below_regret: float | None
    mask_share: float | None  # of decisions that are in the loss
    cut: float | None  # share of rounds whose reasoning the budget cut
    says: float | None  # share of rounds whose reasoning names exactly one option last
    says_does: float | None  # of these, those that decide for it
    loss: float | None
    regret: Interval | None  # on the validation part
    suff_fail_freq: Interval | None
    k_min_frac: Interval | None
    tokens: float | None  # read and written, where they are counted
    usd: float | None
    seconds: dict[str, float]  # by phase


@dataclass(slots=True)
class Run:
    """All that could be read of a run directory, and `notes`: in words, what could not."""

    path: Path
    config_text: str | None = None
    config: dict[str, str] = field(default_factory=dict)  # "training.epochs" -> "3"
    about: dict[str, str] = field(default_factory=dict)  # name, suite, seed, started, rmft
    versions: dict[str, str] = field(default_factory=dict)
    iterations: list[Iteration] = field(default_factory=list)
    baselines: dict[str, dict[str, Interval]] = field(default_factory=dict)  # on the validation problems
    status: str | None = None
    best_iteration: int | None = None
    findings: list[str] = field(default_factory=list)
    own_suite: str = ""
    evaluations: dict[str, EvaluationResult] = field(default_factory=dict)  # by file; the run's own first
    peak_memory_gb: float | None = None  # that the training process held
    journal: dict[str, float] = field(default_factory=dict)  # what answers.jsonl says was paid
    notes: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Its config's name, and the seed's where it is one of several; its folder's where it has none."""
        named = self.about.get("name")
        if named and folder_of(self.path):
            return f"{named}, {self.path.name}"
        return named or self.path.resolve().name

    @property
    def evaluation_file(self) -> str | None:
        """That of the run's own suite on its held-out part: whole, else with the most problems."""
        own = [
            (each.num_problems or 0, name)
            for name, each in self.evaluations.items()
            if (each.suite, each.part) == (self.own_suite, "held_out")
        ]
        return EVALUATION if EVALUATION in self.evaluations else max(own, default=(0, None))[1]

    @property
    def evaluation(self) -> EvaluationResult | None:
        """What is in `evaluation_file`."""
        return self.evaluations.get(self.evaluation_file or "")

    @property
    def seconds(self) -> dict[str, float]:
        """Time spent by phase, summed over iterations."""
        phases = dict.fromkeys(phase for row in self.iterations for phase in row.seconds)
        return {phase: sum(row.seconds.get(phase, 0.0) for row in self.iterations) for phase in phases}

    @property
    def paid(self) -> dict[str, float]:
        """Tokens and US dollars in all, each where it is counted: of a hosted model by its journal."""
        if self.journal:
            return self.journal
        counted = {
            "tokens": [row.tokens for row in self.iterations if row.tokens is not None],
            "US dollars": [row.usd for row in self.iterations if row.usd is not None],
        }
        return {name: sum(values) for name, values in counted.items() if values}

    @property
    def kept(self) -> Iteration | None:
        """The iteration that is the run's result, once there is one."""
        return next((row for row in self.iterations if row.index == self.best_iteration), None)


def read_run(run_dir: Path) -> Run:
    """Read `run_dir`. Raises RunDirectoryError when it is not a run directory at all."""
    if not any((run_dir / name).is_file() for name in FILES):
        if not run_dir.is_dir():
            raise NoRunError(run_dir)
        raise RunDirectoryError(
            f"Found a folder with none of a run's files at '{run_dir}'; expected a run directory, with "
            "config.yaml and metrics.jsonl. Give the folder that 'rmft train' printed."
        )
    run = Run(run_dir)
    _read_config(run)
    _read_about(run)
    timings = _lines(run, "timings.jsonl")
    seconds = {whole(get(line, "iteration")): _seconds(line) for line in timings}
    peaks = [peak for line in timings if (peak := number(get(line, "memory", "peak_gb"))) is not None]
    run.peak_memory_gb = max(peaks, default=None)
    rows = {row.index: row for line in _lines(run, "metrics.jsonl") if (row := _iteration(line, seconds))}
    run.iterations = [rows[index] for index in sorted(rows)]
    if (run_dir / "baselines.json").exists():  # an older run has none
        played = {name: intervals(item) for name, item in mapping(_json(run, "baselines.json")).items()}
        run.baselines = {name: measures for name, measures in played.items() if "regret" in measures}
    journal = run_dir / JOURNAL
    run.journal = (
        dict(_paid(journal, journal.stat().st_mtime_ns))
        if journal.is_file() and lies_in(journal, run_dir)
        else {}
    )
    result = _json(run, "result.json", "the run is still going on, or was interrupted")
    run.status = text(get(result, "status"))
    run.best_iteration = whole(get(result, "best_iteration"))
    if run.iterations and (run.best_iteration or 0) > (last := run.iterations[-1].index):
        run.notes.append(
            f"metrics.jsonl ends at iteration {last}, result.json names {run.best_iteration}: it was cut."
        )
    run.findings = [str(item) for item in items_of(get(result, "findings"))]
    others = sorted(path.name for path in run_dir.glob("evaluation-*.json"))[:MAX_EVALUATIONS]
    run.own_suite = suite_name(run_dir)
    for name in (*([EVALUATION] if (run_dir / EVALUATION).exists() else []), *others):
        if evaluation := read_evaluation(_json(run, name), run.notes, name):
            run.evaluations[name] = evaluation
    if run.evaluation is None and not (run_dir / EVALUATION).exists():
        run.notes.append(f"{EVALUATION} is missing: 'rmft evaluate' has not been run on it yet.")
    return run


def _text(run: Run, name: str, limit: int, if_missing: str = "") -> str | None:
    path = run.path / name
    if not lies_in(path, run.path):
        run.notes.append(f"{name} is a link out of the run; it was not read.")
        return None
    if not path.is_file():
        run.notes.append(f"{name} is missing" + (f": {if_missing}." if if_missing else "."))
        return None
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        run.notes.append(f"{name} cannot be read: {error.strerror}.")
        return None
    if len(content) > limit:
        run.notes.append(f"{name} is larger than {limit // 2**10} KiB; it was not read.")
        return None
    return content.decode("utf-8", errors="replace")


def _json(run: Run, name: str, if_missing: str = "") -> object:
    content = _text(run, name, MAX_BYTES, if_missing)
    if content is None:
        return None
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        run.notes.append(f"{name} is damaged: {error}.")
        return None
    if not isinstance(value, dict):
        run.notes.append(f"{name} is damaged: found a {type(value).__name__}, expected an object.")
    return value


def _lines(run: Run, name: str) -> list[object]:
    """The objects of a JSON-lines file. A torn last line was never complete, so it costs no note."""
    lines = (_text(run, name, MAX_BYTES) or "").split("\n", MAX_LINES)
    rows: list[object] = []
    bad = []
    for place, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            rows.append(json.loads(line))
        except (ValueError, RecursionError):
            if place < len(lines):
                bad.append(place)
    if bad:
        places = ", ".join(map(str, bad[:5])) + (", …" if len(bad) > 5 else "")
        run.notes.append(f"{name}: {len(bad)} damaged line(s) left out (line {places}).")
    return rows


def _read_config(run: Run) -> None:
    run.config_text = _text(run, "config.yaml", MAX_CONFIG_BYTES)
    if run.config_text is None:
        return
    try:
        nested = parse_yaml(run.config_text, "config.yaml")
    except ConfigError as error:
        run.notes.append(f"{error}.")
        return
    _flatten(nested, "", run.config, MAX_DEPTH)


def _flatten(node: object, prefix: str, into: dict[str, str], depth: int) -> None:
    """Leaves by dotted key. Bounded in depth and number, for YAML aliases can make a small file huge."""
    if isinstance(node, dict | list) and node and depth:
        pairs = node.items() if isinstance(node, dict) else enumerate(node)
        for key, value in pairs:
            if len(into) >= MAX_SETTINGS:
                return
            _flatten(value, f"{prefix}.{key}" if prefix else str(key), into, depth - 1)
    elif prefix:
        into[prefix] = "…" if isinstance(node, dict | list) and node else str(node)


def _read_about(run: Run) -> None:
    about = mapping(_json(run, "run.json"))
    if about and about.get("format") not in RUN_FORMATS:
        run.notes.append(
            f"run.json has format {about.get('format')!r}; this version reads format 1 and 2, so parts "
            "of the run may be missing here."
        )
    keys = ("name", "suite", "seed", "started", "rmft")
    run.about = {key: str(about[key]) for key in keys if isinstance(about.get(key), str | int)}
    run.versions = {key: str(value) for key, value in mapping(about.get("versions")).items()}


@cache
def _paid(path: Path, stamp: int) -> tuple[tuple[str, float], ...]:
    """Sums over the entries of a hosted policy's journal; dollars only where every price is known."""
    del stamp
    tokens, dollars, known = 0.0, 0.0, True
    with suppress(OSError), path.open("rb") as file:
        for line in file:
            try:
                entry = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if (count := number(get(entry, "tokens"))) is not None:
                tokens += count
                price = number(get(entry, "usd"))
                known &= price is not None
                dollars += price or 0.0
    return (("tokens", tokens), *([("US dollars", dollars)] if known else []))


def _seconds(line: object) -> dict[str, float]:
    found = {phase: number(value) for phase, value in mapping(line).items() if phase != "iteration"}
    return {phase: value for phase, value in found.items() if value is not None}


def _summed(line: object, key: str) -> float | None:
    """The sum of what is called `key` in the parts of a line of metrics; None where it is nowhere."""
    found = [value for part in mapping(line).values() if (value := number(get(part, key))) is not None]
    return sum(found) if found else None


def _renamed(line: object, *names: tuple[str, str]) -> float | None:
    """The first number that a line of metrics has under one of its names, that of version 0.1 later."""
    return next((found for name in names if (found := number(get(line, *name))) is not None), None)


def _iteration(line: object, seconds: Mapping[int | None, dict[str, float]]) -> Iteration | None:
    index = whole(get(line, "iteration"))
    if index is None:
        return None
    return Iteration(
        index,
        rollout_regret=number(get(line, "rollout", "regret")),
        rollout_suff_fail_freq=number(get(line, "rollout", "suff_fail_freq")),
        entropy=number(get(line, "rollout", "entropy")),
        failed=number(get(line, "rollout", "failed")),
        first_best=number(get(line, "first_arm_best", "rollout")),
        above_first_best=_renamed(line, ("first_arm_best", "above"), ("first_arm_best", "selected")),
        above_regret=_renamed(line, ("above", "regret"), ("kept", "regret"), ("selected", "regret")),
        below_regret=_renamed(line, ("below", "regret"), ("rejected", "regret")),
        mask_share=_renamed(line, ("mask", "share"), ("selected", "share")),
        cut=number(get(line, "reasoning", "cut")),
        says=number(get(line, "reasoning", "says")),
        says_does=number(get(line, "reasoning", "says_does")),
        loss=number(get(line, "train", "loss")),
        regret=interval(get(line, "validation", "regret")),
        suff_fail_freq=interval(get(line, "validation", "suff_fail_freq")),
        k_min_frac=interval(get(line, "validation", "k_min_frac")),
        tokens=_summed(line, "tokens"),
        usd=_summed(line, "usd"),
        seconds=seconds.get(index, {}),
    )
