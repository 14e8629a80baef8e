"""Histories: one table of fields, words beside them, a view of one row, and what is shown before a round."""

from __future__ import annotations

import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmft.errors import ShapeError
from rmft.problems.environment import Game, Own, TableEnvironment
from rmft.problems.setting import Setting
from rmft.rollout import Rollouts, peak_memory_gb, rollout, rollout_in_pieces
from rmft.streams import Streams
from rmft.types import (
    Decisions,
    Environment,
    Feedback,
    FloatArray,
    Histories,
    IntArray,
    RewardTable,
    Rules,
    Trajectories,
    Turn,
    Words,
)

BANDIT = Rules("bandit", 4, 3)


def table(size: int, rules: Rules = BANDIT) -> RewardTable:
    rewards = np.random.default_rng(0).random((size, rules.horizon, rules.num_arms))
    return RewardTable(rewards, rewards)


class Cache:
    """What a policy remembers; unlike a list, it can be referred to weakly."""


class Remembering:
    """Plays arm 0 and remembers a cache in every batch; counts those alive while it decides."""

    name = "remembering"

    def __init__(self, max_concurrency: int = 1) -> None:
        self.max_concurrency = max_concurrency
        self.caches: list[weakref.ref[Cache]] = []
        self.most_alive = 0

    def rows_at_once(self, rules: Rules) -> int:  # noqa: ARG002
        return 2

    def decide(self, histories: Histories, streams: Streams) -> Decisions:  # noqa: ARG002
        cache = histories.remember(self, Cache)
        assert isinstance(cache, Cache)
        if not histories.num_rounds:
            self.caches.append(weakref.ref(cache))
        del cache
        self.most_alive = max(self.most_alive, self.alive)
        return Decisions(np.zeros(histories.size, dtype=np.int64))

    @property
    def alive(self) -> int:
        return sum(each() is not None for each in self.caches)


@pytest.mark.parametrize("max_concurrency", [1, 2])
def test_what_is_remembered_lives_as_long_as_its_rollout(max_concurrency: int) -> None:
    policy, rows = Remembering(max_concurrency), np.arange(8)
    rollouts = Rollouts(
        BANDIT,
        Game(BANDIT),
        table(8),
        Words("train", rows),
        rows,
        0,
        [(int(row),) for row in rows],
    )
    pieces = list(rollout_in_pieces(lambda _: policy, rollouts))
    assert len(policy.caches) == len(pieces) == 4, "a round finds what the round before it remembered"
    assert policy.most_alive <= max_concurrency
    assert policy.alive == 0
    assert Trajectories.concatenate(pieces).histories.num_rounds == 4


@st.composite
def filled(draw: st.DrawFn, size: int = 4) -> Histories:
    """Histories of 3 rounds, 2 over, with every field that the draw gives them."""
    feedback: Feedback = draw(st.sampled_from(["full", "bandit"]))
    rules = Rules(feedback, 3, 3)
    numbers = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    histories = Histories(rules, size, Words("all", numbers.integers(9, size=size)))
    stated, shown, spoken, mixes = (draw(st.booleans()) for _ in range(4))
    for index in range(2):
        if shown:
            histories.observe(numbers.random((size, 2)))
        shares = numbers.dirichlet(np.ones(3), size=size)
        arms: IntArray | None = numbers.integers(3, size=size)
        if mixes and feedback == "full":
            arms = None
        turns = tuple(Turn(f"{index}", f"{row}") for row in range(size)) if spoken else None
        rewards = numbers.random((size, 3) if feedback == "full" else size)
        histories.append(Decisions(arms, shares if stated or arms is None else None, turns), rewards)
    if shown:
        histories.observe(numbers.random((size, 2)))
    return histories


ARRAYS = ("arms", "rewards", "played", "probabilities", "propensities", "observations")


