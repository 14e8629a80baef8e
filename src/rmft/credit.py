"""Credit: which decisions a policy learns from, and how much each counts.

    top_k_regret        of every group the k rollouts of lowest regret, whole: the method as published;
                        with `per`, of every setting or of the iteration
    top_k_regret_to_go  in every round the k rollouts whose regret from there on is lowest
    policy_gradient     every decision, by its advantage, which can have either sign
    grpo                every decision, by its trajectory's reward, normalized within the group
    preference_pairs    of every group the best trajectory against the worst
    top_k_reward, random, all       controls

A top-k credit returns a mask, with advantages of 1; together with cross-entropy it is rejection-sampling
fine-tuning. `policy_gradient` is REINFORCE with a group baseline, a state baseline and GAE; it is *not*
`grpo`: advantages are per decision, not per trajectory, and whitened over the batch, not within a group; and
with the objective `policy_gradient` there are no ratios, and the KL term is to the rollout policy, not to a
fixed reference. Keeping few whole trajectories rewards luck: the
lowest regret of many rollouts goes to one that committed early to an arm that happened to be good.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from rmft.advantages import advantages, advantages_of_all_actions, cost_to_go
from rmft.reading import Config, by_kind
from rmft.regret import ROUNDING, RegretKind
from rmft.selection import lowest_in_group
from rmft.types import BoolArray, FloatArray, IntArray, TrainingBatch, Trajectories

SMALL = 1e-6  # of the range of rewards: the least spread of advantages that is taken for one


class TopK(Config):
    """What the kinds that keep k rollouts have in common."""

    num_selected: Annotated[int, Field(ge=1)] = 4
    """k: rollouts kept of every pool, which is a group unless `per` says otherwise."""
    per: Literal["problem", "setting", "iteration"] = "problem"
    """What k are kept of: the rollouts of a problem (a group), of all problems of a setting, or of the whole
    iteration. Pooled over problems lowest regret is not highest reward, and easy problems give more."""

    def pool(self, num_problems: int, num_rollouts: int, num_settings: int = 1) -> int:
        """How many rollouts the smallest pool of an iteration has."""
        of_setting = max(num_problems // num_settings, 1)
        return num_rollouts * {"problem": 1, "setting": of_setting, "iteration": num_problems}[self.per]

    def kept(self, num_problems: int, num_settings: int = 1) -> int:
        """How many rollouts are kept in an iteration, where whole ones are."""
        settings = min(num_settings, num_problems)
        return self.num_selected * {"problem": num_problems, "setting": settings, "iteration": 1}[self.per]


class TopKRegret(TopK):
    """Whole trajectories, the k of lowest regret of every group."""

    kind: Literal["top_k_regret"] = "top_k_regret"


class TopKRegretToGo(TopK):
    """In every round, the decisions of the k rollouts of every group whose regret-to-go is lowest."""

    kind: Literal["top_k_regret_to_go"] = "top_k_regret_to_go"
    discount: Annotated[float, Field(ge=0, le=1)] = 1.0
    """gamma: how much each later round counts in the regret-to-go."""


class OnReward(Config):
    """What the kinds that look at a trajectory's reward have in common."""

    reward: Literal["realised", "expected"] = "realised"
    """`realised`: what was paid, which an agent sees itself; `expected`: its mean, without the noise. On one
    table, and so within a group, the latter is a constant minus pseudo- and dynamic regret, and the former
    minus static regret."""


class TopKReward(TopK, OnReward):
    """A control: the k rollouts of highest reward."""

    kind: Literal["top_k_reward"] = "top_k_reward"


class RandomK(TopK):
    """A control: k rollouts of every group at random."""

    kind: Literal["random"] = "random"


class All(Config):
    """A control: every rollout."""

    kind: Literal["all"] = "all"


