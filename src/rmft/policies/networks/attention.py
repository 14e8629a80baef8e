"""One attention layer without positions, small enough that its weights are read as an algorithm.

A round is one token, x_s in R^K: the rewards of all arms under full information, that of the arm that was
played (zero elsewhere) in a bandit. The query is constant, so the weight of a token depends on it alone:

    logits_t = sum_{s<t} alpha_s (V x_s + v),     policy: softmax(logits_t)
    alpha_s  = w . x_s + c                        linear attention (Park et al., ICLR 2025, section 5)
    alpha_s  = softmax over s of w . x_s          softmax attention

With linear attention, w = 0 and c V = theta I the logits are theta times the sum of rewards, which is Hedge
(Freund and Schapire 1997) with the step theta. Softmax attention takes a mean: theta / (t - 1) times the
sum.
A constant added to all logits changes nothing, so V is read on the centred rewards: P V P, P = I - 11^T / K.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rmft.errors import ConfigError
from rmft.policies.config import AttentionConfig
from rmft.policies.networks.network import Network


@dataclass
class Sums:
    """Over the rounds so far: values (B, K) of alpha_s (V x_s + v), and weights (B, 1) of exp(w . x_s)."""

    values: Tensor
    weights: Tensor


class Attention(Network[Sums]):
    """See the module. It is for one number of arms; the decisions before training are uniform: V = v = 0."""

    num_inputs = 0  # what is shown before a decision is not read

    def __init__(self, config: AttentionConfig) -> None:
        super().__init__()
        self.linear = config.attention == "linear"
        self.value = nn.Linear(config.num_arms, config.num_arms)
        self.key = nn.Linear(config.num_arms, 1, bias=self.linear)
        nn.init.zeros_(self.value.weight)
        nn.init.zeros_(self.value.bias)
        nn.init.zeros_(self.key.weight)
        if self.linear:
            nn.init.ones_(self.key.bias)

    def forward(self, arms: Tensor, rewards: Tensor, played: Tensor, shown: Tensor) -> Tensor:  # noqa: ARG002
        """See `Network`."""
        tokens = rewards if rewards.dim() == 3 else self._tokens(arms, rewards)
        values, weights = self._added(tokens)
        before = F.pad(torch.cat([values, weights], dim=-1).cumsum(dim=1), (0, 0, 1, 0))[:, :-1]
        return self._read_out(before[..., :-1], before[..., -1:])

    def new_cache(self, size: int, horizon: int, num_arms: int, *, full: bool) -> Sums:  # noqa: ARG002
        """See `Network`. Raises ConfigError for another number of arms than the network is for."""
        if num_arms != self.value.in_features:
            raise ConfigError(
                f"This attention layer plays {self.value.in_features} arms; the problem has {num_arms}."
            )
        return Sums(torch.zeros(size, num_arms), torch.zeros(size, 1))

    def observe(self, cache: Sums, arms: Tensor, rewards: Tensor, played: Tensor, shown: Tensor) -> None:  # noqa: ARG002
        """See `Network`."""
        values, weights = self._added(rewards if rewards.dim() == 2 else self._tokens(arms, rewards))
        cache.values += values
        cache.weights += weights

    def logits(self, cache: Sums, horizon: int, shown: Tensor) -> Tensor:  # noqa: ARG002
        """See `Network`."""
        return self._read_out(cache.values, cache.weights)

    def cache_size(self, horizon: int, num_arms: int, *, full: bool) -> int:  # noqa: ARG002
        """See `Network`."""
        return num_arms + 1

    def step(self) -> tuple[float, float]:
        """The step theta of the Hedge that is nearest to it, and how far off it is, relative to theta.

        theta = <c P V P, P> / <P, P> with c = 1 for softmax attention. The distance is |c P V P - theta P|
        over |theta P| (Frobenius), and does not count w and v, which are 0 in Hedge.
        """
        size = self.value.in_features
        centred = torch.eye(size) - 1 / size
        found = centred @ self.value.weight.detach() @ centred
        found = found * self.key.bias.detach() if self.linear else found
        theta = float((found * centred).sum() / centred.square().sum())
        off = float((found - theta * centred).norm() / (abs(theta) * centred.norm() + 1e-12))
        return theta, off

    def _tokens(self, arms: Tensor, rewards: Tensor) -> Tensor:
        """(..., K) of a bandit's rounds."""
        return F.one_hot(arms.clamp(min=0), self.value.in_features) * rewards.unsqueeze(-1)

    def _added(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """tokens (..., K) -> what each adds to the sums of values (..., K) and of weights (..., 1)."""
        score = self.key(tokens)
        weight = score if self.linear else score.exp()
        return weight * self.value(tokens), weight

    def _read_out(self, values: Tensor, weights: Tensor) -> Tensor:
        return values if self.linear else values / weights.clamp(min=1e-12)
