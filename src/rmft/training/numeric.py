"""The trainer of numeric policies: the objective of `rmft.training.objective` with AdamW."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rmft.errors import ConfigError, TrainingError
from rmft.policies.checkpoint import OPTIMIZER
from rmft.policies.numeric import (
    WEIGHTS,
    NetworkConfig,
    NumericPolicy,
    load_network,
    new_network,
    save_network,
)
from rmft.training.config import DPO, NumericTraining, ObjectiveConfig, PPOClip, RegretLoss
from rmft.training.objective import DecisionTerms, regret_loss, total_loss
from rmft.training.optimizer import load_optimizer, save_optimizer, state_of
from rmft.training.schedule import step_size
from rmft.types import IntArray, PolicyRef, TrainingBatch, TrainingStep

ROWS_AT_ONCE = 64  # gradients are accumulated over pieces this large, which stay in the processor's cache


def new_policy(config: NetworkConfig, seed: int, target: Path) -> PolicyRef:
    """Write a policy with random weights, and an optimizer without state, to the folder `target`."""
    save_network(target, new_network(config, seed), config)
    save_optimizer(target)
    return PolicyRef("numeric", target)


def same_policy(config: NetworkConfig, source: PolicyRef, seed: int, target: Path) -> PolicyRef:  # noqa: ARG001
    """Write the policy `source`, with its optimizer's state, to the folder `target`. seed: not looked at.

    Raises ConfigError when it is of another kind or shape than `config`, RunDirectoryError when it is
    damaged.
    """
    if source.kind != "numeric" or (found := load_network(source.path)[1]) != config:
        what = f"a network with {found}" if source.kind == "numeric" else f"a {source.kind} policy"
        raise ConfigError(f"init_from '{source.path}' holds {what}; expected {config}, as policy says.")
    for name in (WEIGHTS, OPTIMIZER):
        shutil.copyfile(source.path / name, target / name)
    return PolicyRef("numeric", target)


class NumericTrainer:
    """Implements `Trainer`; the optimizer's state lies in the policies' folders beside the weights."""

    def __init__(self, config: NumericTraining) -> None:
        self.config = config

    def train(
        self, policy: PolicyRef, batches: list[TrainingBatch], target: Path, step: TrainingStep
    ) -> tuple[PolicyRef, dict[str, float]]:
        """See `Trainer`. Raises TrainingError when the loss is not finite."""
        network, network_config = load_network(policy.path)
        parameters = dict(network.named_parameters())
        optimizer = torch.optim.AdamW(
            parameters.values(), betas=(0.9, 0.98), weight_decay=self.config.weight_decay
        )
        scale = load_optimizer(policy.path, optimizer, parameters)
        player, objective = NumericPolicy(network), self.config.objective
        reference = None
        if isinstance(objective, PPOClip) and objective.kl_coef:
            reference = NumericPolicy(load_network((step.start or policy).path)[0])
        losses, kls, norms, rates = [], [], [], []
        steps = list(_steps(batches, self.config, np.random.default_rng(step.seed)))
        size = step_size(self.config, step.progress, len(steps), scale)
        for chosen in steps:
            pieces = [batch.rows(rows) for batch, rows in chosen]
            decisions = sum(piece.num_decisions for piece in pieces)
            together = objective.rows_together
            total = decisions if together == 1 else sum(len(piece.group) for piece in pieces) / together
            loss = kl = 0.0
            optimizer.zero_grad()
            for piece in pieces:
                logits = player.logits(piece.trajectories.histories)
                held_to = None
                if reference is not None:
                    with torch.no_grad():
                        held_to = reference.logits(piece.trajectories.histories)
                of_piece, kl_of_piece = batch_loss(logits, piece, objective, held_to)
                torch.autograd.backward(of_piece / total)
                loss += of_piece.item() / total
                kl += kl_of_piece.item() / decisions
            norm = torch.nn.utils.clip_grad_norm_(parameters.values(), self.config.max_gradient_norm).item()
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise TrainingError(f"The loss is {loss} with gradient norm {norm}: training has diverged.")
            optimizer.param_groups[0]["lr"] = size.rate
            rates.append(size.rate)
            optimizer.step()
            size.update(kl)
            losses.append(loss)
            kls.append(kl)
            norms.append(norm)
        save_network(target, network, network_config)
        save_optimizer(target, state_of(optimizer, parameters), size.scale)
        figures = {
            "loss": float(np.mean(losses)) if losses else 0.0,
            "gradient_norm": float(np.mean(norms)) if norms else 0.0,
            "learning_rate": float(np.mean(rates)) if rates else size.rate,
            "steps": float(len(losses)),
            "kl": float(np.mean(kls)) if kls else 0.0,
        }
        return PolicyRef("numeric", target), figures


def batch_loss(
    logits: Tensor, batch: TrainingBatch, objective: ObjectiveConfig, reference: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The sums of the objective, over decisions in the mask (pairs, sets), and of KL(behaviour || policy).

    logits: (B, T, K) of the policy that is trained; reference: those of the start. Raises TrainingError when
    the behaviour policy's probabilities are not known and needed.
    """
    histories, mask = batch.trajectories.histories, torch.from_numpy(batch.mask)
    every = (logits / batch.temperature).log_softmax(dim=-1)
    logprobs = every[mask]
    if batch.action_targets is not None:
        weights = torch.from_numpy(batch.action_targets[batch.mask]).float()
    else:
        arms = torch.from_numpy(histories.arms[batch.mask]).clamp(min=0).unsqueeze(1)
        advantages = torch.from_numpy(batch.advantages[batch.mask]).float().unsqueeze(1)
        weights = torch.zeros(logprobs.shape).scatter_(1, arms, advantages)
    stated = histories.probabilities
    terms = DecisionTerms(
        logprobs,
        weights,
        None if stated is None else torch.from_numpy(stated[batch.mask]).float(),
        None if reference is None else (reference / batch.temperature).log_softmax(dim=-1)[mask],
        _pair(batch) if isinstance(objective, DPO) else None,
    )
    loss, kl = total_loss(objective, terms)
    if isinstance(objective, RegretLoss):
        rewards = torch.from_numpy(batch.trajectories.table.rewards).float()
        best = rewards.sum(dim=1).max(dim=1).values
        regrets = best - (every.exp() * rewards).sum(dim=(1, 2))
        loss = regret_loss(regrets.view(-1, objective.num_sequences), objective)
    return loss, kl


