"""What a run with a hosted model will cost, before it starts: its problems are played with made-up answers.

Words, rounds and histories that are told again are those of the run; only the answers are made up. A few
real calls can show how many tokens the words are for the model, how long it writes and how long a call takes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rmft.config import RunConfig
from rmft.generators.api import Asks, Question
from rmft.messages import count_tokens, messages
from rmft.policies.config import HostedConfig
from rmft.policies.hosted import HostedPolicy
from rmft.problems.logged import PartName
from rmft.problems.suites import Suite
from rmft.providers.answers import Answer
from rmft.providers.catalogue import ModelFacts
from rmft.rollout import rollout
from rmft.scenarios.scenario import scenarios_of
from rmft.streams import Streams
from rmft.types import Decisions, Histories, Rules, Turn

FORECAST = 0xF0CA  # the seed of made-up answers
SAMPLED = 4  # problems of each setting that are played
FIRST_MESSAGES = 2  # of a conversation, before its first answer: the system's and the user's

Count = Callable[[str], int]
"""How many tokens a text is."""


@dataclass(frozen=True)
class Line:
    """One row of a forecast: calls, and the tokens that they read and write or that are trained on.

    usd, seconds: None where unknown.
    """

    what: str
    calls: int
    read: int
    written: int
    trained: int
    usd: float | None
    seconds: float | None


@dataclass(frozen=True)
class Seen:
    """What real calls showed: tokens read, by those counted; tokens of an answer; seconds of a call."""

    ratio: float = 1.0
    written: float | None = None
    seconds: float | None = None


class MadeUp:
    """Plays arms at random, and counts what a model would read and write. `name` is "made-up"."""

    name = "made-up"
    max_concurrency = 1

    def __init__(self, config: HostedConfig, count: Count) -> None:
        self.config, self.count = config, count
        self.calls = self.read = self.written = self.whole = self.rollouts = 0

    def rows_at_once(self, rules: Rules) -> int:  # noqa: ARG002
        """See `Policy`."""
        return 1

    def decide(self, histories: Histories, streams: Streams) -> Decisions:
        """See `Policy`."""
        num_arms = histories.rules.num_arms
        arm = int(streams.choose(np.full((1, num_arms), 1 / num_arms))[0])
        words = histories.words
        (scenario,) = scenarios_of(histories.rules, words.unspoken(), self.config.wording)
        told = scenario.prompt(histories.row(0))
        mixes = self.config.wording.answer == "distribution"
        said = scenario.write((None, np.eye(num_arms)[arm]) if mixes else (arm, None))
        turn = Turn(told, said, system="" if histories.num_rounds else scenario.opening())
        chat = messages([*(turns[0] for turns in words.turns), turn])
        reasons = self.config.wording.reasoning != "off"
        written = self.config.max_tokens if reasons else self.count(said)
        self.calls += 1
        self.read += count_tokens(chat[:-1], self.count) + reasons * histories.num_rounds * written
        self.written += written
        if histories.num_rounds == histories.rules.horizon - 1:
            self.whole += count_tokens(chat, self.count) + reasons * histories.rules.horizon * written
        if mixes:
            return Decisions(probabilities=np.eye(num_arms)[[arm]], turns=(turn,))
        return Decisions(np.array([arm]), turns=(turn,))


def forecast(
    config: RunConfig,
    policy: HostedConfig,
    suites: Mapping[str, Suite],
    facts: ModelFacts,
    count: Count,
    seen: Seen,
) -> list[Line]:
    """What rollouts, training and validation of the whole run will take, and all of it together.

    An upper bound where the policy reasons (every answer as long as it may be, unless `seen` says), and where
    rounds are selected one by one (every rollout is then trained on). Answers that have to be asked for again
    are not in it, nor how long a provider takes to train.
    """
    judged = sum(config.validates(iteration) for iteration in range(config.iterations + 1))
    lines: list[Line] = []
    parts: list[tuple[str, Suite, PartName, int, float]] = [
        (
            "rollouts",
            suites[stage.suite],
            "train",
            stage.iterations * stage.rollout.num_problems * stage.rollout.num_rollouts,
            stage.share_learned(len(suites[stage.suite].settings("train"))) * stage.training.epochs,
        )
        for stage in config.schedule()
    ]
    judgements = judged * config.validation.num_problems
    for what, suite, part, times, trained_on in [
        *parts,
        ("validation", suites[config.suite], "validation", judgements, 0.0),
    ]:
        one = _played(policy, suite, part, count)
        each = times / one.rollouts
        calls, read = round(one.calls * each), round(one.read * seen.ratio * each)
        written = round((one.written / one.calls if seen.written is None else seen.written) * calls)
        usd = facts.usd(read, written, tuned=True)
        seconds = None if seen.seconds is None else calls * seen.seconds / policy.endpoint.concurrency
        lines.append(Line(what, calls, read, written, 0, usd, seconds))
        if part == "train":
            trained = round(one.whole * seen.ratio * each * trained_on)
            lines.append(Line("training", 0, 0, 0, trained, facts.training_usd(trained), None))
    return [*lines, _together(lines)]


def see(model: Asks, config: HostedConfig, suite: Suite, num_calls: int, count: Count) -> Seen:
    """What the first questions of `num_calls` training problems show. Raises as `HostedPolicy.decide`."""
    watched, counted = Watched(model), MadeUp(config, count)
    policy = HostedPolicy(watched, config)
    for batch in suite.draw("train", num_calls):
        for row in range(len(batch.words)):
            streams = Streams.at(FORECAST, [(row,)])
            histories = Histories(batch.setting.rules, 1, batch.words.rows(np.array([row])))
            counted.decide(histories, streams)
            policy.decide(histories, streams)
    answers = watched.answers
    read = sum(watched.firsts)
    written = sum(answer.completion_tokens for answer in answers)
    return Seen(read / counted.read, written / len(answers), watched.seconds / len(answers))


class Watched:
    """A model whose answers are kept, and timed. firsts: tokens read for questions not asked again."""

    def __init__(self, model: Asks) -> None:
        self.model, self.features = model, model.features
        self.answers: list[Answer] = []
        self.firsts: list[int] = []
        self.seconds = 0.0

    def ask(self, question: Question) -> Answer:
        """See `ApiModel.ask`."""
        begun = time.perf_counter()
        answer = self.model.ask(question)
        self.seconds += time.perf_counter() - begun
        self.answers.append(answer)
        if len(question.messages) == FIRST_MESSAGES:
            self.firsts.append(answer.prompt_tokens)
        return answer


def _played(policy: HostedConfig, suite: Suite, part: PartName, count: Count) -> MadeUp:
    """Counts of one rollout of some problems of every setting, which are an even mixture."""
    counted = MadeUp(policy, count)
    number = SAMPLED * len(suite.settings(part))
    for batch in suite.draw(part, number):
        for row, index in enumerate(batch.indices.tolist()):
            rows = np.array([row])
            streams = Streams.at(FORECAST, [(index,)])
            environment = batch.setting.play(batch.table.rows(rows), counted)
            rollout(counted, environment, streams, batch.words.rows(rows))
    counted.rollouts = number
    return counted


def _together(lines: Sequence[Line]) -> Line:
    usd = [line.usd for line in lines]
    seconds = [line.seconds for line in lines if line.calls]
    return Line(
        "together",
        sum(line.calls for line in lines),
        sum(line.read for line in lines),
        sum(line.written for line in lines),
        sum(line.trained for line in lines),
        None if None in usd else sum(each for each in usd if each is not None),
        None if None in seconds else sum(each for each in seconds if each is not None),
    )
