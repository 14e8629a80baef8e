"""Rounds per second of the baselines beside the same algorithms in mabwiser and river, in one run.

    python benchmarks/baseline_speed.py [--repeats 5]

Bernoulli arms, K = 5, T = 50, all on the same reward tables. Ours plays a batch of 2,048 at once, the
peers one problem at a time, as they are made to. Making the policies, their random numbers and the
feedback is counted for all of them. Everything is timed `--repeats` times, in turn so that all meet the
same noise, and the median is shown. Set OMP_NUM_THREADS=1 for a steady figure.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from importlib.metadata import version
from statistics import median
from typing import Any

import numpy as np
from mabwiser.mab import MAB, LearningPolicy
from river import bandit, proba

from rmft.policies.baselines import make_baseline
from rmft.policies.baselines.base import best_arms
from rmft.problems.environment import TableEnvironment
from rmft.rollout import rollout
from rmft.streams import Streams, generator
from rmft.types import FloatArray, RewardTable, Rules

BATCH, HORIZON, NUM_ARMS, SEED = 2048, 50, 5, 0
ARMS = list(range(NUM_ARMS))


def draw_table() -> RewardTable:
    draw = generator(SEED, 0)
    means = np.repeat(draw.random((BATCH, 1, NUM_ARMS)), HORIZON, axis=1)
    return RewardTable((draw.random(means.shape) < means).astype(float), means)


def play_ours(spec: str, table: RewardTable) -> int:
    streams = Streams.at(SEED, [(row,) for row in range(BATCH)])
    rollout(make_baseline(spec), TableEnvironment(Rules("bandit", HORIZON, NUM_ARMS), table), streams)
    return BATCH * HORIZON


def play_mabwiser(learning: Any, rewards: FloatArray) -> int:
    for seed, table in enumerate(rewards):
        policy = MAB(ARMS, learning, seed=seed)
        policy.fit(ARMS, table[ARMS, ARMS])
        for row in table[NUM_ARMS:]:
            arm = policy.predict()
            policy.partial_fit([arm], [row[arm]])
    return len(rewards) * HORIZON


def play_river(make: Callable[[int], Any], rewards: FloatArray) -> int:
    for seed, table in enumerate(rewards):
        policy = make(seed)
        for row in table:
            arm = policy.pull(ARMS)
            policy.update(arm, bool(row[arm]))
    return len(rewards) * HORIZON


def rounds_per_second(play: Callable[[], int]) -> float:
    start = time.perf_counter()
    return play() / (time.perf_counter() - start)


def cost_of_ties() -> tuple[float, float]:
    """Microseconds per round of a batch: breaking ties at random, and a plain argmax."""
    index = generator(SEED, 1).random((BATCH, NUM_ARMS)).round(1)
    streams = Streams.at(SEED, [(row,) for row in range(BATCH)])
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(HORIZON):
        start = time.perf_counter()
        best_arms(index, streams)
        middle = time.perf_counter()
        index.argmax(axis=1)
        times[0].append(middle - start)
        times[1].append(time.perf_counter() - middle)
    return 1e6 * median(times[0]), 1e6 * median(times[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    table = draw_table()
    few, many = table.rewards[:20], table.rewards[:200]
    plays: dict[tuple[str, str], tuple[Callable[[], int], Callable[[], int]]] = {}

    def add(algorithm: str, peer: str, spec: str, theirs: Callable[[], int]) -> None:
        plays[algorithm, peer] = (lambda: play_ours(spec, table), theirs)

    add("UCB1", "mabwiser", "ucb1", lambda: play_mabwiser(LearningPolicy.UCB1(1.0), few))
    add("UCB1", "river", "ucb1", lambda: play_river(lambda seed: bandit.UCB(delta=1, seed=seed), many))
    add("Thompson", "mabwiser", "thompson", lambda: play_mabwiser(LearningPolicy.ThompsonSampling(), few))
    add(
        "Thompson",
        "river",
        "thompson",
        lambda: play_river(
            lambda seed: bandit.ThompsonSampling(reward_obj=proba.Beta(1, 1), seed=seed), many
        ),
    )
    add(
        "epsilon-greedy",
        "mabwiser",
        "epsilon-greedy(epsilon=0.1)",
        lambda: play_mabwiser(LearningPolicy.EpsilonGreedy(0.1), few),
    )
    add(
        "epsilon-greedy",
        "river",
        "epsilon-greedy(epsilon=0.1)",
        lambda: play_river(lambda seed: bandit.EpsilonGreedy(epsilon=0.1, burn_in=1, seed=seed), many),
    )
    measured: dict[tuple[str, str], list[tuple[float, float]]] = {key: [] for key in plays}
    for _ in range(repeats):
        for key, (ours, theirs) in plays.items():
            measured[key].append((rounds_per_second(ours), rounds_per_second(theirs)))

    packages = ("rmft", "numpy", "scipy", "mabwiser", "river")
    print(", ".join(f"{name} {version(name)}" for name in packages) + f"; seed {SEED}")
    print(f"batch {BATCH}, K = {NUM_ARMS}, T = {HORIZON}; median of {repeats}\n")
    print("| algorithm | peer | rmft, rounds/s | peer, rounds/s | ratio |")
    print("|---|---|---:|---:|---:|")
    for (algorithm, peer), pairs in measured.items():
        ours_rate, their_rate = median(p[0] for p in pairs), median(p[1] for p in pairs)
        ratio = median(ours / theirs for ours, theirs in pairs)
        print(f"| {algorithm} | {peer} | {ours_rate:,.0f} | {their_rate:,.0f} | {ratio:.0f}x |")
    ties, plain = cost_of_ties()
    print(f"\nBreaking ties at random: {ties:.0f} us per round of the batch; a plain argmax: {plain:.0f} us.")


if __name__ == "__main__":
    main()
