"""The trainer of the numeric Transformer: weighted cross-entropy on its own decisions, with AdamW."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from rmft.config import TrainingConfig, TransformerConfig
from rmft.errors import TrainingError
from rmft.policies.transformer import (
    TransformerPolicy,
    load_network,
    new_network,
    save_network,
)
from rmft.selection import kept
from rmft.training.optimizer import load_optimizer, save_optimizer
from rmft.training.schedule import learning_rate
from rmft.types import Example, PolicyRef

ROWS_AT_ONCE = 64  # gradients are accumulated over pieces this large, which stay in the processor's cache


def new_policy(config: TransformerConfig, seed: int, target: Path) -> PolicyRef:
    """Write a policy with random weights, and an optimizer without state, to the folder `target`."""
    save_network(target, new_network(config, seed), config)
    save_optimizer(target)
    return PolicyRef("transformer", target)


class TransformerTrainer:
    """Implements `Trainer`; the optimizer's state lies in the policies' folders beside the weights."""

    def __init__(self, config: TrainingConfig) -> None:
        self.config = config

    def train(
        self, policy: PolicyRef, examples: list[Example], target: Path, seed: int, progress: float
    ) -> tuple[PolicyRef, dict[str, float]]:
        """See `Trainer`. Raises TrainingError when the loss is not finite."""
        network, network_config = load_network(policy.path)
        parameters = dict(network.named_parameters())
        rate = learning_rate(self.config, progress)
        optimizer = torch.optim.AdamW(
            parameters.values(), lr=rate, betas=(0.9, 0.98), weight_decay=self.config.weight_decay
        )
        load_optimizer(policy.path, optimizer, parameters)
        player = TransformerPolicy(network)
        losses, norms = [], []
        for batch in _batches(examples, self.config, np.random.default_rng(seed)):
            total = sum(int(np.count_nonzero(example.weights)) for example in batch)
            loss = 0.0
            optimizer.zero_grad()
            for example in batch:
                piece = _loss(player, example, self.config.anchor) / total
                torch.autograd.backward(piece)
                loss += piece.item()
            norm = torch.nn.utils.clip_grad_norm_(parameters.values(), self.config.max_gradient_norm).item()
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise TrainingError(f"The loss is {loss} with gradient norm {norm}: training has diverged.")
            optimizer.step()
            losses.append(loss)
            norms.append(norm)
        save_network(target, network, network_config)
        save_optimizer(target, optimizer, parameters)
        figures = {
            "loss": float(np.mean(losses)) if losses else 0.0,
            "gradient_norm": float(np.mean(norms)) if norms else 0.0,
            "learning_rate": rate,
            "steps": float(len(losses)),
        }
        return PolicyRef("transformer", target), figures


def _batches(
    examples: list[Example], config: TrainingConfig, shuffle: np.random.Generator
) -> Iterator[list[Example]]:
    """Batches of about `batch_size` trajectories, in pieces of one shape each, shuffled every epoch."""
    for _ in range(config.epochs):
        pieces = []
        for example in examples:
            rows = shuffle.permutation(kept(example.weights))
            at_once = min(ROWS_AT_ONCE, config.batch_size)
            pieces += [(example, rows[start : start + at_once]) for start in range(0, len(rows), at_once)]
        batch, size = [], 0
        for index in shuffle.permutation(len(pieces)):
            example, rows = pieces[index]
            every = None if example.arm_weights is None else example.arm_weights[rows]
            chosen = example.trajectories.rows(rows), example.weights[rows]
            batch.append(Example(*chosen, every, example.temperature))
            size += len(rows)
            if size >= config.batch_size:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch


def _loss(policy: TransformerPolicy, example: Example, anchor: float) -> torch.Tensor:
    """Sum over rounds of weight x cross-entropy, of the decision or of every arm, and of the anchor's."""
    histories = example.trajectories.histories
    log_probabilities = (policy.logits(histories) / example.temperature).log_softmax(dim=-1)
    if example.arm_weights is not None:
        loss = -(torch.from_numpy(example.arm_weights).float() * log_probabilities).sum()
    else:
        of_decision = log_probabilities.gather(2, torch.from_numpy(histories.arms).unsqueeze(2)).squeeze(2)
        loss = -(torch.from_numpy(example.weights).float() * of_decision).sum()
    if anchor:
        if histories.probabilities is None:
            raise TrainingError("training.anchor needs the probabilities that decisions were drawn from.")
        loss = loss - anchor * (torch.from_numpy(histories.probabilities).float() * log_probabilities).sum()
    return loss
