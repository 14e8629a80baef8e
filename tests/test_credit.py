"""Which decisions are learned from, with the arithmetic."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmft.advantages import advantages, advantages_of_all_actions, cost_to_go, state_features
from rmft.credit import CreditConfig, credit, credit_of_iteration
from rmft.errors import ConfigError, ShapeError
from rmft.problems.environment import TableEnvironment
from rmft.reading import read
from rmft.regret import RegretKind, round_regret
from rmft.rollout import rollout, rows_of_arrays
from rmft.selection import lowest_in_group
from rmft.streams import Streams
from rmft.types import (
    Decisions,
    Feedback,
    FloatArray,
    Histories,
    IntArray,
    RewardTable,
    Rules,
    TrainingBatch,
    Trajectories,
)

RNG = np.random.default_rng


class Uniform:
    name = "uniform"
    max_concurrency = 1

    def rows_at_once(self, rules: Rules) -> int:
        return rows_of_arrays(rules)

    def decide(self, histories: Histories, streams: Streams) -> Decisions:
        even = np.full((len(histories), histories.rules.num_arms), 1 / histories.rules.num_arms)
        return Decisions(streams.choose(even), even)


def played(
    num_problems: int, num_rollouts: int, horizon: int, num_arms: int = 3, feedback: Feedback = "bandit"
) -> Trajectories:
    generator = RNG(0)
    means = np.repeat(generator.random((num_problems, 1, num_arms)), horizon, axis=1)
    table = RewardTable((generator.random(means.shape) < means).astype(float), means).repeat(num_rollouts)
    rows = num_problems * num_rollouts
    rules = Rules(feedback, horizon, num_arms)
    return rollout(Uniform(), TableEnvironment(rules, table), Streams.at(1, [(row,) for row in range(rows)]))


def credited(
    trajectories: Trajectories, by_round: FloatArray, group: IntArray, **config: object
) -> TrainingBatch:
    return credit(trajectories, by_round, group, read(CreditConfig, config, "credit"), RNG(0))


def problems(num_problems: int, num_rollouts: int) -> IntArray:
    """(B,) the group of every rollout, those of a problem in a row."""
    return np.repeat(np.arange(num_problems), num_rollouts)


# One problem, three rollouts, two rounds: regrets by round, and so to go (1.0, .2), (.5, .5), (.9, 0).
BY_ROUND = np.array([[0.8, 0.2], [0.0, 0.5], [0.9, 0.0]])


def test_top_k_regret_keeps_whole_trajectories() -> None:
    # totals 1.0, 0.5, 0.9: the second and the third
    batch = credited(played(1, 3, 2), BY_ROUND, problems(1, 3), kind="top_k_regret", num_selected=2)
    np.testing.assert_array_equal(batch.mask, [[0, 0], [1, 1], [1, 1]])
    assert (batch.advantages == 1).all()
    assert batch.action_targets is None


def test_top_k_regret_to_go_keeps_rounds() -> None:
    # round 0: to go 1.0, .5, .9 keeps the second; round 1: .2, .5, 0 keeps the third
    batch = credited(played(1, 3, 2), BY_ROUND, problems(1, 3), kind="top_k_regret_to_go", num_selected=1)
    np.testing.assert_array_equal(batch.mask, [[0, 0], [1, 0], [0, 1]])
    # discounted by 0: round 0 alone is .8, 0, .9, which the second has least of; by .5: .9, .25, .9
    batch = credited(
        played(1, 3, 2), BY_ROUND[::-1], problems(1, 3), kind="top_k_regret_to_go", num_selected=2, discount=0
    )
    np.testing.assert_array_equal(batch.mask, [[0, 1], [1, 0], [1, 1]])


def test_cost_to_go_with_and_without_discount() -> None:
    np.testing.assert_allclose(cost_to_go(np.array([1.0, 2.0, 4.0])), [7, 6, 4])
    np.testing.assert_allclose(cost_to_go(np.array([1.0, 2.0, 4.0]), 0.5), [3, 4, 4])
    np.testing.assert_allclose(cost_to_go(np.array([1.0, 2.0, 4.0]), 0.0), [1, 2, 4])


def test_top_k_reward_looks_at_rewards_alone() -> None:
    trajectories = played(2, 4, 6)
    got = (trajectories.histories.played * trajectories.table.rewards).sum(axis=(1, 2))
    misleading = np.tile(got[:, None], 6)  # the most rewarded have the most regret
    batch = credited(trajectories, misleading, problems(2, 4), kind="top_k_reward", num_selected=1)
    for problem in range(2):
        rows = slice(4 * problem, 4 * problem + 4)
        assert got[rows][batch.mask[rows, 0]].item() == got[rows].max()


TOP_K = ["top_k_regret", "top_k_regret_to_go", "top_k_reward", "random"]


def test_k_pooled_over_problems_is_by_hand_another_choice_by_regret_than_by_reward() -> None:
    # two problems x 2 rollouts, one round: means .9, .5 (comparator .9) and .3, .2 (comparator .3)
    means = np.array([[[0.9, 0.5]], [[0.9, 0.5]], [[0.3, 0.2]], [[0.3, 0.2]]])
    table, rules = RewardTable(means, means), Rules("bandit", 1, 2)
    histories = Histories(rules, 4)
    histories.append(Decisions(np.array([0, 1, 0, 1])), means[[0, 1, 2, 3], 0, [0, 1, 0, 1]])
    trajectories, group = Trajectories(histories, table), problems(2, 2)
    regret = round_regret(trajectories, "pseudo")  # 0, .4, 0, .1; rewards .9, .5, .3, .2
    masks = {
        (kind, per): credited(trajectories, regret, group, kind=kind, num_selected=k, per=per).mask[:, 0]
        for kind in ("top_k_regret", "top_k_reward")
        for per, k in (("problem", 1), ("setting", 3))
    }
    assert masks["top_k_regret", "problem"].tolist() == [True, False, True, False]
    assert masks["top_k_reward", "problem"].tolist() == [True, False, True, False]
    assert masks["top_k_regret", "setting"].tolist() == [True, False, True, True]
    assert masks["top_k_reward", "setting"].tolist() == [True, True, True, False]


@pytest.mark.parametrize("kind", TOP_K)
def test_k_of_an_iteration_are_kept_of_all_settings_together(kind: str) -> None:
    short, long = played(2, 3, 4), played(3, 2, 6)
    regrets = [round_regret(each, "pseudo") for each in (short, long)]
    groups = [problems(2, 3), problems(3, 2) + 2]
    config = read(CreditConfig, {"kind": kind, "num_selected": 5, "per": "iteration"}, "credit")
    batches = credit_of_iteration([short, long], regrets, groups, config, [RNG(0), RNG(1)], 1.5)
    masks = [batch.mask for batch in batches]
    assert [batch.temperature for batch in batches] == [1.5, 1.5]
    assert [mask.shape for mask in masks] == [(6, 4), (6, 6)]
    assert (sum(mask[:, :4].sum(axis=0) for mask in masks) == 5).all()  # in every round that both play
    if kind == "top_k_regret":
        totals = np.concatenate([regret.sum(axis=1) for regret in regrets])
        kept = np.concatenate([mask.any(axis=1) for mask in masks])
        assert totals[kept].max() <= totals[~kept].min()
    # for every other pool it is the credit of each setting
    for per in ("problem", "setting"):
        config = read(CreditConfig, {"kind": kind, "num_selected": 2, "per": per}, "credit")
        together = credit_of_iteration([short, long], regrets, groups, config, [RNG(0), RNG(1)])
        apart = credit(long, regrets[1], groups[1], config, RNG(1))
        np.testing.assert_array_equal(together[1].mask, apart.mask)
        assert (together[1].mask.sum(axis=0) == (6 if per == "problem" else 2)).all()
    config = read(CreditConfig, {"kind": kind, "num_selected": 13, "per": "iteration"}, "credit")
    with pytest.raises(ConfigError, match="13 of 12"):
        credit_of_iteration([short, long], regrets, groups, config, [RNG(0), RNG(1)])


@pytest.mark.parametrize("kind", TOP_K)
@pytest.mark.parametrize("num_selected", [1, 3, 4])
def test_k_are_kept_of_every_problem_and_round(kind: str, num_selected: int) -> None:
    trajectories = played(3, 4, 5)
    by_round = round_regret(trajectories, "pseudo")
    batch = credited(trajectories, by_round, problems(3, 4), kind=kind, num_selected=num_selected)
    np.testing.assert_array_equal(batch.mask.reshape(3, 4, 5).sum(axis=1), np.full((3, 5), num_selected))


def test_all_keeps_all_and_too_many_are_refused() -> None:
    trajectories = played(2, 3, 4)
    assert credited(trajectories, np.zeros((6, 4)), problems(2, 3), kind="all").mask.all()
    with pytest.raises(ConfigError, match="5 of 3"):
        credited(trajectories, np.zeros((6, 4)), problems(2, 3), kind="top_k_regret", num_selected=5)
    uneven = np.array([0, 0, 0, 0, 1, 1])  # the smallest group is what counts
    with pytest.raises(ConfigError, match="3 of 2"):
        credited(trajectories, np.zeros((6, 4)), uneven, kind="top_k_regret", num_selected=3)
    alone = np.array([0, 0, 0, 0, 0, 1])
    with pytest.raises(ConfigError, match="at least 2 rollouts"):
        credited(trajectories, np.zeros((6, 4)), alone, kind="policy_gradient")


def test_ties_are_broken_at_random() -> None:
    one_group = np.zeros(4, dtype=np.int64)
    chosen = np.mean(
        [lowest_in_group(np.zeros((4, 1)), one_group, 1, RNG(seed))[:, 0] for seed in range(400)], axis=0
    )
    assert np.abs(chosen - 0.25).max() < 0.09  # four standard errors


@given(seed=st.integers(0, 1000), shift=st.floats(-5, 5))
@settings(max_examples=30, deadline=None)
def test_what_all_rollouts_of_a_problem_share_selects_nothing(seed: int, shift: float) -> None:
    by_round = RNG(seed).random((8, 5))
    shifted = by_round + np.repeat(RNG(seed + 1).random((2, 5)) + shift, 4, axis=0)
    for kind in ("top_k_regret", "top_k_regret_to_go"):
        one, other = (
            credited(played(2, 4, 5), each, problems(2, 4), kind=kind, num_selected=2)
            for each in (by_round, shifted)
        )
        np.testing.assert_array_equal(one.mask, other.mask)


def drawn(seed: int, feedback: Feedback = "bandit") -> tuple[Trajectories, IntArray]:
    """Uniform play of three problems, four rollouts each, on a table of eighths, where sums are exact.

    Expected rewards move from round to round.
    """
    generator = RNG(seed)
    rewards, expected = (generator.integers(0, 9, (3, 6, 3)) / 8 for _ in range(2))
    table = RewardTable(rewards, expected).repeat(4)
    streams = Streams.at(seed, [(row,) for row in range(12)])
    return rollout(Uniform(), TableEnvironment(Rules(feedback, 6, 3), table), streams), problems(3, 4)


@given(seed=st.integers(0, 10_000), kind=st.sampled_from(["static", "pseudo", "dynamic"]))
@settings(max_examples=60, deadline=None)
def test_on_a_shared_table_the_lowest_regret_is_the_highest_reward(seed: int, kind: RegretKind) -> None:
    """docs/method.md's identity: the comparator is one number for all rollouts of a problem, and cancels."""
    trajectories, group = drawn(seed)
    rewards = trajectories.table.rewards if kind == "static" else trajectories.table.expected_rewards
    earned = (trajectories.histories.played * rewards).sum(axis=2)
    regret = round_regret(trajectories, kind)
    for name in ("top_k_regret", "top_k_regret_to_go"):
        by_regret, by_reward = (
            credited(trajectories, costs, group, kind=name, num_selected=2) for costs in (regret, -earned)
        )
        np.testing.assert_array_equal(by_regret.mask, by_reward.mask)
    if kind == "static":
        control = credited(trajectories, regret, group, kind="top_k_reward", num_selected=2)
        by_regret = credited(trajectories, regret, group, kind="top_k_regret", num_selected=2)
        np.testing.assert_array_equal(control.mask, by_regret.mask)


