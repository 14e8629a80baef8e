"""An episode as settings and as JSON: checked on reading, since a file may come from anywhere."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, ValidationError, model_validator

from rmft.errors import ConfigError
from rmft.problems.encoding import Encoder
from rmft.problems.setting import MAX_ARMS, MAX_HORIZON, MAX_REWARDS
from rmft.reading import Config
from rmft.records.lines import RecordedTurn
from rmft.scenarios.contexts import Names, context_group, on_one_line
from rmft.types import Feedback, Rules, Shown

MAX_TEXT = 10_000  # characters of what is shown before a decision
FORMAT: Literal["rmft-episode/1"] = "rmft-episode/1"
Text = Annotated[str, AfterValidator(lambda text: on_one_line(text, MAX_TEXT))]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class EpisodeConfig(Config):
    """What an episode is about. Episodes of a batch share it but for their luck and their words.

    options: what they are called, 2 to 1,000, all different, on one line and of up to 60 characters each.
    reward_range: (low, high), where every reward lies; infinite where there are no bounds. contexts: where
    the words come from that a language policy is told the problem in, as `Words` has it. context: what is
    shown before every decision; None where nothing is. seed: of the agent's draws and of the words. size: how
    many episodes.
    """

    model_config = ConfigDict(ser_json_inf_nan="strings", allow_inf_nan=True)

    options: Annotated[Names, Field(min_length=2, max_length=MAX_ARMS)]
    horizon: Annotated[int, Field(ge=1, le=MAX_HORIZON)]
    feedback: Feedback = "bandit"
    reward_range: tuple[float, float] = (0.0, 1.0)
    contexts: str = "train"
    context: Encoder | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    size: Annotated[int, Field(ge=1, le=1_000_000)] = 1

    @model_validator(mode="after")
    def _fits(self) -> EpisodeConfig:
        low, high = self.reward_range
        if not low < high:
            raise ValueError(f"found reward_range [{low}, {high}]; expected the lower bound first")
        if self.horizon * len(self.options) > MAX_REWARDS:
            found = self.horizon * len(self.options)
            raise ValueError(f"found horizon x options = {found}; at most {MAX_REWARDS}")
        for feature in self.context.features if self.context else ():
            if len(feature.columns) != len(self.options):
                raise ValueError(
                    f"found {len(self.options)} options with a context that tells the {feature.name} of "
                    f"{len(feature.columns)}; expected those of the task, in its order"
                )
        context_group(self.contexts)
        return self

    @property
    def rules(self) -> Rules:
        """What the policy is told before round 1."""
        shown = Shown() if self.context is None else self.context.shown
        return Rules(self.feedback, self.horizon, len(self.options), self.reward_range, shown)


class SavedRound(Config):
    """One round of B episodes, as `Decisions` has it. rewards: (B,), or (B, K) under full information; None
    in the last round, where it is decided and not observed yet. numbers: (B, d), features: (B, K, m),
    texts: (B,) and arm_texts: (B, K), what was shown before the decision; None where nothing of the kind was.
    """

    arms: list[Annotated[int, Field(ge=0, lt=MAX_ARMS)]] | None
    probabilities: list[list[Finite]] | None
    turns: list[RecordedTurn] | None
    rewards: list[Finite] | list[list[Finite]] | None
    numbers: list[list[Finite]] | None = None
    features: list[list[list[Finite]]] | None = None
    texts: list[Text] | None = None
    arm_texts: list[list[Text]] | None = None

    @model_validator(mode="after")
    def _tokens_fit(self) -> SavedRound:
        for turn in self.turns or ():
            if len(turn.ids or ()) != len(turn.logprobs or ()):
                raise ValueError("the tokens of a turn and their log probabilities differ in number")
        return self


class SavedEpisodes(EpisodeConfig):
    """All that is known of a batch of episodes. agent: whose they are (`Agent.identity`)."""

    format: Literal["rmft-episode/1"]
    agent: str
    rounds: tuple[SavedRound, ...]

    @model_validator(mode="after")
    def _waits_at_the_end_only(self) -> SavedEpisodes:
        if len(self.rounds) > self.horizon:
            raise ValueError(f"found {len(self.rounds)} rounds; expected at most {self.horizon}")
        if any(each.rewards is None for each in self.rounds[:-1]):
            raise ValueError("a round before the last has no rewards")
        return self


def read_episodes(saved: str | bytes) -> SavedEpisodes:
    """What `Episodes.to_json` wrote. Raises ConfigError when it is anything else."""
    try:
        return SavedEpisodes.model_validate_json(saved)
    except (ValidationError, RecursionError) as error:
        reason: Any = error
        if isinstance(error, ValidationError):
            first = error.errors(include_url=False)[0]
            place = ".".join(str(key) for key in first["loc"])
            reason = f"{place}: {first['msg']}" if place else first["msg"]
        raise ConfigError(f"This is no saved episode, or it is damaged: {reason:.300}") from None
