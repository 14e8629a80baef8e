"""The one place where the settings of a run become objects: suites, and what plays and trains its policy."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rmft.compute import RayCompute
from rmft.config import RunConfig, StageConfig, check_pool
from rmft.credit import TopK
from rmft.errors import ConfigError, MissingExtraError
from rmft.own_code import as_kept
from rmft.policies import demonstration
from rmft.policies.baselines.catalogue import make_baseline
from rmft.policies.config import AttentionConfig, HostedConfig, LocalConfig, PolicyConfig
from rmft.policies.demonstration import Demonstration
from rmft.problems.games import SELF
from rmft.problems.setting import Setting
from rmft.problems.suites import PARTS, Suite, load_suite, suite_from
from rmft.rollout import Player, Rollouts, rollout_in_pieces
from rmft.run_directory import STAGE_SUITES, SUITE, RunDirectory, policy_in
from rmft.scenarios.scenario import scenarios_of
from rmft.training.config import RegretLoss, TrainingConfig
from rmft.types import Policy, PolicyRef, Rules, Trainer, Trajectories

if TYPE_CHECKING:
    from rmft.cluster import Cluster
    from rmft.generators.loading import HeldModel
    from rmft.hosting import HostedBackend
    from rmft.policies.engine import EnginePlayers


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


def load_suites(config: RunConfig, *, trust: bool = False) -> dict[str, Suite]:
    """The suites of a run and its stages by the names that the config has for them.

    Raises as `load_suite`.
    """
    found = {name: load_suite(name, trust=trust) for name in _suite_names(config)}
    return {name: seated(suite, config.opponent) for name, suite in found.items()}


def suites_of(
    run: RunDirectory, *, trust: bool, say: Callable[[str], None] = lambda _: None
) -> dict[str, Suite]:
    """The suites of a run as they were when it began; classes that they name are run only with `trust`.

    These are looked for beside the file that the config calls the suite, and in the current directory; where
    one was changed since, the run's own copy is taken, and `say` is told. Raises ConfigError when a suite is
    damaged.
    """
    found = {}
    for number, name in enumerate(_suite_names(run.config)):
        where = run.path / (SUITE if name == run.config.suite else STAGE_SUITES)
        beside = str(Path(name) if os.path.isdir(name) else Path(name).parent)
        folder = as_kept(run.own_code(number), beside, say)
        found[name] = seated(suite_from(run.suites.get(name), str(where), folder, trust=trust))
    return found


def seated(suite: Suite, opponent: str | None = None) -> Suite:
    """The suite with the policies that play the other side of its games, ready to be loaded where they play.

    opponent: whom to take in place of those that its settings name. A run is pinned to the checkpoint that is
    its best now. Raises ConfigError, UnknownNameError and RunDirectoryError for one that can't play, and
    ConfigError for one where there is no game.
    """

    def seat(setting: Setting) -> Setting:
        if setting.opponent is None:
            return setting
        return setting.against(*_opponent(opponent or setting.opponent, setting.rules))

    games = [setting for part in PARTS for setting in suite.settings(part) if setting.opponent is not None]
    if opponent is not None and not games:
        raise ConfigError(f"Found the opponent '{opponent}'; the suite {suite.name} has no games to play in.")
    return suite.changed(seat) if games else suite


def _opponent(name: str, rules: Rules) -> tuple[str, Callable[[], Policy] | None]:
    """What to call an opponent from now on, and what loads it."""
    if name == SELF:
        return name, None
    if os.sep not in name and not os.path.isdir(name):
        demonstration.check(name, rules, key="opponent")
        return name, partial(make_baseline, name)
    found = policy_in(Path(name).expanduser())
    if found.kind == "hosted":
        raise ConfigError(f"opponent '{name}' is a hosted model; expected one that plays in this process.")
    path = Path(os.path.abspath(found.path))
    if not path.is_dir():
        raise ConfigError(
            f"opponent '{name}' is no folder; expected a run's or a checkpoint's, or a baseline."
        )
    return str(path), partial(_loaded_opponent, PolicyRef(found.kind, path))


@lru_cache(maxsize=2)
def _loaded_opponent(policy: PolicyRef) -> Policy:
    return load_policy(Player(policy))


def _suite_names(config: RunConfig) -> list[str]:
    return list(dict.fromkeys([config.suite, *(stage.suite for stage in config.schedule())]))


def backend(
    config: RunConfig, suites: Mapping[str, Suite], folder: Path | None = None
) -> FolderBackend | HostedBackend:
    """What trains and plays the config's kind of policy in the suites' problems.

    folder: the run's directory, where a hosted policy keeps what was paid for; others need none. Raises
    MissingExtraError, ConfigError when the problems can't be played by such a policy, and EndpointError.
    """
    for stage in config.schedule():
        settings = suites[stage.suite].settings("train")
        if isinstance(stage.credit, TopK):
            try:
                check_pool(stage.credit, stage.rollout, len(settings))
            except ValueError as error:
                raise ConfigError(f"{error}.") from None
        if stage.rollout.policy is not None:
            demonstration.check(stage.rollout.policy, *(setting.rules for setting in settings))
        _check_feedback(stage, settings)
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
            start = partial(local.same_policy, policy, policy_in(Path(config.init_from)))
        new_trainer = partial(local.LocalTrainer, policy=policy, held=shared)
        if policy.engine is None:
            cluster = _cluster(config)
            if cluster is not None:
                new_trainer = partial(new_trainer, on_ray=cluster.train)
            return FolderBackend(start, new_trainer, partial(load_policy, held=shared), cluster=cluster)
        with extra("api"):
            from rmft.policies.engine import EnginePlayers

        _check_temperature(config)
        trains_on_ray = any(getattr(stage.training, "launcher", "") == "ray" for stage in config.schedule())
        if isinstance(config.compute, RayCompute) and not trains_on_ray:
            raise ConfigError(
                "Found compute.kind ray with policy.engine, whose servers play all rollouts. Leave compute "
                "out, or set training.launcher to ray to train there."
            )
        players = EnginePlayers(policy, held, states)
        ends = ExitStack()
        ends.callback(players.close)
        if (trainers := _cluster(config)) is not None:
            new_trainer = partial(new_trainer, on_ray=trainers.train)
            ends.callback(trainers.close)
        made = FolderBackend(
            start, new_trainer, partial(load_policy, players=players), rest=players.rest, end=ends.close
        )
        players.fleet.say = lambda text: made.say(text)
        return made
    for setting in played:
        if isinstance(policy, AttentionConfig):
            _check_arms(policy, setting)
            continue
        shown = setting.rules.shown.num_inputs
        if shown != policy.num_inputs:
            raise ConfigError(
                f"Found policy.num_inputs {policy.num_inputs}; '{setting.name}' shows {shown} numbers on "
                f"each arm before a decision. Set policy.num_inputs: {shown}."
            )
    with extra("torch"):
        from rmft.training import numeric

    start = partial(numeric.new_policy, policy)
    if config.init_from is not None:
        start = partial(numeric.same_policy, policy, policy_in(Path(config.init_from)))
    return FolderBackend(start, numeric.NumericTrainer, load_policy, AT_ONCE, cluster=_cluster(config))


def _cluster(config: RunConfig) -> Cluster | None:
    """The workers that play, where the config asks for some. Raises MissingExtraError, ConfigError."""
    if not isinstance(config.compute, RayCompute):
        return None
    with extra("ray"):
        from rmft.cluster import Cluster
    prepare = partial(torch_threads, config.num_threads)
    return Cluster(config.compute, partial(loader, config.policy, config.num_threads), prepare)


def loader(policy: PolicyConfig, num_threads: int) -> Callable[[Player], Policy]:
    """What loads policies of these settings in a worker, a local one's model only once."""
    torch_threads(num_threads)
    if not isinstance(policy, LocalConfig) or policy.lora is None:
        return load_policy
    with extra("llm"):
        from rmft.generators.loading import HeldModel
        from rmft.models.catalogue import find_model

    return partial(load_policy, held=HeldModel(find_model(policy.model), policy.precision, policy.device))


