"""Trajectories of an evaluation -> what is kept of them to be read, with what was hidden."""

from __future__ import annotations

from typing import Any

import numpy as np

from rmft.problems.suites import ProblemBatch
from rmft.records.batch import Told
from rmft.records.lines import lines_of
from rmft.regret import round_regret
from rmft.scenarios.scenario import scenarios_of
from rmft.scenarios.wording import Wording
from rmft.types import Histories, IntArray, Trajectories

COMPARED = ("best", "start")  # the policies of a run, after and before training
ANY_WORDING = Wording()  # contexts, letters and names do not depend on it


def told_of(histories: Histories) -> dict[int, Told]:
    """By word seed, what a policy in words was told of; empty where nothing was decided in words."""
    words = histories.words
    seeds, first = np.unique(words.seeds, return_index=True)
    if not words.turns:
        return {}
    drawn = scenarios_of(histories.rules, words.rows(first).unspoken(), ANY_WORDING)
    return {
        seed: Told(scenario.context.name, tuple(zip(scenario.labels, scenario.names, strict=True)))
        for seed, scenario in zip(seeds.tolist(), drawn, strict=True)
    }


class KeptConversations:
    """Keeps, while policies are evaluated, what was played on the first problems of a part.

    num_problems: on how many, the first rollout of each, by every policy that uses words and by those of
    `COMPARED`. max_cells: rounds x arms kept at most of a policy without words. `lines` is what was kept, as
    `lines_of` gives it, with the policy's name in `policy`.
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
        if not trajectories.histories.words.turns:
            cells = batch.setting.rules.horizon * batch.setting.rules.num_arms
            rows = rows[: self._room.get(policy, 0) // cells]
            self._room[policy] = self._room.get(policy, 0) - len(rows) * cells
        if not len(rows):
            return
        chosen = trajectories.rows(rows)
        regret = round_regret(chosen, batch.setting.regret_kind)
        numbers, told = batch.indices[problems[rows]], told_of(chosen.histories)
        for line in lines_of(batch.setting.name, numbers, rollouts[rows], chosen, regret, told):
            self.lines.append({"policy": policy, **line})
