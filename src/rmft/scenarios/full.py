"""The full style: whole sentences, as one would tell a person."""

from __future__ import annotations

from dataclasses import dataclass

from rmft.scenarios.facts import Facts, News, Tally
from rmft.scenarios.parsing import MARK
from rmft.scenarios.rewards import write_difference, write_range, write_reward

HINTS = {
    "full": (
        "What has led so far need not go on leading, so weigh settling on it against keeping others in mind."
    ),
    "bandit": (
        "Balance trying options that you know little about with returning to those that have done well."
    ),
}
THINK = {
    "brief": "Before each decision, reason in one short sentence.",
    "free": "Before each decision, reason step by step for as long as you need.",
}
DIVIDED = (
    "In place of every ? write a digit from 0 to 9, the weight of that option: your unit is divided in "
    "proportion to the weights, and evenly if all of them are 0."
)
RANKED = "The one with the best total so far is named first."


@dataclass(frozen=True, slots=True)
class Full:
    """Words for `facts`, in whole sentences."""

    facts: Facts

    def opening(self) -> str:
        """What it is about, the options, the rules and how to answer."""
        facts = self.facts
        context, rules, wording = facts.context, facts.rules, facts.wording
        act = f"divide one unit among the {context.arms}" if facts.mixes else context.act
        *most, last = [f"{label} ({name})" for label, name in facts.described]
        sentences = [
            context.situation,
            f"There are {rules.horizon} rounds. In every round you {act}.",
            f"The {context.arms} are {', '.join(most)} and {last}.",
            *([context.before] if facts.shows else []),
            context.full if rules.feedback == "full" else context.bandit,
            *([RANKED] if facts.ranked else []),
            *self._scale(),
            f"Your aim is to collect as many {context.units} as you can over all rounds.",
            *([HINTS[rules.feedback]] if wording.hint else []),
            *([THINK[wording.reasoning]] if wording.reasoning != "off" else []),
            self._how_to_answer(),
        ]
        return " ".join(sentences)

    def _scale(self) -> list[str]:
        context, span = self.facts.context, write_range(self.facts.rules, self.facts.scaled)
        if self.facts.scaled:
            return [f"The {context.reward} is told on a scale from {span}, where more is better."]
        return [f"The {context.reward} is {span} {context.units}."] if span else []

    def _how_to_answer(self) -> str:
        facts = self.facts
        answer = f'"{facts.weights}"' if facts.mixes else f"the letter of one {facts.context.arm}"
        if facts.wording.reasoning == "off":
            how = f"Answer with {answer} and nothing else."
        else:
            how = f'End your answer with a line of its own that says "{MARK}" and then {answer}.'
        return f"{how} {DIVIDED}" if facts.mixes else how

    def first(self, shown: str) -> str:
        """The first question, after what is shown before it."""
        return self._question(0, shown)

    def prompt(self, news: News) -> str:
        """What was decided and what came of it, then the summary, then the next question."""
        facts = self.facts
        sentences = []
        if news.chosen is not None:
            name = dict(facts.options)[news.chosen]
            sentences.append(f"You chose {news.chosen} ({name}), which brought {self._amount(news.earned)}.")
        elif facts.mixes:
            sentences.append(f"Your split brought {self._amount(news.earned)}.")
        if news.rewards:
            listed = ", ".join(f"{label} {self._amount(reward)}" for label, reward in news.rewards)
            sentences.append(f"In that round the {facts.context.reward} of each was: {listed}.")
        if news.summary:
            tallies = "; ".join(self._tally(tally, news) for tally in news.summary)
            over = f" over {_times(news.num_rounds, 'round')}" if news.rewards else ""
            sentences.append(f"Averages so far{over}: {tallies}.")
        return " ".join([*sentences, self._question(news.num_rounds, news.shown)])

    def _tally(self, tally: Tally, news: News) -> str:
        if not tally.count:
            return f"{tally.label} not tried yet"
        over = "" if news.rewards else f" over {_times(tally.count, 'trial')}"
        bonus = ""
        if tally.bonus is not None:
            written = write_difference(tally.bonus, self.facts.rules, self.facts.scaled)
            bonus = f", exploration bonus {written}"
        return f"{tally.label} {self._amount(tally.mean)}{over}{bonus}"

    def _amount(self, reward: float) -> str:
        written = write_reward(reward, self.facts.rules, self.facts.scaled)
        if self.facts.scaled:
            return f"{written} of 10"
        return f"{written} {self.facts.context.unit if written == '1' else self.facts.context.units}"

    def _question(self, num_rounds: int, shown: str) -> str:
        facts = self.facts
        asked = "how do you divide your unit" if facts.mixes else f"which {facts.context.arm} do you choose"
        if shown:
            shown = shown if shown[-1] in ".!?" else f"{shown}."
            asked = f"{shown} {asked[0].upper()}{asked[1:]}"
        return f"Round {num_rounds + 1} of {facts.rules.horizon}: {asked}?"


def _times(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
