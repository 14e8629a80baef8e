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
from rmft.policies.numeric import (
    WEIGHTS,
    NetworkConfig,
    NumericPolicy,
    load_network,
    new_network,
    save_network,
)
from rmft.training.config import NumericTraining
from rmft.training.objective import decision_loss, kl_divergence
from rmft.training.optimizer import OPTIMIZER, load_optimizer, save_optimizer
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
        player = NumericPolicy(network)
        kl_coef = self.config.objective.kl_coef
        losses, kls, norms, rates = [], [], [], []
        steps = list(_steps(batches, self.config, np.random.default_rng(step.seed)))
        size = step_size(self.config, step.progress, len(steps), scale)
        for chosen in steps:
            pieces = [batch.rows(rows) for batch, rows in chosen]
            total = sum(piece.num_decisions for piece in pieces)
            loss = kl = 0.0
            optimizer.zero_grad()
            for piece in pieces:
                logits = player.logits(piece.trajectories.histories)
                of_piece, kl_of_piece = batch_loss(logits, piece, kl_coef)
                torch.autograd.backward(of_piece / total)
                loss += of_piece.item() / total
                kl += kl_of_piece.item() / total
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
        save_optimizer(target, optimizer, parameters, size.scale)
        figures = {
            "loss": float(np.mean(losses)) if losses else 0.0,
            "gradient_norm": float(np.mean(norms)) if norms else 0.0,
            "learning_rate": float(np.mean(rates)) if rates else size.rate,
            "steps": float(len(losses)),
            "kl": float(np.mean(kls)) if kls else 0.0,
        }
        return PolicyRef("numeric", target), figures


def batch_loss(logits: Tensor, batch: TrainingBatch, kl_coef: float) -> tuple[Tensor, Tensor]:
    """The sums, over the decisions in the mask, of the objective and of KL(behaviour || policy).

    logits: (B, T, K) of the policy that is trained. Raises TrainingError when the behaviour policy's
    probabilities are not known.
    """
    histories, mask = batch.trajectories.histories, torch.from_numpy(batch.mask)
    logprobs = (logits / batch.temperature).log_softmax(dim=-1)[mask]
    if batch.action_targets is not None:
        weights = torch.from_numpy(batch.action_targets[batch.mask]).float()
    else:
        arms = torch.from_numpy(histories.arms[batch.mask]).unsqueeze(1)
        advantages = torch.from_numpy(batch.advantages[batch.mask]).float().unsqueeze(1)
        weights = torch.zeros(logprobs.shape).scatter_(1, arms, advantages)
    if histories.probabilities is None:
        raise TrainingError("The KL divergence needs the probabilities that decisions were drawn from.")
    kl = kl_divergence(torch.from_numpy(histories.probabilities[batch.mask]).float(), logprobs)
    return decision_loss(logprobs, weights) + kl_coef * kl, kl


def _steps(
    batches: list[TrainingBatch], config: NumericTraining, shuffle: np.random.Generator
) -> Iterator[list[tuple[TrainingBatch, IntArray]]]:
    """Optimizer steps of about `batch_size` trajectories: rows of batches, shuffled every epoch."""
    at_once = min(ROWS_AT_ONCE, config.batch_size)
    for _ in range(config.epochs):
        pieces = []
        for batch in batches:
            rows = shuffle.permutation(batch.kept)
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
