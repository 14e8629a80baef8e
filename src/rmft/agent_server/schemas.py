"""What clients may send to an agent, checked on reading."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, model_validator

from rmft.agents.saved import Finite
from rmft.problems.setting import MAX_ARMS
from rmft.server.schemas import Request
from rmft.types import Feedback

MAX_SERVED_HORIZON = 10_000  # an episode is written whole after each step
Bound = Annotated[float, Field(allow_inf_nan=False)] | None


def _unit() -> list[Bound]:
    return [0.0, 1.0]


ColumnName = Annotated[str, Field(max_length=60)]
Cell = Annotated[str, Field(max_length=300)] | Finite


class EpisodeRequest(Request):
    """POST /v1/episodes. reward_range: [low, high], null where there is no bound; see `Agent.episode`."""

    options: Annotated[list[Annotated[str, Field(max_length=300)]], Field(min_length=2, max_length=MAX_ARMS)]
    horizon: Annotated[int, Field(ge=1, le=MAX_SERVED_HORIZON)]
    feedback: Feedback = "bandit"
    reward_range: Annotated[list[Bound], Field(min_length=2, max_length=2)] = Field(default_factory=_unit)
    contexts: Annotated[str, Field(max_length=300)] | dict[str, JsonValue] = "train"
    context: (
        Annotated[list[ColumnName] | dict[ColumnName, Literal["number", "text"]], Field(max_length=1_000)]
        | None
    ) = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None

    def arguments(self) -> dict[str, Any]:
        """Those of `Agent.episode`."""
        low, high = self.reward_range
        bounds = (float("-inf") if low is None else low, float("inf") if high is None else high)
        return {**dict(self), "reward_range": bounds}


class DecideRequest(Request):
    """POST /v1/episodes/ID/decide: what is shown before the decision, where the episode was begun with a
    context; see `Episode.decide`."""

    context: Annotated[list[Cell] | dict[ColumnName, Cell], Field(max_length=1_000)] | None = None


class ObserveRequest(Request):
    """POST /v1/episodes/ID/observe: reward in a bandit, rewards under full information; see
    `Episode.observe`."""

    reward: Finite | None = None
    rewards: Annotated[list[Finite], Field(max_length=MAX_ARMS)] | dict[str, Finite] | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> ObserveRequest:
        if (self.reward is None) == (self.rewards is None):
            raise ValueError("give reward, that of the choice, or rewards, those of all options")
        return self
