"""What every policy, trainer and environment must do, whatever is behind it: one check for each protocol.

A policy, trainer or environment of one's own is checked by a test that calls these.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from rmft.problems.environment import TableEnvironment
from rmft.rollout import rollout
from rmft.streams import Streams
from rmft.types import (
    Decisions,
    Environment,
    Histories,
    Observation,
    Policy,
    PolicyRef,
    RewardTable,
    Rules,
    Trainer,
    TrainingBatch,
    TrainingStep,
    Words,
)


def streams(rows: list[int], seed: int = 7) -> Streams:
    return Streams.at(seed, [(row,) for row in rows])


def table_of(rules: Rules, size: int) -> RewardTable:
    """Bernoulli rewards; every row has means of its own."""
    generator, (low, high) = np.random.default_rng(0), rules.reward_range
    means = np.repeat(generator.random((size, 1, rules.num_arms)), rules.horizon, axis=1)
    paid = (generator.random(means.shape) < means).astype(float)
    return RewardTable(low + (high - low) * paid, low + (high - low) * means, observation_of(rules, size))


def observation_of(rules: Rules, size: int) -> Observation | None:
    """What is shown under these rules, in all rounds of a batch."""
    generator, shown, axes = np.random.default_rng(1), rules.shown, (size, rules.horizon)
    if not shown:
        return None
    return Observation(
        generator.standard_normal((*axes, len(shown.numbers))) if shown.numbers else None,
        generator.standard_normal((*axes, rules.num_arms, len(shown.features))) if shown.features else None,
        np.full(axes, "x" * shown.text_length) if shown.text_length else None,
    )


def check_policy(policy: Policy, rules: Rules, size: int = 5, tolerance: float = 0.0) -> None:
    """It decides legally, by the histories and the streams alone, and for each row as if it were alone.

    tolerance: by how much probabilities may differ that were computed in batches of other sizes.
    """
    assert isinstance(policy, Policy)
    assert policy.name
    assert policy.max_concurrency >= 1
    assert policy.rows_at_once(rules) >= 1
    table, words = table_of(rules, size), Words("train", np.arange(size) // 2)

    def play(rows: list[int]) -> Histories:
        environment = TableEnvironment(rules, table.rows(np.array(rows)))
        return rollout(policy, environment, streams(rows), words.rows(np.array(rows))).histories

    together = play(list(range(size)))
    _check_decisions(together)
    for rows in ([size - 1], list(reversed(range(size)))):  # in other company, and in another place
        other = play(rows)
        np.testing.assert_array_equal(other.arms, together.arms[rows])
        np.testing.assert_allclose(other.played, together.played[rows], atol=tolerance)

    everyone = list(range(size))
    for num_rounds in {0, 1, rules.horizon - 1}:
        first, again = (policy.decide(together.prefix(num_rounds), streams(everyone, 3)) for _ in range(2))
        _check_same(first, again, 0.0)
        if num_rounds:  # what it remembers of a history changes nothing
            grown = together.prefix(num_rounds - 1)
            policy.decide(grown, streams(everyone, 4))
            grown.append(_decided(together, num_rounds - 1), together.round(num_rounds - 1).rewards)
            if num_rounds < rules.horizon:
                grown.observe(together.shown(num_rounds))
            _check_same(policy.decide(grown, streams(everyone, 3)), first, tolerance)


def _decided(histories: Histories, index: int) -> Decisions:
    """The decisions of a finished round, with what was said."""
    seen = histories.round(index)
    arms = None if (seen.arms < 0).any() else seen.arms
    turns = histories.words.turns[index] if histories.words.turns else None
    return Decisions(arms, seen.played if arms is None else None, turns)


def _check_decisions(histories: Histories) -> None:
    """Every row decided in every round: an arm or a distribution, drawn from what was stated."""
    rules = histories.rules
    assert histories.num_rounds == rules.horizon
    assert not histories.failed
    np.testing.assert_allclose(histories.played.sum(axis=2), 1, atol=1e-9)
    if rules.feedback == "bandit":
        assert ((histories.arms >= 0) & (histories.arms < rules.num_arms)).all()
    stated = histories.probabilities
    if stated is not None:
        np.testing.assert_allclose(stated.sum(axis=2), 1, atol=1e-6)
        chosen = np.take_along_axis(stated, histories.arms.clip(min=0)[..., None], axis=2)[..., 0]
        assert (chosen[histories.arms >= 0] > 0).all(), "an arm was played that had no probability"


def _check_same(one: Decisions, other: Decisions, tolerance: float) -> None:
    assert (one.arms is None, one.probabilities is None) == (other.arms is None, other.probabilities is None)
    if one.arms is not None and other.arms is not None:
        np.testing.assert_array_equal(one.arms, other.arms)
    if one.probabilities is not None and other.probabilities is not None:
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=tolerance)


def check_trainer(
    trainer: Trainer,
    policy: PolicyRef,
    batch: TrainingBatch,
    folder: Path,
    same: Callable[[PolicyRef, PolicyRef], bool],
) -> None:
    """It writes a policy of its kind to the target alone, the same one each time, and learns by the mask.

    batch: one from which something is learned. folder: an empty one. same: whether two policies play alike.
    """
    assert isinstance(trainer, Trainer)
    before, step = _contents(policy.path), TrainingStep(1, 7, 0.5)

    def train(name: str, batches: list[TrainingBatch]) -> tuple[PolicyRef, dict[str, float]]:
        target = folder / name
        target.mkdir()
        trained, figures = trainer.train(policy, batches, target, step)
        assert trained == PolicyRef(policy.kind, target)
        assert _contents(policy.path) == before, "the policy that it started from is as it was"
        assert all(isinstance(value, float) and np.isfinite(value) for value in figures.values())
        return trained, figures

    nothing = replace(batch, mask=np.zeros_like(batch.mask))
    idle, figures = train("idle", [nothing])
    assert same(idle, policy), "nothing in the mask, nothing learned"
    assert figures.get("steps", 0) == 0
    first, figures = train("first", [batch])
    again, as_before = train("again", [batch])
    assert figures == as_before
    assert _contents(first.path) == _contents(again.path)
    assert not same(first, policy)
    with_idle_rows, _ = train("with idle rows", [batch.rows(batch.kept)])
    assert _contents(with_idle_rows.path) == _contents(first.path), "rows outside the mask do nothing"
    assert sorted(path.name for path in folder.iterdir()) == ["again", "first", "idle", "with idle rows"]


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def check_environment(make: Callable[[], Environment]) -> None:
    """It says its rules and size, pays what its table says, alike each time, and goes on when a row fails."""
    environment = make()
    assert isinstance(environment, Environment)
    rules, size = environment.rules, environment.size
    full = rules.feedback == "full"
    generator = np.random.default_rng(0)
    arms = generator.integers(rules.num_arms, size=(rules.horizon, size))
    seen = _paid(environment, arms)
    np.testing.assert_array_equal(_paid(make(), arms), seen)
    assert seen.shape == (rules.horizon, size, *((rules.num_arms,) if full else ()))
    assert np.isfinite(seen).all()
    low, high = rules.reward_range
    assert ((low <= seen) & (seen <= high)).all()
    table = environment.table
    assert table.rewards.shape == (size, rules.horizon, rules.num_arms)
    of_arms = np.take_along_axis(table.rewards, arms.T[..., None], axis=2)[..., 0]
    np.testing.assert_array_equal(np.moveaxis(seen, 0, 1), table.rewards if full else of_arms)

    gone_on, failed = make(), dict.fromkeys([size - 1], "no answer")
    for index in range(rules.horizon):
        shown = gone_on.observe()
        if isinstance(shown, np.ndarray):
            shown = Observation(shown)
        if shown is not None:
            shown.check(rules, size)
        chosen = arms[index].copy()
        chosen[size - 1] = -1
        rewards = gone_on.step(Decisions(chosen, failed=failed))
        np.testing.assert_array_equal(rewards[:-1], seen[index, :-1])


def _paid(environment: Environment, arms: np.ndarray) -> np.ndarray:
    """What is seen of arms (T, B), round by round."""
    seen = []
    for chosen in arms:
        environment.observe()
        seen.append(environment.step(Decisions(chosen)))
    return np.array(seen)
