"""A stage of a run: what is rolled out, what is learned from it, how; and what these must have in common.

Wrong names, types and ranges raise ConfigError when a config is read (`rmft.config`).
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from rmft.credit import (
    GRPO,
    All,
    CreditConfig,
    PolicyGradientCredit,
    PreferencePairs,
    TopK,
    TopKRegretToGo,
)
from rmft.reading import Config
from rmft.training.config import (
    DPO,
    CrossEntropy,
    HostedTraining,
    PolicyGradient,
    PPOClip,
    RegretLoss,
    TrainingConfig,
)


class RolloutConfig(Config):
    """Steps 1 and 2 of the method: draw problems, roll out."""

    num_problems: Annotated[int, Field(ge=1, le=1_000_000)] = 64
    """M: problems drawn in each iteration."""
    num_rollouts: Annotated[int, Field(ge=1, le=100_000)] = 32
    """L: rollouts of each problem, a group."""
    temperature: Annotated[float, Field(gt=0, le=100)] = 1.0
    """Divides the logits while rolling out for training, and in the loss. Evaluation always plays at 1."""
    policy: str | None = None
    """A baseline such as `ucb(coefficient=0.2)` that is rolled out in place of the policy, which imitates its
    decisions: distillation. None: the policy itself."""


class StageConfig(Config):
    """A part of a run. What it leaves out is as in the run's own settings, key by key."""

    suite: str
    """Where its training problems come from. Validation is always on the run's suite."""
    iterations: Annotated[int, Field(ge=1, le=1_000_000)]
    rollout: RolloutConfig
    credit: CreditConfig
    training: TrainingConfig

    @model_validator(mode="after")
    def _fits_together(self) -> StageConfig:
        check_stage(self)
        return self

    def share_learned(self, num_settings: int) -> float:
        """Of the rollouts, those that are learned from, at most. num_settings: of the training part."""
        credit, problems = self.credit, self.rollout.num_problems
        if isinstance(credit, TopK) and not isinstance(credit, TopKRegretToGo):
            return credit.kept(problems, num_settings) / (problems * self.rollout.num_rollouts)
        return 1.0


def check_stage(stage: StageConfig) -> None:
    """Raises ValueError where credit, rollouts and training do not fit together."""
    credit, training, rollouts = stage.credit, stage.training, stage.rollout.num_rollouts
    if isinstance(credit, TopK):
        check_pool(credit, stage.rollout)
    compares = isinstance(credit, PolicyGradientCredit | GRPO | PreferencePairs)
    if isinstance(training, HostedTraining):
        if compares:
            raise ValueError(
                "policy.kind hosted learns whole answers, each or not: choose a credit.kind other than "
                f"{credit.kind}, such as top_k_regret_to_go"
            )
        if stage.rollout.policy is not None:
            raise ValueError("rollout.policy does nothing with policy.kind hosted: leave it out")
        return
    if compares and rollouts < 2:
        raise ValueError(
            f"credit.kind {credit.kind} compares the rollouts of a problem: rollout.num_rollouts is "
            f"{rollouts}, needs at least 2"
        )
    objective = training.objective
    if isinstance(credit, PolicyGradientCredit | GRPO):
        if not isinstance(objective, PolicyGradient | PPOClip):
            raise ValueError(
                f"credit.kind {credit.kind} has advantages of both signs, which would drive the policy off "
                "without a KL term or a clip: set training.objective, for instance to {kind: "
                "policy_gradient, kl_coef: 1} or {kind: ppo_clip}"
            )
    elif isinstance(objective, PPOClip):
        raise ValueError(
            "training.objective ppo_clip needs advantages: set credit.kind to grpo or policy_gradient"
        )
    if isinstance(credit, PreferencePairs) != isinstance(objective, DPO):
        raise ValueError(
            f"found credit.kind {credit.kind} with training.objective {objective.kind}: preference_pairs and "
            "dpo go with each other"
        )
    if isinstance(objective, RegretLoss):
        _check_regret_loss(stage)
    if stage.rollout.policy is not None and not (
        isinstance(objective, CrossEntropy) and stage.rollout.temperature == 1 and training.target_kl is None
    ):
        raise ValueError(
            "rollout.policy gives decisions of another's to imitate: leave out rollout.temperature and "
            "training.target_kl, and set training.objective to cross_entropy"
        )
    if training.batch_size % objective.rows_together:
        raise ValueError(
            f"training.batch_size is {training.batch_size}; expected a multiple of "
            f"{objective.rows_together}: so many trajectories belong together with training.objective "
            f"{objective.kind}"
        )


def _check_regret_loss(stage: StageConfig) -> None:
    if stage.training.kind != "numeric":
        raise ValueError("training.objective regret_loss is for policies that play numbers, not words")
    if not isinstance(stage.credit, All) or stage.rollout.num_rollouts != 1:
        raise ValueError(
            "training.objective regret_loss learns from every reward sequence once, whatever is played: set "
            "credit.kind to all and rollout.num_rollouts to 1"
        )


def check_pool(credit: TopK, rollout: RolloutConfig, num_settings: int = 1) -> None:
    """Raises ValueError when more are to be kept than are rolled out. num_settings: of the training part."""
    found = credit.pool(rollout.num_problems, rollout.num_rollouts, num_settings)
    if credit.num_selected <= found:
        return
    among = {
        "problem": "rollout.num_rollouts is only",
        "setting": "a setting (rollout.num_problems / settings x rollout.num_rollouts) has only",
        "iteration": "an iteration (rollout.num_problems x rollout.num_rollouts) has only",
    }[credit.per]
    raise ValueError(
        f"credit.num_selected is {credit.num_selected} but {among} {found}: keep at most as many as are "
        "rolled out"
    )
