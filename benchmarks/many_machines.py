"""What rollouts elsewhere cost beside those in this process.

    python benchmarks/many_machines.py ray [--rollouts 2048]   # Ray workers beside none, one thread each
    python benchmarks/many_machines.py memory                  # the driver's memory at up to 10,000 rollouts
    python benchmarks/many_machines.py engine [--reasoning brief]  # rmft serve beside this process
    python benchmarks/many_machines.py schedule              # 1,000 simulated workers, delays of a long tail

`ray` and `memory` play Bernoulli bandits (suite mab/uniform-means, seed 0) with a network of random weights
in pieces of 256 rollouts. `engine` plays 64 rollouts of words/bandits with the model as it is, by `rmft
serve` with as many threads as this process; tokens are all those of the rollouts. Each prints the median of
`--repeats` after one that is not counted, which starts what has to be started, as a Markdown table.
`schedule` hands 100,000 parts, each a rollout, to workers whose time is simulated: log-normal (sigma 1), and
at most so many medians, since horizon and budgets bound a rollout. What it costs per rollout is real.
"""

from __future__ import annotations

import argparse
import heapq
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from rmft.handout import PER_WORKER, Handout
from rmft.improve import rollouts_of
from rmft.policies.config import ArmEncoderConfig
from rmft.problems.suites import load_suite
from rmft.rollout import Player, Rollouts, peak_memory_gb, rollout_in_pieces
from rmft.training.numeric import new_policy
from rmft.types import Trajectories
from rmft.wiring.backends import AT_ONCE
from rmft.wiring.policies import load_policy, loader, torch_threads


def seconds_of(work: Callable[[], object], repeats: int) -> float:
    """The median time of several repeats, after one that is not counted."""
    spent = []
    for _ in range(repeats + 1):
        begun = time.perf_counter()
        work()
        spent.append(time.perf_counter() - begun)
    return statistics.median(spent[1:])


def bandits(problems: int, rollouts: int) -> Rollouts:
    """`rollouts` of each of so many problems of mab/uniform-means."""
    batch = load_suite("mab/uniform-means").draw("train", problems)[0]
    paths = [(1, int(problem), number) for problem in batch.indices for number in range(rollouts)]
    return rollouts_of(batch, rollouts, 0, paths)