class PolicyGradientCredit(Config):
    """Advantages of every decision; see `rmft.advantages`. Goes with `training.objective` policy_gradient."""

    kind: Literal["policy_gradient"] = "policy_gradient"
    discount: Annotated[float, Field(ge=0, le=1)] = 1.0
    """gamma: how much each later round counts. It plays no part under full information, where decisions
    change nothing later."""
    advantage_lambda: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Lambda of generalized advantage estimation: 1 is Monte Carlo, 0 one-step."""
    advantage_scale: Annotated[float, Field(gt=0, le=10)] = 1.0
    """Multiplies the whitened advantages (those in standard deviations) before they are clipped."""
    advantage_clip: tuple[Annotated[float, Field(le=0, ge=-100)], Annotated[float, Field(gt=0, le=100)]] = (
        -1.0,
        5.0,
    )
    """Lowest and highest advantage. A lower end nearer 0 punishes bad outcomes less, and so keeps
    exploration."""
    all_actions: bool = False
    """Under full information: the exact advantage of every arm, played or not, since what it would have paid
    is known."""


class GRPO(OnReward):
    """Of every decision (R - mean) / std of its trajectory's reward R within the group (Shao et al. 2024,
    section 4.1.2). Goes with `training.objective` ppo_clip or policy_gradient."""

    kind: Literal["grpo"] = "grpo"


class PreferencePairs(OnReward):
    """Of every group the trajectory of highest reward, chosen, and that of lowest, rejected: advantages 1 and
    -1. Groups whose rewards are all the same have none. Goes with `training.objective` dpo."""

    kind: Literal["preference_pairs"] = "preference_pairs"


KINDS = (
    TopKRegret,
    TopKRegretToGo,
    TopKReward,
    RandomK,
    All,
    PolicyGradientCredit,
    GRPO,
    PreferencePairs,
)

CreditConfig = Annotated[
    TopKRegret | TopKRegretToGo | TopKReward | RandomK | All | PolicyGradientCredit | GRPO | PreferencePairs,
    by_kind("credit", "top_k_regret", *KINDS),
]
"""Steps 3 and 4 of the method; `kind` is `top_k_regret` unless given."""


def credit(
    trajectories: Trajectories,
    regret: FloatArray,
    group: IntArray,
    config: CreditConfig,
    generator: np.random.Generator,
    temperature: float = 1.0,
    kind: RegretKind = "static",
) -> TrainingBatch:
    """The batch that a policy is trained on. Of rollouts that failed nothing is learned.

    regret: (B, T), what each round added to a trajectory's regret. kind: of that regret; arms that were not
    played count by the rewards that it is of. group: (B,), equal for the rollouts of one
    problem. generator: for ties, and for `random`. temperature: that of the rollouts. All are of one setting;
    for several see `credit_of_iteration`. Raises ConfigError when a pool has fewer rollouts than are to be
    selected, or a group a single one where a baseline is needed.
    """
    ones = np.ones(regret.shape)
    mask = _finished(trajectories) & (ones > 0)
    match config:
        case PolicyGradientCredit(all_actions=True) if trajectories.rules.feedback == "full":
            return _all_actions(trajectories, group, config, mask, temperature, kind)
        case PolicyGradientCredit():
            raw = advantages(trajectories, regret, group, config.discount, config.advantage_lambda)
            scaled = _scaled(raw, raw.std(axis=0), config, trajectories)
            return TrainingBatch(trajectories, group, mask, scaled, None, temperature)
        case All():
            return TrainingBatch(trajectories, group, mask, ones, None, temperature)
        case GRPO():
            normalized = _normalized(total_reward(trajectories, config.reward), group, mask[:, 0])
            return TrainingBatch(trajectories, group, mask, ones * normalized[:, None], None, temperature)
        case PreferencePairs():
            sign = _best_and_worst(total_reward(trajectories, config.reward), group, mask[:, 0], generator)
            signs = ones * sign[:, None]
            return TrainingBatch(trajectories, group, mask & (signs != 0), signs, None, temperature)
    scores = _scores(trajectories, regret, config, generator)
    pool = group if config.per == "problem" else np.zeros_like(group)
    chosen = lowest_in_group(scores, pool, config.num_selected, generator)
    return TrainingBatch(trajectories, group, mask & chosen, ones, None, temperature)


def credit_of_iteration(
    played: Sequence[Trajectories],
    regrets: Sequence[FloatArray],
    groups: Sequence[IntArray],
    config: CreditConfig,
    generators: Sequence[np.random.Generator],
    temperature: float = 1.0,
    kinds: Sequence[RegretKind] | None = None,
) -> list[TrainingBatch]:
    """`credit` of every setting's rollouts; with `per: iteration`, k are kept of all of them together.

    Round by round, where horizons differ, k are kept of those that play the round. Arguments and errors are
    as for `credit`, one of each for every setting; kinds: None where all are of static regret.
    """
    each = list(zip(played, regrets, groups, generators, strict=True))
    of_kind: Sequence[RegretKind] = kinds or ["static" for _ in each]
    if not (isinstance(config, TopK) and config.per == "iteration"):
        return [
            credit(trajectories, regret, group, config, generator, temperature, kind)
            for (trajectories, regret, group, generator), kind in zip(each, of_kind, strict=True)
        ]
    scores = [_scores(trajectories, regret, config, generator) for trajectories, regret, _, generator in each]
    widest = max(score.shape[1] for score in scores)
    pooled = np.concatenate(
        [np.pad(score, ((0, 0), (0, widest - score.shape[1])), constant_values=np.inf) for score in scores]
    )
    chosen = lowest_in_group(
        pooled, np.zeros(len(pooled), dtype=np.int64), config.num_selected, generators[0]
    )
    batches, start = [], 0
    for (trajectories, regret, group, _), score in zip(each, scores, strict=True):
        own = chosen[start : start + len(score), : score.shape[1]]
        mask = np.broadcast_to(own, regret.shape).copy()
        batches.append(TrainingBatch(trajectories, group, mask, np.ones(regret.shape), None, temperature))
        start += len(score)
    return batches


def _finished(trajectories: Trajectories) -> BoolArray:
    """(B, 1) whether a rollout did not fail."""
    failed = list(trajectories.histories.failed)
    return np.asarray(~np.isin(np.arange(len(trajectories)), failed)[:, None])


def _scores(
    trajectories: Trajectories, regret: FloatArray, config: TopK, generator: np.random.Generator
) -> FloatArray:
    """(B, 1) of whole rollouts, or (B, T) by round: the lowest are kept. Infinite where one failed."""
    match config:
        case TopKRegretToGo():
            scores = cost_to_go(regret, config.discount)
        case TopKReward():
            scores = -total_reward(trajectories, config.reward)[:, None]
        case RandomK():
            scores = generator.random((len(regret), 1))
        case _:
            scores = regret.sum(axis=1, keepdims=True)
    return np.where(_finished(trajectories), scores, np.inf)


def total_reward(trajectories: Trajectories, reward: Literal["realised", "expected"]) -> FloatArray:
    """(B,) what each rollout was paid, or was to expect."""
    table = trajectories.table
    rewards = table.rewards if reward == "realised" else table.expected_rewards
    return np.asarray((trajectories.histories.played * rewards).sum(axis=(1, 2)))


def _normalized(rewards: FloatArray, group: IntArray, finished: BoolArray) -> FloatArray:
    """(B,) (R - mean) / std within each group, over rollouts that finished; 0 where all are the same."""
    found = np.zeros_like(rewards)
    for rows, own in _uneven(rewards, group, finished):
        found[rows] = (own - own.mean()) / own.std()
    return found


def _best_and_worst(
    rewards: FloatArray, group: IntArray, finished: BoolArray, generator: np.random.Generator
) -> FloatArray:
    """(B,) 1 for the highest of each group, -1 for the lowest, of equals one at random; 0 for others."""
    found = np.zeros_like(rewards)
    for rows, own in _uneven(rewards, group, finished):
        order = generator.permutation(len(rows))
        found[rows[order[own[order].argmax()]]] = 1.0
        found[rows[order[own[order].argmin()]]] = -1.0
    return found


def _uneven(
    rewards: FloatArray, group: IntArray, finished: BoolArray
) -> Iterator[tuple[IntArray, FloatArray]]:
    """Of every group whose finished rollouts' rewards are not all the same: their rows, and the rewards."""
    rows = np.flatnonzero(finished)
    rows = rows[np.argsort(group[rows], kind="stable")]
    _, starts = np.unique(group[rows], return_index=True)
    for own in np.split(rows, starts[1:]):
        if len(own) and np.ptp(rewards[own]) > ROUNDING * np.abs(rewards[own]).max():
            yield own, rewards[own]


