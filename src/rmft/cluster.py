"""Rollouts on a Ray cluster: actors that hold a policy and play whole problems. The one place of Ray.

Parts of whole problems are handed out one by one, so that slow ones keep nobody waiting, and come back in
order, with as many on their way as keep all actors busy and no more. An actor that dies, or whose node does,
is replaced and its part is played again: draws are addressed, so it comes out the same.
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
from typing import Any

import ray
from ray.exceptions import ObjectLostError, RayActorError, RayTaskError, WorkerCrashedError

from rmft.compute import RayCompute
from rmft.errors import ConfigError, RmftError, TrainingError
from rmft.handout import PER_WORKER, Handout
from rmft.rollout import Player, Rollouts, rollout_in_pieces
from rmft.types import Policy, PolicyRef, Trajectories

DEATHS = 5  # of actors over one part, after which it is the part's fault
QUICK = 1.0  # seconds: who plays a part faster is given the next meanwhile, as handing out takes time
LEFT_AT_HOME = ("optimizer.safetensors",)  # files of a policy that its player does not need
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
        if (here := versions()) != expected:
            differ = [
                f"{name} {here[name]} (driver: {expected[name]})"
                for name in here
                if here[name] != expected[name]
            ]
            raise ConfigError(
                f"The Ray worker on {platform.node()} has {', '.join(differ)}. Install the same on all nodes."
            )
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
    """Workers of a Ray cluster, from now until `close`.

    Raises ConfigError when there is no cluster at the address, or it has too few processors or GPUs.
    """

    def __init__(self, config: RayCompute, make_loader: MakeLoader) -> None:
        self.config, self._make_loader = config, make_loader
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
        self._check_resources()
        self._worker: Any = ray.remote(num_cpus=1, num_gpus=config.gpus_per_worker)(Worker)
        self._actors = [self._new_actor() for _ in range(config.workers)]
        self._versions = versions()

    def play(self, player: Player, parts: Iterator[Rollouts]) -> Iterator[Trajectories]:
        """What the player does in all parts, in order. Raises what a worker raises."""
        shared = ray.put((player, _files(player.policy.path)))
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

    def close(self) -> None:
        """Let go of all workers, and of the cluster where it was started here."""
        for actor in self._actors:
            ray.kill(actor)
        self._actors = []
        if self._began:
            ray.shutdown()

    def _new_actor(self) -> Any:
        return self._worker.remote(self._make_loader)

    def _replace(self, actor: Any) -> Any:
        """A new one for one that is dead."""
        self._actors.remove(actor)
        self._actors.append(self._new_actor())
        return self._actors[-1]

    def _check_resources(self) -> None:
        there = ray.cluster_resources()
        wanted = {
            "CPU": float(self.config.workers),
            "GPU": self.config.workers * self.config.gpus_per_worker,
        }
        for kind, count in wanted.items():
            if there.get(kind, 0.0) < count:
                raise ConfigError(
                    f"compute asks for {count:g} {kind}s ({self.config.workers} workers); the Ray cluster at "
                    f"'{self.config.address}' has {there.get(kind, 0.0):g}. Lower compute.workers"
                    f"{' or gpus_per_worker' if kind == 'GPU' else ''}, or add nodes."
                )


def _files(folder: Path) -> Files:
    """The files of a policy's folder that its player reads."""
    return {
        path.name: path.read_bytes()
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name not in LEFT_AT_HOME
    }


def _cause(error: RayTaskError) -> Exception:
    """What a worker raised, as it would be raised here."""
    cause = error.cause
    return cause if isinstance(cause, RmftError) else RuntimeError(str(error))
