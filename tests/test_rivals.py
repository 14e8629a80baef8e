"""The method's rivals: losses and credits by hand, that they learn where they should, what is refused."""

from __future__ import annotations

import math
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from batches import batch_of
from rmft.config import parse_config
from rmft.credit import CreditConfig, credit
from rmft.errors import ConfigError, RmftError
from rmft.iteration import iterate
from rmft.policies.baselines.catalogue import make_baseline
from rmft.policies.config import LocalConfig
from rmft.policies.demonstration import Demonstration
from rmft.policies.language import load_language_policy
from rmft.policies.numeric import NumericPolicy, load_network
from rmft.problems.environment import TableEnvironment
from rmft.problems.suites import Suite, suite_from
from rmft.reading import read
from rmft.regret import round_regret
from rmft.rollout import rollout
from rmft.run_directory import RunDirectory
from rmft.streams import Streams
from rmft.training.config import DPO, PolicyGradient, PPOClip, RegretLoss
from rmft.training.local import new_policy
from rmft.training.numeric import batch_loss
from rmft.training.objective import regret_loss
from rmft.types import (
    Decisions,
    FloatArray,
    Histories,
    IntArray,
    RewardTable,
    Rules,
    TrainingBatch,
    Trajectories,
)
from rmft.wiring.backends import backend

RNG = np.random.default_rng


def made_up(size: int = 6, horizon: int = 4, num_arms: int = 3, *, full: bool = False) -> Trajectories:
    """Arms drawn from distributions that differ from row to row."""
    generator = RNG(3)
    rules = Rules("full" if full else "bandit", horizon, num_arms)
    means = np.repeat(generator.random((size, 1, num_arms)), horizon, axis=1)
    table = RewardTable(generator.random(means.shape), means)
    histories = Histories(rules, size)
    for index in range(horizon):
        drawn_from = generator.dirichlet(np.ones(num_arms), size=size)
        arms = np.array([generator.choice(num_arms, p=each) for each in drawn_from])
        seen = table.rewards[:, index] if full else table.rewards[np.arange(size), index, arms]
        histories.append(Decisions(arms, drawn_from), seen)
    return Trajectories(histories, table)


# the objectives, by hand


@pytest.mark.parametrize("kl_coef", [0.0, 0.4])
def test_ppo_clips_ratios_and_holds_to_the_start(kl_coef: float) -> None:
    trajectories = made_up()
    advantages = RNG(0).normal(size=(6, 4))
    batch = batch_of(trajectories, advantages, temperature=1.5)
    logits, start = (torch.from_numpy(RNG(seed).normal(size=(6, 4, 3))).float() for seed in (1, 2))
    loss, _ = batch_loss(logits, batch, PPOClip(clip_range=0.2, kl_coef=kl_coef), start)
    expected, outside = 0.0, 0
    for row in range(6):
        for t in range(4):
            pi, ref = (softmax(each[row, t].double().numpy() / 1.5) for each in (logits, start))
            arm = trajectories.histories.arms[row, t]
            rho = pi[arm] / trajectories.histories.propensities[row, t]
            bounded, advantage = min(max(rho, 0.8), 1.2), advantages[row, t]
            outside += bounded != rho
            expected -= min(rho * advantage, bounded * advantage)
            expected += kl_coef * float(pi @ np.log(pi / ref))
    assert 0 < outside < 24
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def softmax(values: FloatArray) -> FloatArray:
    return np.asarray(np.exp(values) / np.exp(values).sum())


def test_at_the_policy_rolled_out_the_clipped_gradient_is_the_policy_gradient() -> None:
    trajectories = made_up()
    batch = batch_of(trajectories, RNG(0).normal(size=(6, 4)))
    assert trajectories.histories.probabilities is not None
    at = torch.from_numpy(np.log(trajectories.histories.probabilities)).requires_grad_()
    found = [
        torch.autograd.grad(batch_loss(at, batch, objective)[0], at)[0]
        for objective in (PPOClip(clip_range=0.2), PolicyGradient(kl_coef=1))
    ]
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-5)


