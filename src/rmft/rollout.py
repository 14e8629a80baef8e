"""The one loop that plays a policy in an environment, a batch at a time, and batches of a size that fits.

    Player     which policy plays, and how
    Rollouts   what is to be played

Both are data that another process can be given: no loaded policy, no open file, no function of a closure.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass, replace
from threading import Event
from typing import Protocol

import numpy as np

from rmft.streams import Streams
from rmft.types import (
    Environment,
    Histories,
    IntArray,
    Policy,
    PolicyRef,
    RewardTable,
    Rules,
    Trajectories,
    Words,
)

MakePolicy = Callable[[RewardTable], Policy]
"""Builds a policy for the tables (B, T, K) that it is about to play; all but the oracle ignore them."""

MAX_ROWS = 2_048  # rollouts played at once, fewer when they are long
MAX_CELLS = 4_000_000  # rows x horizon x num_arms played at once: about 300 MB


class Play(Protocol):
    """Where problems are played: called with a table and the policy that is to play, a fresh environment."""

    def __call__(self, table: RewardTable, policy: Policy) -> Environment: ...

    def rows_at_once(self, policy: Policy) -> int: ...  # `Policy.rows_at_once` of all who play in it together


@dataclass(frozen=True, slots=True)
class Player:
    """Which policy plays, and how.

    temperature: divides the logits, > 0. sample_arms: under full information, play an arm (so that rollouts
    differ, for training) and not a distribution. baseline: an algorithm that plays in the policy's place, its
    decisions stated as the policy would state them.
    """

    policy: PolicyRef
    temperature: float = 1.0
    sample_arms: bool = False
    baseline: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Rollouts:
    """R rollouts: of problems[i] (0..B-1) from the stream at paths[i] below seed.

    play: where, under `rules`; it pickles where another process is to play. table: (B, T, K) and words: of B
    rows, of all problems.
    """

    rules: Rules
    play: Play
    table: RewardTable
    words: Words
    problems: IntArray
    seed: int
    paths: Sequence[tuple[int, ...]]

    def __len__(self) -> int:
        return len(self.problems)

    def part(self, rows: slice) -> Rollouts:
        """Those at `rows`, with the problems that they need and no others."""
        needed, problems = np.unique(self.problems[rows], return_inverse=True)
        table, words = self.table.rows(needed), self.words.rows(needed)
        return replace(self, table=table, words=words, problems=problems, paths=self.paths[rows])

    def parts(self, at_once: int) -> Iterator[Rollouts]:
        """Parts in order of whole problems, of up to `at_once` rollouts; of more where one problem has.

        The rollouts of a problem are in a row.
        """
        begins = [*np.flatnonzero(np.diff(self.problems)) + 1, len(self)]
        start = 0
        for end, after in zip(begins, [*begins[1:], np.inf], strict=True):
            if after - start > at_once:
                yield self.part(slice(start, end))
                start = end


def rows_of_arrays(rules: Rules) -> int:
    """`Policy.rows_at_once` of a policy that remembers little more than the histories."""
    return int(np.clip(MAX_CELLS // (rules.horizon * rules.num_arms), 1, MAX_ROWS))


def peak_memory_gb() -> float:
    """The most memory that this process has held at any time so far, in GB of 10^9 bytes."""
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, kB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def rollout(
    policy: Policy,
    environment: Environment,
    streams: Streams,
    words: Words | None = None,
    stopped: Event | None = None,
) -> Trajectories:
    """Play `policy` to the horizon in every problem of `environment`; row i draws from stream i.

    words: of B rows, for a policy that is told the problems in words; rows of one seed are told the same. It
    ends early when every row has failed. What the policy remembered is let go of at the end, so that of
    several batches only the one under way takes the policy's memory. stopped: once it is set, no further
    round is played. Raises ShapeError when a decision is not legal under the environment's rules, and
    CancelledError when stopped.
    """
    histories = Histories(environment.rules, environment.size, words)
    for _ in range(environment.rules.horizon):
        if stopped is not None and stopped.is_set():
            raise CancelledError
        histories.observe(environment.observe())
        decisions = policy.decide(histories, streams)
        if len(decisions.failed) == histories.size:
            histories.give_up(decisions)
            break
        histories.append(decisions, environment.step(decisions))
    histories.forget()
    return Trajectories(histories, environment.table)


def rollout_in_pieces(make_policy: MakePolicy, rollouts: Rollouts) -> Iterator[Trajectories]:
    """Play `rollouts`, as many together as the policy has room for.

    The pieces come in order, and a rollout is the same in any. Where several are played concurrently, an
    error in one ends all, after the rounds that are under way.
    """
    policy = make_policy(rollouts.table)
    at_once, concurrency = rollouts.play.rows_at_once(policy), policy.max_concurrency
    stopped = Event()

    def play_piece(start: int) -> Trajectories:
        rows = slice(start, start + at_once)
        problems = rollouts.problems[rows]
        table, words = rollouts.table.rows(problems), rollouts.words.rows(problems)
        streams = Streams.at(rollouts.seed, rollouts.paths[rows])
        player = make_policy(table)
        return rollout(player, rollouts.play(table, player), streams, words, stopped)

    starts = range(0, len(rollouts), at_once)
    if concurrency == 1:
        yield from map(play_piece, starts)
        return
    with ThreadPoolExecutor(concurrency, "rollout") as threads:
        try:
            yield from threads.map(play_piece, starts)
        finally:  # whatever ends this, a rollout under way stops before its next round
            stopped.set()
            threads.shutdown(cancel_futures=True)
