"""The one loop that plays a policy in an environment, a batch at a time, and batches of a size that fits."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from threading import Event

import numpy as np

from rmft.streams import Streams
from rmft.types import Environment, Histories, IntArray, Policy, RewardTable, Rules, Trajectories, Words

MakePolicy = Callable[[RewardTable], Policy]
"""Builds a policy for the tables (B, T, K) that it is about to play; all but the oracle ignore them."""

MAX_ROWS = 2_048  # rollouts played at once, fewer when they are long
MAX_CELLS = 4_000_000  # rows x horizon x num_arms played at once: about 300 MB


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


def rollout_in_pieces(
    make_policy: MakePolicy,
    play: Callable[[RewardTable], Environment],
    rules: Rules,
    table: RewardTable,
    words: Words,
    problems: IntArray,
    seed: int,
    paths: Sequence[tuple[int, ...]],
) -> Iterator[Trajectories]:
    """Rollouts of problems[i] from the stream at paths[i], as many together as the policy has room for.

    table: (B, T, K) and words: of B rows, of all problems. problems: (R,) of 0..B-1. play: the environment
    of a table; rules: its rules. The pieces come in order, and a rollout is the same in any. Where several
    are played concurrently, an error in one ends all, after the rounds that are under way.
    """
    policy = make_policy(table)
    at_once, concurrency = policy.rows_at_once(rules), policy.max_concurrency
    stopped = Event()

    def play_piece(start: int) -> Trajectories:
        rows = slice(start, start + at_once)
        chosen = problems[rows]
        piece = table.rows(chosen)
        streams = Streams.at(seed, paths[rows])
        return rollout(make_policy(piece), play(piece), streams, words.rows(chosen), stopped)

    starts = range(0, len(problems), at_once)
    if concurrency == 1:
        yield from map(play_piece, starts)
        return
    with ThreadPoolExecutor(concurrency, "rollout") as threads:
        try:
            yield from threads.map(play_piece, starts)
        finally:  # whatever ends this, a rollout under way stops before its next round
            stopped.set()
            threads.shutdown(cancel_futures=True)
