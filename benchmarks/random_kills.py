"""Kill a run's helpers and the run itself at random instants, resume, and compare what it comes to.

    python benchmarks/random_kills.py ray [--kills 40]       # Ray workers, nodes, and the run itself
    python benchmarks/random_kills.py servers [--kills 10]   # rmft serve, two of them, and the run itself

Every kill is a SIGKILL. `ray` trains a small network on a cluster of three nodes on this machine, `servers` a
language model of random weights, with SmolLM2's tokenizer, that the servers play. Each run is compared with
one that nothing happened to. A model's probabilities depend in their last bits on the rows that a server
happens to read together, so with `servers` files differ although every decision is the same.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil

from rmft.records.files import read_record

TIMES = ("run.json", "timings.jsonl", "log.txt", ".lock", "config.yaml")  # when, how fast, and by whom
NUMERIC = """
name: kills
suite: mab/uniform-means
iterations: 40
num_threads: 1
policy: {width: 16, num_heads: 2, num_layers: 1}
rollout: {num_problems: 64, num_rollouts: 16}
credit: {kind: top_k_regret, num_selected: 4}
validation: {every: 10, num_problems: 64}
"""
WORDS = """
name: kills
suite: words/bandits
iterations: 12
num_threads: 1
policy: {kind: local, model: MODEL, device: cpu}
rollout: {num_problems: 8, num_rollouts: 4}
credit: {kind: top_k_regret, num_selected: 2}
training: {batch_size: 8}
validation: {every: 4, num_problems: 8}
"""

Kill = Callable[[], None]


def rmft(*arguments: str) -> subprocess.Popen[bytes]:
    """The command line, in a process group of its own."""
    command = [sys.executable, "-m", "rmft.cli", *arguments]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)


def finished(*arguments: str) -> None:
    """The command line until its end, which has to be a good one."""
    if rmft(*arguments).wait():
        raise SystemExit(f"rmft {' '.join(arguments)} failed")


def disturbed(train: list[str], run: Path, kills: dict[str, Kill], count: int, pause: float) -> Counter[str]:
    """Train, with kills at random instants until there were `count` or it is done: how many of each kind."""
    luck, done = random.Random(0), Counter[str]()
    process = rmft(*train)
    while process.poll() is None or process.returncode:
        if process.returncode is not None:
            process = rmft("resume", str(run)) if run.exists() else rmft(*train)
        time.sleep(luck.uniform(0, 2 * pause))
        if done.total() < count and process.poll() is None:
            kind = luck.choice([*kills, "run"])
            if kind == "run":
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            else:
                kills[kind]()
            done[kind] += 1
    return done


def hashes(run: Path) -> dict[str, str]:
    """Of every file that a run comes to."""
    return {
        str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(run.rglob("*"))
        if path.is_file() and path.name not in TIMES
    }


def rollouts_of(run: Path, iteration: int) -> dict[tuple[str, int, int], list[np.ndarray]]:
    """What was decided, by setting, problem and rollout: as often as it is recorded."""
    found: dict[tuple[str, int, int], list[np.ndarray]] = {}
    for each in read_record(run, iteration):
        arms = each.learned.trajectories.histories.arms
        for problem, rollout, row in zip(
            each.learned.group.tolist(), each.rollout.tolist(), arms, strict=True
        ):
            found.setdefault((each.setting, problem, rollout), []).append(row)
    return found


def compared(run: Path, expected: Path, iterations: int) -> list[str]:
    """Rollouts that a run lacks, has twice, and that decided otherwise; files that are not the other's."""
    lost = doubled = other = 0
    for iteration in range(1, iterations + 1):
        here, there = rollouts_of(run, iteration), rollouts_of(expected, iteration)
        lost += len(there.keys() - here.keys())
        doubled += sum(len(rows) - 1 for rows in here.values())
        both = here.keys() & there.keys()
        other += sum(not np.array_equal(here[each][0], there[each][0]) for each in both)
    one, two = hashes(run), hashes(expected)
    differ = sorted(name for name in one.keys() | two.keys() if one.get(name) != two.get(name))
    return [str(lost), str(doubled), str(other), str(len(differ))]


