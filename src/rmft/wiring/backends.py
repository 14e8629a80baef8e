"""What trains and plays a run's kind of policy, as the loop needs it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rmft.compute import RayCompute
from rmft.config import RunConfig
from rmft.errors import ConfigError
from rmft.policies.config import AttentionConfig, HostedConfig, LocalConfig
from rmft.problems.setting import Setting
from rmft.problems.suites import PARTS, Suite
from rmft.rollout import Player, Rollouts, rollout_in_pieces
from rmft.run_directory import policy_in
from rmft.scenarios.scenario import scenarios_of
from rmft.training.config import TrainingConfig
from rmft.types import Policy, PolicyRef, Trainer, Trajectories
from rmft.wiring import checks
from rmft.wiring.policies import extra, load_policy, loader, torch_threads

if TYPE_CHECKING:
    from rmft.cluster import Cluster
    from rmft.hosting import HostedBackend


AT_ONCE = 256
"""Rollouts that a numeric policy plays together, wherever that is: sums round by how many there are."""


@dataclass
class FolderBackend:
    """A kind of policy that is kept in folders, as the loop needs it; see `rmft.improve.Backend`."""

    new_policy: Callable[[int, Path], PolicyRef]
    new_trainer: Callable[[Any], Trainer]
    load: Callable[[Player], Policy]
    at_once: int | None = None  # rollouts of whole problems; None: as many as the policy has room for
    say: Callable[[str], None] = lambda _: None
    cluster: Cluster | None = None  # whose workers play, if any
    rest: Callable[[], None] = lambda: None  # called before training
    end: Callable[[], None] = lambda: None  # called when the run ends
    _loaded: tuple[Player, Policy] | None = None

    def start(self, target: Path, seed: int) -> PolicyRef:
        return self.new_policy(seed, target)

    def play(self, player: Player, rollouts: Rollouts) -> Iterator[Trajectories]:
        if self.cluster is not None:
            yield from self.cluster.play(player, rollouts.parts(self.cluster.config.rows))
            return
        if self._loaded is None or self._loaded[0] != player:
            self._loaded = None  # its memory is the next one's
            self._loaded = player, self.load(player)
        policy = self._loaded[1]
        for part in [rollouts] if self.at_once is None else rollouts.parts(self.at_once):
            yield from rollout_in_pieces(lambda _: policy, part)

    def trainer(self, config: TrainingConfig) -> Trainer:
        self._loaded = None
        self.rest()
        return self.new_trainer(config)

    def close(self) -> None:
        self.end()
        if self.cluster is not None:
            self.cluster.close()


def backend(
    config: RunConfig, suites: Mapping[str, Suite], folder: Path | None = None
) -> FolderBackend | HostedBackend:
    """What trains and plays the config's kind of policy in the suites' problems.

    folder: the run's directory, where a hosted policy keeps what was paid for; others need none. Raises
    MissingExtraError, ConfigError when the problems can't be played by such a policy, and EndpointError.
    """
    checks.stages(config, suites)
    policy = config.policy
    if isinstance(policy, HostedConfig):
        if isinstance(config.compute, RayCompute):
            raise ConfigError("compute.kind ray does nothing for a hosted policy: leave compute out.")
        if folder is None:
            raise ConfigError("A hosted policy keeps what was paid for in its run's directory: give folder.")
        hosted = hosted_backend(config, policy, suites.values(), folder, "answers.jsonl")
        hosted.check()
        return hosted
    torch_threads(config.num_threads)
    played = [setting for suite in suites.values() for part in PARTS for setting in suite.settings(part)]
    if isinstance(policy, LocalConfig):
        return _local(config, policy, played)
    for setting in played:
        if isinstance(policy, AttentionConfig):
            checks.attention(policy, setting)
        else:
            checks.network(policy, setting)
    with extra("torch"):
        from rmft.training import numeric

    start = partial(numeric.new_policy, policy)
    if config.init_from is not None:
        start = partial(numeric.same_policy, policy, _source(config.init_from))
    return FolderBackend(start, numeric.NumericTrainer, load_policy, AT_ONCE, cluster=_cluster(config))


def _local(config: RunConfig, policy: LocalConfig, played: Iterable[Setting]) -> FolderBackend:
    with extra("llm"):
        from rmft.policies.language import check
        from rmft.training import local
        from rmft.training.processes import inside

    if inside():
        raise ConfigError(
            "Found several processes of one run. Start 'rmft train' once, without torchrun or accelerate "
            "launch: with training.num_processes it starts those that train by itself."
        )
    held, states = check(policy, [(setting.rules, setting.words([0])) for setting in played])
    local.check(policy, held.model)
    shared = None if policy.lora is None else held  # else every policy has weights of its own
    start = partial(local.new_policy, policy)
    if config.init_from is not None:
        start = partial(local.same_policy, policy, _source(config.init_from))

    def trainer(cluster: Cluster | None) -> Callable[[Any], Trainer]:
        on_ray = None if cluster is None else cluster.train
        return partial(local.LocalTrainer, policy=policy, held=shared, on_ray=on_ray)

    if policy.engine is None:
        cluster = _cluster(config)
        return FolderBackend(start, trainer(cluster), partial(load_policy, held=shared), cluster=cluster)
    checks.engine(config)
    with extra("api"):
        from rmft.policies.engine import EnginePlayers

    ends = ExitStack()
    players = EnginePlayers(policy, held, states)
    ends.callback(players.close)
    if (trains := _cluster(config)) is not None:
        ends.callback(trains.close)
    load = partial(load_policy, players=players)
    made = FolderBackend(start, trainer(trains), load, rest=players.rest, end=ends.close)
    players.fleet.say = lambda text: made.say(text)
    return made


def _source(init_from: str) -> PolicyRef:
    if not os.path.isdir(init_from):
        raise ConfigError(f"init_from: found no run or checkpoint at '{init_from}'.")
    return policy_in(Path(init_from))


def _cluster(config: RunConfig) -> Cluster | None:
    """The workers that play, where the config asks for some. Raises MissingExtraError, ConfigError."""
    if not isinstance(config.compute, RayCompute):
        return None
    with extra("ray"):
        from rmft.cluster import Cluster
    prepare = partial(torch_threads, config.num_threads)
    return Cluster(config.compute, partial(loader, config.policy, config.num_threads), prepare)


def hosted_backend(
    config: RunConfig, policy: HostedConfig, suites: Iterable[Suite], folder: Path, journal: str | None
) -> HostedBackend:
    """See `HostedBackend`; nothing is asked yet. Raises as `backend` does."""
    with extra("api"):
        from rmft.hosting import HostedBackend

    for suite in suites:
        for setting in (setting for part in PARTS for setting in suite.settings(part)):
            # A wording that does not fit shows now.
            scenarios_of(setting.rules, setting.words([0]), policy.wording)
    return HostedBackend(config, policy, folder, journal)
