"""Hosted models as the loop needs them: how one starts, plays and is trained, and what that may cost."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from rmft.config import RunConfig
from rmft.credit import TopK, TopKRegretToGo
from rmft.errors import ConfigError
from rmft.generators.api import ApiModel, Features, probe
from rmft.policies.config import HostedConfig
from rmft.policies.hosted import HostedPolicy
from rmft.providers.adapters import adapter, connect
from rmft.providers.catalogue import ModelFacts, find_provider
from rmft.providers.hosted_model import HostedModel, read_hosted, write_hosted
from rmft.providers.journal import Journal
from rmft.rollout import Player, Rollouts, rollout_in_pieces
from rmft.run_directory import policy_in
from rmft.training.config import HostedTraining, TrainingConfig
from rmft.training.hosted import HostedTrainer
from rmft.types import Policy, PolicyRef, Trainer, Trajectories

SAMPLING = (
    "{} takes no top_k and repetition_penalty. If it takes such settings from its model's "
    "generation_config.json, probabilities and samples are not the model's own: switch them off there."
)
HOURS_PER_ITERATION = 2  # a guess at rollouts and a job's time in the queue, for when a run will end


class HostedBackend:
    """A model behind an API; see `rmft.improve.Backend`. What was paid for is kept in the run as it comes.

    folder: the run's directory. journal: the file of answers in it, None to keep them in memory. say: hears
    what a job does. Raises UnknownNameError for a provider, ConfigError for an address, and EndpointError
    without a key.
    """

    def __init__(self, config: RunConfig, policy: HostedConfig, folder: Path, journal: str | None) -> None:
        self.config, self.policy = config, policy
        self.provider_facts = find_provider(policy.provider, policy.catalogue)
        self.facts: ModelFacts = self.provider_facts.model(policy.model)
        self.say: Callable[[str], None] = lambda _: None
        self.folder = folder
        self.connection = connect(self.provider_facts, policy.base_url, policy.key, policy.endpoint)
        self.provider = adapter(self.provider_facts, self.connection)
        self.journal = Journal(None if journal is None else folder / journal, config.budget)
        self._features: Features | None = None

    def check(self) -> None:
        """Raises EndpointError or ConfigError when the model can't be trained there until the run's end."""
        for stage in self.config.schedule():
            problems = stage.rollout.num_problems
            kept = problems * stage.rollout.num_rollouts
            if isinstance(stage.credit, TopK) and not isinstance(stage.credit, TopKRegretToGo):
                kept = stage.credit.kept(problems, num_settings=problems)  # at most, in any suite
            if kept < self.provider_facts.min_examples:
                raise ConfigError(
                    f"An iteration keeps {kept} conversations at most; {self.provider_facts.name} trains on "
                    f"at least {self.provider_facts.min_examples}. Raise rollout.num_problems or "
                    "credit.num_selected."
                )
        retires = self.provider.check(self.policy.model)
        hours = HOURS_PER_ITERATION * self.config.iterations
        end = (datetime.now(UTC) + timedelta(hours=hours)).date()
        dates = {"retires": retires or self.facts.retires, "takes no new jobs after": self.facts.trains_until}
        for what, day in dates.items():
            if day is not None and day < end and not self.policy.past_retirement:
                raise ConfigError(
                    f"{self.policy.model} at {self.provider_facts.name} {what} {day}, and "
                    f"{self.config.iterations} iterations at about {HOURS_PER_ITERATION} hours each end "
                    f"around {end}. Choose another model or fewer iterations, or insist with "
                    "policy.past_retirement: true."
                )

    def start(self, target: Path, seed: int) -> PolicyRef:  # noqa: ARG002
        """See `Backend`: the base model, by its name, or what `init_from` holds."""
        name = self.policy.model
        model = HostedModel(provider=self.policy.provider, base=name, model=name, called=name)
        if self.config.init_from is not None:
            source = policy_in(Path(self.config.init_from))
            model = read_hosted(source.path)
            if (model.provider, model.base) != (self.policy.provider, name):
                raise ConfigError(
                    f"init_from '{source.path}' holds {model.base} of {model.provider}; policy asks for "
                    f"{name} of {self.policy.provider}."
                )
        write_hosted(target, model)
        return PolicyRef("hosted", target)

    def load(self, player: Player) -> Policy:
        """See `Backend`. What the endpoint can do is probed before the first answer."""
        if player.baseline is not None:  # which settings refuse
            raise ConfigError(f"'{player.baseline}' can't be rolled out for a hosted policy.")
        model = read_hosted(player.policy.path)
        asked = self.model(model.called, model.called != model.base)
        return HostedPolicy(asked, self.policy, player.temperature)

    def play(self, player: Player, rollouts: Rollouts) -> Iterator[Trajectories]:
        """See `Backend`."""
        policy = self.load(player)
        return rollout_in_pieces(lambda _: policy, rollouts)

    def trainer(self, config: TrainingConfig) -> Trainer:
        """See `Backend`."""
        assert isinstance(config, HostedTraining)
        return HostedTrainer(
            config,
            self.policy,
            self.provider,
            self.folder,
            charge=self._charge,
            say=lambda text: self.say(text),
        )

    def model(self, name: str, tuned: bool) -> ApiModel:
        """The model that chat completions call `name`. tuned: priced as one made by fine-tuning."""
        if self._features is None:
            self._features = probe(self.connection, self.journal, self.policy.model, self.policy.endpoint)
            if not self._features.sampling and self.policy.provider == "compatible":
                warnings.warn(SAMPLING.format(self.connection.host), stacklevel=2)
        cost = partial(self.facts.usd, tuned=tuned)
        return ApiModel(self.connection, self.journal, name, self._features, cost)

    def close(self) -> None:
        """End the connection."""
        self.connection.close()

    def _charge(self, key: str, tokens: int) -> None:
        if self.journal.get(key) is None:
            usd = self.facts.training_usd(tokens)
            with self.journal.within_budget(tokens, usd):
                self.journal.put(key, {"tokens": tokens, "usd": usd})