def _pair(batch: TrainingBatch) -> Tensor:
    """(n,) of every decision in the mask, which pair it belongs to."""
    place = np.unique(batch.group, return_inverse=True)[1]
    return torch.from_numpy(np.broadcast_to(place[:, None], batch.mask.shape)[batch.mask])


def _steps(
    batches: list[TrainingBatch], config: NumericTraining, shuffle: np.random.Generator
) -> Iterator[list[tuple[TrainingBatch, IntArray]]]:
    """Optimizer steps of about `batch_size` trajectories: rows of batches, shuffled every epoch.

    Rows that make a pair or a set stay together; of sets the rows that are left over are left out.
    """
    together = config.objective.rows_together
    at_once = min(max(ROWS_AT_ONCE // together, 1) * together, config.batch_size)
    for _ in range(config.epochs):
        pieces = []
        for batch in batches:
            kept = batch.kept
            if together > 1:
                kept = kept[np.argsort(batch.group[kept], kind="stable")]
            units = kept[: len(kept) // together * together].reshape(-1, together)
            rows = units[shuffle.permutation(len(units))].ravel()
            pieces += [(batch, rows[start : start + at_once]) for start in range(0, len(rows), at_once)]
        step, size = [], 0
        for index in shuffle.permutation(len(pieces)):
            step.append(pieces[index])
            size += len(pieces[index][1])
            if size >= config.batch_size:
                yield step
                step, size = [], 0
        if step:
            yield step
