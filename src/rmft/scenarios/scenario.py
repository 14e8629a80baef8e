"""A scenario: the words around one problem, from what is told before round 1 to reading the answers.

It knows the rules and what a policy has seen, and so can tell nothing that is hidden. Options are named
by capital letters, so that an answer is one token; letters, their order in the list and, where arms are
anonymous, what they stand for are drawn anew for every problem, so that none of them is worth learning.
Named arms keep their names, whatever letter they have: what a name means can be learned.
"""

from __future__ import annotations

import json
import math
import string
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rmft.errors import ConfigError, ShapeError
from rmft.scenarios.contexts import Context, context_group
from rmft.scenarios.facts import Facts, News, Tally
from rmft.scenarios.full import Full
from rmft.scenarios.parsing import (
    MARK,
    ParseError,
    final_answer,
    parse_label,
    parse_object,
    parse_weights,
)
from rmft.scenarios.rewards import write_number
from rmft.scenarios.terse import Terse
from rmft.scenarios.wording import Wording
from rmft.streams import generator
from rmft.types import FloatArray, IntArray, RowHistory, Rules, Words

Piece = str | tuple[str, ...]
"""Of an answer: text that is given, or single characters of which exactly one is chosen."""

Decided = tuple[int, None] | tuple[None, FloatArray]
"""One row's decision: an arm, or the probabilities (K,) of a distribution."""

LETTERS = string.ascii_uppercase
DIGITS = tuple(string.digits)
CHOICE = "choice"  # the property of a JSON answer that names an arm
CONTEXT, LABELS, ORDER, NAMES = range(4)  # where the streams of a scenario's parts branch off


