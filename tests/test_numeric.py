"""Numeric networks: decoding equals the whole pass, arms have no names, any size is played."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from rmft.errors import ConfigError, RunDirectoryError
from rmft.policies.config import ArmEncoderConfig, CausalTransformerConfig
from rmft.policies.networks.arm_encoder import ArmEncoder
from rmft.policies.networks.causal_transformer import CausalTransformer
from rmft.policies.networks.network import Network
from rmft.policies.numeric import NetworkConfig, NumericPolicy, load_network, new_network, save_network
from rmft.problems.environment import TableEnvironment
from rmft.rollout import rollout
from rmft.streams import Streams
from rmft.types import (
    Decisions,
    Feedback,
    FloatArray,
    Histories,
    Observation,
    RewardTable,
    Rules,
    Shown,
    Trajectories,
)

NETWORKS: dict[str, NetworkConfig] = {
    "no time layer": ArmEncoderConfig(width=16, num_heads=4, num_layers=0),
    "one time layer": ArmEncoderConfig(width=16, num_heads=4, num_layers=1),
    "two time layers": ArmEncoderConfig(width=16, num_heads=4, num_layers=2),
    "causal, one layer": CausalTransformerConfig(width=16, num_heads=4, num_layers=1),
    "causal, two layers": CausalTransformerConfig(width=16, num_heads=4, num_layers=2),
}
SHOWN = Shown(("age", "hour"), ("price",))
NETWORKS |= {
    f"{name}, shown": NETWORKS[name].model_copy(update={"num_inputs": 3})
    for name in ("no time layer", "one time layer", "causal, one layer", "causal, two layers")
}
each_kind = pytest.mark.parametrize("kind", ["two time layers", "causal, two layers"])
each_kind_with_shown = pytest.mark.parametrize(
    "kind", ["two time layers", "causal, two layers", "one time layer, shown", "causal, two layers, shown"]
)
each_network = pytest.mark.parametrize("kind", NETWORKS)


def random_network(kind: str, seed: int = 0) -> Network[Any]:
    """A network whose decisions differ: a new one's last layer is zero, and so it plays uniformly."""
    network = new_network(NETWORKS[kind], seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed + 1)
        match network:
            case ArmEncoder():
                torch.nn.init.normal_(network.logit.weight, std=2.0)
                torch.nn.init.normal_(network.pool_sink)
            case CausalTransformer():
                torch.nn.init.normal_(network.logit.weight, std=0.5)
                for block in network.blocks():
                    torch.nn.init.normal_(block.query.weight, std=0.5)
    return network


def table(size: int, horizon: int, num_arms: int, seed: int = 0, *, shows: bool = False) -> RewardTable:
    generator = np.random.default_rng(seed)
    means = np.repeat(generator.random((size, 1, num_arms)), horizon, axis=1)
    shown = Observation(
        generator.standard_normal((size, horizon, 2)), generator.random((size, horizon, num_arms, 1))
    )
    return RewardTable((generator.random(means.shape) < means).astype(float), means, shown if shows else None)


def rules_for(kind: str, feedback: Feedback, horizon: int, num_arms: int) -> Rules:
    """Those of problems that show what a network of this kind reads."""
    return Rules(feedback, horizon, num_arms, shown=SHOWN if kind.endswith("shown") else Shown())


def play(policy: NumericPolicy, rules: Rules, size: int = 6) -> Trajectories:
    shows = bool(rules.shown)
    environment = TableEnvironment(rules, table(size, rules.horizon, rules.num_arms, shows=shows))
    return rollout(policy, environment, Streams.at(3, [(row,) for row in range(size)]))


@given(
    feedback=st.sampled_from(["full", "bandit"]),
    horizon=st.integers(1, 12),
    num_arms=st.integers(2, 10),
    kind=st.sampled_from(list(NETWORKS)),
)
@settings(max_examples=40, deadline=None)
def test_decoding_with_the_cache_equals_one_whole_pass(
    feedback: Feedback, horizon: int, num_arms: int, kind: str
) -> None:
    policy = NumericPolicy(random_network(kind), sample_arms=True)
    histories = play(policy, rules_for(kind, feedback, horizon, num_arms)).histories
    whole = policy.logits(histories).softmax(dim=-1).detach().numpy()
    assert histories.probabilities is not None
    np.testing.assert_allclose(whole, histories.probabilities, atol=1e-5)


