"""The numeric trainer: what is imitated gets likelier, the KL term holds the rest, nothing is forgotten."""

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from batches import batch_of
from rmft.errors import RunDirectoryError, TrainingError
from rmft.policies.config import ArmEncoderConfig, CausalTransformerConfig
from rmft.policies.numeric import NetworkConfig, NumericPolicy, load_network
from rmft.problems.environment import TableEnvironment
from rmft.rollout import rollout
from rmft.streams import Streams
from rmft.training.config import NumericTraining, PolicyGradient
from rmft.training.numeric import NumericTrainer, batch_loss, new_policy
from rmft.types import PolicyRef, RewardTable, Rules, TrainingBatch, TrainingStep, Trajectories

SMALL: dict[str, NetworkConfig] = {
    "arm encoder": ArmEncoderConfig(width=16, num_heads=2, num_layers=1),
    "causal Transformer": CausalTransformerConfig(width=16, num_heads=2),
}


@pytest.fixture(params=SMALL)
def start(tmp_path: Path, request: pytest.FixtureRequest) -> PolicyRef:
    (tmp_path / "start").mkdir()
    return new_policy(SMALL[request.param], 0, tmp_path / "start")


def play(
    policy: PolicyRef, size: int, horizon: int = 6, num_arms: int = 3, temperature: float = 1.0
) -> Trajectories:
    generator = np.random.default_rng(1)
    means = np.repeat(generator.random((size, 1, num_arms)), horizon, axis=1)
    table = RewardTable((generator.random(means.shape) < means).astype(float), means)
    player = NumericPolicy(load_network(policy.path)[0], temperature)
    environment = TableEnvironment(Rules("bandit", horizon, num_arms), table)
    return rollout(player, environment, Streams.at(2, [(row,) for row in range(size)]))


def fit(
    policy: PolicyRef, batches: list[TrainingBatch], target: Path, kl_coef: float = 0, **config: float
) -> tuple[PolicyRef, dict[str, float]]:
    """Train, with a KL term where kl_coef is above 0."""
    target.mkdir()
    objective = {"kind": "policy_gradient", "kl_coef": kl_coef} if kl_coef else {}
    settings = NumericTraining.model_validate(
        {"warmup": 0, "learning_rate": 0.01, "batch_size": 16, "objective": objective, **config}
    )
    return NumericTrainer(settings).train(policy, batches, target, TrainingStep(1, 3, 0.0))


def train(
    policy: PolicyRef, batches: list[TrainingBatch], target: Path, kl_coef: float = 0, **config: float
) -> PolicyRef:
    return fit(policy, batches, target, kl_coef, **config)[0]


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


def test_imitated_rounds_become_likelier_and_dropped_ones_are_not_looked_at(
    start: PolicyRef, tmp_path: Path
) -> None:
    trajectories = play(start, 32)
    weights = stays(trajectories)
    trained = train(start, [batch_of(trajectories, weights)], tmp_path / "next", epochs=10)
    after, before = log_likelihood(trained, trajectories), log_likelihood(start, trajectories)
    assert after[weights == 1].mean() > before[weights == 1].mean() + 0.2
    others = weights[:, 1:] == 0
    assert after[:, 1:][others].mean() < before[:, 1:][others].mean()


def test_a_trajectory_outside_the_mask_changes_nothing(start: PolicyRef, tmp_path: Path) -> None:
    trajectories = play(start, 24)
    weights = np.zeros((24, 6))
    weights[:8] = 1.0
    with_rest = train(start, [batch_of(trajectories, weights)], tmp_path / "a", batch_size=8)
    alone = train(
        start, [batch_of(trajectories.rows(slice(0, 8)), weights[:8])], tmp_path / "b", batch_size=8
    )
    assert same_weights(with_rest, alone)


def test_negative_advantages_make_a_decision_less_likely(start: PolicyRef, tmp_path: Path) -> None:
    trajectories = play(start, 32)
    weights = -stays(trajectories)
    trained = train(start, [batch_of(trajectories, weights)], tmp_path / "next", epochs=3, kl_coef=1)
    chosen = weights < 0
    assert log_likelihood(trained, trajectories)[chosen].mean() < math.log(1 / 3) - 0.05


