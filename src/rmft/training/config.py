"""The settings of training, for every kind of policy, and of the objective that is minimized."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from rmft.reading import Config, by_kind


class CrossEntropy(Config):
    """Weighted cross-entropy; see `rmft.training.objective`. The method as published."""

    kind: Literal["cross_entropy"] = "cross_entropy"
    kl_coef: ClassVar[float] = 0.0
    needs_behaviour: ClassVar[bool] = False
    """Whether it needs the probabilities that decisions were drawn from."""
    rows_together: ClassVar[int] = 1
    """How many trajectories its loss is of, where it is not of single decisions."""


class PolicyGradient(Config):
    """Policy gradient with a KL penalty to the rollout policy; see `rmft.training.objective`."""

    kind: Literal["policy_gradient"] = "policy_gradient"
    kl_coef: Annotated[float, Field(gt=0, le=100)] = 1.0
    """Coefficient of KL(rollout policy || policy), both at the temperature of the rollouts."""
    needs_behaviour: ClassVar[bool] = True
    rows_together: ClassVar[int] = 1


class PPOClip(Config):
    """PPO's clipped surrogate, with GRPO's KL term to the start; see `rmft.training.objective`."""

    kind: Literal["ppo_clip"] = "ppo_clip"
    clip_range: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Ratios pi / mu outside 1 -+ clip_range earn nothing more."""
    kl_coef: Annotated[float, Field(ge=0, le=100)] = 0.0
    """Coefficient of KL(policy || start), the policy that the run started from; 0: PPO without it."""
    needs_behaviour: ClassVar[bool] = True
    rows_together: ClassVar[int] = 1


class DPO(Config):
    """Direct preference optimization of pairs of trajectories; see `rmft.training.objective`."""

    kind: Literal["dpo"] = "dpo"
    beta: Annotated[float, Field(gt=0, le=100)] = 0.1
    """How firmly the policy is held to the one that was rolled out: the larger, the more."""
    kl_coef: ClassVar[float] = 0.0
    needs_behaviour: ClassVar[bool] = True
    rows_together: ClassVar[int] = 2


class RegretLoss(Config):
    """Regret itself, differentiated, under full information; see `rmft.training.objective`."""

    kind: Literal["regret_loss"] = "regret_loss"
    h: Literal["square", "positive_square"] = "square"
    """x^2, as in the source's theorem, or max(x, 0)^2."""
    num_sequences: Annotated[int, Field(ge=1, le=10_000)] = 1
    """N: reward sequences in a set, the worst of which counts most."""
    power: Annotated[float, Field(ge=0, le=100)] = 1.0
    """k of f(x) = max(x, 0)^k: the larger, the more of a set's loss is its worst."""
    kl_coef: ClassVar[float] = 0.0
    needs_behaviour: ClassVar[bool] = False

    @model_validator(mode="after")
    def _power_weighs_something(self) -> Self:
        if self.num_sequences == 1 and self.power != 1:
            raise ValueError("power does nothing with num_sequences 1, a set of one: leave it out")
        return self

    @property
    def rows_together(self) -> int:
        """A set's reward sequences."""
        return self.num_sequences


OBJECTIVES = (CrossEntropy, PolicyGradient, PPOClip, DPO, RegretLoss)

ObjectiveConfig = Annotated[
    CrossEntropy | PolicyGradient | PPOClip | DPO | RegretLoss,
    by_kind("objective", "cross_entropy", *OBJECTIVES),
]
"""What training minimizes; `kind` is `cross_entropy` unless given."""


class _Gradient(Config):
    """What every trainer in this process takes."""

    objective: ObjectiveConfig = CrossEntropy()
    epochs: Annotated[int, Field(ge=1, le=1000)] = 1
    """Passes over an iteration's batch."""
    batch_size: Annotated[int, Field(ge=1)] = 256
    """Trajectories per optimizer step."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 2e-3
    """Peak rate of AdamW: reached after `warmup`."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """How the learning rate goes on after `warmup`: falling to 5% of its peak, or staying there."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Share of the iterations in which the learning rate rises from 0."""
    target_kl: Annotated[float, Field(gt=0, le=10)] | None = None
    """KL(rollout policy || policy), per decision or written token, that an iteration is to end at: the
    learning rate is adapted to it, so that one setting serves models of any size. It falls with the square of
    the schedule. None: no adapting."""
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.0
    max_gradient_norm: Annotated[float, Field(gt=0)] = 1.0


class NumericTraining(_Gradient):
    """Training of a numeric policy (`rmft.training.numeric`)."""

    kind: Literal["numeric"] = "numeric"


class LocalTraining(_Gradient):
    """Training of a language model in this process (`rmft.training.local`)."""

    kind: Literal["local"] = "local"
    legality_coef: Annotated[float, Field(ge=0, le=100)] | None = None
    """Coefficient of -log P(legal answers) under the unmasked model. The choice among them is trained on the
    renormalized K-way distribution, so 1 with `cross_entropy` is plain cross-entropy over the whole
    vocabulary. None: 1 with `cross_entropy`, 0.1 with others."""
    loss_aggregation: Literal["token_mean", "round_mean"] = "token_mean"
    """`token_mean`: every sampled token counts as much, as published. `round_mean`: every round does, by the
    mean over its reasoning plus its decision, so that long reasoning does not drown the decision."""
    mask_truncated_completions: bool = False
    """Whether reasoning that the budget cut is left out of the loss; the decision after it stays in."""
    tokens_at_once: Annotated[int, Field(ge=1)] = 2048
    """Tokens in one forward pass; gradients are accumulated over a batch's passes."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass, which saves memory."""
    num_processes: Annotated[int, Field(ge=1, le=1024)] = 1
    """Processes that share every optimizer step, each with a GPU of its own where there are some. Rollouts
    stay in one."""
    launcher: Literal["spawn", "ray"] = "spawn"
    """Who starts them: `spawn` does on this machine, `ray` by Ray Train on the cluster of `compute`, where
    workers that play make room if there is none."""
    fsdp: bool = False
    """Whether weights, gradients and the optimizer's state are shared out over these processes (FSDP2), for
    models that one of them has no room for. Else each has all of them (DDP), which is faster."""

    @property
    def legality(self) -> float:
        """`legality_coef`, or what it is where none is given."""
        if self.legality_coef is not None:
            return self.legality_coef
        return 1.0 if self.objective.kind == "cross_entropy" else 0.1


class HostedTraining(Config):
    """Training at a provider, which learns whole answers by cross-entropy (`rmft.training.hosted`)."""

    kind: Literal["hosted"] = "hosted"
    epochs: Annotated[int, Field(ge=1, le=1000)] = 1
    """Passes over an iteration's conversations."""


TrainingConfig = Annotated[
    NumericTraining | LocalTraining | HostedTraining,
    by_kind("training", "numeric", NumericTraining, LocalTraining, HostedTraining),
]
"""Training; `kind` is that of the run's policy and need not be given."""