def ray_rows(given: argparse.Namespace) -> list[list[str]]:
    """Rollouts per second with no Ray, one worker and two."""
    from rmft.cluster import Cluster
    from rmft.compute import RayCompute

    torch_threads(1)
    config, todo = ArmEncoderConfig(), bandits(given.rollouts // 16, 16)
    with tempfile.TemporaryDirectory() as folder:
        player = Player(new_policy(config, 0, Path(folder)), sample_arms=True)
        policy = load_policy(player)
        played: list[np.ndarray] = []

        def here() -> None:
            parts = todo.parts(AT_ONCE)
            pieces = [piece for part in parts for piece in rollout_in_pieces(lambda _: policy, part)]
            played.append(Trajectories.concatenate(pieces).histories.arms)

        base = seconds_of(here, given.repeats)
        rows = [["none", f"{given.rollouts / base:,.0f}", "1.00x", ""]]
        for workers in (1, 2):
            compute = RayCompute(address="local", workers=workers)
            cluster = Cluster(compute, partial(loader, config, 1))

            def there(cluster: Cluster = cluster) -> None:
                pieces = list(cluster.play(player, todo.parts(AT_ONCE)))
                played.append(Trajectories.concatenate(pieces).histories.arms)

            seconds = seconds_of(there, given.repeats)
            cluster.close()
            same = all(np.array_equal(each, played[0]) for each in played)
            rows.append(
                [f"{workers}", f"{given.rollouts / seconds:,.0f}", f"{base / seconds:.2f}x", str(same)]
            )
    return rows


def memory_rows(_: argparse.Namespace) -> list[list[str]]:
    """The driver's peak memory after more and more rollouts, each counted once."""
    from rmft.cluster import Cluster
    from rmft.compute import RayCompute

    torch_threads(1)
    config = ArmEncoderConfig()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        player = Player(new_policy(config, 0, Path(folder)), sample_arms=True)
        cluster = Cluster(RayCompute(address="local", workers=2), partial(loader, config, 1))
        for count in (1_000, 2_000, 5_000, 10_000):
            todo = bandits(count // 10, 10)
            counted = sum(len(piece) for piece in cluster.play(player, todo.parts(AT_ONCE)))
            rows.append([f"{count:,}", f"{counted:,}", f"{peak_memory_gb():.2f} GB"])
        cluster.close()
    return rows


def engine_rows(given: argparse.Namespace) -> list[list[str]]:
    """Tokens per second of 64 rollouts, in this process and by a server beside it."""
    import re
    import subprocess
    import sys

    from rmft.generators.engine import RemoteEngine
    from rmft.generators.fleet import Fleet
    from rmft.generators.loading import load_model
    from rmft.generators.local import LocalEngine
    from rmft.models.catalogue import find_model
    from rmft.policies.config import LocalConfig
    from rmft.policies.language import LanguagePolicy

    torch_threads(given.threads)
    config = LocalConfig.model_validate({
        "model": given.model, "reasoning_budget": 24, "wording": {"reasoning": given.reasoning}
    })  # fmt: skip
    model, tokenizer = load_model(find_model(given.model), "float32", "cpu")
    local = LocalEngine(model, 8.0)
    repeats = []
    for iteration in range(1, given.repeats + 2):  # others each time, so that no opening was read before
        batch = load_suite("words/bandits").draw("train", 16, iteration=iteration)[0]
        count = 64 // len(batch.indices)
        paths = [(iteration, int(problem), number) for problem in batch.indices for number in range(count)]
        repeats.append(rollouts_of(batch, count, 0, paths))
    rows, base = [], 0.0
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "rmft.cli", "serve", "--model", given.model, "--folder", folder]
        command += ["--port", "0", "--num-threads", str(given.threads)]
        with (Path(folder) / "log").open("w+") as log:
            server = subprocess.Popen(command, stderr=log)
            try:
                while not (found := re.search(r"at (http\S+)", (Path(folder) / "log").read_text())):
                    time.sleep(0.5)
                fleet = Fleet([found[1]], None, 600.0)
                fleet.look()
                far = RemoteEngine(fleet, given.model, local.context, local.stop_ids)
                for name, engine in (("this process", local), ("rmft serve", far)):
                    policy = LanguagePolicy(engine, tokenizer, config, sample_arms=True)
                    tokens: list[int] = []

                    def play(policy: LanguagePolicy = policy, tokens: list[int] = tokens) -> None:
                        pieces = list(rollout_in_pieces(lambda _: policy, repeats[len(tokens)]))
                        turns = [
                            turn for each in pieces for row in each.histories.words.turns for turn in row
                        ]
                        tokens.append(sum(0 if turn.ids is None else len(turn.ids) for turn in turns))

                    seconds = seconds_of(play, given.repeats)
                    speed = statistics.median(tokens) / seconds
                    base = base or speed
                    rows.append([name, f"{speed:,.0f}", f"{speed / base:.0%}"])
                fleet.close()
            finally:
                server.kill()
                server.wait()
    return rows


def schedule_rows(_: argparse.Namespace) -> list[list[str]]:
    """How busy simulated workers are kept, and what handing out costs, by how far delays go."""
    rows = []
    for longest in (10.0, 20.0):
        for per_worker in (2, PER_WORKER):
            workers, count = 1_000, 100_000
            delays = np.minimum(np.random.default_rng(0).lognormal(0.0, 1.0, count), longest).tolist()
            handout = Handout[float, int](delays, per_worker * workers)
            busy: list[tuple[float, int]] = []  # when each worker is done, and with what
            now, told = 0.0, list[int]()
            begun = time.perf_counter()
            while True:
                while len(busy) < workers and (taken := handout.take()) is not None:
                    heapq.heappush(busy, (now + taken[1], taken[0]))
                if not busy:
                    break
                now, number = heapq.heappop(busy)
                told += handout.done(number, number)
            spent = time.perf_counter() - begun
            assert told == list(range(count))
            used = sum(delays) / workers / now
            rows.append(
                [f"{longest:g} medians", f"{per_worker}", f"{used:.0%}", f"{1e6 * spent / count:.1f} us"]
            )
    return rows


TABLES = {
    "ray": (ray_rows, ["Ray workers", "rollouts/s", "beside none", "same arms"]),
    "memory": (memory_rows, ["rollouts", "counted", "peak memory of the driver"]),
    "schedule": (schedule_rows, ["longest delay", "parts ahead per worker", "workers busy", "per rollout"]),
    "engine": (engine_rows, ["played by", "tokens/s", "of this process"]),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=TABLES)
    parser.add_argument("--rollouts", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--reasoning", default="off", choices=["off", "brief"])
    given = parser.parse_args()
    make, head = TABLES[given.what]
    print(f"{platform.machine()}, {given.repeats} repeats\n")
    for cells in (head, ["---"] * len(head), *make(given)):
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
