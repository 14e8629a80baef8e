"""The outer loop: it learns, stops, collapses and keeps what it should, on real policies and problems."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.torch import load_file, save_file

from batches import batch_of
from rmft.cli import main
from rmft.commands import evaluate_target
from rmft.config import RunConfig, parse_config
from rmft.errors import ConfigError, RmftError
from rmft.evaluation.findings import above_average, best_iteration, describe_end, describe_training
from rmft.improve import improve, seed_of
from rmft.iteration import Outcome, iterate
from rmft.problems.suites import Suite, load_suite, suite_from
from rmft.records.files import read_record
from rmft.regret import pseudo_regret_curve
from rmft.run_directory import RunDirectory
from rmft.types import Decisions, Histories, RewardTable, Rules, Trajectories
from rmft.wiring.backends import backend
from rmft.wiring.suites import suites_of

TINY: dict[str, Any] = {
    "name": "tiny",
    "seed": 1,
    "iterations": 4,
    "policy": {"width": 8, "num_heads": 2, "num_layers": 1},
    "rollout": {"num_problems": 6, "num_rollouts": 4},
    "credit": {"kind": "top_k_regret", "num_selected": 2},
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
    """Iterate in a new directory; a mapping among `changes` is merged into TINY's, but for another kind."""
    config = config_of(**changes)
    suites = {config.suite: suite or load_suite("smoke")}
    return run_with(path, config, suites, then)


def config_of(**changes: Any) -> RunConfig:
    def merged(key: str, value: Any) -> Any:
        base = TINY.get(key, {})
        replaces = not isinstance(value, dict) or value.get("kind", base.get("kind")) != base.get("kind")
        return value if replaces else base | value

    return parse_config(TINY | {key: merged(key, value) for key, value in changes.items()})


def run_with(
    path: Path,
    config: RunConfig,
    suites: dict[str, Suite],
    then: Callable[[RunDirectory, dict[str, Any]], None] = lambda _run, _metrics: None,
) -> Ran:
    history: list[dict[str, Any]] = []
    data = {name: suite.model_dump(mode="json") for name, suite in suites.items()}
    with closing(RunDirectory.create(path, config, data)) as created:

        def on_iteration(metrics: dict[str, Any]) -> None:
            history.append(metrics)
            then(created, metrics)

        outcome = iterate(created, suites, backend(config, suites), on_iteration)
        assert history == created.metrics(), "each iteration is told once, as it is stored"
    return Ran(path, outcome, history)


TOP_4 = {"kind": "top_k_regret", "num_selected": 4}
GRADIENT = {"kind": "policy_gradient"}
KL_1 = {"objective": {"kind": "policy_gradient", "kl_coef": 1}}


@pytest.mark.parametrize(("credit", "objective"), [(TOP_4, {}), (GRADIENT, KL_1)])
def test_it_learns(tmp_path: Path, credit: dict[str, Any], objective: dict[str, Any]) -> None:
    """Two arms that pay with .1 and .9, ten rounds: uniform play costs 10 x .8 / 2 = 4."""
    ran = run(
        tmp_path / "run",
        suite_of(EASY),
        iterations=20,
        rollout={"num_problems": 16, "num_rollouts": 16},
        credit=credit,
        training=objective | {"learning_rate": 0.02, "batch_size": 64},
        validation={"every": 5, "num_problems": 200},
    )
    start, best = (ran.history[i]["validation"]["regret"] for i in (0, ran.outcome.best_iteration))
    assert start["low"] < 4 < start["high"]
    assert best["high"] < 2.5 < start["low"]
    assert ran.outcome.status == "finished"


