"""The nouns of fine-tuning through an API, and the protocol that every provider's adapter implements."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from rmft.providers.catalogue import ProviderFacts

Status = Literal["waiting", "running", "succeeded", "failed", "cancelled"]
"""Of a job. The last three are final."""


@dataclass(frozen=True, slots=True)
class JobRequest:
    """What a job is to do.

    file: the id of the uploaded training file. base: the model that the run started from. model: what is
    trained now, base or what `job`, the one before, made of it. epochs: passes over the file. seed: any
    non-negative number. learning_rate_multiplier: of the provider's own rate; None: the provider chooses.
    suffix: becomes a part of the new model's name where the provider lets it; letters, digits and dashes.
    """

    file: str
    base: str
    model: str
    job: str | None
    epochs: int
    seed: int
    suffix: str
    learning_rate_multiplier: float | None = None


@dataclass(frozen=True, slots=True)
class JobState:
    """How a job is. model: what it made, once it has succeeded. reason: why it failed, or what it does now.

    trained_tokens: as the provider counts them; None where it does not say.
    """

    status: Status
    model: str | None = None
    trained_tokens: int | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A state of the model during a job. name: its own, or where it lies. loss: where it is told."""

    name: str
    step: int
    loss: float | None = None


@runtime_checkable
class FineTuneProvider(Protocol):
    """A provider that fine-tunes.

    Every method may raise EndpointError, where no repetition helps, and AnswerError, where all were in vain.
    """

    facts: ProviderFacts

    def check(self, model: str) -> date | None:
        """Raise unless the key works and the model can be fine-tuned; the day it retires, if the API says."""
        ...

    def upload(self, path: Path) -> str:
        """The id of the file at `path`, once it is uploaded and ready to be trained on."""
        ...

    def create(self, request: JobRequest) -> str:
        """The id of a new job. An AnswerError leaves open whether there is one: ask `find_job`."""
        ...

    def find_job(self, file: str) -> str | None:
        """The id of the job that trains on the uploaded file `file`, None if there is none."""
        ...

    def poll(self, job: str) -> JobState:
        """How the job is now."""
        ...

    def cancel(self, job: str) -> None:
        """Ask for the job to be cancelled; one that has ended stays as it is."""
        ...

    def checkpoints(self, job: str) -> list[Checkpoint]:
        """The job's checkpoints by step, the newest last."""
        ...

    def serve(self, model: str, say: Callable[[str], None]) -> str | None:
        """The name that chat completions know `model` by; None when it can't be called yet.

        `say` hears what there is to be done then, where the provider leaves it to its users.
        """
        ...
