"""Fine-tunes an open-weight language model on what it wrote itself, with PEFT's adapters and accelerate.

The loss is that of `rmft.training.objective`, over the tokens that the policy sampled
(`rmft.training.tokens`). What a policy's folder holds is said in `rmft.policies.checkpoint`.
"""

from __future__ import annotations

import math
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from accelerate import Accelerator
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel

from rmft.errors import ConfigError, TrainingError
from rmft.generators.devices import find_device
from rmft.generators.loading import HeldModel
from rmft.policies.checkpoint import read_policy, write_policy
from rmft.policies.config import LocalConfig
from rmft.training.adapter import (
    Trained,
    give_back,
    load_trainable,
    peft_settings,
    save_trained,
    trained_weights,
)
from rmft.training.config import DPO, LocalTraining, ObjectiveConfig, PPOClip
from rmft.training.low_rank import fuse
from rmft.training.objective import DecisionTerms, TokenTerms, total_loss
from rmft.training.optimizer import load_optimizer, save_optimizer, state_of
from rmft.training.packing import ATTENTION, Packed, pack
from rmft.training.processes import Launch, in_processes, inside
from rmft.training.schedule import step_size
from rmft.training.sharding import shard, whole
from rmft.training.tokens import TokenSequence, batches, passes, token_sequences
from rmft.types import PolicyRef, TrainingBatch, TrainingStep

BETAS = (0.9, 0.98)

OnStep = Callable[[int, int, float], None]
"""Told of each optimizer step's number, from 1, how many there are, and its loss."""


def new_policy(config: LocalConfig, seed: int, target: Path) -> PolicyRef:  # noqa: ARG001
    """Write the policy that a run starts from to the folder `target`: the model as it is, by its name.

    seed: not looked at. Adapters are made by the first training, from its own seed.
    """
    write_policy(target, config)
    save_optimizer(target)
    return PolicyRef("local", target)


def check(config: LocalConfig, model: PreTrainedModel) -> None:
    """Raises UnknownNameError and ConfigError when the model has no such layers as `config.lora` names."""
    if config.lora is not None:
        peft_settings(config.lora, model)


def same_policy(config: LocalConfig, source: PolicyRef, seed: int, target: Path) -> PolicyRef:  # noqa: ARG001
    """Write the policy `source`, with its optimizer's state, to the folder `target`. seed: not looked at.

    How problems are told may change. Raises ConfigError when the model or its adapter is another one than in
    `config`, RunDirectoryError when the policy is damaged.
    """
    if source.kind != "local":
        raise ConfigError(f"init_from '{source.path}' holds a {source.kind} policy; policy.kind is local.")
    found = read_policy(source.path)
    if (found.model, found.lora) != (config.model, config.lora):
        raise ConfigError(
            f"init_from '{source.path}' holds the model {found.model} with {found.lora}; policy asks for "
            f"{config.model} with {config.lora}. A run, and all its stages, go on with one model: make them "
            f"equal."
        )
    shutil.copytree(source.path, target, dirs_exist_ok=True)
    write_policy(target, config)
    return PolicyRef("local", target)


class LocalTrainer:
    """Implements `Trainer`: each training goes on from the policy's adapter and optimizer state.

    With `training.num_processes`, or under torchrun or accelerate where every process calls it with the same
    arguments, each takes its part of every step, and the first one writes. Run so on a processor; not run on
    a GPU. held: the policies' model, if this process has it loaded. on_ray: starts processes where
    `training.launcher` is ray.
    """

    def __init__(
        self,
        training: LocalTraining,
        policy: LocalConfig,
        held: HeldModel | None = None,
        on_ray: Launch | None = None,
    ) -> None:
        self.training, self.policy, self.held = training, policy, held
        several = training.num_processes > 1 and not inside()
        self._launch = on_ray if training.launcher == "ray" else in_processes if several else None

    def train(
        self, policy: PolicyRef, batches: list[TrainingBatch], target: Path, step: TrainingStep
    ) -> tuple[PolicyRef, dict[str, float]]:
        """See `Trainer`. Figures: the steps' mean loss, KL and gradient norm, learning rate, steps, tokens
        read.

        Raises TrainingError when the loss is not finite, RunDirectoryError when the policy is damaged.
        """
        groups = [group for batch in batches for group in token_sequences(batch, self.training)]
        objective = self.training.objective
        if isinstance(objective, PPOClip) and objective.kl_coef:
            groups = with_reference(groups, (step.start or policy).path, self.policy, self.training)
        work = partial(
            fine_tune, groups=groups, policy=self.policy, training=self.training,
            progress=step.progress, seed=step.seed,
        )  # fmt: skip
        if self._launch is None:
            return PolicyRef("local", target), work(policy.path, target, held=self.held)
        if self.held is not None:
            self.held.rest()  # each of them loads its own
        return PolicyRef("local", target), self._launch(
            self.training.num_processes, work, policy.path, target
        )