def _check_arms(policy: AttentionConfig, setting: Setting) -> None:
    if setting.num_arms != policy.num_arms:
        raise ConfigError(
            f"policy.num_arms is {policy.num_arms}; '{setting.name}' has {setting.num_arms} arms, and one "
            "attention layer plays one number of arms only."
        )
    if setting.rules.shown.num_inputs:
        raise ConfigError(
            f"'{setting.name}' shows numbers before a decision, which policy.kind attention lacks."
        )


def _check_temperature(config: RunConfig) -> None:
    """Raises ConfigError where reasoning is sampled at a temperature that servers don't tell about."""
    reasons = isinstance(config.policy, LocalConfig) and config.policy.wording.reasoning != "off"
    for stage in config.schedule():
        if reasons and stage.rollout.temperature != 1:
            raise ConfigError(
                f"Found rollout.temperature {stage.rollout.temperature:g} with policy.engine and reasoning; "
                "expected 1: servers tell log probabilities at temperature 1 only."
            )


def _check_feedback(stage: StageConfig, settings: Sequence[Setting]) -> None:
    objective = getattr(stage.training, "objective", None)
    bandits = [setting.name for setting in settings if setting.feedback != "full"]
    if isinstance(objective, RegretLoss) and bandits:
        raise ConfigError(
            f"training.objective regret_loss needs all rewards to be seen; '{bandits[0]}' of suite "
            f"{stage.suite} gives bandit feedback."
        )


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


