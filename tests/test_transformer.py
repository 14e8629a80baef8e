"""The numeric Transformer: decoding equals the whole pass, arms have no names, any size is played."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rmft.config import TransformerConfig
from rmft.errors import RunDirectoryError
from rmft.policies.network import Network
from rmft.policies.transformer import TransformerPolicy, load_network, new_network, save_network
from rmft.problems.environment import TableEnvironment
from rmft.rollout import rollout
from rmft.streams import Streams
from rmft.types import Decisions, Feedback, FloatArray, Histories, RewardTable, Rules, Trajectories


def random_network(num_layers: int, seed: int = 0) -> Network:
    """A network whose decisions differ: a new one's last layer is zero, and so it plays uniformly."""
    network = new_network(TransformerConfig(width=16, num_heads=4, num_layers=num_layers), seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed + 1)
        torch.nn.init.normal_(network.logit.weight, std=2.0)
        torch.nn.init.normal_(network.pool_sink)
    return network


def table(size: int, horizon: int, num_arms: int, seed: int = 0) -> RewardTable:
    generator = np.random.default_rng(seed)
    means = np.repeat(generator.random((size, 1, num_arms)), horizon, axis=1)
    return RewardTable((generator.random(means.shape) < means).astype(float), means)


def play(policy: TransformerPolicy, rules: Rules, size: int = 6) -> Trajectories:
    environment = TableEnvironment(rules, table(size, rules.horizon, rules.num_arms))
    return rollout(policy, environment, Streams.at(3, [(row,) for row in range(size)]))


@given(
    feedback=st.sampled_from(["full", "bandit"]),
    horizon=st.integers(1, 12),
    num_arms=st.integers(2, 7),
    num_layers=st.integers(0, 2),
)
@settings(max_examples=25, deadline=None)
def test_decoding_with_the_cache_equals_one_whole_pass(
    feedback: Feedback, horizon: int, num_arms: int, num_layers: int
) -> None:
    policy = TransformerPolicy(random_network(num_layers), sample_arms=True)
    histories = play(policy, Rules(feedback, horizon, num_arms)).histories
    whole = policy.logits(histories).softmax(dim=-1).detach().numpy()
    assert histories.probabilities is not None
    np.testing.assert_allclose(whole, histories.probabilities, atol=2e-6)


@pytest.mark.parametrize("feedback", ["full", "bandit"])
def test_a_decision_depends_on_the_history_only(feedback: Feedback) -> None:
    policy = TransformerPolicy(random_network(1), sample_arms=True)
    histories = play(policy, Rules(feedback, 9, 3)).histories
    fresh = policy.decide(histories.prefix(5), Streams.at(0, [(row,) for row in range(6)]))
    assert histories.probabilities is not None
    np.testing.assert_allclose(fresh.probabilities, histories.probabilities[:, 5], atol=1e-6)


@pytest.mark.parametrize("feedback", ["full", "bandit"])
def test_permuting_the_arms_permutes_the_decisions(feedback: Feedback) -> None:
    policy = TransformerPolicy(random_network(2), sample_arms=True)
    rules = Rules(feedback, 8, 4)
    histories = play(policy, rules).histories
    order = np.array([2, 0, 3, 1])  # new arm j is old arm order[j]
    renamed = Histories(rules, len(histories))
    for index in range(rules.horizon):
        seen = histories.round(index)
        rewards = seen.rewards[:, order] if feedback == "full" else seen.rewards
        renamed.append(Decisions(np.argsort(order)[seen.arms]), rewards)
    before = policy.logits(histories).detach().numpy()
    np.testing.assert_allclose(policy.logits(renamed).detach().numpy(), before[..., order], atol=1e-5)


def test_what_comes_later_changes_no_earlier_decision() -> None:
    policy = TransformerPolicy(random_network(2))
    rules = Rules("bandit", 8, 3)
    histories = play(policy, rules).histories
    changed = histories.prefix(5)
    while changed.num_rounds < 8:
        changed.append(Decisions(np.zeros(6, dtype=np.int64)), np.full(6, 0.5))
    before, after = (policy.logits(each).detach().numpy() for each in (histories, changed))
    np.testing.assert_allclose(before[:, :6], after[:, :6], atol=1e-6)
    assert np.abs(before[:, 7] - after[:, 7]).max() > 1e-3


