"""Rounds per second, and regret, of the contextual baselines beside the same algorithms in mabwiser.

    python benchmarks/contextual_speed.py [--repeats 3] [--problems 20]

The problems of the suite contextual/linear: K = 5, d = 5, T = 100, from its validation part. Ours plays a
batch of 512 at once, mabwiser one problem at a time, as it is made to; the regret is of the problems that
both have played. Both are timed in turn, `--repeats` times, and the median is shown. Set OMP_NUM_THREADS=1
for a steady figure.
"""

from __future__ import annotations

import argparse
import time
from importlib.metadata import version
from statistics import median

import numpy as np
from mabwiser.mab import MAB, LearningPolicy

from rmft.policies.baselines import make_baseline
from rmft.problems.suites import ProblemBatch, load_suite
from rmft.regret import regret
from rmft.rollout import rollout
from rmft.streams import Streams
from rmft.types import FloatArray

BATCH, SEED = 512, 0
PEERS = {
    "linucb(coefficient=0.5)": LearningPolicy.LinUCB(alpha=0.5, l2_lambda=1.0),
    "linear-thompson(scale=0.2)": LearningPolicy.LinTS(alpha=0.2, l2_lambda=1.0),
    "linear-epsilon-greedy(epsilon=0.05)": LearningPolicy.LinGreedy(epsilon=0.05, l2_lambda=1.0),
}


def play_ours(spec: str, batch: ProblemBatch) -> FloatArray:
    """(B,) the regret of every problem."""
    streams = Streams.at(SEED, [(row,) for row in range(len(batch.indices))])
    return regret(rollout(make_baseline(spec), batch.setting.play(batch.table), streams), "dynamic")


def play_mabwiser(learning: object, batch: ProblemBatch, count: int) -> FloatArray:
    """(count,) the same of the first problems. It must be fitted before it decides: round 1 plays arm 0."""
    table, found = batch.table, np.zeros(count)
    assert table.observations is not None
    assert table.observations.numbers is not None
    for row in range(count):
        policy = MAB(list(range(batch.setting.num_arms)), learning, seed=row)
        for index in range(table.horizon):
            shown = table.observations.numbers[row, index : index + 1]
            arm = policy.predict(shown) if index else 0
            learn = policy.partial_fit if index else policy.fit
            learn([arm], [table.rewards[row, index, arm]], shown)
            found[row] += table.expected_rewards[row, index].max() - table.expected_rewards[row, index, arm]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--problems", type=int, default=20)
    asked = parser.parse_args()
    (batch,) = load_suite("contextual/linear").draw("validation", BATCH)
    horizon = batch.setting.horizon
    print(", ".join(f"{name} {version(name)}" for name in ("rmft", "numpy", "mabwiser")) + f"; seed {SEED}")
    print("| algorithm | rmft, rounds/s | mabwiser, rounds/s | ratio | regret | mabwiser's | difference |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for spec, learning in PEERS.items():
        rates = []
        for _ in range(asked.repeats):
            start = time.perf_counter()
            ours = play_ours(spec, batch)
            middle = time.perf_counter()
            theirs = play_mabwiser(learning, batch, asked.problems)
            seconds = time.perf_counter() - middle
            rates.append((BATCH * horizon / (middle - start), asked.problems * horizon / seconds))
        rate, their_rate = (median(column) for column in zip(*rates, strict=True))
        ratio = median(one / other for one, other in rates)
        same = ours[: asked.problems]
        error = (same - theirs).std(ddof=1) / np.sqrt(len(theirs))
        apart = (same - theirs).mean() / theirs.mean()
        print(
            f"| {spec} | {rate:,.0f} | {their_rate:,.0f} | {ratio:.0f}x | {same.mean():.2f} "
            f"| {theirs.mean():.2f} | {100 * apart:+.1f}% ± {196 * error / theirs.mean():.1f} |"
        )


if __name__ == "__main__":
    main()