def equal(one: Histories, other: Histories) -> None:
    assert (one.rules, one.num_rounds, one.failed) == (other.rules, other.num_rounds, other.failed)
    assert (one.words.contexts, one.words.turns) == (other.words.contexts, other.words.turns)
    np.testing.assert_array_equal(one.words.seeds, other.words.seeds)
    for name in ARRAYS:
        mine, theirs = getattr(one, name), getattr(other, name)
        assert (mine is None) == (theirs is None), name
        if mine is not None:
            np.testing.assert_array_equal(mine, theirs, err_msg=name)


@given(filled())
def test_parts_joined_are_the_whole(histories: Histories) -> None:
    parts = [histories.rows(slice(0, 1)), histories.rows(np.array([1, 2])), histories.rows(slice(3, 4))]
    equal(Histories.concatenate(parts), histories)
    back = histories.rows(np.array([3, 2, 1, 0]))
    equal(back.rows(np.array([3, 2, 1, 0])), histories)
    equal(histories.prefix(2), histories)


@given(filled())
def test_a_prefix_is_what_there_was_then(histories: Histories) -> None:
    first = histories.prefix(1)
    assert first.num_rounds == 1
    for name in ("arms", "rewards", "played", "probabilities", "propensities"):
        whole = getattr(histories, name)
        assert (whole is None) == (getattr(first, name) is None)
        if whole is not None:
            np.testing.assert_array_equal(getattr(first, name), whole[:, :1])
    if histories.observations is not None:
        assert first.observations is not None
        np.testing.assert_array_equal(first.observations, histories.observations[:, :2])
    assert first.words.turns == histories.words.turns[:1]


@given(filled())
def test_a_row_is_seen_as_its_histories_show_it(histories: Histories) -> None:
    for row in range(4):
        seen = histories.row(row)
        assert (seen.rules, seen.num_rounds) == (histories.rules, 2)
        np.testing.assert_array_equal(seen.arms, histories.arms[row])
        np.testing.assert_array_equal(seen.rewards, histories.rewards[row])
        np.testing.assert_array_equal(seen.played, histories.played[row])
        if histories.observations is None:
            assert seen.observations is None
        else:
            np.testing.assert_array_equal(seen.observations, histories.observations[row])


def test_propensities_by_hand() -> None:
    histories = Histories(Rules("full", 3, 2), 2)
    shares = np.array([[0.25, 0.75], [0.5, 0.5]])
    histories.append(Decisions(np.array([1, 0]), shares), np.ones((2, 2)))
    histories.append(Decisions(probabilities=shares), np.ones((2, 2)))
    histories.append(Decisions(np.array([0, -1]), failed={1: "why"}), np.ones((2, 2)))
    nan = np.nan  # in the last round none was stated, and row 1 decided nothing
    np.testing.assert_array_equal(histories.propensities, [[0.75, 1, nan], [0.5, 1, nan]])


def test_words_are_the_histories_own() -> None:
    words = Words("buttons", np.array([7, 8, 9, 7]))
    histories = Histories(BANDIT, 4, words)
    histories.append(Decisions(np.zeros(4, dtype=np.int64), None, (Turn("told", "said"),) * 4), np.zeros(4))
    assert words.turns == []
    assert histories.words.contexts == histories.rows(slice(2)).words.contexts == "buttons"
    assert words.repeat(2).seeds.tolist() == [7, 7, 8, 8, 9, 9, 7, 7]
    with pytest.raises(ShapeError, match="seeds of words"):
        Histories(BANDIT, 3, words)


class Shown(TableEnvironment):
    """Shows each row's best arm of the coming round, one-hot."""

    def __init__(self, rules: Rules, table: RewardTable) -> None:
        super().__init__(rules, table)
        self.shown = 0

    def observe(self) -> FloatArray:
        self.shown += 1
        return np.eye(self.rules.num_arms)[self.table.rewards[:, self.shown - 1].argmax(axis=1)]