@given(
    seed=st.integers(0, 10_000),
    kind=st.sampled_from(["static", "pseudo", "dynamic"]),
    feedback=st.sampled_from(["bandit", "full"]),
    discount=st.floats(0, 1),
    lambda_=st.floats(0, 1),
)
@settings(max_examples=60, deadline=None)
def test_advantages_of_regret_are_those_of_reward(
    seed: int, kind: RegretKind, feedback: Feedback, discount: float, lambda_: float
) -> None:
    trajectories, group = drawn(seed, feedback)
    rewards = trajectories.table.rewards if kind == "static" else trajectories.table.expected_rewards
    earned = (trajectories.histories.played * rewards).sum(axis=2)
    of_regret, of_reward = (
        advantages(trajectories, costs, group, discount, lambda_)
        for costs in (round_regret(trajectories, kind), -earned)
    )
    np.testing.assert_allclose(of_regret, of_reward, atol=1e-9)
    assert np.abs(of_regret).max() > 1e-3, "rollouts differ, or nothing was compared"


@given(
    seed=st.integers(0, 10_000),
    kind=st.sampled_from([*TOP_K[:3], "policy_gradient", "all_actions"]),
)
@settings(max_examples=40, deadline=None)
def test_rollouts_of_a_problem_need_not_stand_together(seed: int, kind: str) -> None:
    trajectories, group = drawn(seed, "full" if kind == "all_actions" else "bandit")
    config: dict[str, object] = {"kind": kind, "num_selected": 2}
    if kind == "all_actions":
        config = {"kind": "policy_gradient", "all_actions": True}
    elif kind == "policy_gradient":
        config = {"kind": kind, "advantage_lambda": 0.8}
    # Every rollout has a regret of its own, so that no tie is left to luck.
    regret = round_regret(trajectories, "pseudo") + RNG(seed).random((12, 1)) * 1e-3
    if kind == "top_k_reward":
        table = trajectories.table
        unlike = table.rewards + RNG(seed).random((12, 1, 1)) * 1e-3
        trajectories = Trajectories(trajectories.histories, RewardTable(unlike, table.expected_rewards))
    order = RNG(seed + 1).permutation(12)
    together = credited(trajectories, regret, group, **config)
    apart = credited(trajectories.rows(order), regret[order], 7 - group[order], **config)
    np.testing.assert_array_equal(apart.mask, together.mask[order])
    np.testing.assert_allclose(apart.advantages, together.advantages[order], atol=1e-9)
    if kind == "all_actions":
        assert apart.action_targets is not None
        assert together.action_targets is not None
        np.testing.assert_allclose(apart.action_targets, together.action_targets[order], atol=1e-9)


