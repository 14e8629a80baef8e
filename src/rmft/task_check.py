"""`rmft task check`: what a task comes to, how it is told, how long that is, what may be wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from rmft.problems.logged import Logged, PartName
from rmft.problems.suites import PARTS, ProblemBatch, Suite
from rmft.regret import highest
from rmft.scenarios.scenario import LETTERS, Scenario, scenarios_of
from rmft.scenarios.wording import Wording
from rmft.types import Observation, RowHistory

SHOWN = 2  # rounds
MAX_SHOWN = 12  # options
DRAWN = 200  # problems whose rewards are looked at
FEW = 30  # groups to report on, below which intervals say little

Count = Callable[[str], int]
"""How many tokens a text is."""


def describe_task(suite: Suite, wording: Wording, count: Count, counted_by: str) -> Iterator[str]:
    """Lines for a person. counted_by: whose tokens `count` counts. Raises ConfigError as `draw_scenario`."""
    (setting,) = suite.settings("train")
    (batch,) = suite.draw("train", DRAWN)
    names = "named" if batch.words.names is not None else "anonymous"
    shape = f"{setting.num_arms} {names} options, {setting.horizon} rounds"
    yield f"{suite.name}: {shape}, feedback {setting.feedback}, {setting.regret_kind} regret"
    yield f"rewards: {_span(batch)}"
    sizes = {part: _groups(suite, part) for part in PARTS}
    if sizes["held_out"] is not None:
        listed = ", ".join(f"{size} in {part}" for part, size in sizes.items())
        yield f"groups, each one problem and in one part only: {listed}"
    yield from _means(batch)
    if setting.num_arms <= len(LETTERS):
        yield ""
        yield from _told(batch, wording, count, counted_by)
    yield ""
    worries = list(_worries(batch, sizes["held_out"]))
    yield from worries or ["Nothing looks wrong."]


def _groups(suite: Suite, part: PartName) -> int | None:
    (setting,) = suite.settings(part)
    process = setting.reward_process
    if not isinstance(process, Logged) or process.part is None:
        return None
    return len(process.which(setting.horizon))


def _span(batch: ProblemBatch) -> str:
    low, high = batch.setting.rules.reward_range
    return f"{low:g} to {high:g}"


def _means(batch: ProblemBatch) -> Iterator[str]:
    """What each option is worth on average to whoever does not adapt, which is what a prior can know."""
    if batch.words.names is None:
        return
    means = batch.table.expected_rewards.mean(axis=(0, 1))
    order = np.argsort(-means)[:MAX_SHOWN].tolist()
    listed = ", ".join(f"{batch.words.names[0, arm]} {means[arm]:.3g}" for arm in order)
    yield f"mean reward in training, always the same option: {listed}"
    best = batch.table.expected_rewards.sum(axis=1).max(axis=1).mean() / batch.setting.horizon
    yield f"mean reward of the best option of each problem: {best:.3g}"


def _told(batch: ProblemBatch, wording: Wording, count: Count, counted_by: str) -> Iterator[str]:
    """The opening and two rounds of the first problem, in which the listed options are played in turn."""
    rules, words = batch.setting.rules, batch.words.rows(np.array([0]))
    (scenario,) = scenarios_of(rules, words, wording)
    opening, told = scenario.opening(), list(_rounds(scenario, batch))
    yield "system  | " + opening.replace("\n", "\n        | ")
    for index, each in enumerate(told[: SHOWN + 1]):
        yield "told    | " + each.replace("\n", "\n        | ")
        if index < SHOWN:
            yield f"decided | {scenario.labels[scenario.order[index % rules.num_arms]]}"
    first, later = count(opening), max((count(each) for each in told[1:]), default=0)
    whole = first + count(told[0]) + (rules.horizon - 1) * (later + 1) + 1
    yield ""
    yield (
        f"tokens ({counted_by}): {first} for the opening, {later} for what is told in a round, {whole} for "
        f"all {rules.horizon} rounds, without what a chat's template adds"
    )


def _rounds(scenario: Scenario, batch: ProblemBatch) -> Iterator[str]:
    rules, rewards = batch.setting.rules, batch.table.rewards[0]
    arms = np.array([scenario.order[t % rules.num_arms] for t in range(SHOWN)], dtype=np.int64)
    shown = batch.table.observations
    shown = None if shown is None else shown.map(lambda array: array[0])
    for t in range(min(SHOWN + 1, rules.horizon)):
        seen = rewards[:t] if rules.feedback == "full" else rewards[np.arange(t), arms[:t]]
        yield scenario.prompt(RowHistory.of_arms(rules, arms[:t], seen, _until(shown, t + 1)))


def _until(shown: Observation | None, num_rounds: int) -> Observation | None:
    return None if shown is None else shown.map(lambda array: array[:num_rounds])


def _worries(batch: ProblemBatch, held_out: int | None) -> Iterator[str]:
    """What is allowed, and probably not meant."""
    totals = batch.table.expected_rewards.sum(axis=1)
    level = highest(totals).all(axis=1)
    if level.all():
        yield "Worry: all options pay the same in every problem, so that there is nothing to learn."
    elif level.mean() > 0.1:
        yield f"Worry: in {level.mean():.0%} of the problems all options pay the same in sum."
    if held_out is not None and held_out < FEW:
        yield (
            f"Worry: {held_out} groups to report on give wide intervals; parts: {{train: .5, validation: .1, "
            "held_out: .4} would give more of them to it."
        )
    if batch.setting.feedback == "bandit" and batch.setting.horizon < batch.setting.num_arms:
        yield "Worry: there are fewer rounds than options, so that not all of them can be tried."
    if batch.setting.num_arms > len(LETTERS):
        yield f"Worry: a language policy names options by letters, of which there are {len(LETTERS)}."
