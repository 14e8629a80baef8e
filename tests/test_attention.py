"""One attention layer: what it decodes is what is trained, and with the right weights it is Hedge."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

import rmft
from rmft.errors import ConfigError
from rmft.policies.baselines.catalogue import make_baseline
from rmft.policies.config import AttentionConfig
from rmft.policies.networks.attention import Attention
from rmft.policies.numeric import NumericPolicy, load_network, new_network, save_network
from rmft.problems.environment import TableEnvironment
from rmft.rollout import rollout
from rmft.streams import Streams
from rmft.types import Feedback, RewardTable, Rules, Trajectories

UNBOUNDED = (-math.inf, math.inf)


def attention(kind: Literal["linear", "softmax"], seed: int = 0) -> Attention:
    network = new_network(AttentionConfig(num_arms=3, attention=kind), seed)
    assert isinstance(network, Attention)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter)
    return network


def play(policy: rmft.Policy, feedback: Feedback, size: int = 5) -> Trajectories:
    rewards = np.random.default_rng(0).normal(size=(size, 7, 3))
    rules = Rules(feedback, horizon=7, num_arms=3, reward_range=UNBOUNDED)
    environment = TableEnvironment(rules, RewardTable(rewards, rewards))
    return rollout(policy, environment, Streams.at(0, [(row,) for row in range(size)]))


@pytest.mark.parametrize("kind", ["linear", "softmax"])
@pytest.mark.parametrize("feedback", ["full", "bandit"])
def test_what_is_decoded_is_what_is_trained_and_kept(
    kind: Literal["linear", "softmax"], feedback: Feedback, tmp_path: Path
) -> None:
    config = AttentionConfig(num_arms=3, attention=kind)
    save_network(tmp_path, attention(kind), config)
    network, found = load_network(tmp_path)
    assert found == config
    policy = NumericPolicy(network)
    histories = play(policy, feedback).histories
    again = policy.logits(histories).detach().double().softmax(dim=-1).numpy()
    assert histories.probabilities is not None
    np.testing.assert_allclose(again, histories.probabilities, atol=1e-5)
    assert np.ptp(histories.probabilities[:, 1:], axis=-1).min() > 0


def test_a_new_one_plays_uniformly_and_with_the_right_weights_it_is_hedge() -> None:
    network = new_network(AttentionConfig(num_arms=3), seed=0)
    assert isinstance(network, Attention)
    np.testing.assert_allclose(play(NumericPolicy(network), "full").histories.played, 1 / 3)
    torch.nn.init.eye_(network.value.weight)
    network.value.weight.data *= 0.7
    assert network.step() == pytest.approx((0.7, 0.0), abs=1e-6)
    mine, hedge = (play(each, "full") for each in (NumericPolicy(network), make_baseline("hedge")))
    rewards = hedge.histories.rewards
    before = np.pad(rewards.cumsum(axis=1)[:, :-1], ((0, 0), (1, 0), (0, 0)))
    shares = np.exp(0.7 * before)
    np.testing.assert_allclose(mine.histories.played, shares / shares.sum(axis=-1, keepdims=True), rtol=1e-5)
    network.value.weight.data[0, 1] += 0.7
    assert network.step()[1] > 0.3, "now it is far from any Hedge"
    network.value.weight.data += 5.0
    assert network.step() == pytest.approx((0.7 - 0.7 / 6, network.step()[1])), "a constant changes nothing"


def test_another_number_of_arms_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    config = {"suite": "fol/gaussian-gap", "policy": {"kind": "attention", "num_arms": 2}, "iterations": 1}
    with pytest.raises(ConfigError, match=r"policy\.num_arms is 2; 'gaussian' has 5 arms"):
        rmft.train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(ConfigError, match="plays 4 arms; the problem has 3"):
        play(NumericPolicy(new_network(AttentionConfig(num_arms=4), seed=0)), "full")


def test_it_learns_to_follow_the_leader_where_there_are_gaps(tmp_path: Path) -> None:
    config = {
        "suite": "fol/gaussian-gap",
        "policy": {"kind": "attention", "num_arms": 5},
        "iterations": 3,
        "rollout": {"num_problems": 32, "num_rollouts": 8},
        "credit": {"kind": "top_k_regret", "num_selected": 2},
        "training": {"learning_rate": 0.03, "batch_size": 64},
        "validation": {"num_problems": 4},
        "num_threads": 1,
    }
    run = rmft.train(config, tmp_path / "run")
    network, _ = load_network(run / "checkpoints" / "000003")
    assert isinstance(network, Attention)
    assert network.step()[0] > 0.03