def test_with_few_rollouts_advantages_still_tell_good_decisions_from_bad() -> None:
    """12 rollouts of 3 problems are fewer than the state has features: a fit for each round alone would
    explain all of them and leave nothing. Fitted together, what cost more than it had to weighs less."""
    trajectories = played(3, 4, 20)
    by_round = round_regret(trajectories, "pseudo")
    found = advantages(trajectories, by_round, problems(3, 4), discount=0.5)
    assert np.corrcoef(found.ravel(), by_round.ravel())[0, 1] < -0.5


def test_advantages_tell_a_good_decision_from_a_good_state() -> None:
    """Uniform play from round 1 on: only the decision itself matters, whatever the state is worth."""
    trajectories = played(200, 8, 6)
    by_round = round_regret(trajectories, "pseudo")
    immediate = by_round.reshape(200, 8, 6)
    immediate = (immediate - immediate.mean(axis=1, keepdims=True)).reshape(by_round.shape)
    for lambda_, least in ((1.0, 0.3), (0.0, 0.6)):
        found = advantages(trajectories, by_round, problems(200, 8), lambda_=lambda_)
        assert abs(found.mean()) < 0.05
        for t in range(6):
            assert np.corrcoef(found[:, t], -immediate[:, t])[0, 1] > least, (lambda_, t)


