"""What every numeric network offers: one whole pass for training, and decoding round by round.

Both must give the same logits, so that what was rolled out is what is trained.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

Cache = TypeVar("Cache")
"""What a network remembers of a batch of histories while decoding, allocated whole before round 1."""


class Network(nn.Module, ABC, Generic[Cache]):
    """Events in, one logit per arm out; B = histories, T = rounds, K = arms, any of each.

    An event is one arm's reward in one round: one event per round under bandit feedback, K under full
    information. Where something is shown before decisions, I numbers of every arm are read (`readings`) with
    the events of its round and before its decision; else I is 0. A new network decides uniformly.
    """

    num_inputs: int

    @abstractmethod
    def forward(self, arms: Tensor, rewards: Tensor, played: Tensor, shown: Tensor) -> Tensor:
        """Logits (B, T, K) before every round, of whole histories at once.

        arms: (B, T) long, unused under full information. rewards: (B, T) under bandit feedback, (B, T, K)
        under full. played: like rewards, the probability with which each event's arm was played. shown:
        (B, T, K, I).
        """

    @abstractmethod
    def new_cache(self, size: int, horizon: int, num_arms: int, *, full: bool) -> Cache:
        """An empty cache for `size` histories; full: under full information."""

    @abstractmethod
    def observe(self, cache: Cache, arms: Tensor, rewards: Tensor, played: Tensor, shown: Tensor) -> None:
        """Add one round to the cache: arms (B,); rewards and played (B,), or (B, K) under full; shown
        (B, K, I)."""

    @abstractmethod
    def logits(self, cache: Cache, horizon: int, shown: Tensor) -> Tensor:
        """Logits (B, K) of the decision after the rounds in the cache; shown: (B, K, I)."""

    @staticmethod
    def of_events(arms: Tensor, rewards: Tensor, played: Tensor, shown: Tensor) -> Tensor:
        """What an event is embedded from: its reward, its probability, and what was shown on its arm.

        shown (B, ..., K, I) -> (B, ..., 2 + I), or (B, ..., K, 2 + I) under full information.
        """
        if rewards.dim() < shown.dim() - 1:  # one event per round
            at = arms[..., None, None].expand(*arms.shape, 1, shown.shape[-1])
            shown = shown.gather(-2, at).squeeze(-2)
        return torch.cat([torch.stack([rewards, played], dim=-1), shown], dim=-1)

    @abstractmethod
    def cache_size(self, horizon: int, num_arms: int, *, full: bool) -> int:
        """How many numbers the cache holds for one history."""