@dataclass(frozen=True)
class Scenario:
    """The words around one problem of K arms.

    labels: (K,) distinct capital letters, labels[a] is that of arm a. order: (K,) the arms in the order in
    which they are listed. names: (K,) what each arm is called.
    """

    context: Context
    wording: Wording
    rules: Rules
    labels: tuple[str, ...]
    order: tuple[int, ...]
    names: tuple[str, ...]

    def opening(self) -> str:
        """The system message: what it is about, the options, the rules, and how to answer."""
        return self._style.opening()

    def prompt(self, row: RowHistory) -> str:
        """The user's message before the next decision, of a row of fewer than T rounds.

        Tells of the last round, and in a summary also of each option so far. Raises ShapeError when the
        history is whole, or is played under other rules.
        """
        if row.rules != self.rules or row.num_rounds >= self.rules.horizon:
            raise ShapeError(
                f"Found a history of {row.num_rounds} rounds under {row.rules}; expected one of fewer than "
                f"{self.rules.horizon} rounds under {self.rules}."
            )
        shown = self._shown(row)
        if row.num_rounds == 0:
            return self._style.first(shown)
        arm, paid = int(row.arms[-1]), row.rewards[-1]
        news = News(
            num_rounds=row.num_rounds,
            chosen=self.labels[arm] if arm >= 0 else None,
            earned=float(row.played[-1] @ paid) if self.rules.feedback == "full" else float(paid),
            rewards=tuple((self.labels[a], float(paid[a])) for a in self._listing(row.rewards)),
            summary=self._summary(row.arms, row.rewards),
            shown=shown,
        )
        return self._style.prompt(news)

    def answer(self) -> tuple[Piece, ...]:
        """The grammar of a decision: one choice among the labels in the order of the arms, or a digit
        for every label in the order in which they are listed."""
        if self.wording.answer == "arm":
            return (self.labels,)
        pieces: list[Piece] = []
        for label in self._facts.labels:
            pieces += [f"{' ' if pieces else ''}{label}=", DIGITS]
        return tuple(pieces)

    @property
    def before_answer(self) -> str:
        """What is put between the policy's reasoning and its decision; "" when it writes none."""
        return "" if self.wording.reasoning == "off" else f"\n{MARK} "

    def decision(self, choices: Sequence[str]) -> Decided:
        """What was decided by the choices made in the grammar, one for each of its choosing pieces.

        Weights are divided by their sum; where all are 0 every option has the same, as the opening says.
        Raises ParseError when a choice is not one of the grammar's.
        """
        legal = [piece for piece in self.answer() if not isinstance(piece, str)]
        if len(choices) != len(legal) or any(c not in piece for c, piece in zip(choices, legal, strict=True)):
            raise ParseError(f"Found the choices {list(choices)}; expected one of each of {legal}.")
        if self.wording.answer == "arm":
            return self.labels.index(choices[0]), None
        return None, self._probabilities(int(choice) for choice in choices)

    def parse(self, said: str) -> Decided:
        """The decision in free text, which must hold exactly one (`rmft.scenarios.parsing`).

        Raises ParseError for any other text.
        """
        answer = final_answer(said, marked=self.wording.reasoning != "off")
        if self.wording.answer == "arm":
            return self.labels.index(parse_label(answer, self.labels)), None
        return None, self._probabilities(parse_weights(answer, self._facts.labels))

    def schema(self) -> dict[str, Any]:
        """A JSON schema of exactly the legal decisions: {"choice": "K"}, or a digit for every label."""
        if self.wording.answer == "arm":
            properties: dict[str, Any] = {CHOICE: {"type": "string", "enum": list(self.labels)}}
        else:
            digits = {"type": "integer", "enum": [int(digit) for digit in DIGITS]}
            properties = dict.fromkeys(self._facts.labels, digits)
        return {
            "type": "object",
            "properties": properties,
            "required": list(properties),
            "additionalProperties": False,
        }

    @property
    def schema_example(self) -> str:
        """What the opening is followed by where answers are held to the schema."""
        values = dict.fromkeys(self._facts.labels, 1) if self.wording.answer == "distribution" else None
        return f"Write it as JSON: {json.dumps(values or {CHOICE: self._facts.labels[0]})}"

    def parse_object(self, said: str) -> Decided:
        """The decision in an answer that was to follow `schema`. Raises ParseError for any other text."""
        found = parse_object(said, self.schema()["properties"])
        return self.decision([str(value) for value in found.values()])

    def write(self, decision: Decided) -> str:
        """A decision as it is to be said; `parse` reads it again.

        Of a distribution the smallest digits that give it, or else those that are nearest. Raises
        ShapeError when the decision is not of the kind that the wording asks for.
        """
        arm, probabilities = decision
        if self.wording.answer == "arm" and arm is not None:
            said = self.labels[arm]
        elif self.wording.answer == "distribution" and probabilities is not None:
            weights = dict(zip(self.labels, _digits(probabilities), strict=True))
            said = " ".join(f"{label}={weights[label]}" for label in self._facts.labels)
        else:
            raise ShapeError(
                f"Found the decision {decision}; expected one that names a {self.wording.answer}."
            )
        return f"{self.before_answer.lstrip()}{said}"

    @property
    def _facts(self) -> Facts:
        options = tuple((self.labels[arm], self.names[arm]) for arm in self.order)
        return Facts(self.context, self.rules, self.wording, options)

    @property
    def _style(self) -> Terse | Full:
        return Terse(self._facts) if self.wording.style == "terse" else Full(self._facts)

    def _shown(self, row: RowHistory) -> str:
        """What is shown before the coming round: its text, or its numbers by name; then each arm's."""
        said = []
        if row.texts is not None:
            said.append(str(row.texts[-1]))
        elif row.observations is not None:
            names = self.rules.shown.numbers or tuple(f"x{n + 1}" for n in range(row.observations.shape[1]))
            said.append(_listed(names, row.observations[-1]))
        if row.arm_texts is not None:
            said += [f"{self.labels[arm]} {row.arm_texts[-1, arm]}" for arm in self.order]
        elif row.features is not None:
            names, numbers = self.rules.shown.features, self.rules.shown.told(row.features[-1])
            said += [f"{self.labels[arm]} {_listed(names, numbers[arm])}" for arm in self.order]
        return "; ".join(said)

    def _listing(self, rewards: FloatArray) -> tuple[int, ...]:
        """The arms whose rewards are told, in that order: as the opening lists them, or best total first."""
        if rewards.ndim == 1:
            return ()
        if self.wording.history != "ranked":
            return self.order
        totals = rewards.sum(axis=0)
        return tuple(sorted(self.order, key=lambda arm: -totals[arm]))

    def _summary(self, arms: IntArray, rewards: FloatArray) -> tuple[Tally, ...]:
        if self.wording.history not in ("summary", "guided"):
            return ()
        guided = self.wording.history == "guided" and rewards.ndim == 1
        low, high = self.rules.reward_range
        width = high - low if math.isfinite(high - low) else 1.0
        tallies = []
        for arm in self.order:
            seen = rewards[:, arm] if rewards.ndim == 2 else rewards[arms == arm]
            mean, bonus = 0.0, None
            if len(seen):
                mean = float(seen.mean())
                bonus = width * math.sqrt(2 * math.log(len(arms)) / len(seen)) if guided else None
            tallies.append(Tally(self.labels[arm], len(seen), mean, bonus))
        return tuple(tallies)

    def _probabilities(self, weights: Iterable[int]) -> FloatArray:
        """(K,) in the order of the arms, from weights in the order in which the arms are listed."""
        shares = np.zeros(self.rules.num_arms)
        shares[list(self.order)] = list(weights)
        return shares / shares.sum() if shares.any() else np.full_like(shares, 1 / len(shares))