def test_a_rollout_keeps_its_luck_in_any_batch() -> None:
    policy, rules = TransformerPolicy(random_network(1)), Rules("bandit", 10, 4)
    together = play(policy, rules, size=6).histories.arms
    alone = rollout(policy, TableEnvironment(rules, table(6, 10, 4).rows(slice(2, 3))), Streams.at(3, [(2,)]))
    np.testing.assert_array_equal(alone.histories.arms[0], together[2])


def test_full_information_is_played_as_a_distribution_unless_sampled() -> None:
    rules = Rules("full", 5, 3)
    played = play(TransformerPolicy(random_network(1)), rules).histories
    assert (played.arms == -1).all()
    assert 0 < played.played[:, 1].min() < 1
    sampled = play(TransformerPolicy(random_network(1), sample_arms=True), rules).histories
    assert set(np.unique(sampled.played)) == {0.0, 1.0}


def test_a_low_temperature_plays_the_most_probable_arm() -> None:
    rules = Rules("bandit", 6, 3)
    cold = play(TransformerPolicy(random_network(1), temperature=1e-3), rules).histories
    assert cold.probabilities is not None
    decided = cold.probabilities.max(axis=-1) > 0.999  # where arms were seen alike there is nothing to prefer
    assert decided[:, 1:].mean() > 0.5
    np.testing.assert_array_equal(cold.arms[decided], cold.probabilities.argmax(axis=-1)[decided])


def test_a_new_network_plays_uniformly() -> None:
    network = new_network(TransformerConfig(width=16), seed=1)
    stated = play(TransformerPolicy(network), Rules("bandit", 4, 5)).histories.probabilities
    np.testing.assert_allclose(stated, np.full((6, 4, 5), 0.2), atol=1e-7)


def normalized_rewards(rewards: FloatArray, low: float, high: float) -> FloatArray:
    return low + rewards * (high - low)


def test_bounded_rewards_are_read_on_one_scale() -> None:
    policy = TransformerPolicy(random_network(1))
    histories = play(policy, Rules("bandit", 6, 3)).histories
    wide = Histories(Rules("bandit", 6, 3, (-5.0, 15.0)), 6)
    for index in range(6):
        seen = histories.round(index)
        wide.append(Decisions(seen.arms), normalized_rewards(seen.rewards, -5.0, 15.0))
    np.testing.assert_allclose(
        policy.logits(wide).detach().numpy(), policy.logits(histories).detach().numpy(), atol=1e-5
    )


def test_saved_and_loaded_is_the_same(tmp_path) -> None:  # type: ignore[no-untyped-def]
    config = TransformerConfig(width=16, num_heads=2, num_layers=1)
    network = new_network(config, seed=5)
    save_network(tmp_path, network, config)
    loaded, loaded_config = load_network(tmp_path)
    assert loaded_config == config
    for name, weight in network.state_dict().items():
        assert torch.equal(weight, loaded.state_dict()[name]), name


@pytest.mark.parametrize("damage", ["missing", "truncated", "garbage"])
def test_a_damaged_policy_says_so(tmp_path, damage: str) -> None:  # type: ignore[no-untyped-def]
    config = TransformerConfig(width=16)
    save_network(tmp_path, new_network(config, 0), config)
    path = tmp_path / "policy.safetensors"
    match damage:
        case "missing":
            path.unlink()
        case "truncated":
            path.write_bytes(path.read_bytes()[:-100])
        case "garbage":
            path.write_bytes(b"\x80\x04 not safetensors")
    with pytest.raises(RunDirectoryError, match=r"policy\.safetensors"):
        load_network(tmp_path)


def test_torchs_global_generator_is_left_alone() -> None:
    before = torch.random.get_rng_state()
    new_network(TransformerConfig(width=16), seed=9)
    assert torch.equal(before, torch.random.get_rng_state())
