"""One iteration of Iterative RMFT, free of run directories: roll out, score by regret, credit, fine-tune."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from rmft.credit import credit_of_iteration
from rmft.problems.suites import ProblemBatch
from rmft.regret import round_regret
from rmft.rollout import Player, Rollouts
from rmft.stages import StageConfig
from rmft.streams import generator, seed_sequence
from rmft.training.config import RegretLoss, TrainingConfig
from rmft.types import FloatArray, Policy, PolicyRef, Trainer, TrainingBatch, TrainingStep, Trajectories

CREDIT = 1_000_000_004
"""Where the streams of credit branch off; see `rmft.problems.suites.PART_ID`."""


class Backend(Protocol):
    """One kind of policy, as the loop needs it: how it starts, plays and is trained."""

    def start(self, target: Path, seed: int) -> PolicyRef:
        """Write the policy that a run starts from to the folder `target`."""
        ...

    def load(self, player: Player) -> Policy:
        """The policy, ready to play until another one is loaded or trained.

        player.sample_arms: under full information play an arm, not a distribution.
        """
        ...

    def play(self, player: Player, rollouts: Rollouts) -> Iterator[Trajectories]:
        """What the player does, in pieces that come in the order of the rollouts."""
        ...

    def trainer(self, config: TrainingConfig) -> Trainer:
        """What trains such policies with these settings."""
        ...


@dataclass(frozen=True, slots=True)
class Improvement:
    """What one iteration did, one entry for every batch of problems. regrets: (B, T), by round."""

    problems: Sequence[ProblemBatch]
    batches: Sequence[TrainingBatch]
    regrets: Sequence[FloatArray]
    figures: dict[str, float]
    seconds: dict[str, float]

    @property
    def mean_regret(self) -> float:
        """Of all rollouts."""
        return float(np.concatenate([regret.sum(axis=1) for regret in self.regrets]).mean())


def improve(
    policy: PolicyRef,
    backend: Backend,
    problems: Sequence[ProblemBatch],
    config: StageConfig,
    target: Path,
    *,
    iteration: int,
    seed: int,
    progress: float = 0.0,
    start: PolicyRef | None = None,
    on_step: Callable[[str], None] = lambda _: None,
) -> tuple[PolicyRef, Improvement]:
    """The next policy, written to the empty folder `target`, and what made it.

    problems: drawn for this iteration, each played `rollout.num_rollouts` times. seed: of all draws,
    by address. progress: 0 to 1, which the learning rate follows. start: the policy that the run began
    with, for objectives that hold to it; None: `policy`. on_step: told what is done next, in words. Raises
    TrainingError when the loss is not finite.
    """
    clock = Clock()
    on_step("rolling out")
    with clock("rollout"):
        temperature = config.rollout.temperature
        times = config.rollout.num_rollouts
        player = _player(policy, config)
        played = roll_out(backend, player, problems, times, seed, iteration, on_step)
    with clock("credit"):
        kinds = [batch.setting.regret_kind for batch in problems]
        regrets = [round_regret(trajectories, kind) for kind, trajectories in zip(kinds, played, strict=True)]
        groups = [np.repeat(batch.indices, times) for batch in problems]
        ties = [generator(seed, CREDIT, iteration, number) for number in range(len(problems))]
        batches = credit_of_iteration(played, regrets, groups, config.credit, ties, temperature, kinds)
    on_step("training")
    with clock("train"):
        step = TrainingStep(iteration, seed_of(seed, iteration), progress, start)
        policy, figures = backend.trainer(config.training).train(policy, batches, target, step)
    return policy, Improvement(problems, batches, regrets, figures, clock.seconds)


def _player(policy: PolicyRef, config: StageConfig) -> Player:
    """What is rolled out for training: the policy, or the algorithm that it is to imitate.

    Under full information arms are sampled, so that rollouts differ, unless regret itself is differentiated.
    """
    sample_arms = not isinstance(getattr(config.training, "objective", None), RegretLoss)
    return Player(policy, config.rollout.temperature, sample_arms, config.rollout.policy)


def roll_out(
    backend: Backend,
    player: Player,
    problems: Sequence[ProblemBatch],
    num_rollouts: int,
    seed: int,
    iteration: int,
    on_step: Callable[[str], None] = lambda _: None,
) -> list[Trajectories]:
    """`num_rollouts` rollouts of every problem, those of a problem in a row; one result per batch."""
    total = num_rollouts * sum(len(batch.indices) for batch in problems)
    played, done = [], 0
    for batch in problems:
        paths = [(iteration, int(problem), k) for problem in batch.indices for k in range(num_rollouts)]
        pieces = []
        for piece in backend.play(player, rollouts_of(batch, num_rollouts, seed, paths)):
            pieces.append(piece)
            done += len(piece)
            on_step(f"rolled out {done} of {total}")
        played.append(Trajectories.concatenate(pieces))
    return played


def rollouts_of(
    batch: ProblemBatch, num_rollouts: int, seed: int, paths: Sequence[tuple[int, ...]]
) -> Rollouts:
    """`num_rollouts` rollouts of every problem of a batch in a row, from the streams at `paths`."""
    problems = np.repeat(np.arange(len(batch.indices)), num_rollouts)
    setting = batch.setting
    return Rollouts(setting.rules, setting.game, batch.table, batch.words, problems, seed, paths)


def seed_of(seed: int, iteration: int) -> int:
    """The seed of what a trainer draws in an iteration; that of the start is iteration 0's."""
    return int(seed_sequence(seed, iteration).generate_state(1)[0])


class Clock:
    """Seconds spent, by step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        begun = time.perf_counter()
        yield
        self.seconds[step] = round(time.perf_counter() - begun, 4)