def test_dpo_is_of_the_log_ratios_of_whole_trajectories() -> None:
    trajectories = made_up()
    signs = np.array([1, -1, -1, 1, 1, -1.0])[:, None] * np.ones((1, 4))
    batch = replace(batch_of(trajectories, signs), group=np.array([7, 7, 2, 2, 5, 5]))
    logits = torch.from_numpy(RNG(1).normal(size=(6, 4, 3))).float()
    loss, _ = batch_loss(logits, batch, DPO(beta=0.3))
    logs = np.take_along_axis(
        logits.double().log_softmax(-1).numpy(), trajectories.histories.arms[..., None], axis=2
    )[..., 0]
    log_ratios = (logs - np.log(trajectories.histories.propensities)).sum(axis=1)
    margins = (signs[:, 0] * log_ratios).reshape(3, 2).sum(axis=1)
    assert loss.item() == pytest.approx(np.log1p(np.exp(-0.3 * margins)).sum(), rel=1e-5)


def test_regret_loss_is_of_the_distributions_that_are_played() -> None:
    trajectories = made_up(full=True)
    batch = batch_of(trajectories, np.ones((6, 4)))
    logits = torch.from_numpy(RNG(1).normal(size=(6, 4, 3))).float()
    rewards = trajectories.table.rewards
    played = (logits.double().softmax(-1).numpy() * rewards).sum(axis=(1, 2))
    regrets = rewards.sum(axis=1).max(axis=1) - played
    assert (regrets > 0).any()
    assert batch_loss(logits, batch, RegretLoss())[0].item() == pytest.approx((regrets**2).sum(), rel=1e-5)
    worst = RegretLoss(h="positive_square", num_sequences=3, power=4)
    above = np.maximum(regrets, 0).reshape(2, 3)
    expected = ((above**4 * above**2).sum(axis=1) / (above**4).sum(axis=1)).sum()
    assert batch_loss(logits, batch, worst)[0].item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("dimension", "horizon", "std"), [(2, 25, 1.0), (3, 20, 2.0)])
def test_regret_loss_makes_linear_attention_follow_the_regularized_leader(
    dimension: int, horizon: int, std: float
) -> None:
    """Decisions V S in a ball of radius 1, S the losses so far, iid N(0, std^2 I): the minimizer of the mean
    of regret^2 is -eta I, eta = E[chi_d] / (d std sqrt(T)), the step of FTRL with an L2 regularizer."""
    losses = torch.from_numpy(RNG(0).normal(scale=std, size=(40_000, horizon, dimension)))
    before = losses.cumsum(dim=1) - losses
    best = losses.sum(dim=1).norm(dim=1)
    weight = torch.zeros(dimension, dimension, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight], max_iter=20)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        regrets = (losses * (before @ weight.T)).sum(dim=(1, 2)) + best
        loss = regret_loss(regrets[:, None], RegretLoss(h="square")) / len(losses)
        torch.autograd.backward(loss)
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    chi = math.sqrt(2) * math.gamma((dimension + 1) / 2) / math.gamma(dimension / 2)
    eta = chi / (dimension * std * math.sqrt(horizon))
    np.testing.assert_allclose(weight.detach().numpy(), -eta * np.eye(dimension), atol=0.06 * eta)


# credit


def credited(trajectories: Trajectories, group: IntArray, **config: object) -> TrainingBatch:
    regret = round_regret(trajectories, "pseudo")
    return credit(trajectories, regret, group, read(CreditConfig, config, "credit"), RNG(0))


def with_rewards(totals: list[float], expected: list[float]) -> Trajectories:
    """One round each, in which arm 0 is played: it paid `totals`, and was to pay `expected`."""
    paid = np.stack([totals, np.zeros(len(totals))], axis=1)[:, None]
    mean = np.stack([expected, np.zeros(len(totals))], axis=1)[:, None]
    histories = Histories(Rules("bandit", 1, 2), len(totals))
    histories.append(Decisions(np.zeros(len(totals), dtype=np.int64)), np.array(totals))
    return Trajectories(histories, RewardTable(paid, mean))


