"""Rollouts on a Ray cluster that is begun on this machine: the same bits without it, whoever dies."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest

pytest.importorskip("ray")

import ray
from safetensors.numpy import load_file

import rmft
from rmft.cluster import SETTINGS, Cluster, versions
from rmft.compute import RayCompute
from rmft.errors import ConfigError
from rmft.improve import rollouts_of
from rmft.policies.config import ArmEncoderConfig
from rmft.problems.suites import load_suite
from rmft.rollout import Player, Rollouts
from rmft.training.numeric import new_policy
from rmft.types import Trajectories
from rmft.wiring.backends import AT_ONCE, FolderBackend
from rmft.wiring.policies import load_policy, loader

pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"
)
CONFIG = ArmEncoderConfig(width=8, num_heads=2)


@pytest.fixture(scope="module")
def cores() -> Iterator[None]:
    """A cluster of this machine, with as many processors as the tests ask for."""
    os.environ.update(SETTINGS)
    ray.init("local", num_cpus=4, include_dashboard=False, log_to_driver=False, configure_logging=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def player(tmp_path_factory: pytest.TempPathFactory) -> Player:
    folder = tmp_path_factory.mktemp("policy")
    return Player(new_policy(CONFIG, 0, folder), sample_arms=True)


def rollouts(problems: int = 96) -> Rollouts:
    batch = load_suite("smoke").draw("train", problems)[0]
    paths = [(1, int(problem), k) for problem in batch.indices for k in range(16)]
    return rollouts_of(batch, 16, 0, paths)


def bits(trajectories: Trajectories) -> list[bytes]:
    histories = trajectories.histories
    return [getattr(histories, name).tobytes() for name in ("arms", "rewards", "probabilities")]


def cluster(**settings: object) -> Cluster:
    return Cluster(RayCompute.model_validate(settings), partial(loader, CONFIG, 1))


@pytest.mark.slow  # it would find a cluster of another test's
def test_there_may_be_no_cluster() -> None:
    with pytest.raises(ConfigError, match=r"no Ray cluster at compute\.address 'auto'.*ray start --head"):
        cluster(workers=1)


@pytest.mark.usefixtures("cores")
@pytest.mark.parametrize(
    "workers", [2, pytest.param(1, marks=pytest.mark.slow), pytest.param(4, marks=pytest.mark.slow)]
)
def test_the_same_bits_with_no_ray_and_with_any_number_of_workers(workers: int, player: Player) -> None:
    todo = rollouts()
    here = FolderBackend(lambda *_: player.policy, lambda _: None, load_policy, AT_ONCE)  # type: ignore[arg-type,return-value]
    expected = bits(Trajectories.concatenate(list(here.play(player, todo))))
    assert len(todo) > 4 * AT_ONCE
    made = cluster(workers=workers)
    found = list(made.play(player, todo.parts(AT_ONCE)))
    made.close()
    assert bits(Trajectories.concatenate(found)) == expected


def _is_worker(process: psutil.Process) -> bool:
    """Whether it is an actor of a cluster that this process began."""
    line = " ".join(process.info["cmdline"] or ())
    return line.startswith("ray::Worker") and any(p.pid == os.getpid() for p in process.parents())


@pytest.mark.usefixtures("cores")
def test_what_is_wrong_is_told_with_its_remedy() -> None:
    with pytest.raises(
        ConfigError, match=r"asks for 6 GPUs; .* has 0\. Lower compute\.workers or compute\.gpus_per_"
    ):
        cluster(workers=2, gpus_per_worker=3)
    with pytest.raises(ConfigError, match=r"asks for 9 CPUs"):
        cluster(workers=9)


@pytest.mark.slow
@pytest.mark.usefixtures("cores")
def test_a_worker_with_other_packages_is_named(player: Player) -> None:
    made = cluster(workers=1)
    made._versions = {**versions(), "numpy": "0.1"}
    with pytest.raises(ConfigError, match=r"numpy [\d.]+ \(driver: 0\.1\)\. Install the same on all nodes"):
        list(made.play(player, rollouts(2).parts(AT_ONCE)))
    made.close()


@pytest.mark.slow
@pytest.mark.usefixtures("cores")
def test_random_kills_lose_and_double_nothing(player: Player) -> None:
    todo = rollouts(576)
    made = cluster(workers=2, rows=64)
    generator, found, killed = np.random.default_rng(0), [], 0
    expected = list(made.play(player, todo.parts(64)))
    for number, piece in enumerate(made.play(player, todo.parts(64))):
        found.append(piece)
        if generator.random() < 0.2:
            actors = [each for each in psutil.process_iter(["cmdline"]) if _is_worker(each)]
            if actors:
                os.kill(actors[number % len(actors)].pid, signal.SIGKILL)
                killed += 1
    assert killed > 5
    assert bits(Trajectories.concatenate(found)) == bits(Trajectories.concatenate(expected))
    made.close()


@pytest.mark.slow
@pytest.mark.usefixtures("cores")
def test_a_language_model_plays_and_trains_there_as_here(tiny_llama: Path, tmp_path: Path) -> None:
    here = {
        "suite": "words/bandits",
        "iterations": 1,
        "policy": {"kind": "local", "model": str(tiny_llama), "lora": {"rank": 2}, "device": "cpu"},
        "rollout": {"num_problems": 4, "num_rollouts": 4},
        "credit": {"kind": "policy_gradient"},
        "training": {"objective": {"kind": "policy_gradient"}},
        "validation": {"num_problems": 4},
    }
    there = {**here, "compute": {"kind": "ray", "workers": 2, "rows": 4}}
    there["training"] = {**there["training"], "launcher": "ray", "num_processes": 2}  # type: ignore[dict-item]
    played, trained = [], []
    for name, settings in (("here", here), ("there", there)):
        run = rmft.train(settings, run_dir=tmp_path / name)
        with np.load(run / "trajectories" / "000001.npz") as arrays:
            played.append({key: arrays[key] for key in arrays.files if "arms" in key})
        trained.append(load_file(run / "checkpoints" / "000001" / "adapter_model.safetensors"))
    assert played[0]
    assert all(np.array_equal(played[0][key], played[1][key]) for key in played[0])
    assert trained[0].keys() == trained[1].keys()
    assert all(np.allclose(trained[0][key], trained[1][key], atol=1e-4) for key in trained[0])


@pytest.mark.slow
def test_a_node_may_die(player: Player) -> None:
    from ray.cluster_utils import Cluster as Machines

    ray.shutdown()
    machines = Machines(initialize_head=True, head_node_args={"num_cpus": 0})
    nodes = [machines.add_node(num_cpus=1) for _ in range(3)]
    made = cluster(workers=2, address=machines.address, rows=64)
    todo = rollouts()
    found = []
    for number, piece in enumerate(made.play(player, todo.parts(64))):
        found.append(piece)
        if number == 2:
            machines.remove_node(nodes[0], allow_graceful=False)
    here = FolderBackend(lambda *_: player.policy, lambda _: None, load_policy, 64)  # type: ignore[arg-type,return-value]
    expected = Trajectories.concatenate(list(here.play(player, todo)))
    assert bits(Trajectories.concatenate(found)) == bits(expected)
    made.close()
    ray.shutdown()
    machines.shutdown()