def test_action_targets_stand_in_for_the_decisions(start: PolicyRef, tmp_path: Path) -> None:
    """Every arm's weight where the decision was, and none elsewhere, is what the decision's weight is."""
    trajectories = play(start, 32)
    weights = stays(trajectories)
    every = weights[..., None] * np.eye(3)[trajectories.histories.arms]
    decided = train(start, [batch_of(trajectories, weights)], tmp_path / "a")
    stood_in = train(start, [batch_of(trajectories, weights, action_targets=every)], tmp_path / "b")
    one, other = (load_network(each.path)[0].state_dict() for each in (decided, stood_in))
    assert all(torch.allclose(one[name], other[name], atol=1e-5) for name in one)
    others = batch_of(trajectories, weights, action_targets=every[..., ::-1].copy())
    elsewhere = train(start, [others], tmp_path / "c")
    learned, not_learned = (
        (weights * log_likelihood(each, trajectories)).sum() for each in (decided, elsewhere)
    )
    assert learned > not_learned


def test_a_large_kl_coef_holds_the_policy(start: PolicyRef, tmp_path: Path) -> None:
    trajectories = play(start, 64)
    weights = stays(trajectories)
    loose, firm = (
        train(start, [batch_of(trajectories, weights)], tmp_path / str(kl), epochs=20, kl_coef=kl)
        for kl in (0.0, 30.0)
    )
    moved = [np.abs(log_likelihood(each, trajectories) - math.log(1 / 3)).mean() for each in (loose, firm)]
    assert moved[1] < 0.2 * moved[0]


def test_training_goes_on_where_it_stopped(start: PolicyRef, tmp_path: Path) -> None:
    """The optimizer's state travels with the policy; without it nothing is trained."""
    batch = batch_of(play(start, 16), np.ones((16, 6)))
    first = train(start, [batch], tmp_path / "first")
    second = train(first, [batch], tmp_path / "second")
    again = train(first, [batch], tmp_path / "again")
    assert same_weights(second, again)
    shutil.copyfile(start.path / "optimizer.safetensors", first.path / "optimizer.safetensors")
    assert not same_weights(second, train(first, [batch], tmp_path / "forgetful"))
    (first.path / "optimizer.safetensors").unlink()
    with pytest.raises(RunDirectoryError, match=r"optimizer\.safetensors"):
        train(first, [batch], tmp_path / "without")


def test_groups_of_several_shapes_are_trained_on_at_once(start: PolicyRef, tmp_path: Path) -> None:
    shapes = [(8, 6, 3), (5, 4, 2), (70, 3, 5)]
    batches = []
    for size, horizon, num_arms in shapes:
        played = play(start, size, horizon, num_arms)
        batches.append(batch_of(played, stays(played)))
    trained = train(start, batches, tmp_path / "next", epochs=8)
    for batch in batches:
        kept = batch.mask
        after, before = (log_likelihood(each, batch.trajectories)[kept] for each in (trained, start))
        assert after.mean() > before.mean()


def test_a_loss_that_is_not_finite_stops_training(start: PolicyRef, tmp_path: Path) -> None:
    batch = batch_of(play(start, 4), np.full((4, 6), np.inf))
    with pytest.raises(TrainingError, match="diverged"):
        train(start, [batch], tmp_path / "next")


def test_decisions_without_advantage_count_where_the_mask_has_them(start: PolicyRef, tmp_path: Path) -> None:
    """The loss is a mean over the mask: twice the decisions, half of them of advantage 0, halve it."""
    trajectories = play(start, 16)
    advantages = np.zeros((16, 6))
    advantages[:, ::2] = 1.0
    whole = np.ones((16, 6), dtype=bool)
    alone = fit(start, [batch_of(trajectories, advantages)], tmp_path / "alone")[1]
    among = fit(start, [batch_of(trajectories, advantages, whole)], tmp_path / "among")[1]
    assert alone["loss"] == pytest.approx(math.log(3), rel=1e-4), "it starts uniform"
    assert among["loss"] == pytest.approx(alone["loss"] / 2, rel=1e-5)
    assert among["gradient_norm"] == pytest.approx(alone["gradient_norm"] / 2, rel=1e-4)


# at the temperature of the rollouts


@pytest.fixture
def decided(start: PolicyRef, tmp_path: Path) -> PolicyRef:
    """A policy that is far from uniform, with an optimizer that remembers nothing."""
    trajectories = play(start, 32)
    trained = train(start, [batch_of(trajectories, stays(trajectories))], tmp_path / "decided", epochs=6)
    shutil.copyfile(start.path / "optimizer.safetensors", trained.path / "optimizer.safetensors")
    return trained