def test_rewards_are_normalized_within_their_group_and_pairs_are_best_and_worst() -> None:
    trajectories = with_rewards([1, 0, 0, 1, 5, 5, 5, 5], [0.5, 0.1, 0.9, 0.1, 1, 1, 1, 1])
    group = np.repeat([3, 1], 4)
    grpo = credited(trajectories, group, kind="grpo")
    assert grpo.advantages[:, 0] == pytest.approx([1, -1, -1, 1, 0, 0, 0, 0])
    assert grpo.mask.all()
    means = np.array([0.5, 0.1, 0.9, 0.1])
    grpo = credited(trajectories, group, kind="grpo", reward="expected")
    assert grpo.advantages[:4, 0] == pytest.approx((means - means.mean()) / means.std())
    pairs = credited(trajectories, group, kind="preference_pairs", reward="expected")
    assert pairs.advantages[2, 0] == 1
    assert pairs.mask[:, 0].sum() == 2, "the second group has nothing to tell apart"
    assert pairs.advantages[[1, 3], 0].sum() == -1, "one of the two worst"


def uniform_rollouts(num_problems: int, num_rollouts: int, feedback: Any = "bandit") -> Trajectories:
    generator = RNG(5)
    means = np.repeat(generator.random((num_problems, 1, 4)), 12, axis=1)
    table = RewardTable((generator.random(means.shape) < means).astype(float), means).repeat(num_rollouts)
    environment = TableEnvironment(Rules(feedback, 12, 4), table)
    streams = Streams.at(1, [(row,) for row in range(num_problems * num_rollouts)])
    return rollout(Demonstration("uniform"), environment, streams)


def test_on_a_shared_table_lowest_regret_is_highest_reward_and_not_beyond_it() -> None:
    """Per problem the k of lowest pseudo-regret are the k of highest expected reward, and those of lowest
    static regret of highest realised reward. Pooled over problems they are not, nor under noise."""
    group = np.repeat(np.arange(20), 8)
    bandit, full = uniform_rollouts(20, 8), uniform_rollouts(20, 8, "full")

    def kept(trajectories: Trajectories, kind: str, regret: Any = "pseudo", **settings: Any) -> FloatArray:
        config = read(CreditConfig, {"kind": kind, "num_selected": 2, **settings}, "credit")
        by_round = round_regret(trajectories, regret)
        batch = credit(trajectories, by_round, group, config, RNG(0))
        return np.asarray(batch.mask[:, 0])

    identical = kept(bandit, "top_k_regret"), kept(bandit, "top_k_reward", reward="expected")
    np.testing.assert_array_equal(*identical)
    np.testing.assert_array_equal(
        kept(full, "top_k_regret", "static"), kept(full, "top_k_reward", reward="realised")
    )
    assert (kept(bandit, "top_k_reward") != identical[0]).mean() > 0.05, "noise"
    pooled = {"per": "setting", "num_selected": 40}
    by_regret = kept(bandit, "top_k_regret", **pooled)
    by_reward = kept(bandit, "top_k_reward", reward="expected", **pooled)
    assert (by_regret != by_reward).mean() > 0.05


# learning, in a setting where each should


def suite_of(**setting: Any) -> Suite:
    one = {"name": "one", "horizon": 10, "num_arms": 2, **setting}
    return suite_from({"name": "mine", "title": "mine", "train": {"settings": [one]}}, "mine")


EASY = suite_of(feedback="bandit", reward_process={"kind": "bernoulli", "means": [0.1, 0.9]})
GAUSSIAN = suite_of(
    feedback="full",
    reward_process={"kind": "gaussian", "mean": 0, "mean_std": 0.5, "noise_std": 1},
)
RIVALS: dict[str, tuple[Suite, dict[str, Any]]] = {
    "grpo": (
        EASY,
        {
            "credit": {"kind": "grpo"},
            "training": {"objective": {"kind": "ppo_clip", "kl_coef": 0.01}, "epochs": 4},
        },
    ),
    "dpo": (
        EASY,
        {
            "credit": {"kind": "preference_pairs"},
            "training": {"objective": {"kind": "dpo", "beta": 0.5}, "epochs": 4, "batch_size": 8},
        },
    ),
    "ucb distillation": (
        EASY,
        {"rollout": {"policy": "ucb(coefficient=0.3)"}, "credit": {"kind": "all"}},
    ),
    "regret loss": (
        GAUSSIAN,
        {
            "rollout": {"num_problems": 128, "num_rollouts": 1},
            "credit": {"kind": "all"},
            "training": {"objective": {"kind": "regret_loss"}},
        },
    ),
}


