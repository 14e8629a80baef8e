"""LinUCB, linear Thompson sampling and epsilon-greedy by their formulas, and beside mabwiser's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rmft.policies.baselines import make_baseline
from rmft.policies.baselines.contextual import LinearThompson, LinUCB
from rmft.policies.baselines.tuning import tune
from rmft.policies.regression import RIDGES, Regression, inputs, readings, regression_of
from rmft.problems.environment import TableEnvironment
from rmft.problems.kinds import resolve_process
from rmft.problems.suites import load_suite
from rmft.regret import regret
from rmft.rollout import rollout
from rmft.streams import Streams, generator
from rmft.types import Decisions, Feedback, FloatArray, Histories, Observation, RewardTable, Rules, Shown

K, D, T = 4, 3, 60
NAMES = ("a", "b", "c")
OF_ROUND = Rules("bandit", T, K, (-np.inf, np.inf), Shown(numbers=NAMES))
OF_ARMS = Rules("bandit", T, K, (-np.inf, np.inf), Shown(features=NAMES))
BOTH = Rules("bandit", T, K, (0.0, 2.0), Shown(numbers=("a",), features=("b", "c")))
ARMS = list(range(K))


def history(rules: Rules, size: int = 3, rounds: int = 25) -> Histories:
    """Arms at random on numbers at random, and what is shown before the round after."""
    paid = (size, K) if rules.feedback == "full" else (size,)
    draw, histories = generator(3, len(rules.shown.numbers)), Histories(rules, size)
    for index in range(rounds + 1):
        numbers = draw.standard_normal((size, len(rules.shown.numbers))) if rules.shown.numbers else None
        features = (
            draw.standard_normal((size, K, len(rules.shown.features))) if rules.shown.features else None
        )
        histories.observe(Observation(numbers, features))
        if index < rounds:
            histories.append(Decisions(draw.integers(K, size=size)), draw.random(paid))
    return histories


@pytest.mark.parametrize("rules", [OF_ROUND, OF_ARMS, BOTH])
def test_the_regressions_are_those_of_all_rounds_at_once(rules: Rules) -> None:
    histories, ridge = history(rules), 0.7
    state = regression_of(histories, ridge)
    shown = [histories.shown(index) for index in range(26)]
    z = np.stack([inputs(each, rules) for each in shown if each is not None], axis=1)  # (B, T, K, n)
    rewards = rules.normalize(histories.rewards)
    for row in range(3):
        for arm in ARMS:
            used = histories.arms[row] == arm if rules.shown.numbers else np.ones(25, dtype=bool)
            x = z[row, :25][np.arange(25), histories.arms[row]][used]
            inverse = np.linalg.inv(ridge * np.eye(x.shape[1]) + x.T @ x)
            theta, now = inverse @ x.T @ rewards[row][used], z[row, 25, arm]
            assert state.means(z[:, 25])[row, arm, 0] == pytest.approx(now @ theta)
            assert state.widths(z[:, 25])[row, arm, 0] == pytest.approx(np.sqrt(now @ inverse @ now))


@pytest.mark.parametrize("feedback", ["bandit", "full"])
@pytest.mark.parametrize("rules", [OF_ROUND, OF_ARMS, BOTH])
def test_readings_are_what_was_known_before_each_decision(rules: Rules, feedback: Feedback) -> None:
    if feedback == "full":
        rules = replace(rules, feedback=feedback)
    whole = history(rules, rounds=8)
    all_at_once, grown = readings(whole), history(rules, rounds=8).prefix(0)
    assert all_at_once.shape == (3, 9, K, rules.shown.num_inputs + 2 * len(RIDGES))
    for index in range(8):
        np.testing.assert_array_equal(readings(grown), all_at_once[:, : index + 1])
        grown.append(Decisions(whole.arms[:, index]), whole.rewards[:, index])
        grown.observe(whole.shown(index + 1))
    np.testing.assert_array_equal(readings(grown), all_at_once)
    state, shown = regression_of(whole, RIDGES[2]), whole.shown(8)
    assert shown is not None
    means = state.means(inputs(shown, rules))[..., 0]
    np.testing.assert_allclose(all_at_once[:, 8, :, rules.shown.num_inputs + 2], means, rtol=1e-5)


@pytest.mark.parametrize("rules", [OF_ROUND, OF_ARMS])
def test_thompson_draws_from_the_posterior(rules: Rules) -> None:
    one, count = history(rules, 1), 4_000
    many = one.rows(np.zeros(count, dtype=np.int64))
    state, shown = regression_of(many, 1.0), many.shown(25)
    assert shown is not None
    z = inputs(shown, rules)
    drawn = LinearThompson(scale=0.4).index(state, z, Streams.at(0, [(row,) for row in range(count)]))
    np.testing.assert_allclose(drawn.mean(axis=0), state.means(z)[0, :, 0], atol=0.03)
    full = np.zeros((K, K))
    for arm in ARMS:
        for other in ARMS if not rules.shown.numbers else [arm]:
            inverse = state.inverse[0, arm if rules.shown.numbers else 0, 0]
            full[arm, other] = 0.16 * z[0, arm] @ inverse @ z[0, other]
    np.testing.assert_allclose(np.cov(drawn.T), full, atol=0.02)


def test_tuning_is_on_validation_and_takes_the_lowest() -> None:
    (batch,) = load_suite("contextual/linear").draw("validation", 20)
    chosen = tune("linucb", [(batch.setting.game, batch.table, "dynamic")], seed=0)
    assert chosen.startswith("linucb(coefficient=")

    def mean_regret(spec: str) -> float:
        streams = Streams.at(0, [(row,) for row in range(20)])
        return float(
            regret(rollout(make_baseline(spec), batch.setting.play(batch.table), streams), "dynamic").mean()
        )

    assert mean_regret(chosen) < mean_regret("linear-epsilon-greedy") < 0.5 * mean_regret("uniform")


def peer(name: str) -> Any:
    mab = pytest.importorskip("mabwiser.mab")
    learning = {
        "linucb(coefficient=0.5, ridge=2.0)": mab.LearningPolicy.LinUCB(alpha=0.5, l2_lambda=2.0),
        "linear-thompson(scale=0.3)": mab.LearningPolicy.LinTS(alpha=0.3, l2_lambda=1.0),
        "linear-epsilon-greedy(epsilon=0)": mab.LearningPolicy.LinGreedy(epsilon=0, l2_lambda=1.0),
        "linear-epsilon-greedy(epsilon=0.1)": mab.LearningPolicy.LinGreedy(epsilon=0.1, l2_lambda=1.0),
    }
    return mab.MAB(ARMS, learning[name])


def test_linucb_and_the_regression_are_those_of_mabwiser() -> None:
    histories = history(OF_ROUND, 2)
    assert histories.observations is not None
    for row in range(2):
        past, now = histories.observations[row, :25], histories.observations[row, 25:]
        arms, rewards = histories.arms[row].tolist(), histories.rewards[row].tolist()
        theirs = peer("linucb(coefficient=0.5, ridge=2.0)")
        theirs.fit(arms, rewards, past)
        state, z = regression_of(histories, 2.0), np.repeat(now[None], K, axis=1)
        of_row = LinUCB(coefficient=0.5, ridge=2.0).index(
            Regression(state.inverse[row : row + 1], state.theta[row : row + 1]), z, Streams.at(0, [(0,)])
        )
        expected = theirs.predict_expectations(now)
        np.testing.assert_allclose(of_row[0], [expected[arm] for arm in ARMS], rtol=1e-9)


class Begun:
    """Plays every arm once, as mabwiser does here too, and then as the baseline does.

    An arm without data has A^-1 = ridge I in mabwiser, where it should be I / ridge.
    """

    name, max_concurrency = "begun", 1

    def __init__(self, spec: str) -> None:
        self.policy = make_baseline(spec)

    def rows_at_once(self, rules: Rules) -> int:
        return self.policy.rows_at_once(rules)

    def decide(self, histories: Histories, streams: Streams) -> Decisions:
        if histories.num_rounds < K:
            return Decisions(np.full(len(histories), histories.num_rounds))
        return self.policy.decide(histories, streams)


class SameLuck:
    """In place of mabwiser's generator: it hands out what our baseline draws in the same round."""

    def __init__(self, row: int, thompson: bool) -> None:
        self.streams, self.thompson = Streams.at(1, [(row,)]), thompson

    def __deepcopy__(self, memo: object) -> SameLuck:
        return self  # mabwiser copies an arm's generator whenever the arm learns

    def begin(self, x: FloatArray) -> None:
        drawn = self.streams.normal(K) if self.thompson else self.streams.uniform(1 + K)
        self.x, self.drawn = x, drawn[0].tolist()
        self.streams.uniform()  # ours breaks ties

    def rand(self, shape: int | tuple[int, int]) -> FloatArray:
        if isinstance(shape, int):  # whether to explore
            return np.ones(1) if self.thompson else np.array(self.drawn[:1])
        return np.array(self.drawn[-K:])[None][: shape[0]]

    def multivariate_normal(self, mean: FloatArray, covariance: FloatArray, size: int) -> FloatArray:
        """x . theta, all that is asked of a draw, is normal: its mean, and its width times our number."""
        assert size == 1
        along = covariance @ self.x
        return (mean + self.drawn.pop(0) * along / np.sqrt(self.x @ along))[None]


