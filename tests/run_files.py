"""Run directories made by hand, as fast as files are written: for tests of what is shown of a run."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rmft.credit import TopKRegret, credit
from rmft.evaluation.conversations import KeptConversations
from rmft.evaluation.evaluate import evaluate
from rmft.iteration import recorded
from rmft.problems.suites import Suite, load_suite
from rmft.records.arrays import to_arrays
from rmft.records.lines import lines as record_lines
from rmft.regret import round_regret
from rmft.rollout import rollout, rows_of_arrays
from rmft.run_directory import write_lines
from rmft.streams import Streams, generator
from rmft.types import Decisions, Histories, Rules, Turn

# regret, SuffFailFreq, and the exponent with which regret grows, of made-up policies on T=50, K=5
POLICIES = {
    "start": (16.40, 0.330, 1.00),
    "best": (3.70, 0.190, 0.45),
    "thompson": (6.30, 0.020, 0.60),
    "bayes-ucb(quantile=0.9)": (3.68, 0.170, 0.46),
    "sharpened-thompson": (4.39, 0.140, 0.50),
    "ucb": (4.65, 0.080, 0.53),
    "optimistic-greedy": (3.62, 0.210, 0.44),
    "ucb1": (10.50, 0.010, 0.84),
    "uniform": (16.60, 0.002, 1.00),
    "oracle": (0.00, 0.000, 1.00),
}
HORIZON = 50
HOSTILE = (
    "</script><script>alert(1)</script><img src=http://evil.example/x onerror=alert(1)>\u202egpj\x1b[31m"
)


def around(mean: float, width: float) -> dict[str, float]:
    return {"mean": mean, "low": mean - width, "high": mean + width}


def pulls(regret: float, suff_fail: float) -> dict[str, list[float]]:
    """Two humps: a share that never finds the best arm, and the rest who play it most of the time."""
    late = [math.exp(-(((n - 48 + 2 * regret) / 6) ** 2)) for n in range(HORIZON + 1)]
    early = [math.exp(-n / 2) for n in range(HORIZON + 1)]
    counts = [
        round(4000 * (suff_fail * early[n] / sum(early) + (1 - suff_fail) * late[n] / sum(late)))
        for n in range(HORIZON + 1)
    ]
    return {"counts": counts, "edges": [float(n) for n in range(HORIZON + 2)]}


def policy(name: str, others: list[str]) -> dict[str, object]:
    regret, suff_fail, exponent = POLICIES[name]
    curve = [regret * (t / HORIZON) ** exponent for t in range(1, HORIZON + 1)]
    return {
        "measures": {
            "regret": around(regret, 0.03 * regret),
            "suff_fail_freq": around(suff_fail, 0.02),
            "k_min_frac": around(0.2, 0.01),
            "greedy_frac": around(0.8, 0.01),
            "best_arm_freq": around(0.7, 0.01),
            "coverage": around(0.9, 0.01),
            "first_arm_only": around(suff_fail / 2, 0.01),
        },
        "paired_difference": {
            other: {"regret": around(regret - POLICIES[other][0], 0.1)} for other in others if other != name
        },
        "relative_regret": {
            other: around(regret / POLICIES[other][0], 0.03) for other in others if POLICIES[other][0] > 0
        },
        "trend_check": {"s": 40, "p_trend": 1e-6},
        "regression_check": {
            "b0": exponent,
            "p_reg": 1e-9,
            "floored": 0,
            "b0_below_1": {"p_value": 0.001, "low": exponent - 0.02, "high": exponent + 0.02},
        },
        "regret_curve": {
            "mean": curve,
            "low": [0.97 * value for value in curve],
            "high": [1.03 * value for value in curve],
        },
        "best_arm_pulls": pulls(regret, suff_fail),
    }


def evaluation(names: list[str], settings: list[str]) -> dict[str, object]:
    policies = {name: policy(name, names) for name in names}
    facts = {
        "feedback": "bandit",
        "horizon": HORIZON,
        "num_arms": 5,
        "regret": "pseudo",
        "num_problems": 2000,
    }
    pooled = ("measures", "paired_difference", "relative_regret")
    return {
        "format": "rmft-evaluation/1",
        "suite": "mab/uniform-means",
        "part": "held_out",
        "num_problems": 2000,
        "num_rollouts": 2,
        "seed": 0,
        "confidence": 0.95,
        "versions": {"numpy": "2.0"},
        "settings": {setting: {**facts, "policies": policies} for setting in settings},
        "overall": {name: {key: item[key] for key in pooled} for name, item in policies.items()},
    }


def metrics(last: int, *, reasons: bool = False) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for index in range(last + 1):
        left = math.exp(-index / 9)
        regret, suff_fail = 3.8 + 12.6 * left + 0.01 * max(0, index - 40), 0.1 + 0.25 * abs(0.4 - left)
        row: dict[str, object] = {"iteration": index}
        if index:
            wobble = 0.4 * math.sin(7 * index)
            row["rollout"] = {
                "regret": regret + 1 + wobble,
                "suff_fail_freq": suff_fail + 0.03,
                "entropy": left,
            }
            if reasons:
                row["reasoning"] = {"cut": 0.25, "says": 0.5, "says_does": 1 - left}
            row["mask"] = {"share": 0.5}
            row["above"] = {"regret": 0.8 * (regret + 1 + wobble), "share": 0.5}
            row["below"] = {"regret": 1.2 * (regret + 1 + wobble), "share": 0.5}
            row["train"] = {"loss": 0.3 + left, "tokens": 90.0, "usd": 0.1}
            row["rollout"] |= {"tokens": 10, "failed": 0.25 if index == 3 else 0.0}  # type: ignore[operator]
            row["first_arm_best"] = {"rollout": 0.5, "above": 0.75}
        if index % 5 == 0:
            row["validation"] = {"regret": around(regret, 0.25), "suff_fail_freq": around(suff_fail, 0.03)}
        rows.append(row)
    return rows


def lines(rows: list[dict[str, object]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def write_run(
    run_dir: Path,
    name: str = "demo",
    config: str = "suite: mab/uniform-means\ntraining:\n  epochs: 2\n  learning_rate: 0.001\n",
    last: int = 60,
    names: list[str] | None = None,
    settings: list[str] | None = None,
) -> Path:
    run_dir.mkdir()
    about = {"format": 2, "rmft": "0.1.0", "name": name, "suite": "mab/uniform-means", "seed": 7,
             "versions": {"python": "3.12", "numpy": "2.0"}, "started": "2026-01-02T03:04:05"}  # fmt: skip
    timings = [
        {"iteration": index, "rollout": 1.5, "credit": 0.25, "train": 2.0} for index in range(1, last + 1)
    ]
    files = {
        "config.yaml": config,
        "run.json": json.dumps(about),
        "metrics.jsonl": lines(metrics(last)),
        "timings.jsonl": lines(timings),
        "result.json": json.dumps({"status": "finished", "best_iteration": 40, "findings": ["No collapse."]}),
        "evaluation.json": json.dumps(evaluation(names or list(POLICIES), settings or ["uniform-means"])),
    }
    for file, content in files.items():
        (run_dir / file).write_text(content, encoding="utf-8")
    return run_dir


class Talker:
    """Decides by the means that it saw, the sharper the surer, and says its words before every decision.

    words: those of each row, in turn.
    """

    name = "talker"
    max_concurrency = 1

    def __init__(self, sharpness: float, words: Sequence[str] = ("Let me see.",)) -> None:
        self.sharpness, self.words = sharpness, words

    def rows_at_once(self, rules: Rules) -> int:
        return rows_of_arrays(rules)

    def decide(self, histories: Histories, streams: Streams) -> Decisions:
        played, seen = histories.played, histories.rewards
        means = (0.5 + (played * seen[..., None]).sum(axis=1)) / (1 + played.sum(axis=1))
        chances = np.exp(self.sharpness * (means - means.max(axis=1, keepdims=True)))
        chances /= chances.sum(axis=1, keepdims=True)
        arms = streams.choose(chances)
        asked = "It paid." if histories.num_rounds else "Choose."
        words = [self.words[row % len(self.words)] for row in range(len(arms))]
        turns = tuple(
            Turn(f"{said} {asked}", f"{said} {arm}", refused=((said, "Again."),))
            for said, arm in zip(words, arms, strict=True)
        )
        return Decisions(arms, chances, turns)


def write_words(
    run_dir: Path,
    iterations: int = 2,
    num_problems: int = 6,
    num_rollouts: int = 3,
    words: Sequence[str] = ("Let me see.",),
) -> Path:
    """Add to a run what a policy in words leaves there: trajectories, and conversations of an evaluation."""
    suite = load_suite("words/bandits")
    (run_dir / "trajectories").mkdir()
    for iteration in range(1, iterations + 1):
        write_iteration(run_dir, suite, iteration, num_problems, num_rollouts, Talker(2.0 * iteration, words))
    kept = KeptConversations()
    players = {"best": Talker(8.0, words), "start": Talker(0.0, words)}
    evaluate(
        {name: lambda _, player=player: player for name, player in players.items()},  # type: ignore[misc]
        suite.draw("held_out", num_problems), 1, 0, keep=kept,
    )  # fmt: skip
    write_lines(run_dir / "conversations.jsonl.gz", kept.lines)
    return run_dir


def evaluation_in(run_dir: Path) -> Path:
    """The one evaluation there of some problems of the run's own suite, of its held-out part."""
    [found] = run_dir.glob("evaluation-*-held_out-*.json")
    return found


def write_iteration(
    run_dir: Path, suite: Suite, iteration: int, num_problems: int, num_rollouts: int, policy: Talker
) -> None:
    """One iteration's trajectories, half of each problem's rollouts selected."""
    problems = suite.draw("train", num_problems, 0, iteration)
    batches, regrets = [], []
    for batch in problems:
        rows = np.repeat(np.arange(len(batch.indices)), num_rollouts)
        paths = [(iteration, int(row), place) for place, row in enumerate(rows)]
        table, words = batch.table.rows(rows), batch.words.rows(rows)
        played = rollout(policy, batch.setting.play(table), Streams.at(0, paths), words)
        regret = round_regret(played, batch.setting.regret_kind)
        config = TopKRegret(num_selected=-(-num_rollouts // 2))
        batches.append(credit(played, regret, batch.indices[rows], config, generator(0, iteration)))
        regrets.append(regret)
    folder = run_dir / "trajectories"
    record = recorded(problems, batches, regrets)
    np.savez_compressed(folder / f"{iteration:06d}.npz", **to_arrays(record))
    write_lines(folder / f"{iteration:06d}.jsonl.gz", record_lines(record))
