"""Iterative RMFT: roll out, score by regret, keep the lowest, fine-tune on what was kept, and again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from rmft.errors import TrainingError
from rmft.evaluation.conversations import context_names, conversations
from rmft.evaluation.findings import best_iteration, describe_end, describe_training
from rmft.evaluation.measures import measure
from rmft.evaluation.statistics import interval
from rmft.problems.suites import ProblemBatch, Suite
from rmft.regret import round_regret
from rmft.rollout import rollout_in_pieces
from rmft.run_directory import RunDirectory
from rmft.selection import arm_weights, kept, select
from rmft.streams import generator, seed_sequence
from rmft.types import Example, FloatArray, Policy, PolicyRef, Trainer, Trajectories

VALIDATED = ("regret", "suff_fail_freq", "k_min_frac", "entropy", "failed")
MAX_SAMPLE, MAX_SAMPLE_CELLS = 10, 10_000  # rollouts of a setting, and rounds x arms, told in full
VALIDATION_SEED = 0  # every iteration and every run is judged with the same luck


class Backend(Protocol):
    """One kind of policy, as the loop needs it: how it starts, plays and is trained."""

    trainer: Trainer

    def start(self, target: Path, seed: int) -> PolicyRef:
        """Write the policy that the run starts from to the folder `target`."""
        ...

    def load(self, policy: PolicyRef, *, exploring: bool) -> Policy:
        """The policy, to roll out for training (`exploring`) or to be judged."""
        ...


@dataclass
class Outcome:
    """How a run ended: "finished", "stopped" (patience ran out) or "collapsed"."""

    status: str
    best_iteration: int
    findings: list[str] = field(default_factory=list)


def iterate(
    run: RunDirectory,
    suite: Suite,
    backend: Backend,
    on_iteration: Callable[[dict[str, Any]], None],
    on_step: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Do what is owed of a run, from wherever it stands, and write its result.

    `on_iteration` is called with the metrics of every iteration when it is committed, `on_step` with what
    is done next, in words. Training that diverges ends the run as collapsed, with the best iteration
    before it as the result.
    """
    run.discard_unfinished()
    history = run.metrics()
    if not history:
        on_step("validating the start")
        policy = backend.start(run.staged_checkpoint(0), _seed(run, 0))
        with_validation = {"iteration": 0, "validation": validate(backend, policy, suite, run)}
        run.commit(with_validation, {}, {})
        history.append(with_validation)
        on_iteration(with_validation)
    status = "finished"
    for iteration in range(len(history), run.config.iterations + 1):
        if _patience_is_out(history, run.config.validation.patience):
            status = "stopped"
            break
        try:
            metrics = _one_iteration(run, suite, backend, iteration, on_step)
        except TrainingError as error:
            run.discard_unfinished()
            outcome = Outcome("collapsed", best_iteration(history), [f"In iteration {iteration}: {error}"])
            _finish(run, outcome, history)
            return outcome
        history.append(metrics)
        _prune(run, history)
        on_iteration(metrics)
    outcome = Outcome(status, best_iteration(history))
    _finish(run, outcome, history)
    return outcome


def _one_iteration(
    run: RunDirectory, suite: Suite, backend: Backend, iteration: int, on_step: Callable[[str], None]
) -> dict[str, Any]:
    config, clock = run.config, Clock()
    policy = run.policy(iteration - 1)
    on_step("rolling out")
    with clock("rollout"):  # 1 draw problems, 2 roll out
        problems = suite.draw("train", config.rollout.num_problems, config.seed, iteration)
        played = roll_out(backend.load(policy, exploring=True), problems, run, iteration, on_step)
    with clock("select"):  # 3 score by regret, 4 keep the lowest
        regrets = [
            round_regret(trajectories, batch.setting.regret_kind)
            for batch, trajectories in zip(problems, played, strict=True)
        ]
        examples = []
        for number, (trajectories, regret) in enumerate(zip(played, regrets, strict=True)):
            luck = generator(config.seed, iteration, number)
            weights = select(trajectories, regret, config.rollout.num_rollouts, config.selection, luck)
            every = arm_weights(trajectories, config.selection)
            temperature = config.rollout.temperature
            examples.append(Example(trajectories, weights.reshape(regret.shape), every, temperature))
    on_step("training")
    with clock("train"):  # 5 fine-tune on what was kept; 6 the result replaces the policy
        target = run.staged_checkpoint(iteration)
        progress = iteration / config.iterations
        policy, figures = backend.trainer.train(policy, examples, target, _seed(run, iteration), progress)
    metrics = {"iteration": iteration, **describe_training(problems, examples, regrets), "train": figures}
    if iteration % config.validation.every == 0 or iteration == config.iterations:
        on_step("validating")
        with clock("evaluate"):
            metrics["validation"] = validate(backend, policy, suite, run)
    everything = problems, examples, regrets
    run.commit(metrics, clock.seconds, recorded(*everything), spoken(*everything))
    return metrics


