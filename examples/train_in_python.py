"""Iterative RMFT through the Python API, without the records that `rmft train` keeps of a run."""

from __future__ import annotations

from pathlib import Path
from tempfile import mkdtemp

from rmft.build import backend
from rmft.config import RunConfig, load_config
from rmft.problems.suites import load_suite
from rmft.regret import round_regret
from rmft.rollout import rollout
from rmft.selection import select
from rmft.streams import Streams, generator
from rmft.types import Example


def train(config: RunConfig, folder: Path) -> list[float]:
    """Train; iteration i's policy goes to folder/i. The mean regret of the rollouts, by iteration."""
    suite = load_suite(config.suite)
    machinery = backend(config, suite)
    num_rollouts, seed = config.rollout.num_rollouts, config.seed
    mean_regrets = []
    (folder / "0").mkdir(parents=True)
    policy = machinery.start(folder / "0", seed)
    for iteration in range(1, config.iterations + 1):
        player = machinery.load(policy, exploring=True)
        examples, total, count = [], 0.0, 0
        for number, batch in enumerate(suite.draw("train", config.rollout.num_problems, seed, iteration)):
            paths = [(iteration, int(p), turn) for p in batch.indices for turn in range(num_rollouts)]
            environment = batch.setting.play(batch.table.repeat(num_rollouts))
            played = rollout(player, environment, Streams.at(seed, paths))
            regret = round_regret(played, batch.setting.regret_kind)  # (problems x rollouts, rounds)
            luck = generator(seed, iteration, number)
            weights = select(played, regret, num_rollouts, config.selection, luck)
            examples.append(Example(played, weights.reshape(regret.shape)))
            total, count = total + float(regret.sum()), count + len(regret)
        mean_regrets.append(total / count)
        (folder / str(iteration)).mkdir()
        share = iteration / config.iterations
        policy, _ = machinery.trainer.train(policy, examples, folder / str(iteration), iteration, share)
    return mean_regrets


if __name__ == "__main__":
    folder = Path(mkdtemp()) / "policies"
    for regret in train(load_config(Path("configs/smoke.yaml")), folder):
        print(f"regret {regret:.2f}")
    print(f"The policies are in {folder}")
