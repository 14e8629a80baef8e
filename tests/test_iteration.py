"""The outer loop: it learns, stops, collapses and keeps what it should, on real policies and problems."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import yaml
from safetensors.torch import load_file, save_file

from rmft.build import backend
from rmft.cli import main
from rmft.config import SelectionKind, parse_config
from rmft.evaluation.findings import best_iteration, describe_end, describe_training, is_kept
from rmft.iteration import Outcome, iterate
from rmft.problems.suites import Suite, load_suite, suite_from
from rmft.regret import pseudo_regret_curve
from rmft.run_directory import RunDirectory
from rmft.targets import evaluate_target
from rmft.types import Decisions, Example, Histories, RewardTable, Rules, Trajectories

TINY: dict[str, Any] = {
    "name": "tiny",
    "seed": 1,
    "iterations": 4,
    "policy": {"width": 8, "num_heads": 2, "num_layers": 1},
    "rollout": {"num_problems": 6, "num_rollouts": 4},
    "selection": {"kind": "lowest_regret", "num_selected": 2},
    "training": {"batch_size": 8, "learning_rate": 0.01},
    "validation": {"every": 2, "num_problems": 20},
    "num_threads": 1,
}


@dataclass
class Ran:
    path: Path
    outcome: Outcome
    history: list[dict[str, Any]]

    @property
    def result(self) -> dict[str, Any]:
        result: dict[str, Any] = json.loads((self.path / "result.json").read_text())
        return result

    def stored(self, iteration: int) -> dict[str, np.ndarray]:
        with np.load(self.path / "trajectories" / f"{iteration:06d}.npz", allow_pickle=False) as arrays:
            return dict(arrays)

    @property
    def checkpoints(self) -> list[int]:
        return sorted(int(path.name) for path in (self.path / "checkpoints").iterdir())


def setting(name: str = "one", feedback: str = "bandit", **keys: Any) -> dict[str, Any]:
    process = {"kind": "bernoulli", "means": "uniform"}
    return {"name": name, "feedback": feedback, "horizon": 8, "num_arms": 3, "reward_process": process} | keys


EASY = setting(horizon=10, num_arms=2, reward_process={"kind": "bernoulli", "means": [0.1, 0.9]})


def suite_of(*settings: dict[str, Any]) -> Suite:
    return suite_from({"name": "mine", "title": "mine", "train": {"settings": list(settings)}}, "mine")


def run(
    path: Path,
    suite: Suite | None = None,
    then: Callable[[RunDirectory, dict[str, Any]], None] = lambda _run, _metrics: None,
    **changes: Any,
) -> Ran:
    """Iterate in a new directory; a mapping among `changes` is merged into TINY's."""
    suite = suite or load_suite("smoke")
    values = TINY | {k: TINY[k] | v if isinstance(v, dict) else v for k, v in changes.items()}
    config = parse_config(values)
    history: list[dict[str, Any]] = []
    with closing(RunDirectory.create(path, config, suite.model_dump(mode="json"))) as created:

        def on_iteration(metrics: dict[str, Any]) -> None:
            history.append(metrics)
            then(created, metrics)

        outcome = iterate(created, suite, backend(config, suite), on_iteration)
        assert history == created.metrics(), "each iteration is told once, as it is stored"
    return Ran(path, outcome, history)


@pytest.mark.parametrize(("kind", "anchor"), [("lowest_regret", 0), ("excess_regret_to_go", 1)])
def test_it_learns(tmp_path: Path, kind: str, anchor: float) -> None:
    """Two arms that pay with .1 and .9, ten rounds: uniform play costs 10 x .8 / 2 = 4."""
    ran = run(
        tmp_path / "run",
        suite_of(EASY),
        iterations=20,
        rollout={"num_problems": 16, "num_rollouts": 16},
        selection={"kind": kind, "num_selected": 4},
        training={"anchor": anchor, "learning_rate": 0.02, "batch_size": 64},
        validation={"every": 5, "num_problems": 200},
    )
    start, best = (ran.history[i]["validation"]["regret"] for i in (0, ran.outcome.best_iteration))
    assert start["low"] < 4 < start["high"]
    assert best["high"] < 2.5 < start["low"]
    assert ran.outcome.status == "finished"


