"""The policy that a numeric network plays: sampling, decoding with a cache, loading, saving."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from rmft.errors import ConfigError, RunDirectoryError
from rmft.policies.config import ArmEncoderConfig, AttentionConfig, CausalTransformerConfig
from rmft.policies.networks.arm_encoder import ArmEncoder
from rmft.policies.networks.attention import Attention
from rmft.policies.networks.causal_transformer import CausalTransformer
from rmft.policies.networks.network import Network
from rmft.policies.regression import RIDGES, num_readings, readings, size_of
from rmft.rollout import rows_of_arrays
from rmft.streams import Streams
from rmft.types import Decisions, FloatArray, Histories, IntArray, Round, Rules

NetworkConfig = ArmEncoderConfig | CausalTransformerConfig | AttentionConfig
WEIGHTS = "policy.safetensors"
MAX_CACHED = 100_000_000  # numbers in the cache of rollouts that are played together: 400 MB


def _renamed(values: Any) -> Any:
    """A network's saved config under today's name: `transformer` is what the arm encoder was called."""
    if isinstance(values, dict) and values.get("kind") == "transformer":
        return {**values, "kind": "arm_encoder"}
    return values


SAVED_CONFIG: TypeAdapter[NetworkConfig] = TypeAdapter(
    Annotated[Annotated[NetworkConfig, Field(discriminator="kind")], BeforeValidator(_renamed)]
)


class NumericPolicy:
    """Decides with a numeric network; `name` is "numeric".

    temperature: divides the logits, > 0. sample_arms: under full information, play an arm drawn from
    the distribution (so that rollouts differ, for training) instead of the distribution itself.
    """

    name = "numeric"
    max_concurrency = 1

    def __init__(self, network: Network[Any], temperature: float = 1.0, *, sample_arms: bool = False) -> None:
        self.network, self.temperature, self.sample_arms = network, temperature, sample_arms

    def rows_at_once(self, rules: Rules) -> int:
        """See `Policy`. Raises ConfigError when other numbers are shown than the network reads."""
        self._check(rules)
        full, num_inputs = rules.feedback == "full", rules.shown.num_inputs
        of_one = self.network.cache_size(rules.horizon, rules.num_arms, full=full)
        if num_inputs:
            of_one += size_of(rules, len(RIDGES)) + rules.horizon * rules.num_arms * num_readings(num_inputs)
        return max(1, min(rows_of_arrays(rules), MAX_CACHED // of_one))

    @torch.inference_mode()
    def decide(self, histories: Histories, streams: Streams) -> Decisions:
        """One decision per history; each round read once, whenever it was added. See `Policy`."""
        rules = histories.rules
        self._check(rules)
        shown = _shown(histories, histories.num_rounds + 1)

        def start() -> Any:
            full = rules.feedback == "full"
            return self.network.new_cache(histories.size, rules.horizon, rules.num_arms, full=full)

        def step(cache: Any, finished: Round) -> Any:
            seen = _tensors(rules, finished.arms, finished.rewards, finished.played)
            self.network.observe(cache, *seen, shown[:, finished.index])
            return cache

        cache = histories.fold(self, start, step)
        logits = self.network.logits(cache, rules.horizon, shown[:, -1]) / self.temperature
        probabilities = logits.double().softmax(dim=-1).numpy()
        if rules.feedback == "full" and not self.sample_arms:
            return Decisions(probabilities=probabilities)
        return Decisions(streams.choose(probabilities), probabilities)

    def logits(self, histories: Histories) -> Tensor:
        """(B, num_rounds, K): the logits before every round, differentiable, in one pass."""
        self._check(histories.rules)
        tensors = _tensors(histories.rules, histories.arms, histories.rewards, histories.played)
        logits: Tensor = self.network(*tensors, _shown(histories, histories.num_rounds))
        return logits

    def _check(self, rules: Rules) -> None:
        found, expected = rules.shown.num_inputs, self.network.num_inputs
        if found != expected:
            raise ConfigError(
                f"{found} numbers are shown on each arm before a decision; the network reads {expected}. Set "
                f"policy.num_inputs: {found} and train it on such problems."
            )


def _shown(histories: Histories, num_rounds: int) -> Tensor:
    """(B, num_rounds, K, I) what networks read of what was shown before each of so many rounds."""
    if not histories.rules.shown.num_inputs:
        return torch.zeros(histories.size, num_rounds, histories.rules.num_arms, 0)
    return torch.from_numpy(readings(histories)[:, :num_rounds])


def _tensors(
    rules: Rules, arms: IntArray, rewards: FloatArray, played: FloatArray
) -> tuple[Tensor, Tensor, Tensor]:
    """What the network reads: arms, normalized rewards, and how probable each event's arm was."""
    seen = torch.from_numpy(rules.normalize(rewards)).float()
    chance = torch.from_numpy(played).float() if rules.feedback == "full" else torch.ones_like(seen)
    return torch.from_numpy(arms), seen, chance


def new_network(config: NetworkConfig, seed: int) -> Network[Any]:
    """A network with random weights from `seed`; torch's global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if isinstance(config, CausalTransformerConfig):
            return CausalTransformer(config)
        if isinstance(config, AttentionConfig):
            return Attention(config)
        return ArmEncoder(config)


def save_network(folder: Path, network: Network[Any], config: NetworkConfig) -> None:
    """Write weights and config to `folder` (safetensors)."""
    metadata = {"config": json.dumps(config.model_dump(mode="json"))}
    (folder / WEIGHTS).write_bytes(save(network.state_dict(), metadata))


def load_network(folder: Path) -> tuple[Network[Any], NetworkConfig]:
    """The network in `folder`. Raises RunDirectoryError when it is missing or damaged."""
    path = folder / WEIGHTS
    try:
        with safe_open(path, framework="pt") as file:
            config = SAVED_CONFIG.validate_json((file.metadata() or {}).get("config", ""))
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        network = new_network(config, seed=0)
        network.load_state_dict(weights)
    except (OSError, SafetensorError, ValidationError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise RunDirectoryError(f"'{path}' is no policy of this version, or is damaged: {reason}") from None
    return network, config
