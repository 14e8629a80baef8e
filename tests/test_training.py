"""The numeric trainer: what is kept becomes likelier, the anchor holds the rest, and nothing is forgotten."""

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from rmft.config import ArmEncoderConfig, CausalTransformerConfig, TrainingConfig
from rmft.errors import RunDirectoryError, TrainingError
from rmft.policies.numeric import NetworkConfig, NumericPolicy, load_network
from rmft.problems.environment import TableEnvironment
from rmft.rollout import rollout
from rmft.streams import Streams
from rmft.training.numeric import NumericTrainer, learning_rate, new_policy
from rmft.types import Example, PolicyRef, RewardTable, Rules, Trajectories

SMALL: dict[str, NetworkConfig] = {
    "arm encoder": ArmEncoderConfig(width=16, num_heads=2, num_layers=1),
    "causal Transformer": CausalTransformerConfig(width=16, num_heads=2),
}


@pytest.fixture(params=SMALL)
def start(tmp_path: Path, request: pytest.FixtureRequest) -> PolicyRef:
    (tmp_path / "start").mkdir()
    return new_policy(SMALL[request.param], 0, tmp_path / "start")


def play(policy: PolicyRef, size: int, horizon: int = 6, num_arms: int = 3) -> Trajectories:
    generator = np.random.default_rng(1)
    means = np.repeat(generator.random((size, 1, num_arms)), horizon, axis=1)
    table = RewardTable((generator.random(means.shape) < means).astype(float), means)
    player = NumericPolicy(load_network(policy.path)[0])
    environment = TableEnvironment(Rules("bandit", horizon, num_arms), table)
    return rollout(player, environment, Streams.at(2, [(row,) for row in range(size)]))


def train(policy: PolicyRef, examples: list[Example], target: Path, **config: float) -> PolicyRef:
    target.mkdir()
    settings = TrainingConfig.model_validate({"warmup": 0, "learning_rate": 0.01, "batch_size": 16, **config})
    return NumericTrainer(settings).train(policy, examples, target, seed=3, progress=0.0)[0]


def stays(trajectories: Trajectories) -> np.ndarray:
    """(B, T) 1 where the arm of the round before is played again: a rule that knows no arm's name."""
    arms = trajectories.histories.arms
    return np.concatenate([np.zeros((len(arms), 1)), arms[:, 1:] == arms[:, :-1]], axis=1)


def log_likelihood(policy: PolicyRef, trajectories: Trajectories) -> np.ndarray:
    """(B, T) of the decisions that were made."""
    player = NumericPolicy(load_network(policy.path)[0])
    logs = player.logits(trajectories.histories).log_softmax(dim=-1).detach().numpy()
    return np.take_along_axis(logs, trajectories.histories.arms[..., None], axis=2)[..., 0]


def same_weights(one: PolicyRef, other: PolicyRef) -> bool:
    a, b = (load_network(each.path)[0].state_dict() for each in (one, other))
    return all(torch.equal(a[name], b[name]) for name in a)


def test_kept_rounds_become_likelier_and_dropped_ones_are_not_looked_at(
    start: PolicyRef, tmp_path: Path
) -> None:
    trajectories = play(start, 32)
    weights = stays(trajectories)
    trained = train(start, [Example(trajectories, weights)], tmp_path / "next", epochs=10)
    after, before = log_likelihood(trained, trajectories), log_likelihood(start, trajectories)
    assert after[weights == 1].mean() > before[weights == 1].mean() + 0.2
    others = weights[:, 1:] == 0
    assert after[:, 1:][others].mean() < before[:, 1:][others].mean()


def test_a_trajectory_without_weight_changes_nothing(start: PolicyRef, tmp_path: Path) -> None:
    trajectories = play(start, 24)
    weights = np.zeros((24, 6))
    weights[:8] = 1.0
    with_rest = train(start, [Example(trajectories, weights)], tmp_path / "a", batch_size=8)
    alone = train(start, [Example(trajectories.rows(slice(0, 8)), weights[:8])], tmp_path / "b", batch_size=8)
    assert same_weights(with_rest, alone)