@pytest.mark.parametrize("kind", get_args(SelectionKind))
def test_every_selection_trains(tmp_path: Path, kind: str) -> None:
    anchor = 1 if kind == "excess_regret_to_go" else 0
    ran = run(tmp_path / "run", iterations=2, selection={"kind": kind}, training={"anchor": anchor})
    assert [metrics["iteration"] for metrics in ran.history] == [0, 1, 2]
    for metrics in ran.history[1:]:
        assert metrics["train"]["steps"] > 0
        assert np.isfinite(metrics["train"]["loss"])
        assert metrics["train"]["gradient_norm"] > 0
    selected, rollout = ran.history[1]["selected"], ran.history[1]["rollout"]
    if kind in ("lowest_regret", "lowest_regret_to_go"):
        assert selected["regret"] < rollout["regret"]
    if kind == "all":
        assert selected == {"regret": pytest.approx(rollout["regret"]), "share": 1.0}
    elif kind != "excess_regret_to_go":
        assert selected["share"] == 0.5, "2 of 4"


def test_a_run_depends_on_its_seed_and_nothing_else(tmp_path: Path) -> None:
    first, again, other = (
        run(tmp_path / name, iterations=2, seed=seed) for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert first.history == again.history
    assert first.history[1] != other.history[1]


def test_problems_on_which_nothing_can_be_learned_teach_nothing(tmp_path: Path) -> None:
    """Arms that pay alike: every regret is 0, so no decision lies above or below what was expected."""
    flat = setting(reward_process={"kind": "bernoulli", "means": [0.5, 0.5, 0.5]})
    ran = run(
        tmp_path / "run",
        suite_of(flat),
        iterations=2,
        selection={"kind": "excess_regret_to_go"},
        training={"anchor": 1},
    )
    assert ran.outcome.status == "finished"
    assert ran.history[1]["selected"] == {"regret": None, "share": 0.0}
    assert ran.history[1]["train"]["steps"] == 0


def overflow(run: RunDirectory, iteration: int) -> None:
    """Scale the last layer of a checkpoint so far up that the gradients below it overflow."""
    path = run.checkpoint(iteration) / "policy.safetensors"
    weights = load_file(path)
    weights["logit.weight"] *= 1e30
    save_file(weights, path, metadata={"config": run.config.policy.model_dump_json()})


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_best(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def at_iteration_3(run: RunDirectory, metrics: dict[str, Any]) -> None:
        if metrics["iteration"] == 3:
            overflow(run, 3)

    ran = run(tmp_path / "run", then=at_iteration_3, iterations=6, validation={"every": 1})
    assert ran.outcome.status == "collapsed"
    assert [metrics["iteration"] for metrics in ran.history] == [0, 1, 2, 3]
    best = ran.outcome.best_iteration
    assert best == min(range(4), key=lambda i: ran.history[i]["validation"]["regret"]["mean"])
    assert best in ran.checkpoints
    first, second, *_ = ran.outcome.findings
    assert first.startswith("In iteration 4: The loss is ")
    assert first.endswith("training has diverged.")
    assert second.startswith("Validation regret went from ")
    assert ran.result == {"status": "collapsed", "best_iteration": best, "findings": ran.outcome.findings}
    with pytest.raises(SystemExit) as ended:
        main(["resume", str(ran.path)])
    assert ended.value.code == 1
    printed = capsys.readouterr()
    assert "training has diverged." in printed.out
    assert "Traceback" not in printed.err
    assert ran.result["best_iteration"] == best


def test_patience_stops_a_run_that_gets_no_better(tmp_path: Path) -> None:
    """Too slow to change any decision: the start stays the best, and two validations later it ends."""
    slow = {"learning_rate": 1e-12}
    ran = run(tmp_path / "run", iterations=9, training=slow, validation={"every": 2, "patience": 2})
    assert ran.outcome == Outcome("stopped", 0, ran.outcome.findings)
    assert [metrics["iteration"] for metrics in ran.history] == [0, 1, 2, 3, 4]
    assert ran.result["status"] == "stopped"
    with closing(RunDirectory.open(ran.path)) as opened:
        suite = suite_from(opened.suite, "suite")
        machinery = backend(opened.config, suite)
        again = iterate(opened, suite, machinery, lambda _: pytest.fail("nothing is owed"))
    assert again == ran.outcome


def test_start_best_and_the_newest_two_checkpoints_are_kept(tmp_path: Path) -> None:
    seen: list[set[int]] = []

    def note(run: RunDirectory, metrics: dict[str, Any]) -> None:
        names = {int(path.name) for path in (run.path / "checkpoints").iterdir()}
        newest = metrics["iteration"]
        assert names == {0, best_iteration(run.metrics()), max(newest - 1, 0), newest}
        seen.append(names)

    ran = run(tmp_path / "run", then=note, iterations=6, validation={"every": 1})
    assert set(ran.checkpoints) == {0, ran.outcome.best_iteration, 5, 6}
    assert len(seen) == 7
    assert not any(path.name.startswith(".") for path in (ran.path / "checkpoints").iterdir())


def test_validation_comes_every_n_and_at_the_end(tmp_path: Path) -> None:
    ran = run(tmp_path / "run", iterations=5, validation={"every": 3})
    assert [m["iteration"] for m in ran.history if "validation" in m] == [0, 3, 5]
    validated = {"regret", "suff_fail_freq", "k_min_frac", "entropy", "failed"}
    assert set(ran.history[0]["validation"]) == validated
    assert ran.history[0]["validation"]["entropy"]["mean"] == pytest.approx(np.log(3)), "it starts uniform"


def test_what_is_stored_of_an_iteration_gives_its_regrets_again(tmp_path: Path) -> None:
    suite = load_suite("smoke")
    ran = run(tmp_path / "run", suite, iterations=2)
    for iteration in (1, 2):
        arrays = {name.removeprefix("bernoulli/"): a for name, a in ran.stored(iteration).items()}
        assert {name: (a.shape, str(a.dtype)) for name, a in arrays.items()} == {
            "problem": ((6,), "int64"),
            "regret": ((6, 4), "float32"),
            "row": ((12,), "int32"),
            "arm": ((12, 10), "int16"),
            "reward": ((12, 10), "float32"),
            "weight": ((12, 10), "float16"),
            "failed": ((24,), "bool"),
            "probabilities": ((10, 10, 3), "float16"),  # of the first few kept, all that is shown
            "expected_rewards": ((10, 10, 3), "float32"),
            "round_regret": ((10, 10), "float32"),
        }
        assert arrays["problem"].tolist() == list(range(6))
        assert (arrays["weight"] == 1).all()
        [batch] = suite.draw("train", 6, TINY["seed"], iteration)
        problem, rollout = np.divmod(arrays["row"], 4)
        assert problem.tolist() == [p for p in range(6) for _ in range(2)], "2 of every problem"
        played = np.eye(3)[arrays["arm"]]
        table = batch.table.rows(problem)
        assert np.array_equal((played * table.rewards).sum(axis=2), arrays["reward"])
        regrets = pseudo_regret_curve(table.expected_rewards, played)[:, -1]
        assert regrets == pytest.approx(arrays["regret"][problem, rollout], abs=1e-5)
        assert arrays["round_regret"].sum(axis=1) == pytest.approx(regrets[:10], abs=1e-5)
        assert arrays["expected_rewards"] == pytest.approx(table.expected_rewards[:10], abs=1e-6)
        assert arrays["probabilities"].sum(axis=2) == pytest.approx(1, abs=1e-2)
        left = np.ones((6, 4), dtype=bool)
        left[problem, rollout] = False
        lowest = regrets.reshape(6, 2).max(axis=1)
        assert (arrays["regret"][left].reshape(6, 2).min(axis=1) >= lowest - 1e-5).all()
        assert ran.history[iteration]["rollout"]["regret"] == pytest.approx(arrays["regret"].mean(), abs=1e-5)
        assert ran.history[iteration]["selected"]["regret"] == pytest.approx(regrets.mean(), abs=1e-5)
    assert not np.array_equal(ran.stored(1)["bernoulli/arm"], ran.stored(2)["bernoulli/arm"])


def test_one_policy_trains_on_settings_of_several_shapes(tmp_path: Path) -> None:
    """The mixture's kinds of problem, and bandits among them, shrunk in a user's own suite file."""
    mixture = load_suite("fol/mixture").model_dump(mode="json")
    settings = [
        each | {"horizon": horizon, "num_arms": arms}
        for each, horizon, arms in zip(mixture["train"]["settings"], (6, 8, 8), (2, 3, 3), strict=True)
    ]
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(mixture | {"name": "mine", "train": {"settings": [*settings, setting()]}}))
    ran = run(
        tmp_path / "run",
        load_suite(path),
        iterations=2,
        rollout={"num_problems": 9},
        selection={"kind": "lowest_regret_to_go"},
    )
    shapes = {
        name: array.shape for name, array in ran.stored(2).items() if name.endswith(("/regret", "/reward"))
    }
    kept = {
        name: ran.stored(2)[f"{name}/row"].size
        for name in ("gaussian", "alternating", "abrupt-switches", "one")
    }
    assert shapes == {
        "gaussian/regret": (3, 4),
        "gaussian/reward": (kept["gaussian"], 6, 2),
        "alternating/regret": (2, 4),
        "alternating/reward": (kept["alternating"], 8, 3),
        "abrupt-switches/regret": (2, 4),
        "abrupt-switches/reward": (kept["abrupt-switches"], 8, 3),
        "one/regret": (2, 4),
        "one/reward": (kept["one"], 8),
    }
    assert ran.history[2]["train"]["loss"] > 0


def test_the_best_policy_is_what_is_evaluated(tmp_path: Path) -> None:
    """Spoil all checkpoints but the best: evaluation does not notice."""
    ran = run(
        tmp_path / "run",
        suite_of(EASY),
        seed=2,
        iterations=8,
        rollout={"num_problems": 8, "num_rollouts": 8},
        selection={"kind": "excess_regret_to_go"},
        training={"anchor": 1, "learning_rate": 0.05},
        validation={"every": 1},
    )
    best = ran.outcome.best_iteration
    assert 0 < best < 8
    for iteration in set(ran.checkpoints) - {0, best}:
        (ran.path / "checkpoints" / f"{iteration:06d}" / "policy.safetensors").write_bytes(b"")
    evaluated, written = evaluate_target(
        str(ran.path), None, ["start"], "validation", 20, 1, 0, progress=lambda _: None
    )
    assert evaluated.policies == ["best", "start"]
    assert written == ran.path / "evaluation-mine-validation.json"


def validated(iteration: int, regret: float, suff_fail: float = 0.0, entropy: float = 1.0) -> dict[str, Any]:
    """Metrics with an interval of +-0.1 around each mean."""
    measures = {"regret": regret, "suff_fail_freq": suff_fail, "entropy": entropy}
    intervals = {name: {"mean": x, "low": x - 0.1, "high": x + 0.1} for name, x in measures.items()}
    return {"iteration": iteration, "validation": intervals}


def test_the_best_iteration_is_the_first_of_lowest_validation_regret() -> None:
    history = [validated(0, 3.0), {"iteration": 1}, validated(2, 2.0), validated(3, 2.0), validated(4, 2.5)]
    assert best_iteration(history) == 2


def test_a_run_that_went_well_is_told_in_one_sentence() -> None:
    history = [validated(0, 3.0), {"iteration": 1}, validated(2, 2.0), validated(3, 2.25)]
    assert describe_end(history, 2) == [
        "Validation regret went from 3.00 to 2.00 at iteration 2, the best.",
    ]


def test_worse_than_the_start_is_told_when_the_interval_says_so() -> None:
    history = [validated(0, 3.0), validated(5, 3.2)]
    [_, worse] = describe_end(history, 0)
    assert worse.startswith(
        "It got worse than the start: 3.20 at iteration 5. Try a lower training.learning_rate"
    )
    assert len(describe_end([validated(0, 3.0), validated(5, 3.05)], 0)) == 1, "3.05 - 0.1 is below 3"
    one_problem = validated(5, 9.0)
    one_problem["validation"]["regret"] |= {"low": None, "high": None}
    assert len(describe_end([validated(0, 3.0), one_problem], 0)) == 1, "no interval, no claim"


def test_lock_in_is_low_entropy_and_more_suffix_failures_together() -> None:
    start = validated(0, 3.0, suff_fail=0.05, entropy=1.1)
    [_, locked] = describe_end([start, validated(9, 2.0, suff_fail=0.4, entropy=0.001)], 9)
    assert "It locked in: entropy is down to 0.001 nats" in locked
    assert "SuffFailFreq rose to 0.40 from 0.05" in locked
    assert len(describe_end([start, validated(9, 2.0, suff_fail=0.4, entropy=0.5)], 9)) == 1
    assert len(describe_end([start, validated(9, 2.0, suff_fail=0.1, entropy=0.001)], 9)) == 1


@dataclass
class OneSetting:
    regret_kind: str = "pseudo"


@dataclass
class OneBatch:
    setting: OneSetting


def test_the_figures_of_an_iteration_by_hand() -> None:
    """Two rounds of two arms that pay 0 and 1, by three rollouts: regrets 2, 1 and 0.

    Weights 1 for a whole rollout, and half of another: selected are (1 x 1 + 0.5 x 0) / 1.5 = 2/3, by
    3 of 6 decisions; a negative weight counts as a decision, but not for the regret.
    """
    rules = Rules("bandit", 2, 2)
    histories = Histories(rules, 3)
    for arms in ([0, 0, 1], [0, 1, 1]):
        histories.append(Decisions(np.array(arms), np.full((3, 2), 0.5)), np.array(arms, dtype=float))
    rewards = np.tile(np.array([0.0, 1.0]), (3, 2, 1))
    trajectories = Trajectories(histories, RewardTable(rewards, rewards))
    regret = np.array([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
    batch = OneBatch(OneSetting())

    def figures(weights: list[list[float]]) -> dict[str, Any]:
        return describe_training([batch], [Example(trajectories, np.array(weights))], [regret])

    described = figures([[0, 0], [1, 1], [1, 0]])
    assert described["rollout"]["regret"] == 1.0
    assert described["rollout"]["entropy"] == pytest.approx(np.log(2))
    assert described["selected"] == {"regret": pytest.approx(2 / 3), "share": 0.5}
    # sums 0, 2 and 1, of mean 1: regret 2 is rejected, 1 and 0 are kept
    assert described["kept"] == {"regret": 0.5, "share": pytest.approx(2 / 3)}
    assert described["rejected"] == {"regret": 2.0, "share": pytest.approx(1 / 3)}
    # one of three begins with the best arm; of what is selected, 0.5 of 1.5
    assert described["first_arm_best"] == {"rollout": pytest.approx(1 / 3), "selected": pytest.approx(1 / 3)}
    assert figures([[-1, 0], [1, 1], [1, 0]])["selected"] == {
        "regret": pytest.approx(2 / 3),
        "share": pytest.approx(4 / 6),
    }
    nothing = figures([[0, 0], [0, 0], [0, 0]])
    assert nothing["selected"] == {"regret": None, "share": 0.0}
    assert nothing["kept"] == {"regret": None, "share": 0.0}
    assert nothing["rejected"] == {"regret": 1.0, "share": 1.0}


def test_rollouts_are_kept_or_rejected_by_what_their_weights_sum_to() -> None:
    def kept(weights: list[list[float]]) -> list[bool]:
        return is_kept(np.array(weights, dtype=float)).tolist()

    assert kept([[1, 1, 1], [0, 0, 0], [1, 1, 1]]) == [True, False, True], "whole trajectories"
    assert kept([[0.1, 0.2, 0.4]] * 3) == [True] * 3, "all count the same"
    assert kept([[1, 0, 0], [0, 1, 1]]) == [False, True], "rounds one by one: sums 1 and 2, of mean 1.5"
    assert kept([[1, -1, 0.5], [-1, -1, 1], [-0.5, 1, 1]]) == [True, False, True], "sums 0.5, -1, 1.5"
    assert kept([[-1, -1], [-1, 1], [0.5, 0]]) == [False, False, True], "above average, but not above 0"