def fine_tune(
    source: Path,
    target: Path,
    groups: list[list[TokenSequence]],
    policy: LocalConfig,
    training: LocalTraining,
    progress: float,
    seed: int,
    on_step: OnStep = lambda step, steps, loss: None,  # noqa: ARG005
    held: HeldModel | None = None,
) -> dict[str, float]:
    """Train the policy in the folder `source` on `groups`, and write the next one to the folder `target`.

    One of several processes does its part. progress: 0 to 1, which the learning rate follows. on_step: called
    after every step. held: see `load_trainable`; after an error it is of no more use. Figures and errors are
    those of `LocalTrainer.train`.
    """
    shuffle = np.random.default_rng(seed)
    steps = list(batches(groups, training.batch_size, training.epochs, shuffle))
    with _seeded(seed):
        model, tokenizer = load_trainable(source, policy, held)
        attention = model.config._attn_implementation
        learner = _Learner(model, policy, training, source, progress, len(steps))
        for number, step in enumerate(steps, 1):
            loss = learner.step(step)
            on_step(number, len(steps), loss)
        tokens = learner.over_processes(float(learner.num_tokens))
        writes = learner.accelerator.is_main_process
        weights = trained_weights(model, keep=writes)
        state = state_of(learner.optimizer, learner.parameters, keep=writes)
        if writes:
            write_policy(target, policy)
            save_trained(model, tokenizer, policy.model, weights, target)
            save_optimizer(target, state, learner.size.scale)
        learner.accelerator.wait_for_everyone()
        if held is not None and isinstance(model, PeftModel):
            give_back(model, attention)
    return {
        **{name: float(np.mean(values)) if values else 0.0 for name, values in learner.figures.items()},
        "steps": float(len(steps)),
        "tokens": tokens,
    }


class _Learner:
    """A model, its optimizer with the state in which the last training left it, and what a step does."""

    def __init__(
        self,
        model: Trained,
        policy: LocalConfig,
        training: LocalTraining,
        start: Path,
        progress: float,
        num_steps: int,
    ) -> None:
        self.training = training
        device = find_device(policy.device)
        self.accelerator = Accelerator(cpu=device.type == "cpu")
        self.autocast = partial(
            torch.autocast, device.type, torch.bfloat16, enabled=policy.precision == "bfloat16"
        )
        base = _attend_packed(model)
        if training.gradient_checkpointing:
            base.gradient_checkpointing_enable({"use_reentrant": False})  # type: ignore[no-untyped-call]
        self.sharded = training.fsdp and self.accelerator.num_processes > 1
        if self.sharded:
            shard(model, base, self.accelerator.device)
            self.model: torch.nn.Module = model
        else:
            if device.type == "cpu":
                fuse(model)
            self.model = self.accelerator.prepare_model(model)
        self.parameters = {name: each for name, each in model.named_parameters() if each.requires_grad}
        self.optimizer = torch.optim.AdamW(
            self.parameters.values(), betas=BETAS, weight_decay=training.weight_decay
        )
        scale = load_optimizer(start, self.optimizer, self.parameters)
        self.size = step_size(training, progress, num_steps, scale)
        self.num_tokens = 0
        names = ("loss", "gradient_norm", "kl", "learning_rate")
        self.figures: dict[str, list[float]] = {name: [] for name in names}

    def step(self, step: list[TokenSequence]) -> float:
        """One optimizer step: gradients accumulated over its passes, their norm clipped. Returns the loss."""
        self.model.train()
        together = self.training.objective.rows_together
        todo, own = self._passes(step, together)
        norm = max(1.0, float(sum(one.norm for one in step)))
        total = norm if together == 1 else len(step) / together
        loss = kl = 0.0
        for number, groups in enumerate(todo):
            last = number == len(todo) - 1
            with nullcontext() if last or self.sharded else self.accelerator.no_sync(self.model):
                of_pass, kl_of_pass = self._losses(groups)
                of_pass, kl_of_pass = of_pass / total * (number < own), kl_of_pass / norm * (number < own)
                # gradients are averaged over processes
                self.accelerator.backward(of_pass * self.accelerator.num_processes)
            loss += of_pass.item()
            kl += kl_of_pass.item()
        loss, kl = self.over_processes(loss), self.over_processes(kl)
        clipped = torch.nn.utils.clip_grad_norm_(self.parameters.values(), self.training.max_gradient_norm)
        length = float(whole(clipped))
        if not (math.isfinite(loss) and math.isfinite(length)):
            raise TrainingError(f"The loss is {loss} with gradient norm {length}: training has diverged.")
        self.optimizer.param_groups[0]["lr"] = self.size.rate
        for name, value in zip(self.figures, (loss, length, kl, self.size.rate), strict=True):
            self.figures[name].append(value)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.size.update(kl)
        return loss

    def _passes(
        self, step: list[TokenSequence], together: int
    ) -> tuple[list[list[list[TokenSequence]]], int]:
        """This process's part of a step, and how many of its passes count; the others are copies.

        One without trajectories has a copy, since every process takes part in the sum of gradients; where
        weights are shared out each takes part in every pass.
        """
        units = [step[start : start + together] for start in range(0, len(step), together)]
        part = units[self.accelerator.process_index :: self.accelerator.num_processes] or units[:1]
        idle = self.accelerator.process_index >= len(units)
        if together == 1:
            todo = passes([one for unit in part for one in unit], self.training.tokens_at_once)
        else:  # a pair is one pass, however long
            todo = [each for pair in part for each in passes(pair, sum(len(one.ids) for one in pair))]
        own = 0 if idle else len(todo)
        if self.sharded:
            most = int(self.over_processes(float(len(todo)), "max"))
            todo += todo[-1:] * (most - len(todo))
        return todo, own

    def _losses(self, groups: list[list[TokenSequence]]) -> tuple[Tensor, Tensor]:
        """The sums of loss and KL divergence of one pass: groups of trajectories, each with one prefix."""
        packed = pack(groups, self.accelerator.device)
        self.num_tokens += packed.ids.numel()
        with self.autocast():
            logits = _logits(self.model, packed)
        return packed_loss(logits, packed, self.training.objective, self.training.legality)

    def over_processes(self, value: float, reduction: Literal["sum", "max"] = "sum") -> float:
        """The sum of a number over all processes, or the largest."""
        if self.accelerator.num_processes == 1:
            return value
        values = self.accelerator.gather(torch.tensor([value], device=self.accelerator.device))
        return float(values.sum() if reduction == "sum" else values.max())