def test_one_advantage_by_hand() -> None:
    """Two rollouts under full information: each round's cost against the other rollout's."""
    trajectories = played(1, 2, 2, feedback="full")
    found = advantages(trajectories, np.array([[0.75, 0.0], [0.25, 0.5]]), problems(1, 2))
    np.testing.assert_allclose(found, [[-0.5, 0.5], [0.5, -0.5]])


def test_lower_regret_has_positive_advantages_that_average_to_about_nothing() -> None:
    trajectories = played(60, 8, 6)
    by_round = round_regret(trajectories, "pseudo")
    kind = {"kind": "policy_gradient", "advantage_lambda": 0.9}
    found = credited(trajectories, by_round, problems(60, 8), **kind, advantage_clip=[-5, 5])
    assert found.mask.all()
    assert abs(found.advantages.mean()) < 0.05
    assert np.abs(found.advantages).max() <= 5
    np.testing.assert_allclose(found.advantages.std(axis=0), 1, atol=0.05)
    best = by_round == 0
    assert found.advantages[best].mean() > 0.3
    assert found.advantages[~best].mean() < -0.1
    clipped = credited(trajectories, by_round, problems(60, 8), **kind, advantage_clip=[-0.5, 1])
    np.testing.assert_array_equal(clipped.advantages, np.clip(found.advantages, -0.5, 1))
    doubled = credited(
        trajectories, by_round, problems(60, 8), **kind, advantage_clip=[-10, 10], advantage_scale=2
    )
    np.testing.assert_allclose(doubled.advantages, 2 * found.advantages, atol=1e-9)


