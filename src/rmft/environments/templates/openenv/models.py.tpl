"""What is sent to the environment of __TITLE__, and what comes back."""

from openenv.core.env_server.types import Action, Observation
from pydantic import Field


class BanditAction(Action):
    answer: str = Field(max_length=100_000, description="A letter, the one of the option that is chosen.")


class BanditObservation(Observation):
    prompt: str = Field(default="", description="What the agent is told before its next decision.")
    regret: float | None = Field(default=None, description="Of the whole problem, once it is over.")
