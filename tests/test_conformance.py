"""Every policy, trainer and environment there is does what its protocol says."""

from __future__ import annotations

import json
import re
import zlib
from pathlib import Path

import numpy as np
import pytest

from conformance import check_environment, check_policy, check_trainer, streams, table_of
from hosted_client import BASE, a_batch, connection_to, facts, trainer_at
from rmft.generators.api import Features, Question
from rmft.policies.baselines.catalogue import CATALOGUE, baselines_for, make_baseline
from rmft.policies.config import ArmEncoderConfig, CausalTransformerConfig, HostedConfig, LocalConfig
from rmft.policies.hosted import HostedPolicy
from rmft.policies.language import load_language_policy
from rmft.policies.numeric import NetworkConfig, NumericPolicy, load_network, new_network
from rmft.problems.environment import TableEnvironment
from rmft.problems.setting import Setting
from rmft.providers.adapters import adapter
from rmft.providers.answers import Answer
from rmft.providers.hosted_model import read_hosted, write_hosted
from rmft.reading import read
from rmft.rollout import rollout
from rmft.training import local, numeric
from rmft.training.config import LocalTraining, NumericTraining
from rmft.types import Histories, Policy, PolicyRef, Rules, Shown, TrainingBatch
from vendor import Vendor, serving

BANDIT, FULL = Rules("bandit", 7, 3), Rules("full", 7, 3)
EXAMPLES = Path(__file__).parents[1] / "examples"


# policies


def specs_for(rules: Rules) -> list[str]:
    """Every baseline, and those at both ends of its grid; the oracle has the table that it plays."""
    names = [name for name in baselines_for(rules) if name in CATALOGUE]
    grids = {name: CATALOGUE[name].grid for name in names}
    return sorted({spec for name, grid in grids.items() for spec in (name, *grid[:1], *grid[-1:])})


SHOWN = Rules("bandit", 7, 3, shown=Shown(("age", "hour"), ("price",)))
OF_ARMS = Rules("bandit", 7, 3, shown=Shown(features=("price", "size")))

BASELINES = [(rules, spec) for rules in (BANDIT, FULL) for spec in specs_for(rules)]
BASELINES += [(rules, spec) for rules in (SHOWN, OF_ARMS) for spec in specs_for(rules) if spec[:3] == "lin"]


@pytest.mark.parametrize(("rules", "spec"), BASELINES, ids=lambda each: getattr(each, "feedback", each))
def test_baselines(rules: Rules, spec: str) -> None:
    policy = make_baseline(spec)
    assert make_baseline(policy.name) == policy
    check_policy(policy, rules, size=9)


NETWORKS: dict[str, NetworkConfig] = {
    "arm encoder": ArmEncoderConfig(width=16, num_heads=4, num_layers=0),
    "arm encoder with a time layer": ArmEncoderConfig(width=16, num_heads=4, num_layers=1),
    "causal transformer": CausalTransformerConfig(width=16, num_heads=4, num_layers=2),
}
NUMERIC = [(name, config, rules) for name, config in NETWORKS.items() for rules in (BANDIT, FULL)]
NUMERIC += [(name, config.model_copy(update={"num_inputs": 3}), SHOWN) for name, config in NETWORKS.items()]


@pytest.mark.parametrize(("name", "config", "rules"), NUMERIC)
@pytest.mark.parametrize("sample_arms", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 1.5])
def test_numeric_policies(
    name: str,  # noqa: ARG001  of the test
    config: NetworkConfig,
    rules: Rules,
    sample_arms: bool,
    temperature: float,
) -> None:
    import torch

    network = new_network(config, seed=0)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        for parameter in network.parameters():  # a new one's last layer is zero, and so it plays uniformly
            parameter.add_(0.3 * torch.randn(parameter.shape))
    policy = NumericPolicy(network, temperature, sample_arms=sample_arms)
    check_policy(policy, rules, tolerance=1e-5)


def language_policy(tiny: Path, folder: Path, **settings: object) -> Policy:
    folder.mkdir()
    config = LocalConfig.model_validate(
        {"model": str(tiny), "device": "cpu", "reasoning_budget": 4, **settings}
    )
    local.new_policy(config, 0, folder)
    return load_language_policy(folder)


TOLD = Rules("bandit", 7, 3, shown=Shown(("age",), ("price", "size"), text_length=12))


@pytest.mark.parametrize("rules", [BANDIT, FULL, TOLD], ids=["bandit", "full", "shown"])
@pytest.mark.parametrize("reasoning", ["off", "brief"])
@pytest.mark.parametrize("rounds", ["messages", "log"])
def test_language_models(tiny_llama: Path, tmp_path: Path, rules: Rules, reasoning: str, rounds: str) -> None:
    wording = {"reasoning": reasoning}
    policy = language_policy(tiny_llama, tmp_path / "policy", wording=wording, rounds=rounds)
    check_policy(policy, rules, tolerance=1e-5)