class Obedient:
    """Plays the arm that it is shown."""

    name, max_concurrency = "obedient", 1

    def rows_at_once(self, rules: Rules) -> int:  # noqa: ARG002
        return 10

    def decide(self, histories: Histories, streams: Streams) -> Decisions:  # noqa: ARG002
        assert histories.observations is not None
        assert histories.observations.shape == (histories.size, histories.num_rounds + 1, 3)
        return Decisions(histories.observations[:, -1].argmax(axis=1))


def test_what_an_environment_shows_comes_before_the_decision_and_is_kept() -> None:
    environment = Shown(BANDIT, table(5))
    played = rollout(Obedient(), environment, Streams.at(0, [(row,) for row in range(5)])).histories
    best = table(5).rewards.argmax(axis=2)
    np.testing.assert_array_equal(played.arms, best)
    np.testing.assert_array_equal(played.observations, np.eye(3)[best])
    assert environment.shown == 4
    last = played.round(3).observations
    assert last is not None
    np.testing.assert_array_equal(last, np.eye(3)[best[:, 3]])
    again = Obedient().decide(played.prefix(2), Streams.at(0, []))
    np.testing.assert_array_equal(again.arms, best[:, 2])
    whole = played.row(4).observations
    assert whole is not None
    assert whole.shape == (4, 3)


@pytest.mark.parametrize("shown", [np.zeros(5), np.zeros((4, 2)), np.full((5, 2), np.inf), np.zeros(())])
def test_what_can_not_be_shown_is_refused(shown: FloatArray) -> None:
    with pytest.raises(ShapeError, match=r"expected (\(5, |finite)"):
        Histories(BANDIT, 5).observe(shown)


def test_it_is_shown_in_every_round_or_in_none() -> None:
    begun, silent = Histories(BANDIT, 1), Histories(BANDIT, 1)
    begun.observe(np.zeros((1, 2)))
    for histories in (begun, silent):
        histories.append(Decisions(np.array([0])), np.zeros(1))
    for histories, shown in ((begun, None), (silent, np.zeros((1, 2)))):
        with pytest.raises(ShapeError, match="expected all, or none"):
            histories.observe(shown)
    with pytest.raises(ShapeError, match=r"expected \(1, 2\)"):
        begun.observe(np.zeros((1, 3)))


@pytest.mark.parametrize("feedback", ["bandit", "full"])
def test_a_row_that_failed_is_paid_nothing(feedback: Feedback) -> None:
    rules = Rules(feedback, 4, 3)
    decisions = Decisions(np.array([2, -1]), failed={1: "why"})
    seen = TableEnvironment(rules, table(2)).step(decisions)
    if feedback == "bandit":
        assert seen.tolist() == [table(2).rewards[0, 0, 2], 0.0]
    histories = Histories(rules, 2)
    histories.append(decisions, seen)
    assert not histories.rewards[1].any()
    assert not histories.played[1].any()


@pytest.mark.parametrize("feedback", ["bandit", "full"])
def test_a_users_own_environment_needs_to_show_nothing(
    feedback: Feedback, monkeypatch: pytest.MonkeyPatch, pytestconfig: pytest.Config
) -> None:
    """The example, which has no `observe`: failed rows leave its table as it was."""
    monkeypatch.chdir(pytestconfig.rootpath / "examples")
    setting = Setting.model_validate({
        "name": "own",
        "feedback": feedback,
        "horizon": 4,
        "num_arms": 3,
        "reward_process": {"kind": "bernoulli"},
        "environment": "my_process:MyEnvironment",
    }, context={"trust": True})  # fmt: skip
    environment = setting.play(table(2))
    assert isinstance(environment, Own)
    assert isinstance(environment, Environment)
    assert environment.observe() is None
    environment.step(Decisions(np.array([2, -1]), failed={1: "why"}))
    after = environment.table.rewards
    assert after[0, 1, 2] == 0.0
    np.testing.assert_array_equal(after[1], table(2).rewards[1])


def test_peak_memory_is_in_gb() -> None:
    held = np.ones(40_000_000)  # 0.32 GB
    assert held.nbytes / 1e9 <= peak_memory_gb() < 100
