"""The terse style: a handful of tokens per round, for models that pay for every one."""

from __future__ import annotations

from dataclasses import dataclass

from rmft.scenarios.facts import Facts, News, Tally
from rmft.scenarios.parsing import MARK
from rmft.scenarios.rewards import write_difference, write_range, write_reward

SEEN = {"full": "the {units} of all", "bandit": "its {units}"}
HINTS = {"full": "A lead may not last.", "bandit": "Try options, then settle on good ones."}
SHOWN = "What is told before a round may matter."
THINK = {"brief": "Think in a few words", "free": "Think"}


@dataclass(frozen=True, slots=True)
class Terse:
    """Words for `facts`, as few as can be."""

    facts: Facts

    def opening(self) -> str:
        """What it is about, the options, the rules and how to answer."""
        facts = self.facts
        context, feedback = facts.context, facts.rules.feedback
        options = "\n".join(f"{label} {name}" for label, name in facts.described)
        act = f"split one unit over {context.arms}" if facts.mixes else context.act
        span = write_range(facts.rules, facts.scaled)
        seen = SEEN[feedback].format(units=context.units) + (f", {span}" if span else "")
        if facts.ranked:
            seen += ", best total first"
        sentences = [
            f"{facts.rules.horizon} rounds. Each round {act}:\n{options}\nThen see {seen}.",
            *([SHOWN] if facts.shows else []),
            f"Most {context.units} win.",
            *([HINTS[feedback]] if facts.wording.hint else []),
            self._how_to_answer(),
        ]
        return " ".join(sentences)

    def _how_to_answer(self) -> str:
        facts = self.facts
        answer = f'"{facts.weights}"' if facts.mixes else "one letter"
        rule = " Each ? is a digit, a weight; all 0 is an even split." if facts.mixes else ""
        if facts.wording.reasoning == "off":
            return f"Reply with {answer}.{rule}"
        return f'{THINK[facts.wording.reasoning]}, then end with a line "{MARK}" and {answer}.{rule}'

    def first(self, shown: str) -> str:
        """The first question, or what is shown before it."""
        return shown or "Choose."

    def prompt(self, news: News) -> str:
        """What the last round paid, then the summary: "1" and "G0.67x3 K?", with "x" before how often an
        option was played, and "+0.86" for what UCB1 adds; or "G0K1" and "G0.67K0.5 x3" under full
        information, with "x" before the number of rounds. There no space stands before a letter: it would be
        another token than the answer. What is shown before the coming round is a line at the end."""
        facts = self.facts

        def write(reward: float) -> str:
            return write_reward(reward, facts.rules, facts.scaled)

        if news.rewards:
            paid = "".join(f"{label}{write(reward)}" for label, reward in news.rewards)
            means = "".join(f"{tally.label}{write(tally.mean)}" for tally in news.summary)
            tallies = [means, f"x{news.num_rounds}"] if means else []
        else:
            paid = write(news.earned)
            tallies = [
                f"{tally.label}{write(tally.mean)}x{tally.count}{self._bonus(tally)}"
                if tally.count
                else f"{tally.label}?"
                for tally in news.summary
            ]
        return "\n".join(filter(None, (paid, " ".join(tallies), news.shown)))

    def _bonus(self, tally: Tally) -> str:
        if tally.bonus is None:
            return ""
        return f"+{write_difference(tally.bonus, self.facts.rules, self.facts.scaled)}"
