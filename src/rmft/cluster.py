"""Rollouts and training steps on a Ray cluster. The one place of Ray.

Actors hold a policy and play whole problems. Parts of these are handed out one by one, so that slow ones
keep nobody waiting, and come back in order, with as many on their way as keep all actors busy and no more. An
actor that dies, or whose node does, is replaced and its part is played again: draws are addressed, so it
comes out the same. Training is Ray Train's; it is done again from its start when one of its processes dies.
"""

from __future__ import annotations

import os
import platform
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import ObjectLostError, RayActorError, RayTaskError, WorkerCrashedError

from rmft.compute import RayCompute
from rmft.errors import ConfigError, RmftError, TrainingError
from rmft.handout import PER_WORKER, Handout
from rmft.policies.checkpoint import OPTIMIZER, untrained
from rmft.rollout import Player, Rollouts, rollout_in_pieces
from rmft.types import Policy, PolicyRef, Trajectories

if TYPE_CHECKING:
    from rmft.training.processes import Work

DEATHS = 5  # of actors over one part, after which it is the part's fault
QUICK = 1.0  # seconds: who plays a part faster is given the next meanwhile, as handing out takes time
SETTINGS = {  # of a cluster that begins here: nothing is reported, and workers are no less than this process
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
}
PACKAGES = ("numpy", "torch", "transformers", "ray")
DEAD = (RayActorError, WorkerCrashedError, ObjectLostError)

MakeLoader = Callable[[], Callable[[Player], Policy]]
"""Called once in every worker; gives what loads a policy there."""

Files = dict[str, bytes]


def versions() -> dict[str, str]:
    """What has to be the same here and in every worker."""
    found = {"python": platform.python_version()}
    for package in ("rmft", *PACKAGES):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "none"
    return found


class Worker:
    """What an actor does. make_loader: makes what loads policies there."""

    def __init__(self, make_loader: MakeLoader) -> None:
        self._load = make_loader()
        self._loaded: tuple[Player, Policy] | None = None
        self._folder = tempfile.TemporaryDirectory()
        self._number = 0

    def play(
        self, expected: dict[str, str], shared: tuple[Player, Files], rollouts: Rollouts
    ) -> list[Trajectories]:
        """All of `rollouts`. shared: who plays, and the files of the policy, which may lie elsewhere.

        Raises ConfigError when packages here are not those of the driver.
        """
        player, files = shared
        _check_versions(expected)
        if self._loaded is None or self._loaded[0] != player:
            self._loaded = None
            self._number += 1
            folder = Path(self._folder.name) / str(self._number)
            folder.mkdir()
            for name, content in files.items():
                (folder / name).write_bytes(content)
            there = replace(player, policy=PolicyRef(player.policy.kind, folder))
            self._loaded = player, self._load(there)
        policy = self._loaded[1]
        return list(rollout_in_pieces(lambda _: policy, rollouts))


