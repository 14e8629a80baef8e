"""Every setting of a run, joined and checked; each group is defined in the room that it belongs to.

A config is a YAML file with the keys of `RunConfig`; what is left out takes its default, and paths start from
the file's folder (`rmft.places`). Wrong names, types and ranges raise ConfigError, one line per mistake.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, field_validator, model_validator

from rmft.compute import ComputeConfig, LocalCompute
from rmft.credit import CreditConfig, PolicyGradientCredit, TopKRegret
from rmft.errors import ConfigError, UnknownNameError
from rmft.old_settings import renamed
from rmft.places import placed
from rmft.policies.config import ArmEncoderConfig, PolicyConfig
from rmft.providers.config import BudgetConfig
from rmft.reading import Config, parse_yaml, read, read_mapping
from rmft.scenarios.wording import Wording
from rmft.stages import RolloutConfig, StageConfig, check_stage
from rmft.tracking.config import NoTracking, TrackingConfig
from rmft.training.config import NumericTraining, TrainingConfig


class ValidationConfig(Config):
    """How iterations are judged: on the suite's validation part, the same problems every time."""

    every: Annotated[int, Field(ge=1)] = 5
    """Iterations between two validations; the last iteration of every stage is always validated."""
    num_problems: Annotated[int, Field(ge=2, le=1_000_000)] = 500
    patience: Annotated[int, Field(ge=1)] | None = None
    """Stop after this many validations in a row without a new best; None: never."""


STAGED = ("suite", "iterations", "rollout", "credit", "training")
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"


class RunConfig(Config):
    """One run of Iterative RMFT."""

    name: Annotated[str, Field(pattern=NAME)] = "run"
    """Letters, digits, dots, dashes; names the run's directory. Unless given, that of the config's file."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    suite: str = "smoke"
    """A named suite (`rmft suites`), the path of a YAML file, or that of a task's folder: to train on, to
    validate and to evaluate. Unless given, that of the last of `stages` that names one. `task` is another
    name for it."""
    opponent: str | None = None
    """Who plays the other side of the suite's games: a baseline, the folder of a run or a checkpoint, or
    `self`, whoever plays. None: whom the suite names."""
    init_from: str | None = None
    """A run, whose best policy is taken, or a checkpoint's folder, to start from; None: an untrained one."""
    iterations: Annotated[int, Field(ge=1, le=1_000_000)] = 40
    """With `stages`, their sum, which need not be given."""
    policy: PolicyConfig = ArmEncoderConfig()
    rollout: RolloutConfig = RolloutConfig()
    credit: CreditConfig = TopKRegret()
    training: TrainingConfig = NumericTraining()
    stages: tuple[StageConfig, ...] = ()
    """Parts of the run, one after the other, with one policy and one optimizer state throughout; none: one
    part with the settings above."""
    validation: ValidationConfig = ValidationConfig()
    budget: BudgetConfig = BudgetConfig()
    compute: ComputeConfig = LocalCompute()
    """Where rollouts are played."""
    tracking: TrackingConfig = NoTracking()
    """Which experiment tracker is sent the run's figures, if any (`rmft.tracking`). No part of the result."""
    num_threads: Annotated[int, Field(ge=1, le=1024)] = 2
    """Threads of torch. Part of the result: other numbers round differently."""

    @model_validator(mode="before")
    @classmethod
    def _filled_in(cls, data: Any) -> Any:
        """The kind of training is the policy's; a stage takes what it leaves out from the run."""
        if not isinstance(data, Mapping):
            return data
        data = _task_as_suite(data)
        policy = data.get("policy", {})
        kind = policy.get("kind", "") if isinstance(policy, Mapping) else getattr(policy, "kind", "")
        filled = {**data, "training": _with_kind(data.get("training", {}), _trained_as(kind))}
        stages = data.get("stages")
        if isinstance(stages, list | tuple) and stages:
            stages = [_task_as_suite(stage) for stage in stages]
            if suites := [each["suite"] for each in stages if isinstance(each, Mapping) and "suite" in each]:
                filled.setdefault("suite", suites[-1])
            base = {name: filled[name] for name in STAGED if name in filled}
            base = {"suite": "smoke", "rollout": {}, "credit": {}} | base
            base.pop("iterations", None)
            filled["stages"] = [over(base, stage) for stage in stages]
            counts = [stage.get("iterations") for stage in stages if isinstance(stage, Mapping)]
            if total := sum(count for count in counts if isinstance(count, int)):
                filled.setdefault("iterations", total)
        return filled

    @field_validator("suite")
    @classmethod
    def _suite_is_named(cls, suite: str) -> str:
        if not suite.strip():
            raise ValueError("the name or path of a suite is empty")
        return suite

    @model_validator(mode="after")
    def _stages_add_up(self) -> RunConfig:
        trains = _trained_as(self.policy.kind)
        for training in (self.training, *(stage.training for stage in self.stages)):
            if training.kind != trains:
                raise ValueError(
                    f"training.kind is {training.kind}; that of policy.kind {self.policy.kind} is {trains}: "
                    "leave it out"
                )
            if getattr(training, "launcher", "spawn") == "ray" and self.compute.kind != "ray":
                raise ValueError(
                    "training.launcher ray trains on the cluster of compute, whose kind is "
                    f"{self.compute.kind}: set compute.kind to ray, or launcher to spawn"
                )
        if self.stages and sum(stage.iterations for stage in self.stages) != self.iterations:
            total = sum(stage.iterations for stage in self.stages)
            raise ValueError(f"iterations is {self.iterations}, but the stages have {total}: leave it out")
        if not self.stages:
            check_stage(*self.schedule())
        wording = getattr(self.policy, "wording", Wording())
        answer = wording.answer
        imitates = any(stage.rollout.policy is not None for stage in self.schedule())
        if imitates and (answer, wording.reasoning) != ("arm", "off"):
            raise ValueError(
                "rollout.policy decides without reasoning, one arm each: set policy.wording.reasoning to off "
                "and policy.wording.answer to arm"
            )
        all_actions = [
            isinstance(s.credit, PolicyGradientCredit) and s.credit.all_actions for s in self.schedule()
        ]
        if any(all_actions) and answer != "arm":
            raise ValueError(
                "credit.all_actions needs decisions that are one arm: set policy.wording.answer to arm"
            )
        return self

    def schedule(self) -> tuple[StageConfig, ...]:
        """The run's stages, of which there is at least one."""
        whole = {name: getattr(self, name) for name in STAGED}
        return self.stages or (StageConfig.model_construct(**whole),)

    def stage_of(self, iteration: int) -> tuple[StageConfig, float]:
        """The stage of an iteration, from 1, and the share of the stage that is done after it, 0 to 1."""
        done = 0
        for stage in self.schedule():
            if iteration <= done + stage.iterations:
                return stage, (iteration - done) / stage.iterations
            done += stage.iterations
        raise ConfigError(f"There is no iteration {iteration}; the run has {self.iterations}.")

    def validates(self, iteration: int) -> bool:
        """Whether iteration 0, 1, ... is validated: every so many are, and the last of each stage."""
        ends = itertools.accumulate(stage.iterations for stage in self.schedule())
        return iteration % self.validation.every == 0 or iteration in ends

    def extended(self, iterations: int) -> RunConfig:
        """The config with so many iterations in all: those beyond are one more stage like the last."""
        stages = [stage.model_dump() for stage in self.schedule()]
        stages.append({**stages[-1], "iterations": iterations - self.iterations})
        return parse_config({**self.model_dump(), "stages": stages, "iterations": iterations})

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def _task_as_suite(data: Any) -> Any:
    """`task: FOLDER` is another way to say `suite: FOLDER`."""
    if not isinstance(data, Mapping) or "task" not in data:
        return data
    if "suite" in data:
        raise ValueError("found both task and suite; give one of them")
    return {("suite" if key == "task" else key): value for key, value in data.items()}