@each_kind_with_shown
@pytest.mark.parametrize("feedback", ["full", "bandit"])
def test_permuting_the_arms_permutes_the_decisions(feedback: Feedback, kind: str) -> None:
    policy = NumericPolicy(random_network(kind), sample_arms=True)
    rules = rules_for(kind, feedback, 8, 4)
    histories = play(policy, rules).histories
    order = np.array([2, 0, 3, 1])  # new arm j is old arm order[j]
    renamed = Histories(rules, len(histories))
    for index in range(rules.horizon):
        seen, shown = histories.round(index), histories.shown(index)
        if shown is not None and shown.features is not None:
            renamed.observe(Observation(shown.numbers, shown.features[:, order]))
        rewards = seen.rewards[:, order] if feedback == "full" else seen.rewards
        renamed.append(Decisions(np.argsort(order)[seen.arms]), rewards)
    before = policy.logits(histories).detach().numpy()
    np.testing.assert_allclose(policy.logits(renamed).detach().numpy(), before[..., order], atol=1e-5)


@each_kind_with_shown
def test_what_comes_later_changes_no_earlier_decision(kind: str) -> None:
    policy = NumericPolicy(random_network(kind))
    rules = rules_for(kind, "bandit", 8, 3)
    histories = play(policy, rules).histories
    changed = histories.prefix(5)
    while changed.num_rounds < 8:
        if rules.shown and changed.num_rounds > 5:
            changed.observe(Observation(np.zeros((6, 2)), np.zeros((6, 3, 1))))
        changed.append(Decisions(np.zeros(6, dtype=np.int64)), np.full(6, 0.5))
    before, after = (policy.logits(each).detach().numpy() for each in (histories, changed))
    np.testing.assert_allclose(before[:, :6], after[:, :6], atol=1e-6)
    assert np.abs(before[:, 7] - after[:, 7]).max() > 1e-3


@each_kind
def test_full_information_is_played_as_a_distribution_unless_sampled(kind: str) -> None:
    rules = Rules("full", 5, 3)
    played = play(NumericPolicy(random_network(kind)), rules).histories
    assert (played.arms == -1).all()
    assert 0 < played.played[:, 1].min() < 1
    sampled = play(NumericPolicy(random_network(kind), sample_arms=True), rules).histories
    assert set(np.unique(sampled.played)) == {0.0, 1.0}


@each_kind
def test_a_low_temperature_plays_the_most_probable_arm(kind: str) -> None:
    rules = Rules("bandit", 6, 3)
    cold = play(NumericPolicy(random_network(kind), temperature=1e-3), rules).histories
    assert cold.probabilities is not None
    decided = cold.probabilities.max(axis=-1) > 0.999  # where arms were seen alike there is nothing to prefer
    assert decided[:, 1:].mean() > 0.5
    np.testing.assert_array_equal(cold.arms[decided], cold.probabilities.argmax(axis=-1)[decided])


def test_a_network_reads_as_many_numbers_as_are_shown() -> None:
    for kind, rules in (
        ("one time layer", Rules("bandit", 4, 5, shown=SHOWN)),
        ("one time layer, shown", Rules("bandit", 4, 5)),
    ):
        policy = NumericPolicy(new_network(NETWORKS[kind], 0))
        with pytest.raises(ConfigError, match=f"num_inputs: {rules.shown.num_inputs}"):
            policy.rows_at_once(rules)


@each_network
def test_a_new_network_plays_uniformly(kind: str) -> None:
    network = new_network(NETWORKS[kind], seed=1)
    stated = play(NumericPolicy(network), rules_for(kind, "bandit", 4, 5)).histories.probabilities
    np.testing.assert_allclose(stated, np.full((6, 4, 5), 0.2), atol=1e-7)


def normalized_rewards(rewards: FloatArray, low: float, high: float) -> FloatArray:
    return low + rewards * (high - low)