class Cluster:
    """Workers of a Ray cluster, until `close`. prepare: called in each process that trains, before it does.

    Raises ConfigError when there is no cluster at the address, or it has too few processors or GPUs.
    """

    def __init__(
        self, config: RayCompute, make_loader: MakeLoader, prepare: Callable[[], None] = lambda: None
    ) -> None:
        self.config, self._make_loader, self._prepare = config, make_loader, prepare
        for name, value in SETTINGS.items():
            os.environ.setdefault(name, value)
        mine = {"num_cpus": config.workers, "include_dashboard": False} if config.address == "local" else {}
        self._began = not ray.is_initialized()
        if self._began:
            try:
                ray.init(config.address, log_to_driver=False, configure_logging=False, **mine)
            except (ConnectionError, RuntimeError, ValueError) as error:
                reason = " ".join(str(error).split())[:200]
                raise ConfigError(
                    f"There is no Ray cluster at compute.address '{config.address}': {reason} Start one with "
                    "'ray start --head', or set compute.address to local."
                ) from None
        self._check_resources(config.workers, "compute.workers")
        self._worker: Any = ray.remote(num_cpus=1, num_gpus=config.gpus_per_worker)(Worker)
        self._actors: list[Any] = []
        self._versions = versions()

    def play(self, player: Player, parts: Iterator[Rollouts]) -> Iterator[Trajectories]:
        """What the player does in all parts, in order. Raises what a worker raises."""
        self._actors = self._actors or [self._new_actor() for _ in range(self.config.workers)]
        shared = ray.put((player, _files(player.policy.path, trains=False)))
        running: dict[Any, tuple[int, Any, Rollouts, float]] = {}  # the oldest first
        handout = Handout[Rollouts, list[Trajectories]](parts, PER_WORKER * self.config.workers)
        free, quick = deque(self._actors), set[Any]()
        deaths: Counter[int] = Counter()
        try:
            while True:
                while free and (taken := handout.take()) is not None:
                    actor = free.popleft()
                    ref = actor.play.remote(self._versions, shared, taken[1])
                    running[ref] = (taken[0], actor, taken[1], time.monotonic())
                if not running:
                    break
                (ready, *_), _ = ray.wait(list(running), num_returns=1)
                number, actor, part, begun = running.pop(ready)
                try:
                    found = ray.get(ready)
                except RayTaskError as error:
                    raise _cause(error) from None
                except DEAD as error:
                    handout.lost(number, part)
                    if actor in self._actors:  # else another of its parts has been found lost before
                        deaths[number] += 1
                        if deaths[number] >= DEATHS:
                            raise TrainingError(
                                f"{DEATHS} Ray workers died over the same {len(part)} rollouts: "
                                f"{' '.join(str(error).split())[:300]}"
                            ) from None
                        free = deque(each for each in free if each != actor)
                        free.append(self._replace(actor))
                    continue
                free.append(actor)
                if time.monotonic() - begun < QUICK and actor not in quick:
                    quick.add(actor)
                    free.append(actor)
                for pieces in handout.done(number, found):
                    yield from pieces
        finally:  # what is still on its way is nobody's
            for actor in {each[1] for each in running.values()} & set(self._actors):
                ray.kill(actor)
                self._replace(actor)

    def train(self, count: int, work: Work, source: Path, target: Path) -> dict[str, float]:
        """Implements `Launch` by Ray Train. Workers that play make room where there is none.

        Raises ConfigError when the cluster has too few processors or GPUs for them, TrainingError when they
        fail or die time and again.
        """
        from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
        from ray.train.torch import TorchTrainer

        self._check_resources(count, "training.num_processes")
        gpus, free = self.config.gpus_per_worker, ray.available_resources()
        if free.get("CPU", 0.0) < count or free.get("GPU", 0.0) < count * gpus:
            self._let_go()
        given = {"given": [ray.put((self._versions, self._prepare, work, _files(source, trains=True)))]}
        with tempfile.TemporaryDirectory() as folder:
            trainer = TorchTrainer(
                _train,
                train_loop_config=given,
                scaling_config=ScalingConfig(
                    num_workers=count, use_gpu=gpus > 0, resources_per_worker={"CPU": 1.0, "GPU": gpus}
                ),
                run_config=RunConfig(storage_path=folder, failure_config=FailureConfig(max_failures=DEATHS)),
            )
            try:
                found, files = trainer.fit().return_value
            except TrainingFailedError as error:
                raise TrainingError(f"Ray Train failed: {' '.join(str(error).split())[-500:]}") from None
        if (wrong := found.get("error")) is not None:
            raise (ConfigError if found["of"] == "ConfigError" else TrainingError)(wrong)
        for name, content in files.items():
            (target / name).write_bytes(content)
        return {name: float(value) for name, value in found.items()}

    def close(self) -> None:
        """Let go of all workers, and of the cluster where it was started here."""
        self._let_go()
        if self._began:
            ray.shutdown()

    def _let_go(self) -> None:
        for actor in self._actors:
            ray.kill(actor)
        self._actors = []

    def _new_actor(self) -> Any:
        return self._worker.remote(self._make_loader)

    def _replace(self, actor: Any) -> Any:
        """A new one for one that is dead."""
        self._actors.remove(actor)
        self._actors.append(self._new_actor())
        return self._actors[-1]

    def _check_resources(self, count: int, key: str) -> None:
        there = ray.cluster_resources()
        for kind, wanted in (("CPU", float(count)), ("GPU", count * self.config.gpus_per_worker)):
            if there.get(kind, 0.0) < wanted:
                raise ConfigError(
                    f"{key} {count} asks for {wanted:g} {kind}s; the Ray cluster at "
                    f"'{self.config.address}' has {there.get(kind, 0.0):g}. Lower {key}"
                    f"{' or compute.gpus_per_worker' if kind == 'GPU' else ''}, or add nodes."
                )


def _train(given: dict[str, Any]) -> tuple[dict[str, Any], Files]:
    """What each of Ray Train's processes does: figures, or an error, and the next policy's files."""
    expected, prepare, work, files = ray.get(given["given"][0])
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "source", Path(folder) / "target"
        source.mkdir()
        target.mkdir()
        for name, content in files.items():
            (source / name).write_bytes(content)
        try:
            _check_versions(expected)
            prepare()
            return work(source, target), _files(target, trains=True)
        except RmftError as error:  # which all of them raise
            return {"error": str(error), "of": type(error).__name__}, {}


def _check_versions(expected: dict[str, str]) -> None:
    """Raises ConfigError when packages here are not those of the driver."""
    if (here := versions()) != expected:
        differ = [
            f"{name} {here[name]} (driver: {expected[name]})" for name in here if here[name] != expected[name]
        ]
        raise ConfigError(
            f"The Ray worker on {platform.node()} has {', '.join(differ)}. Install the same on all nodes."
        )


def _files(folder: Path, *, trains: bool) -> Files:
    """The files of a policy's folder; who only plays needs an optimizer's state only where that is empty."""
    left = () if trains or untrained(folder) else (OPTIMIZER,)
    files = (path for path in sorted(folder.iterdir()) if path.is_file() and path.name not in left)
    return {path.name: path.read_bytes() for path in files}


def _cause(error: RayTaskError) -> Exception:
    """What a worker raised, as it would be raised here."""
    cause = error.cause
    return cause if isinstance(cause, RmftError) else RuntimeError(str(error))
