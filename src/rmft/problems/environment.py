"""The environments that problems are played in: from their reward tables, against another policy, or by a
class of a user's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rmft.errors import ConfigError, ShapeError
from rmft.own_code import load_class, require, running
from rmft.problems.games import SELF, RepeatedGame
from rmft.types import Decisions, Environment, FloatArray, Observation, Policy, RewardTable, Rules, Words


class TableEnvironment(Environment):
    """A batch of problems played from their reward tables, (B, T, K), all of one shape.

    It shows what the tables say. Raises ShapeError when the table does not fit the rules, or when a bandit's
    decision is no arm.
    """

    def __init__(self, rules: Rules, table: RewardTable) -> None:
        expected = (rules.horizon, rules.num_arms)
        if table.rewards.ndim != 3 or table.rewards.shape[1:] != expected:
            raise ShapeError(f"The table has shape {table.rewards.shape}; expected (batch, *{expected}).")
        if (table.observations is not None) != bool(rules.shown):
            raise ShapeError(f"The rules say that {rules.shown} is shown; the table differs.")
        self._rules, self._table = rules, table
        self._round = 0
        self._rows = np.arange(len(table.rewards))

    @property
    def rules(self) -> Rules:
        return self._rules

    @property
    def size(self) -> int:
        return len(self._table.rewards)

    @property
    def table(self) -> RewardTable:
        return self._table

    def observe(self) -> Observation | None:
        """What is shown before the coming round; see `Environment`."""
        shown = self._table.observations
        return None if shown is None else shown.map(lambda array: array[:, self._round])

    def step(self, decisions: Decisions) -> FloatArray:
        """The feedback on one round's decisions, 0 for a bandit's row without one; see `Environment`."""
        rewards = self._table.rewards[:, self._round]
        self._round += 1
        if self._rules.feedback == "full":
            return rewards
        if decisions.arms is None:
            raise ShapeError("Bandit feedback needs an arm in every decision; only probabilities were given.")
        return np.where(decisions.arms < 0, 0.0, rewards[self._rows, decisions.arms])


class Own(Environment):
    """A user's own environment, by the name of its class: what it does wrong is told by that name.

    Without `observe` nothing is shown before its rounds. Raises ConfigError when a call fails, and ShapeError
    when feedback has the wrong shape or leaves the range of rewards.
    """

    def __init__(self, environment: Environment, name: str) -> None:
        self._environment, self._name = environment, name
        self._observes = "observe" in dir(environment)

    @property
    def rules(self) -> Rules:
        with running(f"{self._name}.rules"):
            return self._environment.rules

    @property
    def size(self) -> int:
        with running(f"{self._name}.size"):
            return self._environment.size

    @property
    def table(self) -> RewardTable:
        with running(f"{self._name}.table"):
            return self._environment.table

    def observe(self) -> Observation | FloatArray | None:
        if not self._observes:
            return None
        with running(f"{self._name}.observe"):
            return self._environment.observe()

    def step(self, decisions: Decisions) -> FloatArray:
        with running(f"{self._name}.step"):
            seen = np.asarray(self._environment.step(decisions), dtype=np.float64)
        rules = self.rules
        shape = (self.size, rules.num_arms) if rules.feedback == "full" else (self.size,)
        if seen.shape != shape:
            raise ShapeError(f"{self._name}.step returned the shape {seen.shape}; expected {shape}.")
        low, high = rules.reward_range
        played = np.delete(seen, list(decisions.failed), axis=0)
        wrong = played[~((low <= played) & (played <= high))]  # NaN is neither
        if wrong.size:
            raise ShapeError(
                f"{self._name}.step returned {wrong[0]:g}; expected rewards in the setting's reward_range, "
                f"[{low:g}, {high:g}]."
            )
        return seen


def own_environment(reference: str, folder: str, *, trust: bool) -> type[Any]:
    """The class "module:Class" of a user's own environment. Raises as `load_class` does."""
    needed = ("step",)  # the rest may be set when it is called
    return load_class(reference, "environment", "Environment", needed, folder, trust=trust)


@dataclass(frozen=True, slots=True)
class Game:
    """How problems under `rules` are played: called with a table (B, T, K) and the policy that is to play, it
    gives a fresh environment.

    reference: "module:Class" of a user's own environment; None: the table is played. folder: where that lies,
    once it is trusted. opponent: who plays the other side of a matrix game, whom `load` loads and who is told
    the problem in `words`; `self` is the policy that plays. It pickles, and the class and the opponent are
    then loaded where it plays. Raises ShapeError when the table does not fit, ConfigError when a user's own
    environment is none and for an opponent that is not there.
    """

    rules: Rules
    reference: str | None = None
    folder: str | None = None
    opponent: str | None = None
    load: Callable[[], Policy] | None = None
    words: Callable[[Sequence[int]], Words] | None = None

    def __call__(self, table: RewardTable, policy: Policy | None = None) -> Environment:
        if self.opponent is not None:
            assert self.words is not None
            return RepeatedGame(self.rules, table, self._other_side(policy), self.words)
        if self.reference is None:
            return TableEnvironment(self.rules, table)
        if self.folder is None:
            raise ConfigError(f"environment '{self.reference}' was not loaded; read the setting from data.")
        own = own_environment(self.reference, self.folder, trust=True)
        with running(f"{self.reference}, called as Class(rules, table),"):
            made: Environment = own(self.rules, table)
        require(made, ("rules", "size", "step", "table"), self.reference, "Environment")
        environment = Own(made, self.reference)
        if environment.size != len(table.rewards) or environment.rules != self.rules:
            raise ShapeError(
                f"{self.reference} has size {environment.size} and rules {environment.rules}; "
                f"expected those it was given, {len(table.rewards)} and {self.rules}."
            )
        return environment

    def rows_at_once(self, policy: Policy) -> int:
        """How many rollouts a policy plays together within its memory, and that of who plays it."""
        rows = policy.rows_at_once(self.rules)
        if self.opponent is None:
            return rows
        return max(1, min(rows, self._other_side(policy).rows_at_once(self.rules)) // 2)

    def _other_side(self, policy: Policy | None) -> Policy:
        if self.load is not None:
            return self.load()
        if self.opponent != SELF:
            raise ConfigError(f"opponent '{self.opponent}' was not loaded; see rmft.wiring.suites.seated.")
        if policy is None:
            raise ConfigError(
                "opponent 'self' is whoever plays, and here decisions come from outside; expected a baseline "
                "or the folder of a run."
            )
        return policy