def ray_row(folder: Path, count: int) -> list[str]:
    """A run on three nodes of one processor each."""
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
    from ray.cluster_utils import Cluster

    machines = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    nodes = [machines.add_node(num_cpus=1) for _ in range(3)]

    def kill_worker() -> None:
        there = [each for each in psutil.process_iter(["cmdline"]) if _is_worker(each.info["cmdline"])]
        if there:
            random.choice(there).kill()

    def kill_node() -> None:
        machines.remove_node(nodes.pop(0), allow_graceful=False)
        nodes.append(machines.add_node(num_cpus=1))

    (folder / "config.yaml").write_text(NUMERIC, "utf-8")
    train = ["train", str(folder / "config.yaml")]
    finished(*train, "--run-dir", str(folder / "expected"))
    there = f"--set=compute={{kind: ray, address: '{machines.address}', workers: 2}}"
    kills = {"worker": kill_worker, "node": kill_node}
    done = disturbed([*train, there, "--run-dir", str(folder / "run")], folder / "run", kills, count, 2.0)
    machines.shutdown()
    return [told(done), *compared(folder / "run", folder / "expected", 40)]


def servers_row(folder: Path, count: int) -> list[str]:
    """A run that two servers play."""
    model = tiny_model(folder / "tiny")
    adapters = folder / "adapters"
    adapters.mkdir()
    ports = [_served(model, folder / f"server-{number}", adapters, 0) for number in range(2)]

    def kill_server() -> None:
        number = random.randrange(2)
        process, port = ports[number]
        process.kill()
        process.wait()
        ports[number] = _served(model, folder / f"server-{number}", adapters, port)

    (folder / "config.yaml").write_text(WORDS.replace("MODEL", str(model)), "utf-8")
    urls = ", ".join(f"http://127.0.0.1:{port}/v1" for _, port in ports)
    there = f"--set=policy.engine={{urls: [{urls}], adapter_folder: {adapters}, model: tiny}}"
    train = ["train", str(folder / "config.yaml"), there]
    finished(*train, "--run-dir", str(folder / "expected"))
    run = folder / "run"
    done = disturbed([*train, "--run-dir", str(run)], run, {"server": kill_server}, count, 4.0)
    for process, _ in ports:
        process.kill()
    return [told(done), *compared(run, folder / "expected", 12)]


def told(done: Counter[str]) -> str:
    """How many kills of each kind."""
    return f"{done.total()} ({', '.join(f'{kind} {count}' for kind, count in sorted(done.items()))})"


def tiny_model(folder: Path) -> Path:
    """A Llama of random weights that reads SmolLM2's tokens."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from rmft.models.catalogue import find_model

    tokenizer = AutoTokenizer.from_pretrained(find_model("smollm2-135m"))
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _served(model: Path, store: Path, adapters: Path, port: int) -> tuple[subprocess.Popen[bytes], int]:
    """A server, listening, and its port."""
    log = store.with_suffix(".log")
    log.write_text("")
    command = [sys.executable, "-m", "rmft.cli", "serve", "--model", str(model), "--folder", str(store)]
    command += ["--adapters", str(adapters), "--port", str(port), "--num-threads", "1"]
    with log.open("w") as out:
        process = subprocess.Popen(command, stderr=out)
    while not (found := re.search(r"at http://[^:]+:(\d+)", log.read_text())):
        if process.poll() is not None:
            raise SystemExit(log.read_text())
        time.sleep(0.2)
    return process, int(found[1])


def _is_worker(command: list[str] | None) -> bool:
    return bool(command) and " ".join(command or ()).startswith("ray::Worker")


ROWS = {"ray": (ray_row, 40), "servers": (servers_row, 10)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=ROWS)
    parser.add_argument("--kills", type=int)
    given = parser.parse_args()
    row, count = ROWS[given.what]
    with tempfile.TemporaryDirectory() as folder:
        cells = row(Path(folder), given.kills or count)
    head = ["kills", "rollouts lost", "doubled", "that decided otherwise", "files that differ in a bit"]
    for each in (head, ["---"] * len(head), cells):
        print(f"| {' | '.join(each)} |")


if __name__ == "__main__":
    main()
