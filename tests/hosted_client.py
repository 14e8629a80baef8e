"""A run's training step at a vendor: also as a process of its own, which tests kill."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from batches import batch_of
from rmft.errors import RmftError
from rmft.policies.config import HostedConfig
from rmft.providers.adapters import adapter
from rmft.providers.catalogue import ProviderFacts
from rmft.providers.config import EndpointConfig
from rmft.providers.connection import Connection
from rmft.providers.hosted_model import HostedModel, write_hosted
from rmft.providers.keys import Key
from rmft.providers.provider import FineTuneProvider
from rmft.training.config import HostedTraining
from rmft.training.hosted import HostedTrainer
from rmft.types import (
    Decisions,
    Histories,
    PolicyRef,
    RewardTable,
    Rules,
    TrainingBatch,
    TrainingStep,
    Trajectories,
    Turn,
)
from vendor import KEY

PATIENCE = 900.0  # seconds: the machine may be busy
BASE = HostedModel(provider="compatible", base="base-model", model="base-model", called="base-model")


def facts(api: str = "openai", **more: object) -> ProviderFacts:
    """A provider that is the vendor of the tests."""
    data = {"name": "vendor", "about": "of the tests", "api": api, "min_examples": 2} | more
    return ProviderFacts.model_validate(data)


def connection_to(url: str, api: str = "openai", retries: int = 6) -> Connection:
    """A connection to the vendor."""
    azure = "2024-10-21" if api == "azure" else None
    address = url.removesuffix("/v1") if azure else url
    return Connection(
        base_url=address,
        key=Key("VENDOR_KEY", KEY),
        azure_api_version=azure,
        retries=retries,
        first_pause=0.01,
        timeout=60,
    )


def a_batch(advantages: list[list[float]]) -> TrainingBatch:
    """As many rollouts of as many rounds of a bandit of 2 arms, in words, the first with a refused answer."""
    size, horizon = np.shape(advantages)
    rules = Rules("bandit", horizon, 2)
    histories = Histories(rules, size)
    for number in range(horizon):
        turns = tuple(
            Turn(
                prompt="Choose." if number == 0 else f"{row} hits. Choose.",
                completion="A" if row % 2 else "B",
                system="Two arms, A and B." if number == 0 else "",
                refused=(("Hm?", "Reply with one letter."),) if row == number == 0 else (),
            )
            for row in range(size)
        )
        arms = np.arange(size) % 2
        histories.append(Decisions(arms=arms, turns=turns), np.ones(size))
    table = RewardTable(np.ones((size, horizon, 2)), np.ones((size, horizon, 2)))
    return batch_of(Trajectories(histories, table), np.array(advantages))


def trainer_at(provider: FineTuneProvider, run: Path, **more: object) -> HostedTrainer:
    """A trainer that looks often."""
    endpoint = EndpointConfig(retries=2)
    policy = HostedConfig(model="base-model", poll_seconds=0.02, endpoint=endpoint)
    training = HostedTraining(epochs=2)
    return HostedTrainer(training, policy, provider, run, first_pause=0.01, **more)  # type: ignore[arg-type]


def train(
    run: Path, url: str, api: str, iteration: int = 1, **more: object
) -> tuple[PolicyRef, dict[str, float]]:
    """One iteration in the run's folder, from the policy before it."""
    before, target = run / "checkpoints" / f"{iteration - 1:06d}", run / "checkpoints" / f".{iteration:06d}"
    before.mkdir(parents=True, exist_ok=True)
    target.mkdir(exist_ok=True)
    if iteration == 1:
        write_hosted(before, BASE)
    with connection_to(url, api) as connection:
        trainer = trainer_at(adapter(facts(api, **more), connection), run, say=print)
        batch = a_batch([[1.0, 1.0], [0.0, 0.0], [0.0, 1.0]])
        return trainer.train(PolicyRef("hosted", before), [batch], target, TrainingStep(iteration, 7, 0.5))


def start(*arguments: object) -> subprocess.Popen[bytes]:
    """`rmft` with these arguments, in a process of its own that has the vendor's key."""
    command = [sys.executable, "-m", "rmft.cli", *map(str, arguments)]
    return subprocess.Popen(command, env=os.environ | {"VENDOR_KEY": KEY}, stderr=subprocess.PIPE)


def finish(*arguments: object, code: int = 0) -> str:
    """What it says until it ends, which it does with this exit code."""
    process = start(*arguments)
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == code, said.decode()
    return said.decode()


if __name__ == "__main__":
    try:
        print("made", train(Path(sys.argv[1]), sys.argv[2], sys.argv[3])[1])
    except RmftError as error:
        sys.exit(str(error))