def packed_loss(
    logits: Tensor, packed: Packed, objective: ObjectiveConfig, legality_coef: float
) -> tuple[Tensor, Tensor]:
    """The sums, over a pass, of the objective of `rmft.training.objective` and of its KL divergence.

    logits: (S, V), after the tokens that anything is predicted from. In DPO a pass is one pair, whose
    legality is the mean over its decisions.
    """
    of_tokens, among_legal, log_legality = _scores(logits, packed)
    paired = isinstance(objective, DPO)
    tokens = TokenTerms(
        of_tokens, packed.token_advantages, packed.token_shares, packed.token_logprobs,
        packed.token_reference, torch.zeros_like(packed.targets) if paired else None,
    )  # fmt: skip
    if not len(packed.decision_at):
        return total_loss(objective, None, tokens)
    decisions = DecisionTerms(
        among_legal, packed.weights, packed.behaviour,
        packed.reference, torch.zeros_like(packed.decision_at) if paired else None,
    )  # fmt: skip
    loss, kl = total_loss(objective, decisions, tokens)
    return loss - legality_coef * (log_legality.mean() if paired else log_legality.sum()), kl


def _logits(model: torch.nn.Module, packed: Packed) -> Tensor:
    """(S, V) after the tokens that anything is predicted from."""
    logits: Tensor = model(
        input_ids=packed.ids,
        position_ids=packed.position_ids,
        rmft_groups=packed.groups,
        logits_to_keep=packed.predicting,
        use_cache=False,
    ).logits
    return logits.flatten(0, -2)


def _scores(logits: Tensor, packed: Packed) -> tuple[Tensor, Tensor, Tensor]:
    """Log probabilities of tokens (m,), of decisions among their legal answers (d, K), of these (d, 1).

    log pi(a) = log p(a) - log sum_legal p; answers that a decision does not have are left out, and 0.
    """
    logprobs = (logits.float() / packed.temperature).log_softmax(dim=-1)
    missing = packed.legal < 0
    legal = logprobs[packed.decision_at[:, None], packed.legal.clamp(min=0)]
    log_legality = legal.masked_fill(missing, float("-inf")).logsumexp(dim=1, keepdim=True)
    among_legal = (legal - log_legality).masked_fill(missing, 0.0)
    return logprobs[packed.token_at, packed.targets], among_legal, log_legality


@torch.no_grad()
def with_reference(
    groups: list[list[TokenSequence]], folder: Path, policy: LocalConfig, training: LocalTraining
) -> list[list[TokenSequence]]:
    """The sequences with the log probabilities that the policy in `folder` gives to what was sampled."""
    with _seeded(0):
        model, _ = load_trainable(folder, policy)
    _attend_packed(model)
    device = find_device(policy.device)
    model.eval().to(device)
    found = []
    for group in groups:
        rows = []
        for laid in passes(group, training.tokens_at_once):
            packed = pack(laid, device)
            of_tokens, among_legal, _ = _scores(_logits(model, packed), packed)
            sequences = [one for part in laid for one in part]
            tokens = torch.split(of_tokens.cpu(), [len(one.targets) for one in sequences])
            decisions = torch.split(among_legal.cpu(), [len(one.legal) for one in sequences])
            rows += [
                replace(one, token_reference=a.double().numpy(), reference=b.double().numpy())
                for one, a, b in zip(sequences, tokens, decisions, strict=True)
            ]
        found.append(rows)
    return found


def _attend_packed(model: Trained) -> PreTrainedModel:
    """Let the model attend as `rmft.training.packing` says; the model beneath its adapters."""
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    assert isinstance(base, PreTrainedModel)
    base.set_attn_implementation(ATTENTION)
    return base


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Torch's global generators, which adapters and dropout draw from, seeded; given back as they were."""
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of the libraries, about each other
        torch.manual_seed(seed)
        yield