@each_kind
def test_bounded_rewards_are_read_on_one_scale(kind: str) -> None:
    policy = NumericPolicy(random_network(kind))
    histories = play(policy, Rules("bandit", 6, 3)).histories
    wide = Histories(Rules("bandit", 6, 3, (-5.0, 15.0)), 6)
    for index in range(6):
        seen = histories.round(index)
        wide.append(Decisions(seen.arms), normalized_rewards(seen.rewards, -5.0, 15.0))
    np.testing.assert_allclose(
        policy.logits(wide).detach().numpy(), policy.logits(histories).detach().numpy(), atol=1e-5
    )


@each_network
def test_saved_and_loaded_is_the_same(tmp_path: Path, kind: str) -> None:
    config = NETWORKS[kind]
    network = new_network(config, seed=5)
    save_network(tmp_path, network, config)
    loaded, loaded_config = load_network(tmp_path)
    assert loaded_config == config
    for name, weight in network.state_dict().items():
        assert torch.equal(weight, loaded.state_dict()[name]), name


def test_an_arm_encoder_saved_under_its_old_name_is_loaded(tmp_path: Path) -> None:
    network = random_network("one time layer")
    assert isinstance(network, ArmEncoder)
    old = {"kind": "transformer", "width": 16, "num_heads": 4, "num_layers": 1}
    save_file(network.state_dict(), tmp_path / "policy.safetensors", {"config": json.dumps(old)})
    loaded, config = load_network(tmp_path)
    assert config == NETWORKS["one time layer"]
    rules = Rules("bandit", 6, 3)
    before, after = (play(NumericPolicy(each), rules).histories.probabilities for each in (network, loaded))
    np.testing.assert_array_equal(before, after)


@each_kind
@pytest.mark.parametrize("feedback", ["full", "bandit"])
def test_the_cache_holds_what_is_said_of_its_size(feedback: Feedback, kind: str) -> None:
    network, full = random_network(kind), feedback == "full"
    small, large = (network.new_cache(size, 9, 3, full=full) for size in (2, 5))
    held = [
        sum(tensor.numel() for tensor in [*cache.keys, *cache.values])
        + (cache.pool.numel() + cache.arms.numel() if kind == "two time layers" else 0)
        for cache in (small, large)
    ]
    assert held[1] - held[0] == 3 * network.cache_size(9, 3, full=full)


def test_long_rollouts_are_played_few_at_once() -> None:
    policy = NumericPolicy(random_network("causal, two layers"))
    assert policy.rows_at_once(Rules("bandit", 50, 5)) == 2048
    assert 1 <= policy.rows_at_once(Rules("full", 50_000, 20)) < 10


@each_kind
def test_an_arm_never_played_differs_from_one_that_paid_nothing(kind: str) -> None:
    rules = Rules("bandit", 6, 3)
    histories = Histories(rules, 1)
    for _ in range(6):
        histories.append(Decisions(np.zeros(1, dtype=np.int64)), np.zeros(1))
    logits = NumericPolicy(random_network(kind)).logits(histories).detach().numpy()[0]
    assert np.ptp(logits[0]) < 1e-5
    assert np.abs(logits[3:, 1] - logits[3:, 2]).max() < 1e-5
    assert np.abs(logits[3:, 0] - logits[3:, 1]).min() > 1e-3


@pytest.mark.parametrize("damage", ["missing", "truncated", "garbage", "of another kind"])
def test_a_damaged_policy_says_so(tmp_path: Path, damage: str) -> None:
    config = ArmEncoderConfig(width=16)
    save_network(tmp_path, new_network(config, 0), config)
    path = tmp_path / "policy.safetensors"
    match damage:
        case "missing":
            path.unlink()
        case "truncated":
            path.write_bytes(path.read_bytes()[:-100])
        case "garbage":
            path.write_bytes(b"\x80\x04 not safetensors")
        case "of another kind":
            save_file({"weight": torch.zeros(1)}, path, {"config": '["causal_transformer"]'})
    with pytest.raises(RunDirectoryError, match=r"policy\.safetensors"):
        load_network(tmp_path)


def test_torchs_global_generator_is_left_alone() -> None:
    before = torch.random.get_rng_state()
    new_network(CausalTransformerConfig(width=16), seed=9)
    assert torch.equal(before, torch.random.get_rng_state())
