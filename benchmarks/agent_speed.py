"""How fast an agent decides: one episode, and a batch of them in lock-step, as `rmft.Agent` plays them.

    python benchmarks/agent_speed.py [AGENT] [--horizon 14] [--options 4] [--batch 64] [--threads 2]
        [--rounds log] [--precision auto]

AGENT: a run, a checkpoint's folder or a baseline; unless given, SmolLM2-135M before training, which writes
decisions only. Rewards are drawn at random: they do not change how long a decision takes.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from tempfile import mkdtemp

import numpy as np

import rmft
from rmft.policies.config import LocalConfig
from rmft.training.local import new_policy
from rmft.wiring.policies import torch_threads


def smollm2(rounds: str, precision: str) -> Path:
    """A folder of the untrained policy."""
    folder = Path(mkdtemp())
    config = LocalConfig.model_validate({"rounds": rounds, "precision": precision})
    return new_policy(config, 0, folder).path


def seconds(agent: rmft.Agent, size: int, options: list[str], horizon: int) -> list[float]:
    """Of each round's `decide()`, from the second round on: the first also reads what the problem is
    about."""
    rewards, taken = np.random.default_rng(0), []
    with agent.episodes(size, options, horizon, seed=0) as episodes:
        while not episodes.done:
            begun = time.perf_counter()
            episodes.decide()
            taken.append(time.perf_counter() - begun)
            episodes.observe(rewards.random(size).round())
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("agent", nargs="?")
    parser.add_argument("--horizon", type=int, default=14)
    parser.add_argument("--options", type=int, default=4)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", default="messages", choices=["messages", "log"])
    parser.add_argument("--precision", default="auto", choices=["auto", "float32", "bfloat16"])
    parser.add_argument("--episodes", type=int, default=3, help="alone, one after the other")
    given = parser.parse_args()
    torch_threads(given.threads)
    agent = rmft.Agent.load(given.agent or smollm2(given.rounds, given.precision))
    options = [f"option {n}" for n in range(given.options)]
    seconds(agent, 1, options, 2)  # warm
    alone = [seconds(agent, 1, options, given.horizon) for _ in range(given.episodes)]
    later = np.concatenate([each[1:] for each in alone])
    print(f"alone: first decision {1e3 * np.median([each[0] for each in alone]):.0f} ms, then", end=" ")
    print(f"median {1e3 * np.median(later):.0f} ms, 90% within {1e3 * np.quantile(later, 0.9):.0f} ms")
    together = seconds(agent, given.batch, options, given.horizon)
    rate = given.batch * given.horizon / sum(together)
    print(
        f"a batch of {given.batch}: {rate:.0f} decisions a second, {1e3 * np.median(together):.0f} ms a round"
    )


if __name__ == "__main__":
    main()
