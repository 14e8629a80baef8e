"""The trainer of the numeric Transformer: weighted cross-entropy on its own decisions, with AdamW."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from rmft.config import TrainingConfig, TransformerConfig
from rmft.errors import RunDirectoryError, TrainingError
from rmft.policies.transformer import (
    TransformerPolicy,
    load_network,
    new_network,
    save_network,
)
from rmft.selection import kept
from rmft.types import Example, FloatArray, PolicyRef, Trajectories

OPTIMIZER = "optimizer.safetensors"
ROWS_AT_ONCE = 64  # gradients are accumulated over pieces this large, which stay in the processor's cache


def new_policy(config: TransformerConfig, seed: int, target: Path) -> PolicyRef:
    """Write a policy with random weights, and an optimizer without state, to the folder `target`."""
    save_network(target, new_network(config, seed), config)
    (target / OPTIMIZER).write_bytes(save({}))
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
        _load_optimizer(optimizer, parameters, policy.path / OPTIMIZER)
        player = TransformerPolicy(network)
        losses, norms = [], []
        for batch in _batches(examples, self.config, np.random.default_rng(seed)):
            total = sum(int(np.count_nonzero(weights)) for _, weights in batch)
            loss = 0.0
            optimizer.zero_grad()
            for trajectories, weights in batch:
                piece = _loss(player, trajectories, weights, self.config.anchor) / total
                torch.autograd.backward(piece)
                loss += piece.item()
            norm = torch.nn.utils.clip_grad_norm_(parameters.values(), self.config.max_gradient_norm).item()
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise TrainingError(f"The loss is {loss} with gradient norm {norm}: training has diverged.")
            optimizer.step()
            losses.append(loss)
            norms.append(norm)
        save_network(target, network, network_config)
        _save_optimizer(optimizer, parameters, target / OPTIMIZER)
        figures = {
            "loss": float(np.mean(losses)) if losses else 0.0,
            "gradient_norm": float(np.mean(norms)) if norms else 0.0,
            "learning_rate": rate,
            "steps": float(len(losses)),
        }
        return PolicyRef("transformer", target), figures


def learning_rate(config: TrainingConfig, progress: float) -> float:
    """A linear rise over the first `warmup` of the run, then a cosine down to 5% of the peak."""
    rise = min(1.0, progress / config.warmup) if config.warmup else 1.0
    return config.learning_rate * rise * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * progress)))


def _batches(
    examples: list[Example], config: TrainingConfig, shuffle: np.random.Generator
) -> Iterator[list[tuple[Trajectories, FloatArray]]]:
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
            batch.append((example.trajectories.rows(rows), example.weights[rows]))
            size += len(rows)
            if size >= config.batch_size:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch


def _loss(
    policy: TransformerPolicy, trajectories: Trajectories, weights: FloatArray, anchor: float
) -> torch.Tensor:
    """Sum over rounds of weight x cross-entropy of the decision made, and of the anchor's."""
    histories = trajectories.histories
    log_probabilities = policy.logits(histories).log_softmax(dim=-1)
    of_decision = log_probabilities.gather(2, torch.from_numpy(histories.arms).unsqueeze(2)).squeeze(2)
    loss = -(torch.from_numpy(weights).float() * of_decision).sum()
    if anchor:
        if histories.drawn_from is None:
            raise TrainingError("training.anchor needs the probabilities that decisions were drawn from.")
        loss = loss - anchor * (torch.from_numpy(histories.drawn_from).float() * log_probabilities).sum()
    return loss


def _save_optimizer(
    optimizer: torch.optim.Optimizer, parameters: dict[str, torch.nn.Parameter], path: Path
) -> None:
    state = {
        f"{name}/{key}": value
        for name, parameter in parameters.items()
        for key, value in optimizer.state[parameter].items()
    }
    path.write_bytes(save(state))


def _load_optimizer(
    optimizer: torch.optim.Optimizer, parameters: dict[str, torch.nn.Parameter], path: Path
) -> None:
    try:
        for name, value in load_file(path).items():
            parameter, _, key = name.rpartition("/")
            optimizer.state[parameters[parameter]][key] = value
    except (OSError, SafetensorError, KeyError) as error:
        raise RunDirectoryError(f"'{path}' is missing or damaged: {error}") from None
