"""What a run directory says, read leniently: whatever is missing or damaged becomes a note.

A run may be unfinished, cut off in the middle of a line, or written by someone else, so nothing in
it is believed: numbers are finite floats or None, files larger than a limit are not read, and only
a path that is no run directory at all raises an error.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from rmft.errors import RunDirectoryError
from rmft.report.evaluation_reader import EvaluationResult, read_evaluation
from rmft.report.untrusted import Interval, get, interval, intervals, items_of, mapping, number, text, whole

RUN_FORMAT = 1
FILES = ("config.yaml", "run.json", "metrics.jsonl", "timings.jsonl", "result.json", "evaluation.json")
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
    kept_regret: float | None
    kept_share: float | None
    loss: float | None
    regret: Interval | None  # on the validation part
    suff_fail_freq: Interval | None


@dataclass(slots=True)
class Run:
    """All that could be read of a run directory, and `notes`: in words, what could not."""

    path: Path
    config_text: str | None = None
    config: dict[str, str] = field(default_factory=dict)  # "training.epochs" -> "3"
    about: dict[str, str] = field(default_factory=dict)  # name, suite, seed, started, rmft
    versions: dict[str, str] = field(default_factory=dict)
    iterations: list[Iteration] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)  # by phase, summed over iterations
    baselines: dict[str, dict[str, Interval]] = field(default_factory=dict)  # on the validation problems
    status: str | None = None
    best_iteration: int | None = None
    findings: list[str] = field(default_factory=list)
    evaluation: EvaluationResult | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.about.get("name") or self.path.resolve().name

    @property
    def kept(self) -> Iteration | None:
        """The iteration that is the run's result, once there is one."""
        return next((row for row in self.iterations if row.index == self.best_iteration), None)


def read_run(run_dir: Path) -> Run:
    """Read `run_dir`. Raises RunDirectoryError when it is not a run directory at all."""
    if not any((run_dir / name).is_file() for name in FILES):
        found = "a folder with none of a run's files" if run_dir.is_dir() else "no folder"
        raise RunDirectoryError(
            f"Found {found} at '{run_dir}'; expected a run directory, with config.yaml and metrics.jsonl. "
            "Give the folder that 'rmft train' printed, such as runs/<name>-<time>."
        )
    run = Run(run_dir)
    _read_config(run)
    _read_about(run)
    run.iterations = sorted(
        {row.index: row for line in _lines(run, "metrics.jsonl") if (row := _iteration(line))}.values(),
        key=lambda row: row.index,
    )
    for line in {whole(get(line, "iteration")): line for line in _lines(run, "timings.jsonl")}.values():
        for phase, value in mapping(line).items():
            if phase != "iteration" and (seconds := number(value)) is not None:
                run.seconds[phase] = run.seconds.get(phase, 0.0) + seconds
    if (run_dir / "baselines.json").exists():  # an older run has none
        played = {name: intervals(item) for name, item in mapping(_json(run, "baselines.json")).items()}
        run.baselines = {name: measures for name, measures in played.items() if "regret" in measures}
    result = _json(run, "result.json", "the run is still going on, or was interrupted")
    run.status = text(get(result, "status"))
    run.best_iteration = whole(get(result, "best_iteration"))
    run.findings = [str(item) for item in items_of(get(result, "findings"))]
    evaluation = _json(run, "evaluation.json", "'rmft evaluate' has not been run on it yet")
    run.evaluation = read_evaluation(evaluation, run.notes)
    return run


def _text(run: Run, name: str, limit: int, if_missing: str = "") -> str | None:
    path = run.path / name
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
    lines = (_text(run, name, MAX_BYTES) or "").split("\n")
    rows: list[object] = []
    bad = []
    for place, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
        except (ValueError, RecursionError):
            if line.strip() and place < len(lines):
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
        nested = yaml.safe_load(run.config_text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        run.notes.append(f"config.yaml is damaged: {' '.join(str(error).split())}.")
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
    if about and about.get("format") != RUN_FORMAT:
        run.notes.append(
            f"run.json has format {about.get('format')!r}; this version reads format {RUN_FORMAT}, so parts "
            "of the run may be missing here."
        )
    keys = ("name", "suite", "seed", "started", "rmft")
    run.about = {key: str(about[key]) for key in keys if isinstance(about.get(key), str | int)}
    run.versions = {key: str(value) for key, value in mapping(about.get("versions")).items()}


def _iteration(line: object) -> Iteration | None:
    index = whole(get(line, "iteration"))
    if index is None:
        return None
    return Iteration(
        index,
        rollout_regret=number(get(line, "rollout", "regret")),
        rollout_suff_fail_freq=number(get(line, "rollout", "suff_fail_freq")),
        entropy=number(get(line, "rollout", "entropy")),
        kept_regret=number(get(line, "selected", "regret")),
        kept_share=number(get(line, "selected", "share")),
        loss=number(get(line, "train", "loss")),
        regret=interval(get(line, "validation", "regret")),
        suff_fail_freq=interval(get(line, "validation", "suff_fail_freq")),
    )