def roll_out(
    policy: Policy,
    problems: list[ProblemBatch],
    run: RunDirectory,
    iteration: int,
    on_step: Callable[[str], None] = lambda _: None,
) -> list[Trajectories]:
    """L rollouts of every problem, those of a problem in a row; one result per batch of problems."""
    times, seed = run.config.rollout.num_rollouts, run.config.seed
    total = times * sum(len(batch.indices) for batch in problems)
    played, done = [], 0
    for batch in problems:
        paths = [(iteration, int(problem), turn) for problem in batch.indices for turn in range(times)]
        pieces = []
        for piece in _pieces(policy, batch, times, seed, paths):
            pieces.append(piece)
            done += len(piece)
            on_step(f"rolled out {done} of {total}")
        played.append(Trajectories.concatenate(pieces))
    return played


def validate(backend: Backend, policy: PolicyRef, suite: Suite, run: RunDirectory) -> dict[str, Any]:
    """Measures on the validation part, the same problems and luck every time, with 95% intervals."""
    player = backend.load(policy, exploring=False)
    parts: dict[str, list[FloatArray]] = {name: [] for name in VALIDATED}
    for number, batch in enumerate(suite.draw("validation", run.config.validation.num_problems)):
        paths = [(number, int(problem)) for problem in batch.indices]
        for trajectories in _pieces(player, batch, 1, VALIDATION_SEED, paths):
            measured = measure(trajectories, batch.setting.regret_kind)
            for name in VALIDATED:
                parts[name].append(measured[name])
    return {name: interval(np.concatenate(values)).model_dump() for name, values in parts.items()}


def _pieces(
    policy: Policy, batch: ProblemBatch, times: int, seed: int, paths: Sequence[tuple[int, ...]]
) -> Iterator[Trajectories]:
    """`times` rollouts of every problem, those of a problem in a row, from the streams at `paths`."""
    setting, rows = batch.setting, np.repeat(np.arange(len(batch.indices)), times)
    return rollout_in_pieces(
        lambda _: policy, setting.play, setting.rules, batch.table, batch.words, rows, seed, paths
    )


def recorded(
    problems: list[ProblemBatch], examples: list[Example], regrets: list[FloatArray]
) -> dict[str, np.ndarray]:
    """What is stored of an iteration: every regret; of the kept trajectories arms, rewards, weights.

    In words also each problem's context, and everywhere which rollouts failed, to find them by. Without words
    also, of the first MAX_SAMPLE kept, all that is shown of a trajectory: the probabilities of every arm,
    the expected rewards and each round's regret.
    """
    arrays: dict[str, np.ndarray] = {}
    for batch, example, regret in zip(problems, examples, regrets, strict=True):
        rows, histories = kept(example.weights), example.trajectories.histories
        name = batch.setting.name
        arrays[f"{name}/problem"] = batch.indices
        arrays[f"{name}/regret"] = regret.sum(axis=1).reshape(len(batch.indices), -1).astype(np.float32)
        arrays[f"{name}/row"] = rows.astype(np.int32)
        arrays[f"{name}/arm"] = histories.arms[rows].astype(np.int16)
        arrays[f"{name}/reward"] = histories.rewards[rows].astype(np.float32)
        arrays[f"{name}/weight"] = example.weights[rows].astype(np.float16)
        arrays[f"{name}/failed"] = np.isin(np.arange(histories.size), list(histories.failed))
        if histories.words.turns:
            arrays[f"{name}/context"] = context_names(batch)
        elif histories.probabilities is not None:
            cells = histories.rules.horizon * histories.rules.num_arms
            sample = rows[: min(MAX_SAMPLE, MAX_SAMPLE_CELLS // cells)]
            expected = example.trajectories.table.expected_rewards
            arrays[f"{name}/probabilities"] = histories.probabilities[sample].astype(np.float16)
            arrays[f"{name}/expected_rewards"] = expected[sample].astype(np.float32)
            arrays[f"{name}/round_regret"] = regret[sample].astype(np.float32)
    return arrays


def spoken(
    problems: list[ProblemBatch], examples: list[Example], regrets: list[FloatArray]
) -> Iterator[dict[str, Any]]:
    """What is stored of every rollout in words: the conversation with its tokens, and the hidden truth."""
    for batch, example, regret in zip(problems, examples, regrets, strict=True):
        rows, times = np.arange(regret.shape[0]), regret.shape[0] // len(batch.indices)
        played, weights = example.trajectories, example.weights
        yield from conversations(batch, rows // times, rows % times, played, regret, weights)


def _patience_is_out(history: list[dict[str, Any]], patience: int | None) -> bool:
    if patience is None:
        return False
    best = best_iteration(history)
    return sum("validation" in metrics for metrics in history if metrics["iteration"] > best) >= patience


def _prune(run: RunDirectory, history: list[dict[str, Any]]) -> None:
    newest = len(history) - 1
    run.prune({0, best_iteration(history), newest - 1, newest})


def _finish(run: RunDirectory, outcome: Outcome, history: list[dict[str, Any]]) -> None:
    _prune(run, history)
    outcome.findings += describe_end(history, outcome.best_iteration)
    run.write_json("result.json", {
        "status": outcome.status,
        "best_iteration": outcome.best_iteration,
        "findings": outcome.findings,
    })  # fmt: skip


def _seed(run: RunDirectory, iteration: int) -> int:
    return int(seed_sequence(run.config.seed, iteration).generate_state(1)[0])


class Clock:
    """Seconds spent, by step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        begun = time.perf_counter()
        yield
        self.seconds[step] = round(time.perf_counter() - begun, 4)
