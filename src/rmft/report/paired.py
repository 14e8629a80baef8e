"""Runs that were evaluated on the same problems -> their differences in regret, problem by problem.

The fingerprint in an evaluation tells whether the problems are the same; where it differs, or regrets by
problem are not kept, nothing is compared, and `unpaired` says why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rmft.report.run_reader import Run
from rmft.report.untrusted import Interval
from rmft.report.words import BEST, problems
from rmft.statistics import interval

MAX_RUNS = 12  # set against each other
MAX_PROBLEMS = 100_000


@dataclass(frozen=True, slots=True)
class Pairing:
    """Runs evaluated on the same problems. on: which, in words. differences: (i, j), places of runs, to the
    regret of run i after training minus that of run j; below 0 means that i is better."""

    on: str
    differences: dict[tuple[int, int], Interval]

    @property
    def runs(self) -> list[int]:
        """Their places, in order."""
        return sorted({place for pair in self.differences for place in pair})


def pairings(runs: Sequence[Run]) -> list[Pairing]:
    """One for every set of problems that two or more of the first MAX_RUNS runs were evaluated on."""
    played: dict[tuple[str, int], dict[int, list[float]]] = {}
    said: dict[tuple[str, int], str] = {}
    sizes: dict[tuple[str, int], list[int]] = {}
    for place, run in enumerate(runs[:MAX_RUNS]):
        for evaluation in run.evaluations.values():
            regrets = evaluation.problem_regrets(BEST)
            if evaluation.fingerprint and regrets and len(regrets) <= MAX_PROBLEMS:
                key = evaluation.fingerprint, len(regrets)
                played.setdefault(key, {})[place] = regrets
                sizes.setdefault(key, evaluation.problems_by_setting(BEST))
                said.setdefault(key, f"{problems(evaluation)} of {evaluation.suite[:200]}")
    found = []
    for key, regrets_of in played.items():
        places = list(regrets_of)
        differences: dict[tuple[int, int], Interval] = {}
        for at, i in enumerate(places):
            for j in places[at + 1 :]:
                apart = np.array(regrets_of[i]) - np.array(regrets_of[j])
                differed = interval(apart, settings=sizes[key])
                mean, low, high = differed.mean, differed.low, differed.high
                if mean is None:
                    continue
                differences[i, j] = Interval(mean, low, high)
                turned = (None, None) if low is None or high is None else (-high, -low)
                differences[j, i] = Interval(-mean, *turned)
        if differences:
            found.append(Pairing(said[key], differences))
    return found


def unpaired(runs: Sequence[Run], names: Sequence[str], found: Sequence[Pairing]) -> list[str]:
    """Why no other run is set against a run, in words, for each of which that is so."""
    if len(runs) < 2:
        return []
    paired = {place for pairing in found for place in pairing.runs}
    reasons = []
    for place, (run, name) in enumerate(zip(runs, names, strict=True)):
        if place in paired:
            continue
        if place >= MAX_RUNS:
            why = f"only the first {MAX_RUNS} runs are paired"
        elif not run.evaluations:
            why = "it has not been evaluated"
        elif not any(each.fingerprint and each.problem_regrets(BEST) for each in run.evaluations.values()):
            why = (
                "its evaluation holds no regrets by problem, such as an older one; 'rmft evaluate' adds them"
            )
        else:
            why = "no other run here was evaluated on the same problems"
        reasons.append(f"{name}: {why}.")
    return reasons
