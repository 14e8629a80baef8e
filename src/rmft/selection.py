"""Which rollouts are imitated: of every group the k best by a score, whole or round by round.

This is rejection sampling, or best-of-n, fine-tuning (as RAFT, ReST and expert iteration) with regret as the
score. A group is the rollouts of one problem. On a shared reward table regret is a constant of the problem
minus the reward that was to be expected, so the k of lowest regret ARE the k of highest expected reward.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rmft.errors import ConfigError
from rmft.types import FloatArray, IntArray


def lowest_in_group(
    scores: FloatArray, group: IntArray, num_selected: int, generator: np.random.Generator
) -> NDArray[np.bool_]:
    """(B, N) true for the `num_selected` lowest finite scores (B, N) of each group and column; ties at
    random.

    group: (B,), rows with equal numbers form a group. Raises ConfigError when a group has fewer rows than
    are to be selected.
    """
    smallest = int(np.unique(group, return_counts=True)[1].min(initial=num_selected))
    if num_selected > smallest:
        raise ConfigError(f"Can't select {num_selected} of {smallest} rollouts; select fewer.")
    ties = generator.random(scores.shape)
    of_row = np.broadcast_to(group[:, None], scores.shape)
    order = np.lexsort((ties, scores, of_row), axis=0)  # by group, in it by score, then at random
    sorted_group = np.sort(group)
    rank_in_group = np.arange(len(group)) - np.searchsorted(sorted_group, sorted_group)
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.broadcast_to(rank_in_group[:, None], order.shape), axis=0)
    return (rank < num_selected) & np.isfinite(scores)
