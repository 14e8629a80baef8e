"""The nouns of fine-tuning through an API, and what the adapters of all providers have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, ClassVar, Literal
from urllib.parse import quote

from pydantic import AliasChoices, AliasPath, Field, FiniteFloat

from rmft.errors import EndpointError
from rmft.providers.answers import Maybe, Name, Page, Reply
from rmft.providers.catalogue import ProviderFacts
from rmft.providers.connection import Connection

Status = Literal["waiting", "running", "succeeded", "failed", "cancelled"]
"""Of a job. The last three are final."""
PAGES = 20


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


STATUSES: Mapping[str, Status] = {
    "running": "running",
    "compressing": "running",
    "uploading": "running",
    "succeeded": "succeeded",
    "completed": "succeeded",
    "failed": "failed",
    "error": "failed",
    "user_error": "failed",
    "cancelled": "cancelled",
}  # all others, such as validating_files, queued, pending and cancel_requested, wait


class Named(Reply):
    """Something that was made, or is there."""

    id: Name


class _Listed(Named):
    training_file: Maybe[str] = None


class _Job(Reply):
    """A job, in the words of any provider."""

    status: Name
    model: Maybe[Name] = Field(
        None, validation_alias=AliasChoices("fine_tuned_model", "model_output_name", "x_model_output_name")
    )
    tokens: Maybe[int] = Field(None, validation_alias=AliasChoices("trained_tokens", "token_count"))
    reason: Maybe[Name] = Field(
        None, validation_alias=AliasChoices(AliasPath("error", "message"), AliasPath("events", -1, "message"))
    )

    @classmethod
    def state(cls, body: Any) -> JobState:
        job = cls.from_json(body)
        told = job.status.lower()
        status = STATUSES.get(told, "waiting")
        if status == "succeeded" and job.model is None:
            raise ValueError("a job that has succeeded names no model")
        made = job.model if status == "succeeded" else None
        return JobState(status, made, job.tokens, (status == "failed" and job.reason) or told)


class _Checkpoint(Reply):
    name: Name = Field(validation_alias=AliasChoices("fine_tuned_model_checkpoint", "object_name", "path"))
    step: Maybe[int] = Field(None, validation_alias=AliasChoices("step_number", "step"))
    loss: Maybe[FiniteFloat] = Field(None, validation_alias=AliasPath("metrics", "train_loss"))


class FineTuneProvider(ABC):
    """A provider that fine-tunes, reached by paths of its API; an adapter says what is its own.

    Every method may raise EndpointError, where no repetition helps, and AnswerError, where all were in vain.
    form: sent along with a file, whose name stands for {name}. page: the query by which jobs are listed.
    """

    files: ClassVar[str]
    jobs: ClassVar[str]
    form: ClassVar[Mapping[str, str]]
    page: ClassVar[Mapping[str, str]] = {}

    def __init__(self, connection: Connection, facts: ProviderFacts) -> None:
        self.connection, self.facts = connection, facts

    @abstractmethod
    def check(self, model: str) -> date | None:
        """Raise unless the key works and the model can be fine-tuned; the day it retires, if the API says."""

    def upload(self, path: Path) -> str:
        """The id of the file at `path`, once it is uploaded and ready to be trained on."""
        form = {key: value.format(name=path.name) for key, value in self.form.items()}
        return self.connection.request("POST", self.files, Named.from_json, body=form, file=path).id

    def create(self, request: JobRequest) -> str:
        """The id of a new job. An AnswerError leaves open whether there is one: ask `find_job`."""
        body = self.job_body(request)
        return self.connection.request("POST", self.jobs, Named.from_json, body=body, repeatable=False).id

    def find_job(self, file: str) -> str | None:
        """The id of the job that trains on the uploaded file `file`, None if there is none.

        Among the newest 2,000, where a provider lists them page by page.
        """
        query = dict(self.page)
        for _ in range(PAGES):
            found = self.connection.request("GET", self.jobs, Page[_Listed].from_json, query=query)
            for job in found.data:
                if job.training_file == file:
                    return job.id
            if not (found.data and found.has_more):
                return None
            query["after"] = found.data[-1].id
        return None

    def poll(self, job: str) -> JobState:
        """How the job is now."""
        return self.connection.request("GET", self._path(job), _Job.state)

    def cancel(self, job: str) -> None:
        """Ask for the job to be cancelled; one that has ended stays as it is."""
        try:
            self.connection.request("POST", f"{self._path(job)}/cancel", Reply.from_json)
        except EndpointError as error:
            if error.status not in (400, 404):  # it has ended already, or is gone
                raise

    def checkpoints(self, job: str) -> list[Checkpoint]:
        """The job's checkpoints by step, the newest last."""
        path = f"{self._path(job)}/checkpoints"
        found = self.connection.request("GET", path, Page[_Checkpoint].from_json).data
        told = [Checkpoint(each.name, each.step or 0, each.loss) for each in found]
        return sorted(told, key=lambda checkpoint: checkpoint.step)

    @abstractmethod
    def serve(self, model: str, say: Callable[[str], None]) -> str | None:
        """The name that chat completions know `model` by; None when it can't be called yet.

        `say` hears what there is to be done then, where the provider leaves it to its users.
        """

    @abstractmethod
    def job_body(self, request: JobRequest) -> dict[str, Any]:
        """The JSON that asks for a job."""

    def _path(self, job: str) -> str:
        return f"{self.jobs}/{quote(job, safe='')}"