CREDITS: dict[str, dict[str, Any]] = {
    "top_k_regret": {"num_selected": 2},
    "top_k_regret_to_go": {"num_selected": 2},
    "top_k_reward": {"num_selected": 2},
    "random": {"num_selected": 2},
    "all": {},
    "policy_gradient": {},
    "grpo": {},
    "preference_pairs": {},
}
OBJECTIVES = {
    "policy_gradient": KL_1,
    "grpo": {"objective": {"kind": "ppo_clip", "kl_coef": 0.1}},
    "preference_pairs": {"objective": {"kind": "dpo"}},
}


@pytest.mark.parametrize("kind", CREDITS)
def test_every_credit_trains(tmp_path: Path, kind: str) -> None:
    objective = OBJECTIVES.get(kind, {})
    ran = run(tmp_path / "run", iterations=2, credit={"kind": kind} | CREDITS[kind], training=objective)
    assert [metrics["iteration"] for metrics in ran.history] == [0, 1, 2]
    for metrics in ran.history[1:]:
        assert metrics["train"]["steps"] > 0
        assert np.isfinite(metrics["train"]["loss"])
        assert metrics["train"]["gradient_norm"] > 0
        assert metrics["train"]["kl"] > -1e-6
    figures = ran.history[1]
    if kind.startswith("top_k_regret"):
        assert figures["above"]["regret"] < figures["rollout"]["regret"] < figures["below"]["regret"]
    if kind == "all":
        assert figures["above"] == {"regret": pytest.approx(figures["rollout"]["regret"]), "share": 1.0}
    if kind != "preference_pairs":  # two of four, unless all four were paid the same
        assert figures["mask"]["share"] == (0.5 if "num_selected" in CREDITS[kind] else 1.0), "2 of 4"


def test_every_kind_of_credit_is_trained_here() -> None:
    """A kind of credit that is added is added to the tests."""
    with pytest.raises(ConfigError) as refused:
        parse_config({"credit": {"kind": "nobody"}})
    assert all(kind in str(refused.value) for kind in CREDITS)


