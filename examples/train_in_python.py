"""Iterative RMFT through the Python API, without the records that `rmft train` keeps of a run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp

from rmft.config import RunConfig, load_config
from rmft.improve import Improvement, improve, seed_of
from rmft.wiring.backends import backend
from rmft.wiring.suites import load_suites


def train(config: RunConfig, folder: Path) -> Iterator[Improvement]:
    """Train; iteration i's policy goes to folder/i. What each iteration did."""
    suites = load_suites(config)
    machinery = backend(config, suites)
    (folder / "0").mkdir(parents=True)
    policy = machinery.start(folder / "0", seed_of(config.seed, 0))
    for i in range(1, config.iterations + 1):
        stage, progress = config.stage_of(i)
        problems = suites[stage.suite].draw("train", stage.rollout.num_problems, config.seed, i)
        (target := folder / str(i)).mkdir()
        policy, made = improve(
            policy, machinery, problems, stage, target, iteration=i, seed=config.seed, progress=progress
        )
        yield made


if __name__ == "__main__":
    folder = Path(mkdtemp()) / "policies"
    for made in train(load_config(Path("configs/smoke.yaml")), folder):
        print(f"regret {made.mean_regret:.2f}, loss {made.figures['loss']:.3f}")
    print(f"The policies are in {folder}")