def _trained_as(kind: object) -> str:
    """The kind of training that a policy of this kind has."""
    return kind if kind == "local" or kind == "hosted" else "numeric"


def _with_kind(training: Any, kind: str) -> Any:
    return {"kind": kind, **training} if isinstance(training, Mapping) else training


def over(base: Any, changes: Any) -> Any:
    """`changes` over `base`, key by key; settings of another kind take nothing from those they replace."""
    if not (isinstance(base, Mapping) and isinstance(changes, Mapping)):
        return changes
    if "kind" in changes and changes["kind"] != base.get("kind", changes["kind"]):
        return changes
    return {**base, **{key: over(base.get(key), value) for key, value in changes.items()}}


def configs() -> dict[str, Path]:
    """The configs that come with the package, by name."""
    shipped = Path(__file__).parent / "configs"  # in a checkout they lie at its top
    folder = shipped if shipped.is_dir() else Path(__file__).parents[2] / "configs"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def config_file(name_or_path: str | Path, folder: Path = Path()) -> Path:
    """The YAML file at a path, which starts from `folder`, or of a name (`configs`).

    Raises UnknownNameError for a name that nobody has.
    """
    path, name = folder / name_or_path, str(name_or_path)
    if path.suffix in (".yaml", ".yml") or path.exists():
        return path
    known = configs()
    if name not in known:
        raise UnknownNameError("config", name, [*known, "FILE.yaml"])
    return known[name]


def load_config(path: Path, overrides: list[str] | None = None) -> RunConfig:
    """The config in a YAML file, or of a name (`configs`), with `a.b=c` overrides on top.

    Paths in the file start from its folder, those of overrides from the current directory. Raises
    ConfigError, and UnknownNameError for a name that nobody has.
    """
    path = config_file(path)
    source = f"{path} with --set" if overrides else str(path)
    named = {"name": path.stem} if re.fullmatch(NAME, path.stem) else {}
    return parse_config(named | placed(read_mapping(path), path), overrides, source)


def parse_config(
    values: Mapping[str, Any], overrides: list[str] | None = None, source: str = "config"
) -> RunConfig:
    """A checked config from nested mappings; settings of version 0.1 are translated (`rmft.old_settings`).

    Raises ConfigError naming `source`.
    """
    merged = dict(values)
    for override in overrides or []:
        _set(merged, override)
    return read(RunConfig, renamed(merged, source), source)


def _set(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set takes KEY=VALUE such as rollout.num_rollouts=16; found '{override}'.")
    value = parse_yaml(text, f"--set {key}: the value '{text:.60}'")
    *parents, last = key.split(".")
    for depth, parent in enumerate(parents):
        inner = values.get(parent, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"--set {key}: '{'.'.join(parents[: depth + 1])}' holds no settings.")
        values[parent] = dict(inner)
        values = values[parent]
    if last == "kind" and values.get("kind") != value:
        values.clear()  # settings of another kind would do nothing
    values[last] = value
