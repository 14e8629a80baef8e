"""Trajectories -> what a run stores of them to be read: words or decisions, and what was hidden."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from rmft.problems.suites import ProblemBatch
from rmft.regret import round_regret
from rmft.scenarios.scenario import Scenario, draw_scenario
from rmft.scenarios.wording import Wording
from rmft.types import FloatArray, Histories, IntArray, Trajectories

COMPARED = ("best", "start")  # the policies of a run, after and before training
ANY_WORDING = Wording()  # contexts, letters and names do not depend on it


def context_names(batch: ProblemBatch) -> np.ndarray:
    """(B,) what each problem of the batch is about, for a policy that is told it in words."""
    rules, words = batch.setting.rules, batch.words
    scenarios = [draw_scenario(rules, words.contexts, seed, ANY_WORDING) for seed in words.seeds.tolist()]
    return np.array([scenario.context.name for scenario in scenarios])


def conversations(
    batch: ProblemBatch,
    problems: IntArray,
    rollouts: IntArray,
    trajectories: Trajectories,
    regret: FloatArray,
    weights: FloatArray | None = None,
) -> Iterator[dict[str, Any]]:
    """One line for JSON per row, none where nothing was decided in words.

    problems: (B,) each row's place in `batch`. rollouts: (B,) its number among that problem's. regret:
    (B, T). weights: (B, T), how much each decision counts in training, where it does. In a line, options
    are K pairs of the letter and the name that an arm had, and context is what the problem was about.
    """
    histories, table = trajectories.histories, trajectories.table
    words = histories.words
    if not words.turns:
        return
    probabilities = _stated(histories)
    scenarios: dict[int, Scenario] = {}
    for row, line in enumerate(_lines(batch, problems, rollouts, trajectories, regret)):
        seed = int(words.seeds[row])
        if seed not in scenarios:
            scenarios[seed] = draw_scenario(histories.rules, words.contexts, seed, ANY_WORDING)
        yield {
            **line,
            "word_seed": seed,
            "context": scenarios[seed].context.name,
            "options": list(zip(scenarios[seed].labels, scenarios[seed].names, strict=True)),
            "rewards": table.rewards[row].tolist(),
            "expected_rewards": table.expected_rewards[row].tolist(),
            "rounds": [
                {
                    "told": turns[row].all_told,
                    "refused": turns[row].refused,
                    "said": turns[row].said,
                    "arm": int(histories.arms[row, index]),
                    "probabilities": probabilities[row, index].tolist(),
                    "seen": histories.rewards[row, index].tolist(),
                    "regret": float(regret[row, index]),
                    **({} if weights is None else {"weight": float(weights[row, index])}),
                    "ids": _listed(turns[row].ids),
                    "log_probabilities": _listed(turns[row].log_probabilities),
                }
                for index, turns in enumerate(words.turns)
            ],
        }


def decisions(
    batch: ProblemBatch,
    problems: IntArray,
    rollouts: IntArray,
    trajectories: Trajectories,
    regret: FloatArray,
) -> Iterator[dict[str, Any]]:
    """`conversations` of a policy that decides without words, numbers to five digits."""
    histories, table = trajectories.histories, trajectories.table
    probabilities = _stated(histories)
    for row, line in enumerate(_lines(batch, problems, rollouts, trajectories, regret)):
        rounds = zip(
            histories.arms[row].tolist(),
            five_digits(probabilities[row]),
            five_digits(histories.rewards[row]),
            five_digits(regret[row]),
            strict=True,
        )
        keys = ("arm", "probabilities", "seen", "regret")
        yield {
            **line,
            "rewards": five_digits(table.rewards[row]),
            "expected_rewards": five_digits(table.expected_rewards[row]),
            "rounds": [dict(zip(keys, each, strict=True)) for each in rounds],
        }


def _stated(histories: Histories) -> FloatArray:
    """(B, T, K), the probabilities of every arm; what was played where none were stated."""
    return histories.played if histories.probabilities is None else histories.probabilities


def _lines(
    batch: ProblemBatch,
    problems: IntArray,
    rollouts: IntArray,
    trajectories: Trajectories,
    regret: FloatArray,
) -> Iterator[dict[str, Any]]:
    """What a row is of, and what it came to."""
    for row in range(len(trajectories)):
        yield {
            "setting": batch.setting.name,
            "problem": int(batch.indices[problems[row]]),
            "rollout": int(rollouts[row]),
            "regret": float(regret[row].sum()),
            "failed": trajectories.histories.failed.get(row),
        }


class KeptConversations:
    """Keeps, while policies are evaluated, what was played on the first problems of a part.

    num_problems: on how many, the first rollout of each, by every policy that uses words and by those of
    `COMPARED`. max_cells: rounds x arms kept at most of a policy without words. `lines` is what was kept, as
    `conversations` and `decisions` give it, with the policy's name in `policy`.
    """

    def __init__(self, num_problems: int = 50, max_cells: int = 100_000) -> None:
        self.num_problems = num_problems
        self.lines: list[dict[str, Any]] = []
        self._room = dict.fromkeys(COMPARED, max_cells)

    def __call__(
        self,
        policy: str,
        batch: ProblemBatch,
        problems: IntArray,
        rollouts: IntArray,
        trajectories: Trajectories,
    ) -> None:
        """See `rmft.evaluation.evaluate.Keep`."""
        rows = np.flatnonzero((batch.indices[problems] < self.num_problems) & (rollouts == 0))
        tell = conversations if trajectories.histories.words.turns else decisions
        if tell is decisions:
            cells = batch.setting.rules.horizon * batch.setting.rules.num_arms
            rows = rows[: self._room.get(policy, 0) // cells]
            self._room[policy] = self._room.get(policy, 0) - len(rows) * cells
        if not len(rows):
            return
        chosen = trajectories.rows(rows)
        regret = round_regret(chosen, batch.setting.regret_kind)
        for line in tell(batch, problems[rows], rollouts[rows], chosen, regret):
            self.lines.append({"policy": policy, **line})


def five_digits(values: FloatArray) -> list[Any]:
    """Numbers for JSON, nested as the array is, each to five significant digits."""
    if values.ndim > 1:
        return [five_digits(each) for each in values]
    return [float(f"{value:.5g}") for value in values.tolist()]


def _listed(values: np.ndarray | None) -> list[float | None] | None:
    """Numbers for JSON, None where there is none."""
    return None if values is None else [None if math.isnan(value) else value for value in values.tolist()]
