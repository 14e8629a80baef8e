"""The one loop that plays a policy in an environment, for a whole batch at a time."""

from __future__ import annotations

import numpy as np

from rmft.streams import Streams
from rmft.types import Environment, Histories, IntArray, Policy, Rules, Trajectories

MAX_ROWS = 2_048  # rollouts played at once, fewer when they are long
MAX_CELLS = 4_000_000  # rows x horizon x num_arms played at once: about 300 MB


def rows_of_arrays(rules: Rules) -> int:
    """`Policy.rows_at_once` of a policy that remembers little more than the histories."""
    return int(np.clip(MAX_CELLS // (rules.horizon * rules.num_arms), 1, MAX_ROWS))


def rollout(
    policy: Policy, environment: Environment, streams: Streams, word_seeds: IntArray | None = None
) -> Trajectories:
    """Play `policy` to the horizon in every problem of `environment`; row i draws from stream i.

    word_seeds: (B,), of the words that the problems are told in; rows with the same are told the same.
    Raises ShapeError when a decision is not legal under the environment's rules.
    """
    histories = Histories(environment.rules, environment.size, word_seeds)
    for _ in range(environment.rules.horizon):
        decisions = policy.decide(histories, streams)
        histories.append(decisions, environment.step(decisions))
    return Trajectories(histories, environment.table)
