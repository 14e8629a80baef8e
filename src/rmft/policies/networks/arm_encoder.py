"""The arm encoder: each arm's events are encoded apart and pooled, and arms are then compared.

An *event* is one arm's reward seen in one round: one per round under bandit feedback, K per round
under full information. Arms have no numbers inside the network; they exist only by being the same arm
or another. So one set of weights serves any number of arms, and renaming arms renames decisions.

    time layers  causal self-attention of each event to the earlier events of the same arm, then an MLP
    pooling      per arm, attention of a learned query over the arm's events: one summary per arm
    readout      an MLP of each arm's summary, and of what is shown on it before the decision, beside the mean
                 and maximum over arms: one logit per arm

No event attends to another arm's: arms meet in the readout alone. Without time layers nothing attends to
anything, and the network is a weighted mean per arm (Deep Sets, Zaheer et al. 2017).

Every attention has a learned sink, an event that is always there, so that the weights tell how many
events there were (as the pseudo-counts of a prior do), and a learned rate per head at which old events
fade (ALiBi, Press et al. 2022). There is no position embedding, so no horizon is built in; the readout
sees which share of the horizon is over. Heads share keys and values (multi-query attention, Shazeer
2019), which keeps a round cheap as the history grows. The pooling's query is constant, so its sums are
kept up round by round at a cost that does not grow at all.

B = rollouts, T = rounds, K = arms, H = heads, D = width, d = D / H. N is B under bandit feedback and
B x K under full information, where each arm's events are a sequence of their own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rmft.policies.config import ArmEncoderConfig
from rmft.policies.networks.network import Network
from rmft.policies.regression import num_readings

SCORE_CAP = 8.0  # the pooling's scores are capped smoothly, so that sums of their exp stay finite


class TimeLayer(nn.Module):
    """Causal attention along time within each arm, then an MLP; both pre-normalized and residual."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads, self.head_width = num_heads, width // num_heads
        self.norm = nn.LayerNorm(width)
        self.project = nn.Linear(width, width + 2 * self.head_width)
        self.out = nn.Linear(width, width)
        self.sink = nn.Parameter(torch.zeros(num_heads))
        self.fade = nn.Parameter(torch.linspace(-6.0, 0.0, num_heads))
        self.mlp = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 4 * width),
            nn.ReLU(inplace=True),
            nn.Linear(4 * width, width),
        )

    def queries_keys_values(self, events: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """events (N, S, D) -> queries (N, S, D), keys and values (N, S, d)."""
        width, head = self.num_heads * self.head_width, self.head_width
        query, key, value = self.project(self.norm(events)).split([width, head, head], dim=-1)
        return query, key, value

    def forward(
        self, events: Tensor, query: Tensor, key: Tensor, value: Tensor, age: Tensor, seen: Tensor
    ) -> Tensor:
        """events, query (N, S, D) attend to key, value (N, R, d).

        age: (S, R), by how many rounds each R is older. seen: (N or 1, S, R) bool, same arm and no
        later. Returns (N, S, D).
        """
        rows, length, width = events.shape
        heads, count = self.num_heads, key.shape[1]
        query = query.reshape(rows, length * heads, self.head_width) / math.sqrt(self.head_width)
        scores = torch.bmm(query, key.transpose(1, 2)).view(rows, length, heads, count)
        fading = F.softplus(self.fade)[:, None] * age[:, None, :]
        scores = (scores - fading).masked_fill_(~seen[:, :, None], -torch.inf)
        sink = self.sink[:, None].expand(rows, length, heads, 1)
        weights = torch.cat([scores, sink], dim=-1).softmax(dim=-1)[..., :-1]
        mixed = torch.bmm(weights.reshape(rows, length * heads, count), value).view(rows, length, width)
        events = events + self.out(mixed)
        after: Tensor = events + self.mlp(events)
        return after


@dataclass
class Cache:
    """What decoding remembers of a batch of histories, allocated whole before round 1."""

    keys: list[Tensor]  # one (N, T, d) per time layer
    values: list[Tensor]
    arms: Tensor  # (B, T), whose event each round's was; unused under full information
    pool: Tensor  # (B, K, H, d + 1), each arm's pooled sum of values, and of weights
    num_rounds: int = 0


class ArmEncoder(Network[Cache]):
    """See the module. The decisions before training are uniform: the last layer starts at zero."""

    def __init__(self, config: ArmEncoderConfig) -> None:
        super().__init__()
        width, heads = config.width, config.num_heads
        self.num_heads, self.head_width, self.num_inputs = heads, width // heads, config.num_inputs
        num_shown = num_readings(config.num_inputs)
        self.embed = nn.Linear(2 + num_shown, width)
        self.layers = nn.ModuleList([TimeLayer(width, heads) for _ in range(config.num_layers)])
        self.norm = nn.LayerNorm(width)
        self.pool_value = nn.Linear(width, width)
        self.pool_score = nn.Linear(width, heads)
        self.pool_fade = nn.Parameter(torch.linspace(-6.0, 0.0, heads))
        self.pool_sink = nn.Parameter(torch.zeros(heads, self.head_width + 1))
        self.arm = nn.Linear(width + num_shown, width)
        self.arm_again = nn.Linear(width, width)
        self.others = nn.Linear(2 * width + 2, width)
        self.logit = nn.Linear(width, 1)
        nn.init.zeros_(self.logit.weight)
        nn.init.zeros_(self.logit.bias)

    def time_layers(self) -> Iterator[TimeLayer]:
        for layer in self.layers:
            assert isinstance(layer, TimeLayer)
            yield layer

    def forward(self, arms: Tensor, rewards: Tensor, played: Tensor, shown: Tensor) -> Tensor:
        """See `Network`."""
        horizon, full, num_arms = rewards.shape[1], rewards.dim() == 3, shown.shape[2]
        time = torch.arange(horizon)
        age = (time[:, None] - time[None, :]).to(rewards.dtype)
        seen = (age >= 0)[None]
        features = self.of_events(arms, rewards, played, shown)
        if full:
            features = features.transpose(1, 2).flatten(0, 1)
        else:
            seen = seen & (arms[:, :, None] == arms[:, None, :])
        events = self.embed(features)
        for layer in self.time_layers():
            events = layer(events, *layer.queries_keys_values(events), age, seen)
        added = self._added_to_pool(events)
        before = age - 1  # a decision sees the rounds before its own
        fading = torch.exp(-F.softplus(self.pool_fade)[:, None, None] * before.clamp(min=0)) * (before >= 0)
        if full:
            pool = torch.einsum("hts,nshd->nthd", fading, added)
            pool = pool.view(-1, num_arms, *pool.shape[1:]).transpose(1, 2)
        else:
            whose = F.one_hot(arms, num_arms).to(added.dtype)
            by_arm = torch.einsum("bsk,bshd->hsbkd", whose, added)
            pool = (fading @ by_arm.flatten(2)).view(by_arm.shape).permute(2, 1, 3, 0, 4)
        elapsed = (time / horizon).to(rewards.dtype).expand(pool.shape[0], horizon)
        return self._read_out(pool, shown, elapsed)

    def new_cache(self, size: int, horizon: int, num_arms: int, *, full: bool) -> Cache:
        """See `Network`."""
        shape = (size * num_arms if full else size, horizon, self.head_width)
        return Cache(
            keys=[torch.empty(shape) for _ in self.layers],
            values=[torch.empty(shape) for _ in self.layers],
            arms=torch.zeros(size, horizon, dtype=torch.long),
            pool=torch.zeros(size, num_arms, self.num_heads, self.head_width + 1),
        )

    def observe(self, cache: Cache, arms: Tensor, rewards: Tensor, played: Tensor, shown: Tensor) -> None:
        """See `Network`."""
        t, full = cache.num_rounds, rewards.dim() == 2
        features = self.of_events(arms, rewards, played, shown)
        events = self.embed(features.view(-1, 1, features.shape[-1]))
        cache.arms[:, t] = arms
        if self.layers:
            age = (t - torch.arange(t + 1)).to(rewards.dtype)[None]
            same_arm = (
                torch.ones(1, t + 1, dtype=torch.bool) if full else cache.arms[:, : t + 1] == arms[:, None]
            )
            for layer, keys, values in zip(self.time_layers(), cache.keys, cache.values, strict=True):
                query, key, value = layer.queries_keys_values(events)
                keys[:, t], values[:, t] = key[:, 0], value[:, 0]
                events = layer(events, query, keys[:, : t + 1], values[:, : t + 1], age, same_arm[:, None])
        added = self._added_to_pool(events)[:, 0]
        cache.pool *= torch.exp(-F.softplus(self.pool_fade))[:, None]
        if full:
            cache.pool += added.view_as(cache.pool)
        else:
            cache.pool[torch.arange(len(arms)), arms] += added
        cache.num_rounds += 1

    def logits(self, cache: Cache, horizon: int, shown: Tensor) -> Tensor:
        """See `Network`."""
        elapsed = torch.full((len(cache.pool),), cache.num_rounds / horizon)
        return self._read_out(cache.pool, shown, elapsed)

    def cache_size(self, horizon: int, num_arms: int, *, full: bool) -> int:
        """See `Network`."""
        events = horizon * (num_arms if full else 1)
        pool = num_arms * self.num_heads * (self.head_width + 1)
        return events * len(self.layers) * 2 * self.head_width + horizon + pool

    def _added_to_pool(self, events: Tensor) -> Tensor:
        """(N, S, D) -> (N, S, H, d + 1): each event's weighted value, and its weight."""
        events = self.norm(events)
        score = SCORE_CAP * torch.tanh(self.pool_score(events) / SCORE_CAP)
        weight = score.exp().unsqueeze(-1)
        value = self.pool_value(events).view(*events.shape[:-1], self.num_heads, self.head_width)
        return torch.cat([weight * value, weight], dim=-1)

    def _read_out(self, pool: Tensor, shown: Tensor, elapsed: Tensor) -> Tensor:
        """pool (..., K, H, d + 1), shown (..., K, I), elapsed (...) in [0, 1) -> logits (..., K)."""
        sink = self.pool_sink[:, -1:].exp()
        summary = (pool[..., :-1] + sink * self.pool_sink[:, :-1]) / (pool[..., -1:] + sink)
        arm = F.relu(self.arm(torch.cat([summary.flatten(-2), shown], dim=-1)), inplace=True)
        time = torch.stack([elapsed, 1 - elapsed], dim=-1)
        others = self.others(torch.cat([arm.mean(dim=-2), arm.amax(dim=-2), time], dim=-1))
        hidden = F.relu(self.arm_again(arm) + others.unsqueeze(-2), inplace=True)
        logits: Tensor = self.logit(hidden).squeeze(-1)
        return logits