def _listed(names: Sequence[str], numbers: FloatArray) -> str:
    """Numbers by name, such as "age 41, income 2.3"."""
    return ", ".join(f"{name} {write_number(n)}" for name, n in zip(names, numbers.tolist(), strict=True))


def scenarios_of(rules: Rules, words: Words, wording: Wording) -> list[Scenario]:
    """The scenario of every row of a batch; rows of one problem share theirs. Raises as `draw_scenario`."""
    names: list[tuple[str, ...] | None] = [None] * len(words)
    if words.names is not None:
        names = [tuple(each) for each in words.names.tolist()]
    rows = list(zip(words.seeds.tolist(), names, strict=True))
    drawn = {
        row: draw_scenario(rules, words.contexts, row[0], wording, row[1]) for row in dict.fromkeys(rows)
    }
    return [drawn[row] for row in rows]


def draw_scenario(
    rules: Rules, contexts: str, seed: int, wording: Wording, names: Sequence[str] | None = None
) -> Scenario:
    """The scenario of a problem, the same whenever the arguments are.

    names: (K,) what the arms are called; None to draw them from the context's. Raises ConfigError when there
    are more arms than letters, when a distribution is asked for under bandit feedback or a scale where
    rewards have no bounds, and UnknownNameError when `contexts` is neither a group nor a context.
    """
    num_arms = rules.num_arms
    if num_arms > len(LETTERS):
        raise ConfigError(
            f"Found num_arms {num_arms}; expected at most {len(LETTERS)} for a policy that decides in words, "
            "since every arm is named by one letter."
        )
    if wording.answer == "distribution" and rules.feedback == "bandit":
        raise ConfigError(
            "Found wording.answer distribution with feedback bandit, where one arm has to be played to be "
            "seen. Set wording.answer to arm, or play settings with feedback full."
        )
    low, high = rules.reward_range
    if wording.rewards == "scaled" and not math.isfinite(high - low):
        raise ConfigError(
            f"Found wording.rewards scaled with rewards in [{low}, {high}], which has no scale. Give the "
            "setting a reward_range that holds them all, or set wording.rewards to raw."
        )
    group = context_group(contexts)
    context = group[generator(seed, CONTEXT).integers(len(group))]
    letters = generator(seed, LABELS).permutation(list(LETTERS))[:num_arms].tolist()
    if names is not None and wording.labels == "initials":
        letters = initials(names)
    order = generator(seed, ORDER).permutation(num_arms)
    if names is None:
        known = [*context.names, *(f"option {n}" for n in range(len(context.names) + 1, num_arms + 1))]
        names = [known[n] for n in generator(seed, NAMES).permutation(len(known))[:num_arms]]
    return Scenario(
        context=context,
        wording=wording,
        rules=rules,
        labels=tuple(letters),
        order=tuple(int(arm) for arm in order),
        names=tuple(names),
    )


def initials(names: Sequence[str]) -> list[str]:
    """A letter for each name: the first in it that no name before has, or else the first of the alphabet."""
    letters: list[str] = []
    for name in names:
        free = [letter for letter in (*name.upper(), *LETTERS) if letter in LETTERS and letter not in letters]
        letters.append(free[0])
    return letters


def _digits(probabilities: FloatArray) -> list[int]:
    """The smallest weights of which these probabilities are the shares, or the nearest with a 9 in them."""
    for top in range(1, 10):
        weights = probabilities / probabilities.max() * top
        if np.abs(weights - weights.round()).max() < 1e-9:
            break
    return [int(weight) for weight in weights.round()]
