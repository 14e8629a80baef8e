"""What every numeric network offers: one whole pass for training, and decoding round by round.

Both must give the same logits, so that what was rolled out is what is trained.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

from torch import Tensor, nn

Cache = TypeVar("Cache")
"""What a network remembers of a batch of histories while decoding, allocated whole before round 1."""


class Network(nn.Module, ABC, Generic[Cache]):
    """Events in, one logit per arm out; B = histories, T = rounds, K = arms, any of each.

    An event is one arm's reward in one round: one event per round under bandit feedback, K under full
    information. A new network decides uniformly.
    """

    @abstractmethod
    def forward(self, arms: Tensor, rewards: Tensor, played: Tensor, num_arms: int) -> Tensor:
        """Logits (B, T, K) before every round, of whole histories at once.

        arms: (B, T) long, unused under full information. rewards: (B, T) under bandit feedback, (B, T, K)
        under full. played: like rewards, the probability with which each event's arm was played.
        """

    @abstractmethod
    def new_cache(self, size: int, horizon: int, num_arms: int, *, full: bool) -> Cache:
        """An empty cache for `size` histories; full: under full information."""

    @abstractmethod
    def observe(self, cache: Cache, arms: Tensor, rewards: Tensor, played: Tensor) -> None:
        """Add one round to the cache: arms (B,); rewards and played (B,), or (B, K) under full."""

    @abstractmethod
    def logits(self, cache: Cache, horizon: int) -> Tensor:
        """Logits (B, K) of the decision after the rounds in the cache."""

    @abstractmethod
    def cache_size(self, horizon: int, num_arms: int, *, full: bool) -> int:
        """How many numbers the cache holds for one history."""