def _all_actions(
    trajectories: Trajectories,
    group: IntArray,
    config: PolicyGradientCredit,
    mask: BoolArray,
    temperature: float,
    kind: RegretKind,
) -> TrainingBatch:
    """Targets pi(a) A(a) of every arm, in place of the decision's advantage: its mean over the draw."""
    probabilities = trajectories.histories.probabilities
    raw = advantages_of_all_actions(trajectories, kind)
    assert probabilities is not None
    spread = np.sqrt((probabilities * raw**2).sum(axis=2).mean(axis=0))
    scaled = _scaled(raw, spread[:, None], config, trajectories)
    played = np.take_along_axis(scaled, trajectories.histories.arms[..., None].clip(min=0), axis=2)[..., 0]
    return TrainingBatch(trajectories, group, mask, played, probabilities * scaled, temperature)


def _scaled(
    raw: FloatArray, spread: FloatArray, config: PolicyGradientCredit, trajectories: Trajectories
) -> FloatArray:
    """clip(scale x A / std(A), low, high); the spread is over the batch, per round.

    It is at least a millionth of the range of rewards, and what rounding makes of rewards of their size:
    where all rollouts earn the same there is nothing to learn.
    """
    rewards, (low, high) = trajectories.table.rewards, trajectories.rules.reward_range
    width = high - low if np.isfinite(high - low) else np.ptp(rewards)
    floor = max(SMALL * width, ROUNDING * np.abs(rewards).max())
    low, high = config.advantage_clip
    scaled = config.advantage_scale * raw / np.maximum(spread + 1e-12, floor)
    return np.asarray(np.clip(scaled, low, high))