def token_counter(folder_or_id: str) -> Callable[[str], int]:
    """How many tokens a text is to a tokenizer. Raises ConfigError, MissingExtraError."""
    with extra("llm"):
        from rmft.generators.loading import token_counter as counter_of

    return counter_of(folder_or_id)


def torch_threads(count: int) -> None:
    """Let torch use `count` threads. Raises MissingExtraError when torch is not installed.

    Waiting threads sleep unless the user says otherwise: when they spin, as by default, any other work on
    the machine makes small steps slower by a factor of ten and more.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with extra("torch"):
        import torch

    torch.set_num_threads(count)


EXTRAS = {
    "torch": ("torch", "safetensors"),
    "api": ("openai", "httpx2"),
    "llm": ("torch", "safetensors", "transformers", "peft", "accelerate"),
    "serve": ("fastapi", "starlette", "uvicorn"),
    "gymnasium": ("gymnasium",),
    "ray": ("ray",),
}


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Around imports of the extra `name`: raises MissingExtraError when it is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS[name]:
            raise
        raise MissingExtraError(name, error.name) from None


def load_policy(
    player: Player, held: HeldModel | None = None, players: EnginePlayers | None = None
) -> Policy:
    """The policy in a checkpoint's folder, or the baseline that plays in its place.

    held: a local policy's model, if that is loaded already. players: servers that play it. Raises
    RunDirectoryError when it is damaged, MissingExtraError.
    """
    path, temperature, sample_arms = player.policy.path, player.temperature, player.sample_arms
    if player.policy.kind == "local":
        with extra("llm"):
            from rmft.policies.language import load_language_policy

        if players is not None:
            policy = players.load(player)
        else:
            policy = load_language_policy(path, temperature, sample_arms=sample_arms, held=held)
        return policy if player.baseline is None else Demonstration(player.baseline, policy.state)
    if player.baseline is not None:
        return Demonstration(player.baseline)
    with extra("torch"):
        from rmft.policies.numeric import NumericPolicy, load_network

    return NumericPolicy(load_network(path)[0], temperature, sample_arms=sample_arms)
