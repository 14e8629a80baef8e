"""LinUCB, linear Thompson sampling and epsilon-greedy by their formulas, and beside mabwiser's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rmft.policies.baselines import make_baseline
from rmft.policies.baselines.contextual import LinearThompson, LinUCB, inputs, means, regression, widths
from rmft.policies.baselines.tuning import tune
from rmft.problems.environment import TableEnvironment
from rmft.problems.kinds import resolve_process
from rmft.problems.suites import load_suite
from rmft.regret import regret
from rmft.rollout import rollout
from rmft.streams import Streams, generator
from rmft.types import Decisions, FloatArray, Histories, Observation, RewardTable, Rules, Shown

K, D, T = 4, 3, 60
NAMES = ("a", "b", "c")
OF_ROUND = Rules("bandit", T, K, (-np.inf, np.inf), Shown(numbers=NAMES))
OF_ARMS = Rules("bandit", T, K, (-np.inf, np.inf), Shown(features=NAMES))
BOTH = Rules("bandit", T, K, (0.0, 2.0), Shown(numbers=("a",), features=("b", "c")))
ARMS = list(range(K))


def history(rules: Rules, size: int = 3, rounds: int = 25) -> Histories:
    """Arms at random on numbers at random, and what is shown before the round after."""
    draw, histories = generator(3, len(rules.shown.numbers)), Histories(rules, size)
    for index in range(rounds + 1):
        numbers = draw.standard_normal((size, len(rules.shown.numbers))) if rules.shown.numbers else None
        features = (
            draw.standard_normal((size, K, len(rules.shown.features))) if rules.shown.features else None
        )
        histories.observe(Observation(numbers, features))
        if index < rounds:
            histories.append(Decisions(draw.integers(K, size=size)), draw.random(size))
    return histories


@pytest.mark.parametrize("rules", [OF_ROUND, OF_ARMS, BOTH])
def test_the_regressions_are_those_of_all_rounds_at_once(rules: Rules) -> None:
    histories, ridge = history(rules), 0.7
    state = regression(histories, ridge)
    shown = [histories.shown(index) for index in range(26)]
    z = np.stack([inputs(each, rules) for each in shown if each is not None], axis=1)  # (B, T, K, n)
    rewards = rules.normalize(histories.rewards)
    for row in range(3):
        for arm in ARMS:
            used = histories.arms[row] == arm if rules.shown.numbers else np.ones(25, dtype=bool)
            x = z[row, :25][np.arange(25), histories.arms[row]][used]
            inverse = np.linalg.inv(ridge * np.eye(x.shape[1]) + x.T @ x)
            theta, now = inverse @ x.T @ rewards[row][used], z[row, 25, arm]
            assert means(state, z[:, 25])[row, arm] == pytest.approx(now @ theta)
            assert widths(state, z[:, 25])[row, arm] == pytest.approx(np.sqrt(now @ inverse @ now))


@pytest.mark.parametrize("rules", [OF_ROUND, OF_ARMS])
def test_thompson_draws_from_the_posterior(rules: Rules) -> None:
    one, count = history(rules, 1), 4_000
    many = one.rows(np.zeros(count, dtype=np.int64))
    state, shown = regression(many, 1.0), many.shown(25)
    assert shown is not None
    z = inputs(shown, rules)
    drawn = LinearThompson(scale=0.4).index(state, z, Streams.at(0, [(row,) for row in range(count)]))
    np.testing.assert_allclose(drawn.mean(axis=0), means(state, z)[0], atol=0.03)
    full = np.zeros((K, K))
    for arm in ARMS:
        for other in ARMS if not rules.shown.numbers else [arm]:
            inverse = state.inverse[0, arm if rules.shown.numbers else 0]
            full[arm, other] = 0.16 * z[0, arm] @ inverse @ z[0, other]
    np.testing.assert_allclose(np.cov(drawn.T), full, atol=0.02)


def test_tuning_is_on_validation_and_takes_the_lowest() -> None:
    (batch,) = load_suite("contextual/linear").draw("validation", 20)
    chosen = tune("linucb", [(batch.setting.rules, batch.table, "dynamic")], seed=0)
    assert chosen.startswith("linucb(coefficient=")

    def mean_regret(spec: str) -> float:
        streams = Streams.at(0, [(row,) for row in range(20)])
        return float(
            regret(rollout(make_baseline(spec), batch.setting.play(batch.table), streams), "dynamic").mean()
        )

    assert mean_regret(chosen) < mean_regret("linear-epsilon-greedy") < 0.5 * mean_regret("uniform")


def problems(count: int) -> RewardTable:
    process = resolve_process({"kind": "linear", "num_numbers": D})
    return RewardTable.stack([process.draw(generator(5, row), T, K) for row in range(count)])


def numbers_of(table: RewardTable) -> FloatArray:
    assert table.observations is not None
    assert table.observations.numbers is not None
    return table.observations.numbers


def peer(name: str, seed: int = 0) -> Any:
    mab = pytest.importorskip("mabwiser.mab")
    learning = {
        "linucb(coefficient=0.5, ridge=2.0)": mab.LearningPolicy.LinUCB(alpha=0.5, l2_lambda=2.0),
        "linear-thompson(scale=0.3)": mab.LearningPolicy.LinTS(alpha=0.3, l2_lambda=1.0),
        "linear-epsilon-greedy(epsilon=0.1)": mab.LearningPolicy.LinGreedy(epsilon=0.1, l2_lambda=1.0),
    }
    return mab.MAB(ARMS, learning[name], seed=seed)


def test_linucb_and_the_regression_are_those_of_mabwiser() -> None:
    histories = history(OF_ROUND, 2)
    assert histories.observations is not None
    for row in range(2):
        past, now = histories.observations[row, :25], histories.observations[row, 25:]
        arms, rewards = histories.arms[row].tolist(), histories.rewards[row].tolist()
        theirs = peer("linucb(coefficient=0.5, ridge=2.0)")
        theirs.fit(arms, rewards, past)
        state, z = regression(histories, 2.0), np.repeat(now[None], K, axis=1)
        of_row = LinUCB(coefficient=0.5, ridge=2.0).index(
            type(state)(state.inverse[row : row + 1], state.theta[row : row + 1]), z, Streams.at(0, [(0,)])
        )
        expected = theirs.predict_expectations(now)
        np.testing.assert_allclose(of_row[0], [expected[arm] for arm in ARMS], rtol=1e-9)


def regrets(name: str, table: RewardTable) -> tuple[FloatArray, FloatArray]:
    """Ours and mabwiser's, on the same tables. Round 1 is played alike, since it must be fitted first."""
    count, numbers = len(table.rewards), numbers_of(table)
    streams = Streams.at(1, [(row,) for row in range(count)])
    ours = rollout(make_baseline(name), TableEnvironment(OF_ROUND, table), streams)
    theirs = np.zeros(count)
    for row in range(count):
        policy = peer(name, seed=row)
        for index in range(T):
            arm = (
                int(ours.histories.arms[row, 0])
                if index == 0
                else int(policy.predict(numbers[row, index : index + 1]))
            )
            (policy.partial_fit if index else policy.fit)(
                [arm], [table.rewards[row, index, arm]], numbers[row, index : index + 1]
            )
            theirs[row] += table.expected_rewards[row, index].max() - table.expected_rewards[row, index, arm]
    return regret(ours, "dynamic"), theirs


PEERS = (
    "linucb(coefficient=0.5, ridge=2.0)",
    "linear-thompson(scale=0.3)",
    "linear-epsilon-greedy(epsilon=0.1)",
)


@pytest.mark.parametrize("name", PEERS)
def test_regret_is_that_of_mabwiser(name: str) -> None:
    ours, theirs = regrets(name, problems(12))
    difference = ours - theirs
    assert abs(difference.mean()) < 4 * difference.std(ddof=1) / np.sqrt(len(difference))
    assert abs(difference.mean()) < 0.3 * theirs.mean()


@pytest.mark.slow
@pytest.mark.parametrize("name", PEERS)
def test_regret_is_within_two_percent_of_mabwisers(name: str) -> None:
    ours, theirs = regrets(name, problems(600))
    assert abs((ours - theirs).mean()) < 0.02 * theirs.mean()
