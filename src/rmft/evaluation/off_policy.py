"""What a policy would earn, estimated from rollouts of another one whose propensities were recorded.

Rollout i of the behaviour policy mu, with T rounds of bandit feedback; pi is the policy that is asked about.

    rho_{i,t} = prod_{s <= t} pi(a_is | h_is) / mu(a_is | h_is)     importance ratio
    IPS    V = 1/n sum_i rho_{i,T} sum_t r_it                       Horvitz and Thompson (1952)
    SNIPS  V = sum_i rho_{i,T} sum_t r_it / sum_i rho_{i,T}         Swaminathan, Joachims (2015)
    PDIS   V = 1/n sum_i sum_t rho_{i,t} r_it                       Precup, Sutton and Singh (2000)

IPS and PDIS are unbiased where mu gives every action a probability above 0 that pi does; SNIPS is consistent.
The variance grows exponentially with T, that of IPS fastest. Problems are the clusters of the intervals: the
rollouts of a group are averaged first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rmft.errors import ConfigError
from rmft.records.batch import RecordedBatch
from rmft.results import Interval
from rmft.statistics import bootstrap, interval, ratio
from rmft.streams import Streams
from rmft.types import Decisions, FloatArray, Histories, IntArray, Policy, Trajectories


@dataclass(frozen=True, slots=True)
class OffPolicy:
    """Estimates of the expected reward of a whole rollout, with 95% intervals.

    effective_size: (sum_i rho_i)^2 / sum_i rho_i^2 (Kish 1965), how many rollouts of pi these are worth.
    """

    ips: Interval
    snips: Interval
    pdis: Interval
    effective_size: float


def off_policy(recorded: RecordedBatch, policy: Policy) -> OffPolicy:
    """What `policy`, which states probabilities, would earn on the problems that were recorded.

    Rollouts that failed are left out. Raises ConfigError under full information, where what any decision
    would have earned is known, and where either policy states no probabilities.
    """
    learned = recorded.learned.rows(np.flatnonzero(~recorded.failed))
    trajectories = learned.trajectories
    if trajectories.rules.feedback == "full" or not len(trajectories):
        raise ConfigError("Off-policy estimates need rollouts with bandit feedback; found none here.")
    behaviour = trajectories.histories.propensities
    if not (behaviour > 0).all():
        raise ConfigError("Off-policy estimates need recorded propensities above 0 of all that was played.")
    return estimates(target_propensities(policy, trajectories) / behaviour,
                     trajectories.histories.rewards, learned.group)  # fmt: skip


def estimates(ratios: FloatArray, rewards: FloatArray, group: IntArray) -> OffPolicy:
    """The estimates of the module's formulas. ratios: pi / mu of every decision, rewards: both (B, T)."""
    cumulative = np.cumprod(ratios, axis=1)
    last = cumulative[:, -1]
    values = np.stack([last * rewards.sum(axis=1), last, (cumulative * rewards).sum(axis=1)], axis=1)
    _, place, count = np.unique(group, return_inverse=True, return_counts=True)
    means = np.zeros((len(count), 3))
    np.add.at(means, place, values / count[place][:, None])
    snips = bootstrap(means[:, :2], lambda each: ratio(each[..., 0], each[..., 1])).interval()
    size = float(last.sum() ** 2 / max((last**2).sum(), np.finfo(float).tiny))
    return OffPolicy(interval(means[:, 0]), snips, interval(means[:, 2]), size)


def target_propensities(policy: Policy, trajectories: Trajectories) -> FloatArray:
    """(B, T) the probability that `policy` gives to each arm that was played, after the same history."""
    recorded = trajectories.histories
    seen = Histories(recorded.rules, recorded.size, recorded.words.unspoken())
    found = np.zeros(recorded.arms.shape)
    for index in range(recorded.num_rounds):
        seen.observe(recorded.shown(index))
        stated = policy.decide(seen, Streams.at(0, [(row,) for row in range(seen.size)])).probabilities
        if stated is None:
            raise ConfigError(f"The policy '{policy.name}' states no probabilities, which estimates need.")
        arms = recorded.arms[:, index]
        found[:, index] = stated[np.arange(seen.size), arms]
        turns = recorded.words.turns[index] if recorded.words.turns else None
        seen.append(Decisions(arms, stated, turns), recorded.rewards[:, index])
    return found