def test_negative_weights_make_a_decision_less_likely(start: PolicyRef, tmp_path: Path) -> None:
    trajectories = play(start, 32)
    weights = -stays(trajectories)
    trained = train(start, [Example(trajectories, weights)], tmp_path / "next", epochs=3, anchor=1)
    chosen = weights < 0
    assert log_likelihood(trained, trajectories)[chosen].mean() < math.log(1 / 3) - 0.05


def test_arm_weights_stand_in_for_the_decisions(start: PolicyRef, tmp_path: Path) -> None:
    """Every arm's weight where the decision was, and none elsewhere, is what the decision's weight is."""
    trajectories = play(start, 32)
    weights = stays(trajectories)
    every = weights[..., None] * np.eye(3)[trajectories.histories.arms]
    decided = train(start, [Example(trajectories, weights)], tmp_path / "a")
    stood_in = train(start, [Example(trajectories, weights, every)], tmp_path / "b")
    one, other = (load_network(each.path)[0].state_dict() for each in (decided, stood_in))
    assert all(torch.allclose(one[name], other[name], atol=1e-5) for name in one)
    elsewhere = train(start, [Example(trajectories, weights, every[..., ::-1].copy())], tmp_path / "c")
    learned, not_learned = (
        (weights * log_likelihood(each, trajectories)).sum() for each in (decided, elsewhere)
    )
    assert learned > not_learned


def test_a_firm_anchor_holds_the_policy(start: PolicyRef, tmp_path: Path) -> None:
    trajectories = play(start, 64)
    weights = stays(trajectories)
    loose, firm = (
        train(start, [Example(trajectories, weights)], tmp_path / str(anchor), epochs=20, anchor=anchor)
        for anchor in (0.0, 30.0)
    )
    moved = [np.abs(log_likelihood(each, trajectories) - math.log(1 / 3)).mean() for each in (loose, firm)]
    assert moved[1] < 0.2 * moved[0]


def test_training_goes_on_where_it_stopped(start: PolicyRef, tmp_path: Path) -> None:
    """The optimizer's state travels with the policy; without it nothing is trained."""
    example = Example(play(start, 16), np.ones((16, 6)))
    first = train(start, [example], tmp_path / "first")
    second = train(first, [example], tmp_path / "second")
    again = train(first, [example], tmp_path / "again")
    assert same_weights(second, again)
    shutil.copyfile(start.path / "optimizer.safetensors", first.path / "optimizer.safetensors")
    assert not same_weights(second, train(first, [example], tmp_path / "forgetful"))
    (first.path / "optimizer.safetensors").unlink()
    with pytest.raises(RunDirectoryError, match=r"optimizer\.safetensors"):
        train(first, [example], tmp_path / "without")


def test_groups_of_several_shapes_are_trained_on_at_once(start: PolicyRef, tmp_path: Path) -> None:
    shapes = [(8, 6, 3), (5, 4, 2), (70, 3, 5)]
    examples = []
    for size, horizon, num_arms in shapes:
        played = play(start, size, horizon, num_arms)
        examples.append(Example(played, stays(played)))
    trained = train(start, examples, tmp_path / "next", epochs=8)
    for example in examples:
        kept = example.weights == 1
        after, before = (log_likelihood(each, example.trajectories)[kept] for each in (trained, start))
        assert after.mean() > before.mean()


def test_a_loss_that_is_not_finite_stops_training(start: PolicyRef, tmp_path: Path) -> None:
    example = Example(play(start, 4), np.full((4, 6), np.inf))
    with pytest.raises(TrainingError, match="diverged"):
        train(start, [example], tmp_path / "next")


def test_the_learning_rate_rises_then_falls() -> None:
    config = TrainingConfig(learning_rate=0.1, warmup=0.1)
    # half way up: 0.5; at progress p: 0.05 + 0.95 * (1 + cos(pi p)) / 2
    assert learning_rate(config, 0.05) == pytest.approx(
        0.1 * 0.5 * (0.05 + 0.475 * (1 + math.cos(0.05 * math.pi)))
    )
    assert learning_rate(config, 0.5) == pytest.approx(0.1 * (0.05 + 0.475))
    assert learning_rate(config, 1.0) == pytest.approx(0.1 * 0.05)