def test_decisions_clipped_to_nothing_stay_in_the_loss() -> None:
    """A lower clip of 0 leaves out no decision: N, which the loss is divided by, stays as it is."""
    trajectories = played(60, 8, 6)
    by_round = round_regret(trajectories, "pseudo")
    batch = credited(trajectories, by_round, problems(60, 8), kind="policy_gradient", advantage_clip=[0, 5])
    assert (batch.advantages == 0).mean() > 0.3
    assert batch.mask.all()
    assert batch.num_decisions == 60 * 8 * 6


ALL_ACTIONS = {
    "kind": "policy_gradient",
    "all_actions": True,
    "advantage_scale": 2,
    "advantage_clip": [-1, 5],
}


def test_every_action_has_the_advantage_that_it_would_have_had() -> None:
    """Uniform play of two arms that pay 1 and 0.2: 0.4 above and below the mean, which is the spread."""
    rules, rewards = Rules("full", 1, 2), np.array([[[1.0, 0.2]], [[1.0, 0.2]]])
    environment = TableEnvironment(rules, RewardTable(rewards, rewards))
    trajectories = rollout(Uniform(), environment, Streams.at(1, [(0,), (1,)]))
    batch = credited(trajectories, np.zeros((2, 1)), problems(1, 2), **ALL_ACTIONS)
    # -2 is clipped to -1
    np.testing.assert_allclose(batch.action_targets, 0.5 * np.broadcast_to([2.0, -1.0], (2, 1, 2)))
    np.testing.assert_allclose(batch.advantages, np.where(trajectories.histories.arms == 0, 2.0, -1.0))
    # realised rewards where regret is static, expected ones where it is not
    turned = Trajectories(trajectories.histories, RewardTable(rewards, rewards[..., ::-1]))
    for kind, first in (("static", 0.4), ("pseudo", -0.4), ("dynamic", -0.4)):
        np.testing.assert_allclose(advantages_of_all_actions(turned, kind)[..., 0], first)


def test_action_targets_are_what_decisions_weigh_on_average() -> None:
    trajectories = played(1, 4_000, 3, feedback="full")
    config = ALL_ACTIONS | {"advantage_clip": [-5, 5]}
    batch = credited(trajectories, np.zeros((4_000, 3)), problems(1, 4_000), **config)
    assert batch.action_targets is not None
    arms = trajectories.histories.arms
    for arm in range(3):
        np.testing.assert_allclose(
            (batch.advantages * (arms == arm)).mean(axis=0), batch.action_targets[0, :, arm], atol=0.06
        )
    np.testing.assert_allclose(batch.action_targets.sum(axis=2), 0, atol=1e-9)


