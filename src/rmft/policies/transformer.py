"""The policy that a numeric Transformer plays: sampling, decoding with a cache, loading, saving."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from rmft.config import TransformerConfig
from rmft.errors import RunDirectoryError
from rmft.policies.network import Cache, Network
from rmft.rollout import rows_of_arrays
from rmft.streams import Streams
from rmft.types import Decisions, FloatArray, Histories, IntArray, Round, Rules

WEIGHTS = "policy.safetensors"


class TransformerPolicy:
    """Decides with a numeric Transformer; `name` is "transformer".

    temperature: divides the logits, > 0. sample_arms: under full information, play an arm drawn from
    the distribution (so that rollouts differ, for training) instead of the distribution itself.
    """

    name = "transformer"
    max_concurrency = 1

    def __init__(self, network: Network, temperature: float = 1.0, *, sample_arms: bool = False) -> None:
        self.network, self.temperature, self.sample_arms = network, temperature, sample_arms

    def rows_at_once(self, rules: Rules) -> int:
        """See `Policy`."""
        return rows_of_arrays(rules)

    @torch.inference_mode()
    def decide(self, histories: Histories, streams: Streams) -> Decisions:
        """One decision per history; each round read once, whenever it was added. See `Policy`."""
        rules = histories.rules

        def start() -> Cache:
            full = rules.feedback == "full"
            return self.network.new_cache(histories.size, rules.horizon, rules.num_arms, full=full)

        def step(cache: Cache, finished: Round) -> Cache:
            self.network.observe(cache, *_tensors(rules, finished.arms, finished.rewards, finished.played))
            return cache

        cache = histories.fold(self, start, step)
        logits = self.network.logits(cache, rules.horizon) / self.temperature
        probabilities = logits.double().softmax(dim=-1).numpy()
        if rules.feedback == "full" and not self.sample_arms:
            return Decisions(probabilities=probabilities)
        return Decisions(streams.choose(probabilities), probabilities)

    def logits(self, histories: Histories) -> Tensor:
        """(B, num_rounds, K): the logits before every round, differentiable, in one pass."""
        tensors = _tensors(histories.rules, histories.arms, histories.rewards, histories.played)
        logits: Tensor = self.network(*tensors, histories.rules.num_arms)
        return logits


def _tensors(
    rules: Rules, arms: IntArray, rewards: FloatArray, played: FloatArray
) -> tuple[Tensor, Tensor, Tensor]:
    """What the network reads: arms, normalized rewards, and how probable each event's arm was."""
    seen = torch.from_numpy(rules.normalize(rewards)).float()
    chance = torch.from_numpy(played).float() if rules.feedback == "full" else torch.ones_like(seen)
    return torch.from_numpy(arms), seen, chance


def new_network(config: TransformerConfig, seed: int) -> Network:
    """A network with random weights from `seed`; torch's global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Network(config)


def save_network(folder: Path, network: Network, config: TransformerConfig) -> None:
    """Write weights and config to `folder` (safetensors)."""
    metadata = {"config": json.dumps(config.model_dump(mode="json"))}
    (folder / WEIGHTS).write_bytes(save(network.state_dict(), metadata))


def load_network(folder: Path) -> tuple[Network, TransformerConfig]:
    """The network in `folder`. Raises RunDirectoryError when it is missing or damaged."""
    path = folder / WEIGHTS
    try:
        with safe_open(path, framework="pt") as file:
            config = TransformerConfig.model_validate_json((file.metadata() or {}).get("config", ""))
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        network = new_network(config, seed=0)
        network.load_state_dict(weights)
    except (OSError, SafetensorError, ValidationError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise RunDirectoryError(f"'{path}' is no policy of this version, or is damaged: {reason}") from None
    return network, config
