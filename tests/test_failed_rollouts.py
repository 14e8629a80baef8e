"""A rollout that can't go on: it is kept, counted and never learned from, and failing never pays."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from rmft.credit import CreditConfig, credit
from rmft.errors import ShapeError
from rmft.evaluation.measures import measure
from rmft.problems.environment import Game, TableEnvironment
from rmft.reading import read
from rmft.regret import dynamic_regret_curve, pseudo_regret_curve, round_regret, static_regret_curve
from rmft.rollout import Rollouts, rollout, rollout_in_pieces
from rmft.streams import Streams
from rmft.types import Decisions, Histories, RewardTable, Rules, Trajectories, Turn, Words

REWARDS = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.25]])  # 3 rounds x 2 arms
BANDIT = Rules("bandit", 3, 2)
FULL = Rules("full", 3, 2)
RNG = np.random.default_rng


class Failing:
    """Plays arm 0; in problems whose word seed is odd it fails in round `at`."""

    name = "failing"

    def __init__(self, at: int, rows: int = 1, concurrency: int = 1) -> None:
        self.at, self.rows, self.max_concurrency = at, rows, concurrency

    def rows_at_once(self, rules: Rules) -> int:  # noqa: ARG002
        return self.rows

    def decide(self, histories: Histories, streams: Streams) -> Decisions:  # noqa: ARG002
        fails = (histories.words.seeds % 2 == 1) & (histories.num_rounds >= self.at)
        turns = tuple(Turn(f"told {seed}", "A", refused=(("?", "why"),)) for seed in histories.words.seeds)
        rows = np.flatnonzero(fails).tolist()
        return Decisions(np.where(fails, -1, 0), None, turns, dict.fromkeys(rows, "no legal answer"))


def play(policy: Failing, rules: Rules, seeds: list[int]) -> Trajectories:
    table = RewardTable(REWARDS, REWARDS)
    many = RewardTable.stack([table] * len(seeds))
    rollouts = Rollouts(
        rules,
        Game(rules),
        many,
        Words("train", np.array(seeds)),
        np.arange(len(seeds)),
        0,
        [(seed,) for seed in seeds],
    )
    return Trajectories.concatenate(list(rollout_in_pieces(lambda _: policy, rollouts)))


def test_a_round_without_a_decision_earns_what_the_worst_arm_does() -> None:
    played = np.array([[1.0, 0.0], [0.0, 0.0], [0.0, 0.0]])  # arm 0, then nothing
    # arm 0 sums to 2, arm 1 to 1.25; earned are 1, then min(0, 1) = 0, then min(1, .25) = .25
    assert static_regret_curve(REWARDS, played).tolist() == pytest.approx([0.0, 0.0, 0.75])
    assert pseudo_regret_curve(REWARDS, played).tolist() == pytest.approx([0.0, 0.0, 0.75])
    assert dynamic_regret_curve(REWARDS, played).tolist() == pytest.approx([0.0, 1.0, 1.75])


@pytest.mark.parametrize("rules", [BANDIT, FULL])
@pytest.mark.parametrize("rows", [1, 2, 5])
@pytest.mark.parametrize("concurrency", [1, 3])
def test_failed_rows_stay_without_decisions_in_any_company(rules: Rules, rows: int, concurrency: int) -> None:
    played = play(Failing(1, rows, concurrency), rules, [0, 1, 2, 3, 5])
    histories = played.histories
    assert histories.num_rounds == 3
    assert histories.failed == {1: "no legal answer", 3: "no legal answer", 4: "no legal answer"}
    assert histories.arms[[0, 2]].tolist() == [[0, 0, 0], [0, 0, 0]]
    assert histories.arms[[1, 3, 4]].tolist() == [[0, -1, -1]] * 3
    assert histories.played[1].tolist() == [[1, 0], [0, 0], [0, 0]]
    assert not histories.rewards[1, 1:].any()
    assert [turns[1].prompt for turns in histories.words.turns][:2] == ["told 1", "told 1"]
    assert round_regret(played, "static").sum(axis=1).tolist() == pytest.approx([0, 0.75, 0, 0.75, 0.75])
    measured = measure(played, "static")
    assert measured["failed"].tolist() == [0, 1, 0, 1, 1]
    assert measured["suff_fail_freq"].tolist() == [0, 1, 0, 1, 1]
    assert histories.rows(np.array([4, 0])).failed == {0: "no legal answer"}
    assert histories.prefix(2).failed.keys() == {1, 3, 4}


def test_failing_at_once_is_a_trajectory_too() -> None:
    played = play(Failing(0), BANDIT, [1, 0])
    assert played.histories.arms.tolist() == [[-1, -1, -1], [0, 0, 0]]
    assert played.histories.words.turns[0][0].refused == (("?", "why"),)


@pytest.mark.parametrize("kind", ["top_k_regret", "top_k_regret_to_go", "top_k_reward", "random", "all"])
def test_nothing_is_learned_from_failed_rollouts(kind: str) -> None:
    played = play(Failing(0), BANDIT, [0, 1, 2, 4, 1, 3, 5, 7])  # two problems, four rollouts each
    settings = {"kind": kind} if kind == "all" else {"kind": kind, "num_selected": 2}
    config, group = read(CreditConfig, settings, "credit"), np.repeat([0, 1], 4)
    mask = credit(played, round_regret(played, "pseudo"), group, config, RNG(0)).mask
    assert not mask[1].any()
    assert not mask[4:].any()  # all of them failed
    assert mask[[0, 2, 3]].sum() == (9 if kind == "all" else 6)


def test_advantages_leave_failed_rollouts_out() -> None:
    played = play(Failing(1), BANDIT, [0, 1, 2, 4])
    config, group = read(CreditConfig, {"kind": "policy_gradient"}, "credit"), np.zeros(4, dtype=np.int64)
    batch = credit(played, round_regret(played, "pseudo"), group, config, RNG(0))
    assert batch.mask.all(axis=1).tolist() == [True, False, True, True]
    assert not batch.mask[1].any()
    assert batch.advantages[0].any()


def test_a_failed_row_names_no_arm() -> None:
    histories = Histories(BANDIT, 2)
    with pytest.raises(ShapeError, match="no decision"):
        histories.append(Decisions(np.array([0, 1]), failed={1: "why"}), np.zeros(2))
    with pytest.raises(ShapeError, match="found -1"):
        histories.append(Decisions(np.array([0, -1])), np.zeros(2))


class Slow:
    """Waits before every decision, as for somebody else's machine, and may raise in one problem."""

    name = "slow"
    max_concurrency = 8

    def __init__(self, bad: int | None = None) -> None:
        self.bad, self.decisions, self.lock = bad, 0, threading.Lock()

    def rows_at_once(self, rules: Rules) -> int:  # noqa: ARG002
        return 1

    def decide(self, histories: Histories, streams: Streams) -> Decisions:  # noqa: ARG002
        if histories.words.seeds[0] == self.bad:
            raise ConnectionError("gone")
        time.sleep(0.02)
        with self.lock:
            self.decisions += 1
        return Decisions(np.array([0]))


def pieces(policy: Slow, count: int) -> list[Trajectories]:
    table = RewardTable.stack([RewardTable(REWARDS, REWARDS)] * count)
    paths = [(n,) for n in range(count)]
    words, rows = Words("train", np.arange(count)), np.arange(count)
    rollouts = Rollouts(BANDIT, Game(BANDIT), table, words, rows, 0, paths)
    return list(rollout_in_pieces(lambda _: policy, rollouts))


def test_pieces_concurrency_come_in_order() -> None:
    played = pieces(Slow(), 20)
    assert [int(each.histories.words.seeds[0]) for each in played] == list(range(20))


def test_an_error_in_one_ends_all_soon() -> None:
    policy = Slow(bad=0)
    with pytest.raises(ConnectionError, match="gone"):
        pieces(policy, 400)
    assert policy.decisions < 40  # of 1,200
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("rollout")]


def test_a_rollout_alone_ends_early() -> None:
    table = RewardTable.stack([RewardTable(REWARDS, REWARDS)])
    words = Words("train", np.array([1]))
    played = rollout(Failing(1), TableEnvironment(BANDIT, table), Streams.at(0, [(0,)]), words)
    assert played.histories.num_rounds == 3
    assert played.histories.failed == {0: "no legal answer"}
