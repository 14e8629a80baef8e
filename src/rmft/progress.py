"""How a run shows that it is alive: a live bar on a terminal and in a notebook, plain lines in a pipe."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from rmft.config import RunConfig
from rmft.problems.suites import Suite

SECONDS_BETWEEN_LINES = 5.0


def rounds_of(config: RunConfig, suites: Mapping[str, Suite]) -> int:
    """Rounds that a run plays for training."""
    found = 0
    for stage in config.schedule():
        horizon = suites[stage.suite].mean_horizon("train")
        found += int(stage.iterations * stage.rollout.num_problems * stage.rollout.num_rollouts * horizon)
    return found


class TrainingProgress:
    """Told of every finished iteration, says how far the run is, how good, how fast and how long yet.

    total: iterations of the run. rounds: rounds played in each. yardstick: the name and validation
    regret of the best baseline, to be compared with. of: what is trained, where there are several, such as
    "seed 1". before: the metrics of iterations that were finished before. log: told each line that a pipe
    is. shown: whether anybody else is.
    """

    def __init__(
        self,
        total: int,
        rounds: int,
        yardstick: tuple[str, float] | None,
        of: str | None = None,
        before: Sequence[Mapping[str, Any]] = (),
        *,
        log: Callable[[str], None] = lambda _: None,
        shown: bool = True,
    ) -> None:
        self.log, self.shown = log, shown
        self.counted = "iteration" if of is None else f"{of}, iteration"
        self.total, self.rounds, self.yardstick = total, rounds, yardstick
        self.console = Console(stderr=True)
        self.live = shown and (self.console.is_terminal or self.console.is_jupyter)
        self.begun = self.last_line = time.perf_counter()
        self.first_iteration: int | None = None
        validated = [each["validation"] for each in before if "validation" in each]
        self.regret = self._regret(validated[-1]) if validated else "regret ?"
        done = int(before[-1]["iteration"]) if before else 0
        self.iteration, self.state = done or -1, ""
        self.bar = Progress(
            TextColumn(self.counted),
            MofNCompleteColumn(),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[state]}"),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.live,
        )
        self.task = self.bar.add_task("train", total=total, completed=done, state="")

    def __enter__(self) -> TrainingProgress:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def say(self, text: str) -> None:
        """One line of its own."""
        self.console.print(text, markup=False, highlight=False)

    def on_step(self, step: str) -> None:
        """Show what is done next; in a pipe only where iterations are slow."""
        if self.live:
            self.bar.update(self.task, state=f"{self.state}, {step}" if self.state else step)
        if time.perf_counter() - self.last_line >= SECONDS_BETWEEN_LINES:
            self._line(f"{self.counted} {self.iteration + 1}/{self.total}: {step}")

    def on_iteration(self, metrics: dict[str, Any]) -> None:
        """Show a finished iteration, from its metrics."""
        iteration, now = int(metrics["iteration"]), time.perf_counter()
        if self.first_iteration is None:
            self.first_iteration = iteration - (iteration > 0)
        if "validation" in metrics:
            self.regret = self._regret(metrics["validation"])
        done = iteration - self.first_iteration
        speed = done * self.rounds / max(now - self.begun, 1e-9)
        state = f"{self.regret}, {speed:,.0f} rounds/s" if done else self.regret
        self.iteration, self.state = iteration, state
        if self.live:
            self.bar.update(self.task, completed=iteration, state=state)
        if iteration in (0, self.total) or now - self.last_line >= SECONDS_BETWEEN_LINES:
            seconds = (self.total - iteration) * (now - self.begun) / max(done, 1)
            left = f", {seconds:.0f} s left" if done else ""
            self._line(f"{self.counted} {iteration}/{self.total}: {state}{left}")

    def _line(self, text: str) -> None:
        self.last_line = time.perf_counter()
        self.log(text)
        if self.shown and not self.live:
            print(text, file=sys.stderr, flush=True)

    def _regret(self, validation: Mapping[str, Any]) -> str:
        words = f"regret {validation['regret']['mean']:.2f}"
        if self.yardstick:
            words += f" ({self.yardstick[0]} {self.yardstick[1]:.2f})"
        return words
