"""A setting: one shape of problem, its feedback, and the process that its rewards come from."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from rmft.bayes.prior import Prior
from rmft.errors import ConfigError
from rmft.lenient import check_name
from rmft.own_code import file_of
from rmft.problems.environment import Game, own_environment
from rmft.problems.games import MatrixGame
from rmft.problems.kinds import AnyProcess
from rmft.problems.logged import Logged, PartName
from rmft.problems.own import OwnProcess
from rmft.problems.process import Shows, StatesPrior
from rmft.reading import Config
from rmft.regret import RegretKind
from rmft.scenarios.contexts import (
    Context,
    Names,
    as_text,
    check_names,
    context_group,
    own_contexts,
    read_contexts,
)
from rmft.streams import generator
from rmft.types import Environment, Feedback, Policy, RewardTable, Rules, Shown, Words

MAX_HORIZON, MAX_ARMS, MAX_REWARDS = 100_000, 1_000, 10_000_000


class Setting(Config):
    """Problems of one shape.

    name: its own within a suite's part. regret: which regret counts; unless given, static under full
    information and of a log without expected rewards, pseudo for games and for a bandit whose means rest and
    dynamic for one whose means move or depend on what is shown (see `regret_kind`). arms: `anonymous`, so
    that what they are called is drawn anew for every problem and means nothing, and those of a log change
    places; `named` as the log's columns are; or a name for each, in the order of the reward process. Named
    arms keep names and places, so that what a name means can be learned. reward_range: (low, high) as told to
    policies, when it should be wider than the process's own, such as to make the settings of a mixture look
    alike. contexts: where the words come from that a language policy is told the problem in: a group of
    contexts, the name of one, or contexts of one's own, as a mapping or the name of a YAML file; unless
    given, the group `held_out` in the held-out part and `train` elsewhere. environment: "module:Class" of a
    user's own, called as Class(rules, table) with a table (B, T, K) of the reward process; for rewards that
    depend on what is played; see `load_class` for where it is looked for, and when it is run. opponent: who
    plays the other side of a matrix game, told its own rewards alone: a baseline such as
    `hedge(learning_rate=0.5)`, the path of a run or a checkpoint's folder, with a "/" in it, or `self`,
    whoever plays. Checked by drawing one problem.
    """

    model_config = ConfigDict(ser_json_inf_nan="strings", allow_inf_nan=True)

    name: Annotated[str, Field(min_length=1), AfterValidator(check_name)]
    feedback: Feedback
    horizon: int = Field(ge=1, le=MAX_HORIZON)
    num_arms: int = Field(ge=2, le=MAX_ARMS)
    arms: Literal["anonymous", "named"] | Names = "anonymous"
    reward_process: AnyProcess
    environment: str | None = None
    opponent: str | None = None
    regret: RegretKind | None = None
    reward_range: tuple[float, float] | None = None
    contexts: str | tuple[Context, ...] | None = None
    _folder: str | None = PrivateAttr(default=None)  # of a trusted environment of one's own
    _load: Callable[[], Policy] | None = PrivateAttr(default=None)  # of the opponent; see `against`

    @field_validator("arms", mode="before")
    @classmethod
    def _arms_are_words(cls, given: Any) -> Any:
        if given in ("anonymous", "named"):
            return given
        names = list(given) if isinstance(given, list | tuple) else [given]
        wrong = [name for name in names if not isinstance(name, str)] or (names if names == [given] else [])
        if wrong:
            raise ConfigError(
                f"found {wrong[0]!r:.60}; expected anonymous, named, or a list of names, in quotes where "
                'YAML would read them as something else, such as ["yes", "no", "2024"].'
            )
        return tuple(given)

    @field_validator("reward_process")
    @classmethod
    def _named_arms_keep_their_places(cls, process: Any, info: ValidationInfo) -> Any:
        if not isinstance(process, Logged):
            return process
        if info.data.get("arms", "anonymous") == "anonymous":
            if process.features:
                raise ConfigError(
                    "found features of anonymous arms, which change places; expected arms: named."
                )
            return process
        if "shuffle_arms" in process.model_fields_set and process.shuffle_arms:
            raise ConfigError("found shuffle_arms with named arms, which keep their places: leave it out.")
        return process.model_copy(update={"shuffle_arms": False})

    @field_validator("contexts", mode="before")
    @classmethod
    def _read_contexts(cls, given: Any, info: ValidationInfo) -> Any:
        """Contexts of one's own become part of the setting, so that a run's suite holds them."""
        if isinstance(given, str) and given.endswith((".yaml", ".yml")):
            return read_contexts(Path((info.context or {}).get("folder", ".")) / Path(given).expanduser())
        return given if given is None or isinstance(given, str) else own_contexts(given, "contexts")

    @field_validator("contexts")
    @classmethod
    def _known_contexts(cls, given: str | tuple[Context, ...] | None) -> str | tuple[Context, ...] | None:
        if isinstance(given, str):
            context_group(given)
        return given

    @field_validator("opponent")
    @classmethod
    def _opponent_from_here(cls, given: str | None, info: ValidationInfo) -> str | None:
        """A path starts from the suite's folder."""
        if given is None or os.sep not in given:
            return given
        return os.path.abspath(Path((info.context or {}).get("folder", ".")) / Path(given).expanduser())

    @model_validator(mode="after")
    def _a_game_has_two_sides(self) -> Setting:
        is_game = isinstance(self.reward_process, MatrixGame)
        if is_game != (self.opponent is not None) or (is_game and self.environment is not None):
            raise ConfigError(
                f"found reward_process {self.reward_process.kind}, opponent {self.opponent} and environment "
                f"{self.environment}; expected an opponent, such as hedge or self, for a matrix_game and for "
                "nothing else, and no environment beside it."
            )
        return self

    @model_validator(mode="after")
    def _drawable(self, info: ValidationInfo) -> Setting:
        if self.environment is not None:
            source = info.context or {}
            folder = os.path.abspath(source.get("folder", "."))
            own_environment(self.environment, folder, trust=source.get("trust", False))
            self._folder = folder
        if self.horizon * self.num_arms > MAX_REWARDS:
            raise ConfigError(
                f"found horizon x num_arms = {self.horizon * self.num_arms}; at most {MAX_REWARDS}."
            )
        if self.arms == "named" and self.names is None:
            raise ConfigError(
                "found arms 'named', but the reward process names none; expected a log whose columns have "
                "names, or the names themselves, such as arms: [red, blue]."
            )
        if self.names is not None:
            check_names(self.names)
        if self.names is not None and len(self.names) != self.num_arms:
            raise ConfigError(
                f"found {len(self.names)} names of arms ({', '.join(self.names)}); expected one for each of "
                f"num_arms {self.num_arms}."
            )
        low, high = self.rules.reward_range
        process_low, process_high = self.reward_process.reward_range
        if not low <= process_low < process_high <= high:
            raise ConfigError(
                f"found reward_range [{low}, {high}]; expected it to hold the reward process's own, "
                f"[{process_low}, {process_high}]."
            )
        drawn = self.draw([generator(0)])
        rewards, observations = drawn.rewards, drawn.observations
        if (observations is not None) != bool(self.shown):
            found = "nothing" if observations is None else "something"
            raise ConfigError(f"the reward process drew {found} to be shown; its `shown` says {self.shown}.")
        if observations is not None:
            observations.check(self.rules, 1, self.horizon)
        if rewards.min() < low or rewards.max() > high:
            raise ConfigError(
                f"the reward process drew rewards from {rewards.min()} to {rewards.max()}, outside its "
                f"reward_range [{process_low}, {process_high}]."
            )
        if math.isnan(self.reward_process.variation_budget(self.horizon, self.num_arms)):
            raise ConfigError("variation_budget is NaN; expected a number from 0 to infinity.")
        return self

    @property
    def rules(self) -> Rules:
        """What a policy is told before round 1."""
        told = self.reward_range or self.reward_process.reward_range
        return Rules(self.feedback, self.horizon, self.num_arms, told, self.shown)

    @property
    def shown(self) -> Shown:
        """What is shown before every decision, which the reward process says."""
        return self.reward_process.shown if isinstance(self.reward_process, Shows) else Shown()

    @property
    def names(self) -> tuple[str, ...] | None:
        """What the arms are called, in their order; None where they are anonymous."""
        if isinstance(self.arms, tuple):
            return self.arms
        process = self.reward_process
        return process.names if self.arms == "named" and isinstance(process, Logged) else None

    def words(self, seeds: Sequence[int]) -> Words:
        """The words of problems, of which each has a seed."""
        contexts = self.contexts or "train"
        names = None if self.names is None else np.array([self.names] * len(seeds), dtype=np.str_)
        where = contexts if isinstance(contexts, str) else as_text(contexts)
        return Words(where, np.array(seeds, dtype=np.int64), names=names)

    @property
    def regret_kind(self) -> RegretKind:
        """The regret that counts here."""
        if self.regret is not None:
            return self.regret
        if self.opponent is not None:
            return "pseudo"
        if self.shown:
            return "dynamic"
        if self.feedback == "full" or (
            isinstance(self.reward_process, Logged) and self.reward_process.expected_rewards is None
        ):
            return "static"
        moves = self.reward_process.variation_budget(self.horizon, self.num_arms) > 0
        return "dynamic" if moves else "pseudo"

    @property
    def prior(self) -> Prior | None:
        """What means are drawn from, where the reward process says so and nobody adapts. Never told."""
        if self.environment is None and isinstance(self.reward_process, StatesPrior):
            return self.reward_process.prior()
        return None

    def for_part(self, part: PartName) -> Setting:
        """The same in a part of a suite: of a log with groups, those that the part has; with its contexts."""
        changes: dict[str, Any] = {}
        if self.contexts is None:
            changes["contexts"] = "held_out" if part == "held_out" else "train"
        if isinstance(self.reward_process, Logged):
            changes["reward_process"] = self.reward_process.for_part(part)
        return self.model_copy(update=changes)

    @property
    def groups(self) -> Sequence[int] | None:
        """The groups of a log of which each is one problem, in parts that are not trained on; else None."""
        process = self.reward_process
        if not isinstance(process, Logged) or process.part is None or not process.parted:
            return None
        which = process.which(self.horizon)
        return None if process.at_random or process.part == "train" else which

    def draw(
        self, generators: Sequence[np.random.Generator], groups: Sequence[int] | None = None
    ) -> RewardTable:
        """(B, T, K): one problem from each of B >= 1 generators; of `groups` where those are given."""
        shape, process = (self.horizon, self.num_arms), self.reward_process
        if groups is None or not isinstance(process, Logged):
            return RewardTable.stack([process.draw(each, *shape) for each in generators])
        pairs = zip(groups, generators, strict=True)
        return RewardTable.stack([process.cut(group, each, *shape) for group, each in pairs])

    def own_files(self) -> dict[str, Path]:
        """The files of the user's own classes that it names, by their names below the suite's folder."""
        files = [self.reward_process.own_file] if isinstance(self.reward_process, OwnProcess) else []
        if self.environment is not None and self._folder is not None:
            own = own_environment(self.environment, self._folder, trust=True)
            files.append(file_of(self.environment, own))
        return dict(files)

    @property
    def game(self) -> Game:
        """How its problems are played; `play` as data that another process can be given."""
        if self.opponent is None:
            return Game(self.rules, self.environment, self._folder)
        return Game(self.rules, opponent=self.opponent, load=self._load, words=self.words)

    def against(self, opponent: str, load: Callable[[], Policy] | None) -> Setting:
        """The same game against another: what to call it, and what loads it; None for `self`."""
        setting = self.model_copy(update={"opponent": opponent})
        setting._load = load
        return setting

    @property
    def adapts(self) -> bool:
        """Whether rewards may depend on what is played, so that there is no table before the end."""
        return self.environment is not None or self.opponent is not None

    def play(self, table: RewardTable, policy: Policy | None = None) -> Environment:
        """See `Game`."""
        return self.game(table, policy)
