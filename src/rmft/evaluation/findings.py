"""What happened in a run, in figures for each iteration and in plain words at its end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmft.evaluation.measures import best_arms, measure
from rmft.evaluation.reasoning import describe_reasoning
from rmft.problems.suites import ProblemBatch
from rmft.regret import ROUNDING, RegretKind
from rmft.types import FloatArray, TrainingBatch, Trajectories

COLLAPSED_ENTROPY = 0.02  # nats per decision: all but deterministic
MORE_SUFFIX_FAILURES = 0.1  # by how much SuffFailFreq must have risen to be called lock-in


def describe_training(
    problems: Sequence[ProblemBatch], batches: Sequence[TrainingBatch], round_regrets: Sequence[FloatArray]
) -> dict[str, Any]:
    """Figures of one iteration's rollouts, and of the credit that they were given.

    rollout: mean regret, SuffFailFreq, entropy (nats per decision, None where no probabilities were stated)
    of all rollouts, and the share that failed. mask: the share of decisions that are in the loss. level: the
    share of problems all of whose rollouts had the same regret, so that there is nothing to learn from them.
    above, below: the mean regret of the rollouts that `above_average` tells apart (None where there are
    none), and their share. first_arm_best: the share of rollouts whose first decision is the best arm, of
    all and of those above average; what these have beyond all is luck, for nobody can know it yet.
    reasoning: of policies that reason in words, as `describe_reasoning` has it.
    """
    measured = [
        measure(batch.trajectories, problem.setting.regret_kind)
        for problem, batch in zip(problems, batches, strict=True)
    ]
    regrets = np.concatenate([regret.sum(axis=1) for regret in round_regrets])
    rollout: dict[str, float | None] = {
        name: float(np.concatenate([each[name] for each in measured]).mean())
        for name in ("regret", "suff_fail_freq", "entropy", "failed")
    }
    if np.isnan(rollout["entropy"] or 0.0):
        rollout["entropy"] = None
    above = np.concatenate([above_average(batch) for batch in batches])
    lucky = np.concatenate(
        [
            _first_is_best(batch.trajectories, problem.setting.regret_kind)
            for problem, batch in zip(problems, batches, strict=True)
        ]
    )
    level = [_level(batch, regret.sum(axis=1)) for batch, regret in zip(batches, round_regrets, strict=True)]
    decisions = sum(batch.mask.size for batch in batches)
    reasoning = describe_reasoning([batch.trajectories.histories for batch in batches])
    return {
        "rollout": rollout,
        "mask": {"share": sum(batch.num_decisions for batch in batches) / decisions},
        "level": float(np.concatenate(level).mean()),
        "above": _group(regrets, above),
        "below": _group(regrets, ~above),
        "first_arm_best": {
            "rollout": float(lucky.mean()),
            "above": float(lucky[above].mean()) if above.any() else None,
        },
        **({"reasoning": reasoning} if reasoning else {}),
    }


def above_average(batch: TrainingBatch) -> NDArray[np.bool_]:
    """(B,) whether the advantages of a rollout's decisions that are in the loss sum to more than others'.

    True where the sum is above 0 and no less than the batch's mean. Of whole trajectories that are selected
    these are the selected ones; with advantages of either sign, those that count for more than others.
    """
    sums = (batch.advantages * batch.mask).sum(axis=1)
    return np.asarray((sums > 0) & (sums >= sums.mean() - 1e-9))


def _group(regrets: FloatArray, chosen: NDArray[np.bool_]) -> dict[str, float | None]:
    """Mean regret of the rollouts that are chosen, and their share of all."""
    return {
        "regret": float(regrets[chosen].mean()) if chosen.any() else None,
        "share": float(chosen.mean()),
    }


def _first_is_best(trajectories: Trajectories, kind: RegretKind) -> FloatArray:
    """(B,) how much of the first decision is a best arm, 0 or 1 where an arm was played."""
    best = best_arms(trajectories.table.expected_rewards, kind)[:, 0]
    return np.asarray((trajectories.histories.played[:, 0] * best).sum(axis=1))


def _level(batch: TrainingBatch, regrets: FloatArray) -> NDArray[np.bool_]:
    """(M,) of which problems all rollouts came to the same regret, to within rounding. regrets: (B,)."""
    size = np.abs(batch.trajectories.table.rewards).max() * regrets.size
    groups = [regrets[batch.group == one] for one in np.unique(batch.group)]
    return np.array([len(each) > 1 and np.ptp(each) <= ROUNDING * size for each in groups])


def best_iteration(history: Sequence[dict[str, Any]]) -> int:
    """The validated iteration of lowest mean regret, the first of equals."""
    validated = [metrics for metrics in history if "validation" in metrics]
    return int(min(validated, key=lambda metrics: metrics["validation"]["regret"]["mean"])["iteration"])


def describe_end(history: Sequence[dict[str, Any]], best: int) -> list[str]:
    """What training did, and signs of collapse, in plain words with the numbers they come from."""
    validated = {
        metrics["iteration"]: metrics["validation"] for metrics in history if "validation" in metrics
    }
    first, chosen, last = validated[0], validated[best], validated[max(validated)]
    words = [
        f"Validation regret went from {_mean(first, 'regret'):.2f} to {_mean(chosen, 'regret'):.2f} "
        f"at iteration {best}, the best."
    ]
    if history[1:] and all(metrics.get("level") == 1 for metrics in history[1:]):
        words.append(
            "There was nothing to learn: all rollouts of every problem came to the same regret. Look at the "
            "rewards, which differ too little, or raise rollout.temperature."
        )
    if last["regret"]["low"] is not None and last["regret"]["low"] > _mean(first, "regret"):
        words.append(
            f"It got worse than the start: {_mean(last, 'regret'):.2f} at iteration {max(validated)}. "
            "Try a lower training.learning_rate, or keep more rollouts (credit.num_selected)."
        )
    more_failures = _mean(last, "suff_fail_freq") - _mean(first, "suff_fail_freq")
    if _mean(last, "entropy") < COLLAPSED_ENTROPY and more_failures > MORE_SUFFIX_FAILURES:
        words.append(
            f"It locked in: entropy is down to {_mean(last, 'entropy'):.3f} nats while SuffFailFreq rose to "
            f"{_mean(last, 'suff_fail_freq'):.2f} from {_mean(first, 'suff_fail_freq'):.2f}: the policy "
            "commits to an arm and never tries the best one again. Keep more rollouts or select more mildly."
        )
    return words


def _mean(validation: dict[str, Any], measure: str) -> float:
    mean = validation[measure]["mean"]
    return float("nan") if mean is None else float(mean)