class Endpoint:
    """A model behind an API that answers at random, by the messages and the seed alone."""

    features = Features(
        temperature=True, seed=True, logprobs=False, structured=False, max_completion_tokens=False
    )

    def ask(self, question: Question) -> Answer:
        labels = re.findall(r"^([A-Z]) ", question.messages[0]["content"], re.MULTILINE)
        drawn = zlib.crc32((json.dumps(list(question.messages)) + str(question.seed)).encode())
        return Answer(labels[drawn % len(labels)], "stop", 10, 1)


def test_hosted_models() -> None:
    check_policy(HostedPolicy(Endpoint(), HostedConfig(model="m")), BANDIT)


# trainers


def played(policy: Policy, size: int = 6) -> TrainingBatch:
    """Rollouts of which the second and the third are imitated, but for a round."""
    rules = Rules("bandit", 4, 3)
    environment = TableEnvironment(rules, table_of(rules, size))
    trajectories = rollout(policy, environment, streams(list(range(size))))
    mask = np.zeros((size, 4), dtype=bool)
    mask[1:3, :3] = True
    return TrainingBatch(trajectories, np.arange(size) // 3, mask, np.ones((size, 4)))


def probabilities(policy: Policy, histories: Histories) -> np.ndarray:
    """(B, K) those of the decisions after all rounds but the last."""
    found = policy.decide(histories.prefix(3), streams(list(range(len(histories)))))
    assert found.probabilities is not None
    return found.probabilities


@pytest.mark.parametrize("name", NETWORKS)
def test_the_numeric_trainer(name: str, tmp_path: Path) -> None:
    for folder in ("start", "targets"):
        (tmp_path / folder).mkdir()
    start = numeric.new_policy(NETWORKS[name], 0, tmp_path / "start")
    batch = played(NumericPolicy(load_network(start.path)[0]))

    def same(one: PolicyRef, other: PolicyRef) -> bool:
        networks = [load_network(each.path)[0].state_dict() for each in (one, other)]
        return all(networks[0][key].equal(networks[1][key]) for key in networks[0])

    trainer = numeric.NumericTrainer(NumericTraining(learning_rate=0.01, epochs=2))
    check_trainer(trainer, start, batch, tmp_path / "targets", same)


@pytest.mark.parametrize("lora", [{"rank": 2, "dropout": 0.1}, None])
def test_the_trainer_of_language_models(
    tiny_llama: Path, tmp_path: Path, lora: dict[str, float] | None
) -> None:
    (tmp_path / "targets").mkdir()
    player = language_policy(tiny_llama, tmp_path / "start", lora=lora)
    start, batch = PolicyRef("local", tmp_path / "start"), played(player)

    def same(one: PolicyRef, other: PolicyRef) -> bool:
        histories = batch.trajectories.histories
        found = [probabilities(load_language_policy(each.path), histories) for each in (one, other)]
        return np.array_equal(*found)

    config = LocalConfig.model_validate({"model": str(tiny_llama), "device": "cpu", "lora": lora})
    trainer = local.LocalTrainer(LocalTraining(learning_rate=0.01, epochs=2), config)
    check_trainer(trainer, start, batch, tmp_path / "targets", same)


@pytest.mark.parametrize("api", ["openai", "together"])
def test_the_trainer_at_a_provider(api: str, tmp_path: Path) -> None:
    for folder in ("start", "targets"):
        (tmp_path / folder).mkdir()
    write_hosted(tmp_path / "start", BASE)
    vendor = Vendor()
    with serving(vendor), connection_to(vendor.url, api) as connection:
        vendor.endpoints.append({"model": "me/job-0", "state": "STARTED", "name": "endpoint-0"})
        check_trainer(
            trainer_at(adapter(facts(api), connection), tmp_path),
            PolicyRef("hosted", tmp_path / "start"),
            a_batch([[1.0, 1.0], [0.0, 0.0], [0.0, 1.0]]),
            tmp_path / "targets",
            lambda one, other: read_hosted(one.path).model == read_hosted(other.path).model,
        )
    assert len(vendor.jobs) == 1, "what was begun for the same iteration is gone on with"


# environments


@pytest.mark.parametrize("rules", [BANDIT, FULL], ids=lambda rules: rules.feedback)
def test_tables(rules: Rules) -> None:
    check_environment(lambda: TableEnvironment(rules, table_of(rules, 5)))


@pytest.mark.parametrize("feedback", ["bandit", "full"])
def test_an_environment_of_ones_own(feedback: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(EXAMPLES)
    data = {
        "name": "mine",
        "feedback": feedback,
        "horizon": 7,
        "num_arms": 3,
        "reward_process": {"kind": "my_process:MyProcess", "gap": 0.4},
        "environment": "my_process:MyEnvironment",
    }
    setting = read(Setting, data, "mine", trust=True)
    check_environment(lambda: setting.play(table_of(setting.rules, 5)))
