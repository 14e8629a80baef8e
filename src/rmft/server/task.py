"""What the server and a job's own process tell each other, as lines of JSON."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from rmft.policies.config import LocalConfig

TRAINED = "trained"
"""The folder of the new policy, in a job's working folder."""
BASE_RATE = 1e-3
"""The learning rate of AdamW at learning_rate_multiplier 1."""


class Task(BaseModel):
    """What is trained. source: the policy that it starts from; None: the base model of `policy`.

    work: an empty folder, in which `TRAINED` is the new policy afterwards. context, stop_ids: of the model.
    multiplier: times BASE_RATE.
    """

    model_config = ConfigDict(frozen=True)

    policy: LocalConfig
    source: Path | None
    file: Path
    work: Path
    context: int
    stop_ids: tuple[int, ...]
    epochs: int
    batch_size: int
    multiplier: float
    seed: int
    num_threads: int


class Report(BaseModel):
    """How it goes: a step with its loss, or the end, by `trained_tokens` or by what was wrong."""

    model_config = ConfigDict(frozen=True)

    step: int = 0
    steps: int = 0
    loss: float = 0.0
    trained_tokens: int | None = None
    wrong: str | None = None
    code: str | None = None
