"""`constant-best` and `prior-greedy`: what named arms paid on the training part, by hand and in a task."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rmft.errors import ConfigError
from rmft.policies.baselines import make_baseline
from rmft.policies.baselines.fitted import ArmPrior, fit_arms
from rmft.problems.suites import load_suite
from rmft.problems.tasks import new_task
from rmft.rivals import baselines
from rmft.streams import Streams, generator
from rmft.types import Decisions, Feedback, Histories, RewardTable, Rules, Words

RULES = Rules("bandit", 2, 2)


def test_a_prior_is_fitted_by_hand() -> None:
    # problems pay 1 1 and 0 1 by arm 0: means 1 and 1/2, of variance 1/8; within 0 and 1/2, so W = 1/4, and
    # W / T = 1/8 is all of it: problems are alike. By arm 1, 1 1 and 0 0: W = 0, V = 1/2
    rewards = np.array([[[1.0, 1], [1, 1]], [[0, 0], [1, 0]]])
    table, names = RewardTable(rewards, rewards), np.array([["a", "b"]] * 2)
    fitted = fit_arms([(RULES, table, names)])
    assert fitted == {"a": ArmPrior(0.75, 1e6), "b": ArmPrior(0.5, 0.0)}
    # a name goes with its arm: in the second problem the two have changed places
    moved = np.array([["a", "b"], ["b", "a"]])
    turned = rewards.copy()
    turned[1] = turned[1][:, ::-1]
    assert fit_arms([(RULES, RewardTable(turned, turned), moved)]) == fitted


def test_it_finds_the_beta_distribution_again() -> None:
    draw = generator(0)
    means = draw.beta(2, 6, size=(4000, 1, 2))
    rewards = (draw.random((4000, 20, 2)) < means).astype(float)
    rules, names = Rules("bandit", 20, 2), np.array([["a", "b"]] * 4000)
    for prior in fit_arms([(rules, RewardTable(rewards, rewards), names)]).values():
        assert prior.mean == pytest.approx(0.25, abs=0.02)
        assert prior.strength == pytest.approx(8, rel=0.15)


@pytest.mark.parametrize("feedback", ["bandit", "full"])
def test_greedy_weighs_the_prior_with_what_was_seen(feedback: Feedback) -> None:
    arms = {"a": ArmPrior(0.6, 2.0), "b": ArmPrior(0.5, 8.0)}
    histories = Histories(
        Rules(feedback, 5, 2), 1, Words("train", np.arange(1), names=np.array([["b", "a"]]))
    )
    streams = Streams.at(0, [(0,)])
    greedy, constant = (make_baseline(name, arms=arms) for name in ("prior-greedy", "constant-best"))
    nothing = np.zeros((1, 2) if feedback == "full" else (1,))
    for index in range(2):
        chosen = greedy.decide(histories, streams).arms
        # of a, 1.2 / (2 + n) is 0.6, then 0.4; of b, 4 / (8 + n) is 0.5, then 4 / 9 where it is seen
        assert chosen.tolist() == [[1], [0]][index]  # type: ignore[union-attr]
        assert constant.decide(histories, streams).arms.tolist() == [1]  # type: ignore[union-attr]
        histories.append(Decisions(np.array([1])), nothing)


def test_they_play_a_task_and_no_anonymous_arms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    new_task(Path("my-task"))
    made = baselines(["constant-best", "prior-greedy"], load_suite("my-task"))
    (batch,) = load_suite("my-task").draw("held_out", 5)
    for make_policy in made.values():
        histories = Histories(batch.setting.rules, 5, batch.words)
        decided = make_policy(batch.table).decide(histories, Streams.at(0, [(row,) for row in range(5)]))
        assert len(set(decided.arms.tolist())) == 1  # type: ignore[union-attr]
    with pytest.raises(ConfigError, match="its arms are anonymous, so what they paid in training"):
        baselines(["prior-greedy"], load_suite("smoke"))
    with pytest.raises(ConfigError, match="is fitted on a suite's training part"):
        make_baseline("constant-best")
