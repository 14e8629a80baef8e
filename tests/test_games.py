"""Repeated matrix games: what sides are told, whose luck is whose, how far they are from an equilibrium."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import linprog

import rmft
from rmft.errors import ConfigError, RmftError
from rmft.evaluation.evaluate import evaluate
from rmft.evaluation.measures import MEASURES, OF_GAMES, deviation_gains, measure
from rmft.policies.baselines import make_baseline
from rmft.problems.games import GAMES
from rmft.problems.setting import Setting
from rmft.problems.suites import Suite, load_suite, suite_from
from rmft.rivals import baselines
from rmft.rollout import rollout
from rmft.streams import Streams, generator
from rmft.types import Decisions, Histories, Policy, Rules, Trajectories
from rmft.wiring.suites import seated


def suite(opponent: str = "self", payoffs: str = "drawn", **changes: object) -> Suite:
    num_arms = len(GAMES[payoffs][0]) if payoffs in GAMES else 3
    setting = {
        "name": "game", "feedback": "full", "horizon": 30, "num_arms": num_arms,
        "reward_process": {"kind": "matrix_game", "payoffs": payoffs}, "opponent": opponent, **changes,
    }  # fmt: skip
    data = {"name": "game", "title": "A game", "train": {"settings": [setting]}}
    return seated(suite_from(data, "test"))


def play(made: Suite, policy: Policy, count: int = 20, rollouts: int = 1) -> Trajectories:
    (batch,) = made.draw("train", count)
    table, words = batch.table.repeat(rollouts), batch.words.repeat(rollouts)
    streams = Streams.at(0, [(problem, k) for problem in range(count) for k in range(rollouts)])
    return rollout(policy, batch.setting.play(table, policy), streams, words)


@dataclass
class Always:
    """Plays one arm."""

    arm: int
    name: str = "always"
    max_concurrency: int = 1

    def rows_at_once(self, rules: Rules) -> int:  # noqa: ARG002
        return 100

    def decide(self, histories: Histories, streams: Streams) -> Decisions:  # noqa: ARG002
        return Decisions(np.full(len(histories), self.arm))


def test_deviation_gains_by_hand() -> None:
    # prisoner's dilemma, both cooperating half of the time and both defecting the other half: 2 a round each;
    # always defecting meets either half as often, (5 + 1) / 2 = 3
    dilemma = np.array(GAMES["prisoners-dilemma"], dtype=float)
    np.testing.assert_allclose(deviation_gains(dilemma, np.diag([0.5, 0.5])), [1, 1])
    # defecting alone: 5 and 0; cooperating would have paid 3, and the other would have got 1 by defecting
    np.testing.assert_allclose(deviation_gains(dilemma, np.array([[0.0, 0], [1, 0]])), [0, 1])
    # rock, paper, scissors, always the same arm on both sides: a fixed arm wins as often as it loses
    joint = np.eye(3) / 3
    np.testing.assert_allclose(deviation_gains(np.array(GAMES["rock-paper-scissors"], float), joint), 0)
    rock = np.zeros((3, 3))
    rock[0, 0] = 1
    np.testing.assert_allclose(deviation_gains(np.array(GAMES["rock-paper-scissors"], float), rock), [1, 1])


def test_what_a_linear_program_calls_a_coarse_correlated_equilibrium_is_at_distance_0() -> None:
    draw = generator(3)
    for _ in range(5):
        payoffs = draw.random((2, 3, 3))
        rows = []
        for arm in range(3):  # what a fixed arm gains, linear in the shares of pairs of arms
            rows.append((payoffs[0, arm][None] - payoffs[0]).ravel())
            rows.append((payoffs[1, :, arm][:, None] - payoffs[1]).ravel())
        solved = linprog(draw.normal(size=9), rows, np.zeros(6), np.ones((1, 9)), [1])
        assert deviation_gains(payoffs, solved.x.reshape(3, 3)).max() == pytest.approx(0, abs=1e-9)
        shares = draw.dirichlet(np.ones(9))
        least = linprog([*np.zeros(9), 1], np.c_[rows, -np.ones(6)], np.zeros(6), np.eye(9, 10), shares)
        gains = deviation_gains(payoffs, shares.reshape(3, 3))
        assert max(gains.max(), 0) == pytest.approx(least.x[-1], abs=1e-9)


def test_hedge_against_hedge_comes_nearer_to_an_equilibrium() -> None:
    distances = []
    for horizon in (25, 400):
        played = play(suite("hedge", "rock-paper-scissors", horizon=horizon), make_baseline("hedge"))
        found = measure(played, "pseudo")
        either = np.maximum(found["regret"], found["opponent_regret"])
        np.testing.assert_allclose(horizon * found["cce_distance"], np.maximum(either, 0), atol=1e-9)
        distances.append(found["cce_distance"].mean())
    assert 0 < distances[1] < 0.5 * distances[0]


@pytest.mark.parametrize("opponent", ["uniform", "ftl", "hedge"])
def test_to_defect_has_no_regret_and_to_cooperate_all(opponent: str) -> None:
    made = suite(opponent, "prisoners-dilemma")
    np.testing.assert_allclose(measure(play(made, Always(1)), "pseudo")["regret"], 0, atol=1e-9)
    played = play(made, Always(0))
    assert played.table.other is not None
    assert played.table.other.played is not None
    defected = played.table.other.played[..., 1].sum(axis=1)
    # against a cooperator defecting pays 2 more, against a defector 1 more
    np.testing.assert_allclose(measure(played, "pseudo")["regret"], 2 * 30 - defected)


@pytest.mark.parametrize("feedback", ["full", "bandit"])
def test_each_side_is_told_its_own_rewards_alone(feedback: str) -> None:
    """The other side's history is ours with the sides of the game exchanged."""
    made = suite("ftl" if feedback == "full" else "greedy", feedback=feedback)
    (batch,) = made.draw("train", 4)
    environment = batch.setting.play(batch.table)
    rows, payoffs = np.arange(4), batch.table.other.payoffs  # type: ignore[union-attr]
    seen = []
    for index in range(30):
        arms = np.full(4, index % 3)
        seen.append(environment.step(Decisions(arms)))
        theirs = environment._theirs  # type: ignore[attr-defined]
        answer = theirs.arms[:, -1]
        assert theirs.words.seeds.tolist() != batch.words.seeds.tolist()
        ours, other = payoffs[rows, 0, :, answer], payoffs[rows, 1, arms]
        if feedback == "bandit":
            ours, other = ours[rows, arms], other[rows, answer]
        np.testing.assert_array_equal(seen[-1], ours)
        np.testing.assert_array_equal(theirs.rewards[:, -1], other)


