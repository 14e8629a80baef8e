"""A plain causal Transformer: events are tokens, pre-norm attention among all of them, MLP, KV cache.

One history is one sequence. It begins with a start token. Every event, which is one arm's reward in one
round, is a token. Before each round stand K decision tokens, one per arm; their last hidden states give the
round's logits. With two arms:

    start | decide arm 0, decide arm 1 | event of round 0 | decide arm 0, decide arm 1 | event of round 1 ...

All tokens pass through the same blocks, x <- x + Attention(LayerNorm(x)) and then x <- x + MLP(LayerNorm(x)).
An event attends to the start token and to the events of all arms up to its own round, and a decision to
those up to the round before. No token attends to a decision, so the cache grows by the events alone. In
head h, with age_ij >= 0 the number of rounds by which token j is older than token i,

    score_ij = q_i . k_j / sqrt(d) + b_h [arm_i = arm_j] - m_h age_ij,  out_i = sum_j softmax_j(score_ij) v_j

The second term is all that tells arms apart. It is the dot product of orthogonal (one-hot) arm embeddings,
which are appended to queries and keys, with a learned size b_h per head. One set of weights therefore serves
any number of arms, and renaming the arms renames the decisions, which need not be learned from data. The
start token bears the embedding of every arm and does not age: it is a pseudo-event of each arm, whose weight
beside the real ones tells how many there were. The third term is ALiBi (Press et al. 2022) with a slope
m_h >= 0 that is learned, from 0.0025 to 0.7 at first. It takes the place of position embeddings, so that no
horizon is built in; decision tokens are told which share of the horizon is over, and what is shown on their
arm. Heads share keys and values
(multi-query attention, Shazeer 2019), so the cache is small and decoding quick.

B = histories, T = rounds, K = arms, H = heads, D = width, d = D / H. S = T events under bandit feedback and
T x K under full information. L = tokens that attend.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rmft.policies.config import CausalTransformerConfig
from rmft.policies.networks.network import Network
from rmft.policies.regression import num_readings

START = -1  # the start token's round: before every other


class Block(nn.Module):
    """One pre-norm Transformer block: attention to keys and values that are given, then an MLP."""

    def __init__(self, config: CausalTransformerConfig) -> None:
        super().__init__()
        width, heads = config.width, config.num_heads
        self.num_heads, self.head_width = heads, width // heads
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * self.head_width)
        self.same_arm = nn.Parameter(torch.linspace(0.0, 8.0, heads))
        self.fade = nn.Parameter(torch.linspace(-6.0, 0.0, heads).flip(0))
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, config.mlp_ratio * width),
            nn.ReLU(inplace=True),
            nn.Linear(config.mlp_ratio * width, width),
        )

    def keys_values(self, tokens: Tensor, marks: Tensor) -> tuple[Tensor, Tensor]:
        """tokens (B, S, D), marks (B, S, K) -> keys (B, S, d + K), values (B, S, d)."""
        key, value = self.key_value(self.norm(tokens)).chunk(2, dim=-1)
        return torch.cat([key, marks], dim=-1), value

    def forward(self, tokens: Tensor, marks: Tensor, keys: Tensor, values: Tensor, ages: Tensor) -> Tensor:
        """tokens (B or 1, L, D) with marks (B or 1, L, K) attend to keys and values: (B, L, D).

        ages: (L, S), of every key to every token, infinite where it is not seen.
        """
        rows, (_, length, width) = len(keys), tokens.shape
        query = self.query(self.norm(tokens)).view(-1, length, self.num_heads, self.head_width)
        marks = self.same_arm[:, None] * marks[:, :, None]
        parts = query / math.sqrt(self.head_width), marks
        query = torch.cat([part.expand(rows, -1, -1, -1) for part in parts], dim=-1).flatten(1, 2)
        slopes = F.softplus(self.fade)[:, None]
        bias = (-slopes * ages.nan_to_num(posinf=0.0)[:, None]).masked_fill(ages.isinf()[:, None], -torch.inf)
        scores = torch.baddbmm(bias.flatten(0, 1)[None], query, keys.transpose(1, 2))
        mixed = torch.bmm(scores.softmax(dim=-1), values).view(rows, length, width)
        tokens = tokens + self.out(mixed)
        after: Tensor = tokens + self.mlp(tokens)
        return after


@dataclass
class Cache:
    """Keys and values of the start token and of every event so far."""

    keys: list[Tensor]  # one (B, 1 + S, d + K) per block
    values: list[Tensor]  # one (B, 1 + S, d) per block
    rounds: Tensor  # (1 + S,), when each token's event was
    num_tokens: int = 1
    num_rounds: int = 0


class CausalTransformer(Network[Cache]):
    """See the module. The decisions before training are uniform: the last layer starts at zero."""

    def __init__(self, config: CausalTransformerConfig) -> None:
        super().__init__()
        width, self.head_width = config.width, config.width // config.num_heads
        self.start = nn.Parameter(torch.zeros(width))
        self.num_inputs, num_shown = config.num_inputs, num_readings(config.num_inputs)
        self.event = nn.Linear(2 + num_shown, width)
        self.decision = nn.Linear(2 + num_shown, width)
        self.layers = nn.ModuleList([Block(config) for _ in range(config.num_layers)])
        self.norm = nn.LayerNorm(width)
        self.logit = nn.Linear(width, 1)
        nn.init.normal_(self.start)
        nn.init.zeros_(self.logit.weight)
        nn.init.zeros_(self.logit.bias)

    def blocks(self) -> Iterator[Block]:
        for layer in self.layers:
            assert isinstance(layer, Block)
            yield layer

    def forward(self, arms: Tensor, rewards: Tensor, played: Tensor, shown: Tensor) -> Tensor:
        """See `Network`."""
        size, horizon, num_arms = shown.shape[:3]
        time = torch.arange(horizon)
        per_round = num_arms if rewards.dim() == 3 else 1
        events, marks = self._events(arms, rewards, played, shown)
        events = torch.cat([self.start.expand(size, 1, -1), events], dim=1)
        marks = torch.cat([torch.ones(size, 1, num_arms), marks], dim=1)
        rounds = torch.cat([torch.tensor([START]), time.repeat_interleave(per_round)])
        among_events = _ages(rounds, rounds)
        to_events = _ages(time.repeat_interleave(num_arms), rounds, before=True)
        decisions, their_marks = self._decisions(time / horizon, shown)
        for block in self.blocks():
            keys, values = block.keys_values(events, marks)
            decisions = block(decisions, their_marks, keys, values, to_events)
            if block is not self.layers[-1]:
                events = block(events, marks, keys, values, among_events)
        return self._read_out(decisions).view(size, horizon, num_arms)

    def new_cache(self, size: int, horizon: int, num_arms: int, *, full: bool) -> Cache:
        """See `Network`. The start token is in it."""
        length = 1 + horizon * (num_arms if full else 1)
        cache = Cache(
            keys=[torch.empty(size, length, self.head_width + num_arms) for _ in self.layers],
            values=[torch.empty(size, length, self.head_width) for _ in self.layers],
            rounds=torch.full((length,), START),
            num_tokens=0,
        )
        self._append(cache, self.start.expand(size, 1, -1), torch.ones(size, 1, num_arms), START)
        return cache

    def observe(self, cache: Cache, arms: Tensor, rewards: Tensor, played: Tensor, shown: Tensor) -> None:
        """See `Network`."""
        events, marks = self._events(arms[:, None], rewards[:, None], played[:, None], shown[:, None])
        self._append(cache, events, marks, cache.num_rounds)
        cache.num_rounds += 1

    def logits(self, cache: Cache, horizon: int, shown: Tensor) -> Tensor:
        """See `Network`."""
        num_arms, seen = shown.shape[1], slice(cache.num_tokens)
        decisions, marks = self._decisions(torch.tensor([cache.num_rounds / horizon]), shown[:, None])
        ages = _ages(torch.full((num_arms,), cache.num_rounds), cache.rounds[seen], before=True)
        for block, keys, values in zip(self.blocks(), cache.keys, cache.values, strict=True):
            decisions = block(decisions, marks, keys[:, seen], values[:, seen], ages)
        return self._read_out(decisions)

    def cache_size(self, horizon: int, num_arms: int, *, full: bool) -> int:
        """See `Network`."""
        events = horizon * (num_arms if full else 1)
        return (1 + events) * len(self.layers) * (2 * self.head_width + num_arms)

    def _append(self, cache: Cache, tokens: Tensor, marks: Tensor, index: int) -> None:
        """Put tokens (B, L, D) of round `index` into the cache; they attend to each other too."""
        new = slice(cache.num_tokens, cache.num_tokens + tokens.shape[1])
        seen = slice(new.stop)
        cache.rounds[new] = index
        ages = _ages(cache.rounds[new], cache.rounds[seen])
        for block, keys, values in zip(self.blocks(), cache.keys, cache.values, strict=True):
            keys[:, new], values[:, new] = block.keys_values(tokens, marks)
            if block is not self.layers[-1]:
                tokens = block(tokens, marks, keys[:, seen], values[:, seen], ages)
        cache.num_tokens = new.stop

    def _events(self, arms: Tensor, rewards: Tensor, played: Tensor, shown: Tensor) -> tuple[Tensor, Tensor]:
        """Of rounds as `forward` takes them: tokens (B, S, D), and whose each is, marks (B, S, K)."""
        tokens, num_arms = self.event(self.of_events(arms, rewards, played, shown)), shown.shape[2]
        if rewards.dim() == 3:
            size, horizon = rewards.shape[:2]
            return tokens.flatten(1, 2), torch.eye(num_arms).repeat(size, horizon, 1)
        return tokens, F.one_hot(arms, num_arms).to(tokens.dtype)

    def _decisions(self, elapsed: Tensor, shown: Tensor) -> tuple[Tensor, Tensor]:
        """elapsed (T,) in [0, 1), shown (B, T, K, I) -> decision tokens (B, T x K, D), and whose each is,
        marks (1, T x K, K). One row stands for all where nothing is shown."""
        shown = shown if shown.shape[3] else shown[:1]
        time = torch.stack([elapsed, 1 - elapsed], dim=-1)[None, :, None]
        tokens = self.decision(torch.cat([time.expand(*shown.shape[:3], 2), shown], dim=-1))
        return tokens.flatten(1, 2), torch.eye(shown.shape[2]).repeat(1, len(elapsed), 1)

    def _read_out(self, decisions: Tensor) -> Tensor:
        logits: Tensor = self.logit(self.norm(decisions)).squeeze(-1)
        return logits


def _ages(rounds: Tensor, of_keys: Tensor, *, before: bool = False) -> Tensor:
    """(L, S) in rounds, 0 of the start token, infinite of what comes later, or with `before` is no older."""
    age = (rounds[:, None] - of_keys).float()
    return torch.where(of_keys == START, 0.0, age).masked_fill(age < before, torch.inf)