def entropy(policy: PolicyRef, trajectories: Trajectories) -> float:
    """Mean entropy at temperature 1, in nats, of the decisions in these histories."""
    player = NumericPolicy(load_network(policy.path)[0])
    logs = player.logits(trajectories.histories).log_softmax(dim=-1).detach()
    return float(-(logs.exp() * logs).sum(dim=-1).mean())


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.5])
def test_the_kl_term_alone_leaves_the_policy_where_it_is(
    decided: PolicyRef, tmp_path: Path, temperature: float
) -> None:
    """Rollouts at any temperature: the policy rolled out is the one that the KL term pulls towards."""
    trajectories = play(decided, 64, temperature=temperature)
    nothing, whole = np.zeros((64, 6)), np.ones((64, 6), dtype=bool)
    batch = batch_of(trajectories, nothing, whole, temperature=temperature)
    trained, figures = fit(decided, [batch], tmp_path / "next", 1, epochs=20, learning_rate=0.002)
    assert figures["kl"] == pytest.approx(0, abs=3e-3)
    before = entropy(decided, trajectories)
    assert 0.3 < before < 0.9 < math.log(3), "between certain and uniform, where a pull shows"
    assert entropy(trained, trajectories) == pytest.approx(before, abs=0.02)
    # The same rollouts taken for those of temperature 1 do pull, towards what they were drawn from.
    if temperature != 1:
        mistaken = train(decided, [batch_of(trajectories, nothing, whole)], tmp_path / "not", 1, epochs=20)
        moved = entropy(mistaken, trajectories) - before
        assert moved * (temperature - 1) > 0.02 * abs(temperature - 1)


def test_at_the_policy_rolled_out_the_kl_term_has_no_value_and_no_gradient(decided: PolicyRef) -> None:
    """There the gradient is that of A log pi alone, with pi at the temperature of the rollouts."""
    temperature = 1.5
    trajectories = play(decided, 16, temperature=temperature)
    advantages = np.random.default_rng(0).normal(size=(16, 6))
    batch = batch_of(trajectories, advantages, temperature=temperature)
    network = load_network(decided.path)[0]
    logits = NumericPolicy(network).logits(trajectories.histories)
    loss, kl = batch_loss(logits, batch, PolicyGradient(kl_coef=3.0))
    assert kl.item() == pytest.approx(0, abs=1e-4)
    found = torch.autograd.grad(loss, list(network.parameters()), retain_graph=True)
    arms = torch.from_numpy(trajectories.histories.arms)[..., None]
    logprobs = (logits / temperature).log_softmax(-1).gather(2, arms)[..., 0]
    by_hand = -(torch.from_numpy(advantages).float() * logprobs).sum()
    expected = torch.autograd.grad(by_hand, list(network.parameters()))
    scale = max(float(each.abs().max()) for each in expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4 * scale)


def test_the_gradient_is_the_slope_of_what_the_rollouts_were_drawn_from(decided: PolicyRef) -> None:
    """By finite differences along directions of the last layer, of sum A log pi, which numpy computes."""
    temperature, step = 1.5, 1e-2
    trajectories = play(decided, 16, temperature=temperature)
    advantages = np.random.default_rng(0).normal(size=(16, 6))
    batch = batch_of(trajectories, advantages, temperature=temperature)
    network = load_network(decided.path)[0]
    player, weight = NumericPolicy(network), network.get_parameter("logit.weight")
    loss, _ = batch_loss(player.logits(trajectories.histories), batch, PolicyGradient(kl_coef=3.0))
    [gradient] = torch.autograd.grad(loss, [weight])

    def score() -> float:
        with torch.no_grad():
            scaled = player.logits(trajectories.histories).double().numpy() / temperature
        logs = scaled - np.log(np.exp(scaled).sum(axis=2, keepdims=True))
        chosen = np.take_along_axis(logs, trajectories.histories.arms[..., None], axis=2)[..., 0]
        return float((advantages * chosen).sum())

    at, generator = weight.detach().clone(), torch.Generator().manual_seed(0)
    for _ in range(4):
        direction = torch.randn(weight.shape, generator=generator)
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                weight.copy_(at + sign * step * direction)
            ends.append(score())
        slope = (ends[0] - ends[1]) / (2 * step)
        assert slope == pytest.approx(-float((gradient * direction).sum()), rel=0.01, abs=0.01)
