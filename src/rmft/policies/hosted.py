"""The policy that a model behind an API plays: told in words, answering in words that are read strictly.

An answer that is not exactly one legal decision is asked again with the reason why; after the last attempt
the rollout has failed, which is recorded. What was said stays in the conversation as it was.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from rmft.errors import AnswerError
from rmft.generators.api import Asks, Question
from rmft.messages import messages
from rmft.policies.config import HostedConfig
from rmft.providers.answers import Answer
from rmft.scenarios.parsing import ParseError
from rmft.scenarios.scenario import Decided, Scenario, scenarios_of
from rmft.streams import Streams
from rmft.types import Decisions, FloatArray, Histories, Rules, Turn

SEEDS = 2**31  # those of the sampling are below it


class HostedPolicy:
    """Decides by asking; `name` is "hosted". A rollout is a batch of its own, many are under way at once.

    temperature: > 0, where the endpoint takes one.
    """

    name = "hosted"

    def __init__(self, model: Asks, config: HostedConfig, temperature: float = 1.0) -> None:
        self.model, self.config, self.temperature = model, config, temperature
        self.max_concurrency = config.endpoint.concurrency
        self.structured = model.features.structured and config.wording.reasoning == "off"

    def rows_at_once(self, rules: Rules) -> int:  # noqa: ARG002
        """See `Policy`."""
        return 1

    def decide(self, histories: Histories, streams: Streams) -> Decisions:
        """One decision per history; rows without one have failed. See `Policy`.

        Raises BudgetError, EndpointError when no call can succeed, and AnswerError when one failed after
        all retries: then the run stops, to be resumed.
        """
        seeds = (streams.uniform(self.config.attempts) * SEEDS).astype(np.int64)
        num_arms = histories.rules.num_arms
        arms = np.full(histories.size, -1, dtype=np.int64)
        shares = np.zeros((histories.size, num_arms))
        stated = False
        turns: list[Turn] = []
        failed = dict(histories.failed)
        for row in range(histories.size):
            if row in failed:
                turns.append(Turn("", ""))
                continue
            words = histories.words.unspoken().rows(slice(row, row + 1))
            (scenario,) = scenarios_of(histories.rules, words, self.config.wording)
            turn, decided, answer = self._ask(scenario, histories, row, seeds[row].tolist())
            turns.append(turn)
            if isinstance(decided, str):
                failed[row] = decided
                continue
            arm, mixed = decided
            if arm is not None:
                arms[row] = arm
                found = None if answer is None else probabilities(scenario.labels, answer)
                stated = stated or found is not None
                shares[row] = np.eye(num_arms)[arm] if found is None else found
            elif mixed is not None:
                shares[row] = mixed
        if self.config.wording.answer == "distribution":
            return Decisions(probabilities=shares, turns=tuple(turns), failed=failed)
        return Decisions(arms, shares if stated else None, tuple(turns), failed)

    def _ask(
        self, scenario: Scenario, histories: Histories, row: int, seeds: Sequence[int]
    ) -> tuple[Turn, Decided | str, Answer | None]:
        """One row's turn, its decision or why there is none, and the answer that it was read from."""
        prompt = scenario.prompt(histories.row(row))
        system = "" if histories.num_rounds else self._opening(scenario)
        past = [turns[row] for turns in histories.words.turns]
        refused: list[tuple[str, str]] = []
        cut = False
        schema = scenario.schema() if self.structured else None
        for number in seeds:
            asked = messages([*past, Turn(prompt, "", system=system, refused=tuple(refused))])[:-1]
            try:
                answer = self.model.ask(
                    Question(asked, number, self.config.max_tokens, self.temperature, schema)
                )
            except AnswerError as error:
                if error.status != 400:  # the endpoint is in trouble, not this conversation
                    raise
                return Turn(prompt, "", system=system, refused=tuple(refused), cut=cut), str(error), None
            try:
                decided = (
                    scenario.parse_object(answer.text) if self.structured else scenario.parse(answer.text)
                )
            except ParseError as error:
                why = str(error)
                if answer.finish_reason == "length":
                    cut, why = True, f"{why} It was cut at {self.config.max_tokens} tokens; be shorter."
                refused.append((answer.text, f"{why} Answer again."))
                continue
            return Turn(prompt, answer.text, system=system, refused=tuple(refused), cut=cut), decided, answer
        why = f"Round {histories.num_rounds + 1}: no legal answer in {len(seeds)} attempts. {refused[-1][1]}"
        turn = Turn(prompt, "", system=system, refused=tuple(refused), cut=cut)
        return turn, why.removesuffix(" Answer again."), None

    def _opening(self, scenario: Scenario) -> str:
        return f"{scenario.opening()}\n{scenario.schema_example}" if self.structured else scenario.opening()


def probabilities(labels: Sequence[str], answer: Answer) -> FloatArray | None:
    """(K,) of the arms with these labels, from the log probabilities of the token that named one, or None.

    Arms that are not among the likeliest tokens there share what those leave.
    """
    place = max(answer.text.rstrip().rfind(label) for label in labels)
    text = ""
    for token in answer.logprobs or ():
        text += token.token
        if len(text) > place >= 0:
            break
    else:
        return None
    before = token.token[: place - len(text)]  # what the token has before the label
    likeliest = {**token.top, token.token: token.logprob}
    shares = np.zeros(len(labels))
    for candidate, logprob in likeliest.items():
        label = candidate.removeprefix(before)[:1]
        if candidate.startswith(before) and label in labels:
            shares[labels.index(label)] += math.exp(logprob)
    missing = shares == 0
    if missing.any():
        left = 1 - sum(math.exp(logprob) for logprob in likeliest.values())
        shares[missing] = max(0.0, left) / missing.sum()
    return np.asarray(shares / shares.sum()) if shares.sum() > 0 else None
