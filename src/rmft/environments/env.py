"""One problem at a time, played by whoever calls: reset, then a step for each decision.

The problems are a suite's, told in words; everything else here is a face on this object. A problem is named
by its part and its number, and depends on nothing else: two resets with one seed tell the same, whatever runs
beside them.
"""

from __future__ import annotations

from operator import index
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np

from rmft.errors import ConfigError, EpisodeError, UnknownNameError
from rmft.play import Game
from rmft.problems.logged import PartName
from rmft.problems.setting import Setting
from rmft.problems.suites import Suite, load_suite
from rmft.regret import curve
from rmft.scenarios.parsing import ParseError
from rmft.scenarios.wording import Wording
from rmft.types import Decisions, FloatArray, Histories
from rmft.wiring.suites import seated

Info = dict[str, Any]
PARTS = ("train", "validation", "held_out")


class Env:
    """A suite's problems, one after the other.

    suite: a named one, a YAML file, or a `Suite`. part: "train", "validation" or "held_out", where problems
    come from unless `reset` says. setting: only those of this one. wording: how they are told; whole
    sentences unless given, and the answer is a letter and nothing else, or with `reasoning` "brief" or "free"
    a last line "Choice: K". attempts: how often an answer may be unreadable in one round; then the episode
    has failed, and every round that is left counts as its worst arm. Raises as `load_suite`, and
    UnknownNameError for a part or a setting.
    """

    def __init__(
        self,
        suite: str | Path | Suite,
        part: PartName = "train",
        setting: str | None = None,
        wording: Wording | None = None,
        attempts: int = 3,
    ) -> None:
        self.suite = seated(suite if isinstance(suite, Suite) else load_suite(suite))
        self.part, self.setting = part, setting
        self.wording = wording or Wording(style="full")
        self.attempts = attempts
        self._settings(part)
        self._game: Game | None = None

    def reset(self, seed: int = 0, part: PartName | None = None) -> tuple[str, Info]:
        """Begin problem number `seed` >= 0 of a part: what is told before the first decision, and its info.

        It is the problem of that number that runs and evaluations play: of `setting`, its seed-th; else the
        suite's settings take turns. The training part's are those of run seed 0 before its first iteration,
        which no run plays.
        """
        part = part or self.part
        settings = self._settings(part)
        number = _number(seed)
        if self.setting is not None:
            names = [each.name for each in settings]
            number = number * len(settings) + names.index(self.setting)
        self._game = game = Game.of(self.suite.problem(part, number), 0, None, number, self.wording)
        setting = game.problem.setting
        self._environment = setting.play(game.problem.table)
        self._histories = Histories(setting.rules, 1, game.problem.words)
        self._histories.observe(self._environment.observe())
        self._refused = 0
        return f"{game.scenario.opening()}\n\n{self._told()}", self._info()

    def step(self, answer: str | SupportsIndex) -> tuple[str, float, bool, Info]:
        """Play a decision: a text that is exactly one legal answer, or an arm's number.

        Returns what is told next, the reward, whether the problem is over, and info: `round`, how many are
        over; `regret_so_far`; `best_arm`; `legal`, the letters by arm; `shown`, the numbers, features and
        texts of the coming round, of a contextual bandit; `arm` and `rewards`, what was played and seen last;
        `refused`, why the text could not be read, where it could not: the round is then asked again, for a
        reward of 0. What the info knows is hidden from a policy. Raises EpisodeError before a reset and after
        the end, ConfigError for an arm that there is not.
        """
        if self.over:
            raise EpisodeError("This problem is over. Begin the next one with reset(seed).")
        try:
            decisions = self._decisions(answer)
        except ParseError as error:
            return self._not_understood(str(error))
        self._refused = 0
        self._histories.append(decisions, self._environment.step(decisions))
        if not self.over:
            self._histories.observe(self._environment.observe())
        return self._told(), self._last_earned(), self.over, self._info()

    @property
    def game(self) -> Game:
        """The problem that is played. Raises EpisodeError before the first reset."""
        if self._game is None:
            raise EpisodeError("There is no problem yet. Begin with reset(seed).")
        return self._game

    @property
    def over(self) -> bool:
        """Whether the problem is over. Raises EpisodeError before the first reset."""
        return self.game.scenario.rules.horizon == self._histories.num_rounds

    def regret(self) -> float:
        """Of the whole problem; rounds that were not played count as the worst arm's."""
        return float(self._curve()[-1])

    def _curve(self) -> FloatArray:
        """(T,) the regret up to every round, those to come counted as the worst arm's."""
        table, kind = self._environment.table, self.game.problem.setting.regret_kind
        played = np.zeros(table.rewards.shape)
        played[:, : self._histories.num_rounds] = self._histories.played
        return np.asarray(curve(table, played, kind)[0])

    def _settings(self, part: PartName) -> tuple[Setting, ...]:
        if part not in PARTS:
            raise UnknownNameError("part", part, PARTS)
        settings = self.suite.settings(part)
        if self.setting is not None and self.setting not in (names := [each.name for each in settings]):
            raise UnknownNameError(f"setting of the part {part}", self.setting, names)
        return settings

    def _decisions(self, answer: str | SupportsIndex) -> Decisions:
        scenario = self.game.scenario
        if isinstance(answer, str):
            arm, shares = scenario.parse(answer)
            if arm is None:
                assert shares is not None
                return Decisions(probabilities=shares[None])
        else:
            arm = index(answer)
            if not 0 <= arm < scenario.rules.num_arms:
                raise ConfigError(
                    f"Found the arm {arm}; expected one from 0 to {scenario.rules.num_arms - 1}."
                )
        return Decisions(np.array([arm]))

    def _not_understood(self, why: str) -> tuple[str, float, bool, Info]:
        self._refused += 1
        left = self.attempts - self._refused
        if left > 0:
            again = "Answer once more." if left == 1 else f"Answer once more; {left} attempts are left."
            return f"{why} {again}", 0.0, False, self._info() | {"refused": why}
        done = self._histories.num_rounds
        self._histories.give_up(Decisions(np.array([-1]), failed={0: why}))
        lost = float(self._environment.table.rewards[0, done:].min(axis=-1).sum())
        return f"{why} The problem ends here.", lost, True, self._info() | {"refused": why}

    def _told(self) -> str:
        row = self._histories.row(0)
        if self.over:
            return f"The last round brought {self._last_earned():g}. The problem is over."
        return self.game.scenario.prompt(row)

    def _last_earned(self) -> float:
        seen: FloatArray = self._histories.rewards[0, -1]
        return float(self._histories.played[0, -1] @ seen) if np.ndim(seen) else float(seen)

    def _info(self) -> Info:
        game, kept = self.game, self._histories
        setting, done = game.problem.setting, kept.num_rounds
        known = self.over or not setting.adapts
        info: Info = {
            "round": done,
            "legal": list(game.scenario.labels),
            "regret_so_far": None,
            "best_arm": None,
        }
        if known:
            table = self._environment.table
            info["regret_so_far"] = float(self._curve()[done - 1]) if done else 0.0
            totals = table.rewards if setting.regret_kind == "static" else table.expected_rewards
            info["best_arm"] = int(totals[0].sum(axis=0).argmax())
        if not self.over and (shown := kept.shown(done)) is not None:
            info["shown"] = {name: array.tolist()[0] for name, array in shown.named().items()}
        if done:
            seen = kept.rewards[0, -1]
            info["arm"] = int(kept.arms[0, -1])
            info["rewards"] = seen.tolist()
        return info


def _number(seed: int) -> int:
    number = index(seed)
    if number < 0:
        raise ConfigError(f"Found the seed {number}; expected a problem's number, from 0.")
    return number
