"""Trajectories in words -> what a run stores of them: conversations with tokens, and the hidden truth."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from rmft.config import Wording
from rmft.problems.suites import ProblemBatch
from rmft.regret import round_regret
from rmft.scenarios.scenario import Scenario, draw_scenario
from rmft.types import FloatArray, IntArray, Trajectories

ANY_WORDING = Wording()  # contexts, letters and names do not depend on it


def context_names(batch: ProblemBatch) -> np.ndarray:
    """(B,) what each problem of the batch is about, for a policy that is told it in words."""
    rules = batch.setting.rules
    seeds = batch.word_seeds.tolist()
    return np.array([draw_scenario(rules, seed, ANY_WORDING).context.name for seed in seeds])


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
    if not histories.turns:
        return
    probabilities = histories.played if histories.drawn_from is None else histories.drawn_from
    words: dict[int, Scenario] = {}
    for row in range(histories.size):
        seed = int(histories.word_seeds[row])
        if seed not in words:
            words[seed] = draw_scenario(histories.rules, seed, ANY_WORDING)
        yield {
            "setting": batch.setting.name,
            "problem": int(batch.indices[problems[row]]),
            "rollout": int(rollouts[row]),
            "word_seed": seed,
            "context": words[seed].context.name,
            "options": list(zip(words[seed].labels, words[seed].names, strict=True)),
            "regret": float(regret[row].sum()),
            "failed": histories.failed.get(row),
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
                for index, turns in enumerate(histories.turns)
            ],
        }


class KeptConversations:
    """Keeps, while policies are evaluated, what those that use words said on the first problems of a part.

    num_problems: on how many, the first rollout of each. `lines` is what was kept, as `conversations` gives
    it, with the policy's name in `policy`.
    """

    def __init__(self, num_problems: int = 50) -> None:
        self.num_problems = num_problems
        self.lines: list[dict[str, Any]] = []

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
        if not len(rows) or not trajectories.histories.turns:
            return
        chosen = trajectories.rows(rows)
        regret = round_regret(chosen, batch.setting.regret_kind)
        for line in conversations(batch, problems[rows], rollouts[rows], chosen, regret):
            self.lines.append({"policy": policy, **line})


def _listed(values: np.ndarray | None) -> list[float | None] | None:
    """Numbers for JSON, None where there is none."""
    return None if values is None else [None if math.isnan(value) else value for value in values.tolist()]