def trained(path: Path, suite: Suite, **changes: Any) -> list[dict[str, Any]]:
    """The metrics of a short run."""
    base = {
        "iterations": 10,
        "policy": {"width": 8, "num_heads": 2, "num_layers": 0},
        "rollout": {"num_problems": 16, "num_rollouts": 8} | changes.pop("rollout", {}),
        "training": {"learning_rate": 0.02, "batch_size": 64} | changes.pop("training", {}),
        "validation": {"every": 5, "num_problems": 200} | changes.pop("validation", {}),
        "num_threads": 1,
    }
    config = parse_config(base | changes)
    suites = {config.suite: suite}
    with closing(RunDirectory.create(path, config, {"smoke": suite.model_dump(mode="json")})) as run:
        iterate(run, suites, backend(config, suites), lambda _: None)
        return run.metrics()


@pytest.mark.parametrize("name", RIVALS)
def test_every_rival_learns(tmp_path: Path, name: str) -> None:
    """Uniform play, with which all begin, costs 10 x .8 / 2 = 4 in the bandit."""
    suite, settings = RIVALS[name]
    metrics = trained(tmp_path / "run", suite, **settings)
    regrets = [each["validation"]["regret"]["mean"] for each in metrics if "validation" in each]
    assert min(regrets) < 0.8 * regrets[0]
    assert np.isfinite(metrics[-1]["train"]["loss"])


def test_a_distilled_policy_plays_as_the_algorithm_did(tmp_path: Path) -> None:
    metrics = trained(tmp_path / "run", GAUSSIAN, rollout={"policy": "ftl"}, credit={"kind": "all"})
    assert metrics[1]["rollout"]["entropy"] is None, "the leader states no probabilities"
    with closing(RunDirectory.open(tmp_path / "run")) as run:
        player = NumericPolicy(load_network(run.policy(run.best_iteration()).path)[0])
    batch = GAUSSIAN.draw("validation", 100)[0]
    environment = batch.setting.play(batch.table)
    leader = rollout(make_baseline("ftl"), environment, Streams.at(0, [(row,) for row in range(100)]))
    probabilities = player.logits(leader.histories).softmax(-1).detach().numpy()
    likely = np.take_along_axis(probabilities, leader.histories.arms[..., None], axis=2)[:, 1:]
    assert likely.mean() > 0.75


def test_a_language_policy_reads_a_baseline_as_it_would_have_said_it(
    tmp_path: Path, tiny_llama: Path
) -> None:
    """The turns of a demonstration are those of the policy itself where it made the same decisions."""
    new_policy(LocalConfig.model_validate({"model": str(tiny_llama)}), 0, tmp_path)
    player = load_language_policy(tmp_path, sample_arms=True)
    means = np.full((3, 4, 2), 0.5)
    table = RewardTable(np.tile([[1.0, 0.0]], (3, 4, 1)), means)
    rules = Rules("bandit", 4, 2)
    streams = [(row,) for row in range(3)]
    own = rollout(player, TableEnvironment(rules, table), Streams.at(0, streams))

    class Again:
        """Decides as `own` did."""

        name, max_concurrency = "again", 1

        def rows_at_once(self, rules: Rules) -> int:  # noqa: ARG002
            return 3

        def decide(self, histories: Histories, streams: Streams) -> Decisions:  # noqa: ARG002
            return Decisions(own.histories.arms[:, histories.num_rounds])

    demonstration = Demonstration("greedy", player.state)
    demonstration.baseline = Again()
    shown = rollout(demonstration, TableEnvironment(rules, table), Streams.at(0, streams))
    for mine, theirs in zip(own.histories.words.turns, shown.histories.words.turns, strict=True):
        for one, other in zip(mine, theirs, strict=True):
            assert one.ids is not None
            assert other.ids is not None
            assert one.legal is not None
            assert other.legal is not None
            assert one.ids.tolist() == other.ids.tolist()
            assert one.legal.tolist() == other.legal.tolist()
            assert (one.prompt, one.completion, one.system) == (other.prompt, other.completion, other.system)
            assert np.isfinite(one.logprobs).tolist() == np.isfinite(other.logprobs).tolist()


