"""The one loop that plays a policy in an environment, for a whole batch at a time."""

from __future__ import annotations

from rmft.streams import Streams
from rmft.types import Environment, Histories, Policy, Trajectories


def rollout(policy: Policy, environment: Environment, streams: Streams) -> Trajectories:
    """Play `policy` to the horizon in every problem of `environment`; row i draws from stream i.

    Raises ShapeError when a decision is not legal under the environment's rules.
    """
    histories = Histories(environment.rules, environment.size)
    for _ in range(environment.rules.horizon):
        decisions = policy.decide(histories, streams)
        histories.append(decisions, environment.step(decisions))
    return Trajectories(histories, environment.table)
