"""What a run's problems, its policy and its stages must have in common; each raises ConfigError."""

from __future__ import annotations

from collections.abc import Mapping

from rmft.compute import RayCompute
from rmft.config import RunConfig
from rmft.credit import TopK
from rmft.errors import ConfigError
from rmft.policies import demonstration
from rmft.policies.config import AttentionConfig, LocalConfig, NumericConfig
from rmft.problems.setting import Setting
from rmft.problems.suites import Suite
from rmft.stages import check_pool
from rmft.training.config import RegretLoss


def stages(config: RunConfig, suites: Mapping[str, Suite]) -> None:
    """Whether each stage can select, demonstrate and learn on its suite's problems."""
    for stage in config.schedule():
        settings = suites[stage.suite].settings("train")
        if isinstance(stage.credit, TopK):
            try:
                check_pool(stage.credit, stage.rollout, len(settings))
            except ValueError as error:
                raise ConfigError(f"{error}.") from None
        if stage.rollout.policy is not None:
            demonstration.check(stage.rollout.policy, *(setting.rules for setting in settings))
        objective = getattr(stage.training, "objective", None)
        bandits = [setting.name for setting in settings if setting.feedback != "full"]
        if isinstance(objective, RegretLoss) and bandits:
            raise ConfigError(
                f"training.objective regret_loss needs all rewards to be seen; '{bandits[0]}' of suite "
                f"{stage.suite} gives bandit feedback."
            )


def network(policy: NumericConfig, setting: Setting) -> None:
    """Whether a network reads as many numbers as are shown."""
    shown = setting.rules.shown.num_inputs
    if shown != policy.num_inputs:
        raise ConfigError(
            f"Found policy.num_inputs {policy.num_inputs}; '{setting.name}' shows {shown} numbers on "
            f"each arm before a decision. Set policy.num_inputs: {shown}."
        )


def attention(policy: AttentionConfig, setting: Setting) -> None:
    """Whether one attention layer has the problem's arms, and needs nothing that is shown."""
    if setting.num_arms != policy.num_arms:
        raise ConfigError(
            f"policy.num_arms is {policy.num_arms}; '{setting.name}' has {setting.num_arms} arms, and one "
            "attention layer plays one number of arms only."
        )
    if setting.rules.shown.num_inputs:
        raise ConfigError(
            f"'{setting.name}' shows numbers before a decision, which policy.kind attention lacks."
        )


def engine(config: RunConfig) -> None:
    """Whether servers can play the run's rollouts as it asks for them."""
    reasons = isinstance(config.policy, LocalConfig) and config.policy.wording.reasoning != "off"
    for stage in config.schedule():
        if reasons and stage.rollout.temperature != 1:
            raise ConfigError(
                f"Found rollout.temperature {stage.rollout.temperature:g} with policy.engine and reasoning; "
                "expected 1: servers tell log probabilities at temperature 1 only."
            )
    trains_on_ray = any(getattr(stage.training, "launcher", "") == "ray" for stage in config.schedule())
    if isinstance(config.compute, RayCompute) and not trains_on_ray:
        raise ConfigError(
            "Found compute.kind ray with policy.engine, whose servers play all rollouts. Leave compute "
            "out, or set training.launcher to ray to train there."
        )