def test_luck_has_addresses_and_no_two_sides_share_it() -> None:
    made = suite("self", "matching-pennies", feedback="bandit", horizon=100)
    first = play(made, make_baseline("uniform"), 30)
    other = first.table.other
    assert other is not None
    assert other.played is not None
    same = (first.histories.played * other.played).sum(axis=-1)
    assert abs(same.mean() - 0.5) < 4 * 0.5 / np.sqrt(same.size)
    again = play(made, make_baseline("uniform"), 10)  # in other company
    np.testing.assert_array_equal(again.histories.arms, first.histories.arms[:10])
    np.testing.assert_array_equal(again.table.rewards, first.table.rewards[:10])
    rollouts = play(made, make_baseline("uniform"), 10, rollouts=2)
    assert rollouts.table.other is not None
    assert rollouts.table.other.played is not None
    np.testing.assert_array_equal(rollouts.table.other.played[::2], rollouts.table.other.played[1::2])
    assert (rollouts.histories.arms[::2] != rollouts.histories.arms[1::2]).mean() > 0.4


def test_both_sides_are_evaluated_and_nobody_else_is() -> None:
    made = seated(load_suite("games/bandit"))
    batches = made.draw("validation", 12)
    found = evaluate(baselines(["thompson", "exp3"], made), batches, 2, 0)
    for each in (*(setting.policies for setting in found.settings.values()), found.overall):
        assert tuple(each["exp3"].measures) == (*MEASURES, *OF_GAMES)
        assert each["exp3"].measures["cce_distance"].mean is not None
    assert {"opponent's regret", "CCE distance"} <= found.rows()[0].keys()
    plain = load_suite("smoke")
    alone = evaluate(baselines(["uniform"], plain), plain.draw("validation", 4), 1, 0)
    assert tuple(alone.overall["uniform"].measures) == MEASURES


def test_a_run_meets_itself_and_then_is_the_opponent(tmp_path: Path) -> None:
    file = tmp_path / "game.yaml"
    file.write_text(json.dumps(suite(feedback="bandit", horizon=5).model_dump(mode="json")), "utf-8")
    small = [
        f"suite={file}", "iterations=1", "rollout.num_problems=4", "rollout.num_rollouts=2",
        "validation.num_problems=4", "policy.width=8",
    ]  # fmt: skip
    run = rmft.train("smoke", tmp_path / "run", settings=small)
    found = rmft.evaluate(run, num_problems=4, against=["exp3"])
    assert found.overall["best"].measures["opponent_regret"].mean is not None
    other = rmft.evaluate("exp3", file, against=["uniform"], num_problems=4, opponent=run)
    assert other.fingerprint != found.fingerprint
    pinned = seated(load_suite(file), str(run)).train.settings[0].opponent
    assert pinned is not None
    assert Path(pinned).parent == run / "checkpoints"


@pytest.mark.parametrize(
    ("opponent", "message"),
    [
        ("hegde", "Did you mean 'hedge'"),
        ("tuned:hedge", "opponent is 'tuned:hedge'; expected its parameters too"),
        ("oracle", "opponent is 'oracle', which knows what is hidden"),
        ("exp3", "needs bandit feedback"),
        ("./nowhere", "opponent '.*nowhere' is no folder"),
    ],
)
def test_an_opponent_that_cannot_play_gets_one_message(opponent: str, message: str) -> None:
    with pytest.raises(RmftError, match=message):
        suite(opponent)


def test_games_and_opponents_belong_together() -> None:
    with pytest.raises(ConfigError, match="expected an opponent"):
        suite(opponent=None)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="for nothing else"):
        suite(reward_process={"kind": "bernoulli"})
    with pytest.raises(ConfigError, match="expected two matrices of num_arms 3"):
        suite(payoffs="prisoners-dilemma", num_arms=3)
    with pytest.raises(ConfigError, match="has no games to play in"):
        seated(load_suite("smoke"), "hedge")
    with pytest.raises(ConfigError, match="is not known before it does"):
        baselines(["oracle"], suite())
    setting = suite().train.settings[0]
    with pytest.raises(ConfigError, match="'self' is whoever plays"):
        setting.play(setting.draw([generator(0)]))
    unseated = Setting.model_validate(setting.model_dump() | {"opponent": "hedge"})
    with pytest.raises(ConfigError, match="was not loaded"):
        unseated.play(setting.draw([generator(0)]))


def test_an_outsider_plays_against_a_named_opponent() -> None:
    env = rmft.Env("games/bandit", setting="prisoners-dilemma")
    _, info = env.reset(1)
    assert info["regret_so_far"] is None
    while not env.over:
        *_, info = env.step(1)
    assert info["regret_so_far"] == pytest.approx(0)