IN_WORDS: dict[str, dict[str, Any]] = {
    "distillation": {"rollout": {"policy": "greedy"}, "credit": {"kind": "all"}},
    "grpo": {
        "credit": {"kind": "grpo"},
        "training": {"objective": {"kind": "ppo_clip", "kl_coef": 0.1}, "epochs": 2},
    },
    "dpo": {"credit": {"kind": "preference_pairs"}, "training": {"objective": {"kind": "dpo"}}},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", IN_WORDS)
def test_every_rival_trains_a_language_model(tmp_path: Path, tiny_llama: Path, name: str) -> None:
    settings = IN_WORDS[name]
    metrics = trained(
        tmp_path / "run",
        suite_of(feedback="bandit", horizon=4, reward_process={"kind": "bernoulli", "means": [0.1, 0.9]}),
        iterations=3,
        policy={"kind": "local", "model": str(tiny_llama)},
        rollout={"num_problems": 4, "num_rollouts": 4} | settings.get("rollout", {}),
        credit=settings["credit"],
        training={"batch_size": 4, "warmup": 0} | settings.get("training", {}),
        validation={"num_problems": 4, "every": 3},
    )
    figures = [each["train"] for each in metrics[1:]]
    assert all(np.isfinite(each["loss"]) and each["gradient_norm"] > 0 for each in figures)
    if name == "distillation":
        assert figures[-1]["loss"] < 0.97 * figures[0]["loss"]


# what is refused

DISTILLING = {"rollout": {"policy": "ucb"}, "credit": {"kind": "all"}}
PG = {"objective": {"kind": "policy_gradient"}}
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"credit": {"kind": "grpo"}}, "without a KL term or a clip"),
    ({"training": {"objective": {"kind": "ppo_clip"}}}, "ppo_clip needs advantages: set credit.kind to grpo"),
    ({"training": {"objective": {"kind": "dpo"}}}, "preference_pairs and dpo go with each other"),
    ({"credit": {"kind": "preference_pairs"}, "training": PG}, "preference_pairs and dpo go with each other"),
    (
        {"credit": {"kind": "preference_pairs"}, "training": {"objective": {"kind": "dpo"}, "batch_size": 3}},
        "batch_size is 3; expected a multiple of 2",
    ),
    (
        {"training": {"objective": {"kind": "regret_loss"}}},
        "credit.kind to all and rollout.num_rollouts to 1",
    ),
    (
        {
            "policy": {"kind": "local"},
            "credit": {"kind": "all"},
            "training": {"objective": {"kind": "regret_loss"}},
        },
        "policies that play numbers",
    ),
    (DISTILLING | {"training": PG}, "rollout.policy gives decisions of another's to imitate"),
    (DISTILLING | {"training": {"target_kl": 0.1}}, "rollout.policy gives decisions of another's to imitate"),
    (
        DISTILLING | {"policy": {"kind": "local", "wording": {"reasoning": "free"}}},
        "set policy.wording.reasoning to off",
    ),
    (DISTILLING | {"policy": {"kind": "hosted", "model": "m"}}, "does nothing with policy.kind hosted"),
    ({"credit": {"kind": "grpo"}, "policy": {"kind": "hosted", "model": "m"}}, "learns whole answers"),
]


@pytest.mark.parametrize(("values", "message"), REFUSED)
def test_what_does_not_go_together_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_config(values)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (DISTILLING | {"rollout": {"policy": "ubc"}}, "Did you mean 'ucb'"),
        (DISTILLING | {"rollout": {"policy": "tuned:ucb"}}, "expected its parameters too"),
        (DISTILLING | {"rollout": {"policy": "oracle"}}, "knows what is hidden"),
        (DISTILLING | {"rollout": {"policy": "hedge"}}, "needs full feedback"),
        (
            {
                "rollout": {"num_rollouts": 1},
                "credit": {"kind": "all"},
                "training": {"objective": {"kind": "regret_loss"}},
            },
            "gives bandit feedback",
        ),
    ],
)
def test_what_does_not_suit_the_problems_is_refused(settings: dict[str, Any], message: str) -> None:
    config = parse_config(settings)
    with pytest.raises(RmftError) as raised:
        backend(config, {config.suite: EASY})
    assert message in str(raised.value)