def test_all_actions_are_known_under_full_information_alone() -> None:
    regret = RNG(0).random((6, 4))
    assert credited(played(2, 3, 4), regret, problems(2, 3), **ALL_ACTIONS).action_targets is None
    plain = ALL_ACTIONS | {"all_actions": False}
    full = played(2, 3, 4, feedback="full")
    assert credited(full, regret, problems(2, 3), **plain).action_targets is None


def test_state_features_know_nothing_of_the_decision_to_come() -> None:
    trajectories = played(4, 2, 5)
    before = state_features(trajectories)
    histories = trajectories.histories.prefix(4)
    histories.append(Decisions((trajectories.histories.arms[:, 4] + 1) % 3), np.ones(8))
    after = state_features(Trajectories(histories, trajectories.table))
    np.testing.assert_array_equal(before, after)


def test_what_a_log_s_arms_pay_on_average_stands_for_means_that_are_not_known() -> None:
    trajectories = played(4, 2, 5)
    bought = np.eye(3)[RNG(0).integers(3, size=(8, 5))]
    means = np.broadcast_to(bought.mean(axis=1, keepdims=True), bought.shape)
    of_log, of_means = (
        state_features(Trajectories(trajectories.histories, RewardTable(bought, expected)))
        for expected in (bought, means)
    )
    assert of_log.shape == (8, 5, 9), "nothing moves"
    np.testing.assert_array_equal(of_log, of_means)


def test_a_batch_counts_its_mask_and_its_rows_go_along() -> None:
    trajectories = played(2, 3, 4)
    mask = np.zeros((6, 4), dtype=bool)
    mask[2, 1] = mask[3, 3] = mask[3, 0] = True
    group = np.array([0, 1, 0, 1, 0, 1])
    advantages_ = RNG(0).random((6, 4))
    batch = TrainingBatch(trajectories, group, mask, advantages_, temperature=1.5)
    np.testing.assert_array_equal(batch.kept, [2, 3])
    assert batch.num_decisions == 3
    part = batch.rows(np.array([3, 0]))
    assert (part.group.tolist(), part.num_decisions, part.temperature) == ([1, 0], 2, 1.5)
    np.testing.assert_array_equal(part.advantages, advantages_[[3, 0]])
    np.testing.assert_array_equal(part.trajectories.histories.arms, trajectories.histories.arms[[3, 0]])
    with pytest.raises(ShapeError, match=r"mask has shape \(6, 3\); expected \(6, 4\)"):
        TrainingBatch(trajectories, group, mask[:, :3], advantages_)


def test_rewards_that_differ_by_rounding_teach_nothing() -> None:
    """Rewards near 300,000 that differ by 6e-11, whose spread alone would make advantages of full size."""
    rewards = np.broadcast_to(3e5 + 6e-11 * np.arange(3), (6, 4, 3)).copy()
    for bounds in ((3e5, 3e5 + 1.2e-10), (-np.inf, np.inf)):
        trajectories = rollout(
            Uniform(),
            TableEnvironment(Rules("bandit", 4, 3, bounds), RewardTable(rewards, rewards)),
            Streams.at(1, [(row,) for row in range(6)]),
        )
        regret = round_regret(trajectories, "pseudo")
        assert np.ptp(regret) > 0
        batch = credited(trajectories, regret, problems(1, 6), kind="policy_gradient")
        assert np.abs(batch.advantages).max() < 1e-5


def test_a_best_arm_among_equals_counts_wherever_it_stands() -> None:
    """Renaming tied arms renames nothing in the features, which know of them only that they are best."""
    rules = Rules("bandit", 3, 3)
    for arms in ([0, 1], [1, 0]):
        means = np.array([0.6, 0.6, 0.2])
        histories = Histories(rules, 1)
        for arm in (arms[0], arms[0], 2):
            histories.append(Decisions(np.array([arm])), np.array([means[arm]]))
        found = state_features(Trajectories(histories, RewardTable(*[np.tile(means, (1, 3, 1))] * 2)))
        counted = found[0, 2, 6]  # the square root of how often a best arm was played before round 3
        assert counted == pytest.approx(np.sqrt(2))
