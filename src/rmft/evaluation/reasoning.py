"""A policy's own reasoning, counted: how much of it was cut, and whether it does what it says."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rmft.evaluation.conversations import told_of
from rmft.scenarios.parsing import named_last, split
from rmft.types import Histories


def describe_reasoning(batches: Sequence[Histories]) -> dict[str, float | None]:
    """Shares of rounds, over all rollouts; empty where nobody reasoned and nothing was cut.

    cut: of the rounds played, those in which the budget cut what was written (`Turn.cut`). says: of those
    with reasoning, the ones whose reasoning names exactly one option last (`named_last`). says_does: there,
    how much of the decision is that option, 0 or 1 where an arm was played; what it lacks to 1 is the
    knowing-doing gap (Schmied et al., ICLR 2026). None where there are no such rounds.
    """
    cut: list[bool] = []
    says: list[bool] = []
    does: list[float] = []
    for histories in batches:
        told = told_of(histories)
        for row in range(histories.size):
            labels = [label for label, _ in told[int(histories.words.seeds[row])].options] if told else []
            for index, turns in enumerate(histories.words.turns):
                turn = turns[row]
                if not turn.prompt:  # it had failed
                    continue
                cut.append(turn.cut)
                reasoning, answer = split(turn.completion)
                if answer is None:
                    continue
                label = named_last(reasoning, labels)
                says.append(label is not None)
                if label is not None:
                    does.append(float(histories.played[row, index, labels.index(label)]))
    if not says and not any(cut):
        return {}
    return {
        "cut": float(np.mean(cut)),
        "says": float(np.mean(says)) if says else None,
        "says_does": float(np.mean(does)) if does else None,
    }