def test_a_run_depends_on_its_seed_and_nothing_else(tmp_path: Path) -> None:
    first, again, other = (
        run(tmp_path / name, iterations=2, seed=seed) for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert first.history == again.history
    assert first.history[1] != other.history[1]


def test_a_run_stores_what_its_iterations_make_without_it(tmp_path: Path) -> None:
    """`improve`, which knows no run directory, writes the same policies, byte for byte."""
    config, suites = config_of(iterations=3), {"smoke": load_suite("smoke")}
    ran = run_with(tmp_path / "run", config, suites)
    machinery = backend(config, suites)
    (tmp_path / "0").mkdir()
    policy = machinery.start(tmp_path / "0", seed_of(config.seed, 0))
    for iteration in range(1, 4):
        stage, progress = config.stage_of(iteration)
        problems = suites["smoke"].draw("train", stage.rollout.num_problems, config.seed, iteration)
        target = tmp_path / str(iteration)
        target.mkdir()
        policy, made = improve(
            *(policy, machinery, problems, stage, target),
            iteration=iteration, seed=config.seed, progress=progress,
        )  # fmt: skip
        assert policy.path == target
        assert made.figures == ran.history[iteration]["train"]
        assert made.mean_regret == pytest.approx(ran.history[iteration]["rollout"]["regret"])
        assert made.seconds.keys() == {"rollout", "credit", "train"}
        stored = ran.path / "checkpoints" / f"{iteration:06d}"
        if stored.exists():
            assert contents(stored) == contents(target)
    assert 3 in ran.checkpoints


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_problems_on_which_nothing_can_be_learned_teach_nothing(tmp_path: Path) -> None:
    """Arms that pay alike: every regret is 0, so no decision lies above or below what was expected.

    All are in the loss with advantage 0: what is left is the KL term, which is at its least already.
    """
    flat = setting(reward_process={"kind": "bernoulli", "means": [0.5, 0.5, 0.5]})
    ran = run(tmp_path / "run", suite_of(flat), iterations=2, credit=GRADIENT, training=KL_1)
    assert ran.outcome.status == "finished"
    figures = ran.history[1]
    assert figures["mask"]["share"] == 1.0
    assert figures["above"] == {"regret": None, "share": 0.0}
    assert figures["train"]["loss"] == pytest.approx(0, abs=1e-5)
    assert figures["train"]["gradient_norm"] == pytest.approx(0, abs=1e-5)


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
        suites = suites_of(opened, trust=False)
        machinery = backend(opened.config, suites)
        again = iterate(opened, suites, machinery, lambda _: pytest.fail("nothing is owed"))
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
        [recorded] = read_record(tmp_path / "run", iteration)
        learned = recorded.learned
        histories, table = learned.trajectories.histories, learned.trajectories.table
        assert learned.group.tolist() == [problem for problem in range(6) for _ in range(4)]
        [batch] = suite.draw("train", 6, TINY["seed"], iteration)
        assert np.allclose(table.rewards, batch.table.rewards[learned.group])
        assert np.allclose(table.expected_rewards, batch.table.expected_rewards[learned.group], atol=1e-6)
        assert np.array_equal((histories.played * table.rewards).sum(axis=2), histories.rewards)
        regrets = pseudo_regret_curve(table.expected_rewards, histories.played)[:, -1]
        assert recorded.regret.sum(axis=1) == pytest.approx(regrets, abs=1e-5)
        assert ran.history[iteration]["rollout"]["regret"] == pytest.approx(regrets.mean(), abs=1e-5)
        # 2 of the 4 rollouts of every problem are learned from, whole, and they have the lowest regret.
        kept = learned.mask.all(axis=1)
        assert np.array_equal(kept, learned.mask.any(axis=1))
        assert kept.reshape(6, 4).sum(axis=1).tolist() == [2] * 6
        assert (learned.advantages[kept] == 1).all()
        of_kept = regrets[kept].reshape(6, 2).max(axis=1)
        assert (regrets[~kept].reshape(6, 2).min(axis=1) >= of_kept - 1e-5).all()
        assert ran.history[iteration]["above"]["regret"] == pytest.approx(regrets[kept].mean(), abs=1e-5)
    first, second = (read_record(tmp_path / "run", iteration)[0] for iteration in (1, 2))
    one, other = (each.learned.trajectories.histories.arms for each in (first, second))
    assert not np.array_equal(one, other)


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
        credit={"kind": "top_k_regret_to_go", "num_selected": 2},
    )
    shapes = {
        each.setting: (each.regret.shape, each.learned.trajectories.histories.rewards.shape)
        for each in read_record(tmp_path / "run", 2)
    }
    assert shapes == {
        "gaussian": ((12, 6), (12, 6, 2)),
        "alternating": ((8, 8), (8, 8, 3)),
        "abrupt-switches": ((8, 8), (8, 8, 3)),
        "one": ((8, 8), (8, 8)),
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
        credit=GRADIENT,
        training=KL_1 | {"learning_rate": 0.05},
        validation={"every": 1},
    )
    best = ran.outcome.best_iteration
    assert best > 0
    for iteration in set(ran.checkpoints) - {0, best}:
        (ran.path / "checkpoints" / f"{iteration:06d}" / "policy.safetensors").write_bytes(b"")
    evaluated, keep = evaluate_target(
        str(ran.path), None, ["start"], "validation", 20, 1, 0, progress=lambda _: None
    )
    assert evaluated.policies == ["best", "start"]
    written = keep()
    assert written is not None
    assert re.fullmatch(r"evaluation-mine-validation-[0-9a-f]{8}\.json", written.name)


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

    In the loss are a whole rollout and half of another: 3 of 6 decisions.
    """
    rules = Rules("bandit", 2, 2)
    histories = Histories(rules, 3)
    for arms in ([0, 0, 1], [0, 1, 1]):
        histories.append(Decisions(np.array(arms), np.full((3, 2), 0.5)), np.array(arms, dtype=float))
    rewards = np.tile(np.array([0.0, 1.0]), (3, 2, 1))
    trajectories = Trajectories(histories, RewardTable(rewards, rewards))
    regret = np.array([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
    batch = OneBatch(OneSetting())

    def figures(advantages: list[list[float]]) -> dict[str, Any]:
        return describe_training([batch], [batch_of(trajectories, np.array(advantages))], [regret])

    described = figures([[0, 0], [1, 1], [1, 0]])
    assert described["rollout"]["regret"] == 1.0
    assert described["rollout"]["entropy"] == pytest.approx(np.log(2))
    assert described["mask"] == {"share": 0.5}
    # sums 0, 2 and 1, of mean 1: regret 2 is below average, 1 and 0 are above
    assert described["above"] == {"regret": 0.5, "share": pytest.approx(2 / 3)}
    assert described["below"] == {"regret": 2.0, "share": pytest.approx(1 / 3)}
    # one of three begins with the best arm; of the two above average, one
    assert described["first_arm_best"] == {"rollout": pytest.approx(1 / 3), "above": 0.5}
    assert figures([[-1, 0], [1, 1], [1, 0]])["mask"] == {"share": pytest.approx(4 / 6)}
    nothing = figures([[0, 0], [0, 0], [0, 0]])
    assert nothing["mask"] == {"share": 0.0}
    assert nothing["above"] == {"regret": None, "share": 0.0}
    assert nothing["below"] == {"regret": 1.0, "share": 1.0}
    assert nothing["first_arm_best"]["above"] is None


def test_rollouts_are_above_average_by_what_their_advantages_sum_to() -> None:
    def above(advantages: list[list[float]], mask: list[list[float]] | None = None) -> list[bool]:
        rows, horizon = np.shape(advantages)
        zeros = np.zeros((rows, horizon, 2))
        trajectories = Trajectories(Histories(Rules("bandit", horizon, 2), rows), RewardTable(zeros, zeros))
        learned = None if mask is None else np.array(mask, dtype=bool)
        return above_average(batch_of(trajectories, np.array(advantages, dtype=float), learned)).tolist()

    assert above([[1, 1, 1], [0, 0, 0], [1, 1, 1]]) == [True, False, True], "whole trajectories"
    assert above([[0.1, 0.2, 0.4]] * 3) == [True] * 3, "all count the same"
    assert above([[1, 0, 0], [0, 1, 1]]) == [False, True], "rounds one by one: sums 1 and 2, of mean 1.5"
    assert above([[1, -1, 0.5], [-1, -1, 1], [-0.5, 1, 1]]) == [True, False, True], "sums 0.5, -1, 1.5"
    assert above([[-1, -1], [-1, 1], [0.5, 0]]) == [False, False, True], "above average, but not above 0"
    assert above([[1, 1], [1, 1]], [[1, 1], [0, 0]]) == [True, False], "what is not in the loss is no sum"


# stages


STAGES = [
    {"suite": "short", "iterations": 2, "rollout": {"num_problems": 3, "temperature": 1.5}},
    {"iterations": 3, "credit": GRADIENT, "training": KL_1},
]
SHORT, LONG = setting("short", horizon=4, num_arms=2), setting("long", horizon=8)


def test_stages_train_one_after_the_other_with_one_policy(tmp_path: Path) -> None:
    values = {key: value for key, value in TINY.items() if key != "iterations"}
    config = parse_config(values | {"suite": "long", "stages": STAGES})
    assert config.iterations == 5
    suites = {"short": suite_of(SHORT), "long": suite_of(LONG)}
    ran = run_with(tmp_path / "run", config, suites)
    history = ran.history
    assert [metrics["iteration"] for metrics in history] == [0, 1, 2, 3, 4, 5]
    # what was played: the suite and its number of problems
    records = [read_record(tmp_path / "run", iteration) for iteration in range(1, 6)]
    assert [[each.setting for each in record] for record in records] == [["short"]] * 2 + [["long"]] * 3
    assert [len(np.unique(record[0].learned.group)) for record in records] == [3, 3, 6, 6, 6]
    assert [record[0].learned.temperature for record in records] == [1.5, 1.5, 1, 1, 1]
    # how it was trained
    assert [metrics["mask"]["share"] for metrics in history[1:]] == [0.5, 0.5, 1.0, 1.0, 1.0]
    # each stage has a learning rate of its own, from the warm-up to 5% of the peak
    rates = [metrics["train"]["learning_rate"] for metrics in history[1:]]
    assert rates[1] == rates[4] == pytest.approx(0.05 * 0.01)
    assert rates[2] > rates[3] > rates[4]
    assert rates[0] == pytest.approx(0.01 * (0.05 + 0.475)), "half of the first stage is done"
    # validation is always on the run's suite
    [batch] = suites["long"].draw("validation", 20)
    assert batch.setting.name == "long"
    assert all("validation" in history[iteration] for iteration in (0, 2, 4, 5))
    # the policy and its optimizer go on from stage to stage: a second run of the last stage alone, from
    # the policy after the first, makes the same
    assert {path.name for path in (ran.path / "checkpoints" / "000005").iterdir()} == {
        "optimizer.safetensors",
        "policy.safetensors",
    }
    steps = load_file(ran.path / "checkpoints" / "000005" / "optimizer.safetensors")
    counted = sum(int(metrics["train"]["steps"]) for metrics in history[1:])
    assert {int(value) for name, value in steps.items() if name.endswith("/step")} == {counted}


def test_the_temperature_of_a_stage_is_that_of_its_rollouts_and_its_loss(tmp_path: Path) -> None:
    """From a policy that is far from uniform, the KL term is 0 in the first step at any temperature."""
    first = run(tmp_path / "first", suite_of(EASY), iterations=6, training={"epochs": 8})
    flat = setting(horizon=10, num_arms=2, reward_process={"kind": "bernoulli", "means": [0.5, 0.5]})
    for temperature in (0.5, 2.0):
        ran = run(
            tmp_path / f"at-{temperature}",
            suite_of(flat),
            init_from=str(first.path / "checkpoints" / "000006"),
            iterations=1,
            rollout={"temperature": temperature},
            credit=GRADIENT,
            training=KL_1 | {"batch_size": 1000},
        )
        assert ran.history[0]["validation"]["entropy"]["mean"] < 0.6
        assert ran.history[1]["train"]["kl"] == pytest.approx(0, abs=1e-5)


# where a run starts


def test_a_run_starts_from_a_run_or_a_folder(tmp_path: Path) -> None:
    first = run(tmp_path / "first", iterations=3)
    best = first.path / "checkpoints" / f"{first.outcome.best_iteration:06d}"
    for name, source in {"run": first.path, "folder": best}.items():
        ran = run(tmp_path / name, iterations=1, init_from=str(source))
        assert contents(ran.path / "checkpoints" / "000000") == contents(best)
        assert ran.history[0]["validation"] == first.history[first.outcome.best_iteration]["validation"]


def test_another_network_is_no_start(tmp_path: Path) -> None:
    first = run(tmp_path / "first", iterations=1)
    with pytest.raises(ConfigError, match=r"init_from .* a network with .*width=8.* expected .*width=16"):
        run(tmp_path / "wider", iterations=1, policy={"width": 16}, init_from=str(first.path))


def test_a_language_model_is_no_start_of_a_numeric_policy(tmp_path: Path) -> None:
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "policy.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"init_from .* holds a local policy"):
        run(tmp_path / "run", iterations=1, init_from=str(tmp_path / "words"))


def test_nothing_is_no_start(tmp_path: Path) -> None:
    with pytest.raises(RmftError, match="nowhere"):
        run(tmp_path / "run", iterations=1, init_from=str(tmp_path / "nowhere"))
