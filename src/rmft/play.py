"""`rmft play`: one problem in words, watched round by round, or played by a person first.

The person is told what any policy is told, in whole sentences, and nothing of what is hidden until the end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from rmft.problems.suites import ProblemBatch
from rmft.regret import regret
from rmft.rollout import MakePolicy, rollout, rows_of_arrays
from rmft.scenarios.scenario import Scenario, scenarios_of
from rmft.scenarios.wording import Wording
from rmft.streams import Streams
from rmft.types import Decisions, Histories, IntArray, Policy, Rules, Trajectories

PLAYS = 200  # of Thompson sampling, for its mean on this one problem
ALONE = 0x91A7  # the path of a single play's random numbers

SENTENCES = Wording(style="full")

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Game:
    """One problem told in words. seed: of the policies' random numbers."""

    problem: ProblemBatch
    scenario: Scenario
    seed: int

    @classmethod
    def of(
        cls, batch: ProblemBatch, place: int, contexts: str | None, seed: int, wording: Wording = SENTENCES
    ) -> Game:
        """The problem at `place` of a batch, in the words of `contexts` (a name or a group) where given.

        Raises UnknownNameError when nobody has that context, ConfigError when there are too many arms.
        """
        setting = batch.setting.model_copy(update={"contexts": contexts}) if contexts else batch.setting
        at = np.array([place])
        words = replace(batch.words.rows(at), contexts=contexts or batch.words.contexts)
        problem = ProblemBatch(setting, batch.indices[at], batch.table.rows(at), words)
        (scenario,) = scenarios_of(setting.rules, words, wording)
        return cls(problem, scenario, seed)

    def play(self, policy: Policy, itself: Policy) -> Trajectories:
        """One rollout of the problem. itself: who plays the other side of a game whose opponent is `self`."""
        setting, table = self.problem.setting, self.problem.table
        streams = Streams.at(self.seed, [(ALONE, 0)])
        return rollout(policy, setting.play(table, itself), streams, self.problem.words)

    def mean_regret(self, make_policy: MakePolicy, plays: int = PLAYS) -> float:
        """The mean regret of many plays of the problem."""
        table = self.problem.table.repeat(plays)
        streams = Streams.at(self.seed, [(ALONE, 1, play) for play in range(plays)])
        setting = self.problem.setting
        words = self.problem.words.repeat(plays)
        policy = make_policy(table)
        played = rollout(policy, setting.play(table, policy), streams, words)
        return float(regret(played, setting.regret_kind).mean())

    def regret(self, played: Trajectories) -> float:
        return float(regret(played, self.problem.setting.regret_kind)[0])

    def truth(self, played: Trajectories) -> list[str]:
        """What was hidden: every option's true mean over all rounds."""
        means = played.table.expected_rewards[0].mean(axis=0)
        return [
            f"{self.name(arm)}: {means[arm]:.2f}{' (the best)' if means[arm] == means.max() else ''}"
            for arm in self.scenario.order
        ]

    def name(self, arm: int) -> str:
        return f"{self.scenario.labels[arm]} {self.scenario.names[arm]}"


class Person:
    """Decides by asking. `ask` is given a prompt and returns an answer."""

    name = "you"
    max_concurrency = 1

    def __init__(self, game: Game, ask: Callable[[str], str], say: Say) -> None:
        self.game, self.ask, self.say = game, ask, say

    def rows_at_once(self, rules: Rules) -> int:
        return rows_of_arrays(rules)

    def decide(self, histories: Histories, streams: Streams) -> Decisions:
        """See `Policy`; asks again until the answer is a letter."""
        del streams
        labels = self.game.scenario.labels
        if histories.num_rounds == 0:
            self.say(self.game.scenario.opening() + "\n")
        self.say(self.game.scenario.prompt(histories.row(0)))
        while (answer := self.ask(f"{' '.join(sorted(labels))}> ").strip().upper()) not in labels:
            self.say(f"Found {answer[:20]!r}; expected one of the letters {', '.join(sorted(labels))}.")
        arms: IntArray = np.array([labels.index(answer)])
        return Decisions(arms)


class Watched:
    """A policy whose every round is said, as soon as it is decided. pause: called before each."""

    max_concurrency = 1

    def __init__(self, policy: Policy, game: Game, say: Say, pause: Callable[[], None]) -> None:
        self.policy, self.game, self.say, self.pause = policy, game, say, pause
        self.name = policy.name

    def rows_at_once(self, rules: Rules) -> int:
        return self.policy.rows_at_once(rules)

    def decide(self, histories: Histories, streams: Streams) -> Decisions:
        """See `Policy`."""
        if histories.num_rounds:
            self.say(f"  it earned {_earned(histories):.2f}")
            self.pause()
        decisions = self.policy.decide(histories, streams)
        for line in self._round(histories, decisions):
            self.say(line)
        return decisions

    def _round(self, histories: Histories, decisions: Decisions) -> list[str]:
        lines = [f"Round {histories.num_rounds + 1}"]
        if decisions.turns is not None:
            turn = decisions.turns[0]
            lines += [f"  told | {line}" for line in turn.full_prompt.splitlines()]
            lines += [f"  not understood | {line}" for said, _ in turn.refused for line in said.splitlines()]
            lines += [f"  said | {line}" for line in turn.completion.splitlines()]
        if 0 in decisions.failed:
            return [*lines, f"  it failed: {decisions.failed[0]}"]
        if decisions.arms is not None:
            lines.append(f"  it chose {self.game.name(int(decisions.arms[0]))}")
        if decisions.probabilities is not None:
            shares = decisions.probabilities[0]
            order = self.game.scenario.order
            listed = ", ".join(f"{self.game.scenario.labels[arm]} {100 * shares[arm]:.0f}%" for arm in order)
            lines.append(f"  its probabilities: {listed}")
        return [_printable(line) for line in lines]


def play(
    game: Game,
    name: str,
    policy: Policy,
    thompson: MakePolicy | None,
    *,
    person: Callable[[str], str] | None,
    say: Say,
    pause: Callable[[], None],
) -> dict[str, float]:
    """Play a game: first the person, if `person` asks one, then the agent, watched. Regret by player.

    thompson: Thompson sampling or, where it cannot play, None. pause: called between the agent's rounds.
    """
    regrets: dict[str, float] = {}
    if person is not None:
        mine = game.play(Person(game, person, say), policy)
        say(f"{_told_last(mine)}\n")
        regrets["you"] = game.regret(mine)
    say(f"{name} plays the same problem." if person is not None else f"{name} plays.")
    theirs = game.play(Watched(policy, game, say, pause), policy)
    say(f"  it earned {_earned(theirs.histories):.2f}\n")
    regrets[name] = game.regret(theirs)
    if thompson is not None:
        regrets[f"Thompson sampling, mean of {PLAYS} plays"] = game.mean_regret(thompson)
    say("What was hidden, the true mean of each:")
    for line in game.truth(theirs):
        say(f"  {line}")
    return regrets


def _told_last(played: Trajectories) -> str:
    return f"The last round brought {_earned(played.histories):.2f}."


def _earned(histories: Histories) -> float:
    """What the first row earned in the last round."""
    if not histories.num_rounds:
        return 0.0
    seen = histories.rewards[0, -1]
    return float(histories.played[0, -1] @ seen) if np.ndim(seen) else float(seen)


def _printable(line: str) -> str:
    """A line that cannot move the cursor or hide what it says."""
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in line)