def regrets(name: str, count: int) -> tuple[FloatArray, FloatArray]:
    """Ours and mabwiser's by problem, on the same tables and with the same luck."""
    process = resolve_process({"kind": "linear", "num_numbers": D})
    table = RewardTable.stack([process.draw(generator(5, row), T, K) for row in range(count)])
    assert table.observations is not None
    assert table.observations.numbers is not None
    streams = Streams.at(1, [(row,) for row in range(count)])
    ours = rollout(Begun(name), TableEnvironment(OF_ROUND, table), streams)
    theirs = np.zeros(count)
    for row, numbers in enumerate(table.observations.numbers):
        policy, paid = peer(name), table.rewards[row]
        policy._imp.rng = luck = SameLuck(row, "thompson" in name)
        for arm in ARMS:
            policy._imp.arm_to_model[arm].rng = luck
        policy.fit(ARMS, [paid[arm, arm] for arm in ARMS], numbers[:K])
        played = list(ARMS)
        for index in range(K, T):
            luck.begin(numbers[index])
            played.append(int(policy.predict(numbers[index : index + 1])))
            policy.partial_fit([played[-1]], [paid[index, played[-1]]], numbers[index : index + 1])
        expected = table.expected_rewards[row]
        theirs[row] = (expected.max(axis=1) - expected[np.arange(T), played]).sum()
    return regret(ours, "dynamic"), theirs


@pytest.mark.parametrize(
    "name",
    [
        "linucb(coefficient=0.5, ridge=2.0)",
        "linear-epsilon-greedy(epsilon=0)",
        "linear-epsilon-greedy(epsilon=0.1)",
        "linear-thompson(scale=0.3)",
    ],
)
def test_with_the_same_luck_every_decision_is_mabwisers(name: str) -> None:
    ours, theirs = regrets(name, 8)
    np.testing.assert_allclose(ours, theirs, rtol=1e-9)
