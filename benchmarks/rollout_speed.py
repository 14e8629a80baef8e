"""How fast the numeric networks roll out, beside what the machine's matrix products allow.

    python benchmarks/rollout_speed.py [--threads 2] [--repeats 5]

Plays Bernoulli bandits (means uniform, K = 5, batch 2,048, seed 0) with random weights; sampling,
feedback and bookkeeping included. A round is one decision of one rollout. The limit is the time that
the network's own multiplications would take at the rate of a 2048^3 fp32 product measured in the same
run. Prints a Markdown table with the median of the repeats, after one that is not counted.
"""

from __future__ import annotations

import argparse
import platform
import resource
import statistics
import time

import numpy as np
import torch
from matmul import matmul_rate

from rmft.policies.config import ArmEncoderConfig, CausalTransformerConfig
from rmft.policies.numeric import NetworkConfig, NumericPolicy, new_network
from rmft.problems.environment import TableEnvironment
from rmft.rollout import rollout
from rmft.streams import Streams
from rmft.types import RewardTable, Rules

BATCH, NUM_ARMS = 2048, 5
NETWORKS: dict[str, NetworkConfig] = {
    "arm encoder, no time layer": ArmEncoderConfig(num_layers=0),
    "arm encoder, one": ArmEncoderConfig(num_layers=1),
    "arm encoder, two": ArmEncoderConfig(num_layers=2),
    "causal Transformer, two layers": CausalTransformerConfig(),
}


def flops_per_round(config: NetworkConfig, horizon: int) -> float:
    """Multiplications and additions of one decision, attention over half the horizon included."""
    width = config.width
    if isinstance(config, CausalTransformerConfig):
        head = width // config.num_heads
        attention = (2 * width + config.num_heads * NUM_ARMS) * (horizon / 2)
        token = 2 * width * width * (1 + config.mlp_ratio) + attention
        blocks = config.num_layers * (NUM_ARMS * token + 2 * width * head) + (config.num_layers - 1) * token
        return 2 * (blocks + NUM_ARMS * 3 * width + 2 * width)
    layer = 2 * width * width + 2 * width * (width // config.num_heads) + 8 * width * width
    attention = 2 * width * (horizon / 2)
    pool = width * (width + config.num_heads)
    readout = NUM_ARMS * (2 * width * width + width) + width * (2 * width + 2)
    return 2 * (2 * width + config.num_layers * (layer + attention) + pool + readout)


def seconds_of(config: NetworkConfig, horizon: int, repeats: int) -> float:
    """The median time of one rollout of the whole batch."""
    policy = NumericPolicy(new_network(config, seed=0))
    generator = np.random.default_rng(0)
    means = np.repeat(generator.random((BATCH, 1, NUM_ARMS)), horizon, axis=1)
    table = RewardTable((generator.random(means.shape) < means).astype(float), means)
    rules = Rules("bandit", horizon, NUM_ARMS)
    seconds = []
    for repeat in range(repeats + 1):
        begun = time.perf_counter()
        streams = Streams.at(0, [(repeat, row) for row in range(BATCH)])
        rollout(policy, TableEnvironment(rules, table), streams)
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rate = matmul_rate()
    print(f"{platform.machine()}, {options.threads} threads, torch {torch.__version__}, ", end="")
    print(f"fp32 matrix product {rate / 1e9:.0f} GFLOP/s, batch {BATCH:,}, K = {NUM_ARMS}\n")
    print("| network | parameters | T | rounds/s | ms per round | vs T = 50 | share of the limit |")
    print("|---|---|---|---|---|---|---|")
    for name, config in NETWORKS.items():
        parameters = sum(weight.numel() for weight in new_network(config, seed=0).parameters())
        base = 0.0
        for horizon in (50, 200):
            seconds = seconds_of(config, horizon, options.repeats)
            per_round = seconds / horizon
            base = base or per_round
            speed = BATCH / per_round
            share = speed * flops_per_round(config, horizon) / rate
            print(
                f"| {name} | {parameters:,} | {horizon} | {speed:,.0f} | {1e3 * per_round:.2f} "
                f"| {per_round / base:.2f}x | {share:.0%} |"
            )
    print(f"\npeak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GB")


if __name__ == "__main__":
    main()
