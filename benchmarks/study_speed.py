"""How much a study costs beside its runs: `rmft study` against `rmft train` and `rmft evaluate`, one by one.

    python benchmarks/study_speed.py [--iterations 10]

Twelve short numeric runs, four learning rates and three seeds, each with one thread, trained and evaluated on
the same problems: by one command after another, by a study with --jobs 1 and by one with --jobs 2. Aims: the
study takes at most 1.15 times as long as its runs one by one, and with two jobs on two idle cores at most
1 / 1.6 of that with one. It takes minutes, and says which of the three it is at.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

RATES, SEEDS = (0.002, 0.004, 0.006, 0.008), (0, 1, 2)
PROBLEMS = 500


def config(suite: Path, iterations: int) -> dict[str, object]:
    return {
        "name": "speed",
        "suite": str(suite),
        "iterations": iterations,
        "num_threads": 1,
        "policy": {"kind": "arm_encoder", "width": 32, "num_heads": 4, "num_layers": 0},
        "rollout": {"num_problems": 32, "num_rollouts": 16},
        "credit": {"kind": "policy_gradient", "advantage_lambda": 0.95},
        "training": {"objective": {"kind": "policy_gradient", "kl_coef": 1}, "batch_size": 128},
        "validation": {"every": 10, "num_problems": 500},
    }


def suite() -> dict[str, object]:
    """Without baselines, which `rmft train` would play and a study would not."""
    setting = {
        "name": "bandit",
        "feedback": "bandit",
        "horizon": 30,
        "num_arms": 5,
        "reward_process": {"kind": "bernoulli", "means": "uniform"},
    }
    return {"name": "speed", "title": "Bernoulli bandits", "train": {"settings": [setting]}}


def seconds(*arguments: object) -> float:
    """What `rmft` takes with these arguments."""
    begun = time.perf_counter()
    command = [sys.executable, "-m", "rmft.cli", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return time.perf_counter() - begun


def one_by_one(base: Path, folder: Path) -> float:
    spent = 0.0
    for rate in RATES:
        for seed in SEEDS:
            run = folder / f"{rate}-{seed}"
            sets = ("--set", f"training.learning_rate={rate}", "--set", f"seed={seed}")
            spent += seconds("train", base, "--run-dir", run, *sets)
            spent += seconds("evaluate", run, "--num-problems", PROBLEMS, "--against", "uniform")
    return spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--iterations", type=int, default=10)
    iterations = parser.parse_args().iterations
    with tempfile.TemporaryDirectory() as given:
        folder = Path(given)
        problems, base, study = (folder / name for name in ("suite.yaml", "config.yaml", "study.yaml"))
        problems.write_text(yaml.safe_dump(suite()))
        base.write_text(yaml.safe_dump(config(problems, iterations)))
        asked = {
            "name": "speed",
            "config": base.name,
            "entries": {f"rate {rate}": {"training": {"learning_rate": rate}} for rate in RATES},
            "seeds": list(SEEDS),
            "evaluate": [{"num_problems": PROBLEMS, "baselines": ["uniform"]}],
        }
        study.write_text(yaml.safe_dump(asked))
        print("one by one", file=sys.stderr)
        apart, of_study = one_by_one(base, folder), []
        for jobs in (1, 2):
            print(f"study --jobs {jobs}", file=sys.stderr)
            of_study.append(seconds("study", study, "--dir", folder / f"{jobs}", "--jobs", jobs))
    print(f"{len(RATES) * len(SEEDS)} runs of {iterations} iterations, {os.cpu_count()} cores")
    print(f"one by one      {apart:6.1f} s")
    print(f"study --jobs 1  {of_study[0]:6.1f} s, {of_study[0] / apart:.2f}x of one by one (aim: 1.15)")
    print(f"study --jobs 2  {of_study[1]:6.1f} s, {of_study[0] / of_study[1]:.2f}x faster (aim: 1.6)")


if __name__ == "__main__":
    main()
