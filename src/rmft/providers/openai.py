"""Fine-tuning as OpenAI's API has it: at OpenAI, at Azure OpenAI, and at `rmft serve` or any like it."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rmft.errors import EndpointError, UnknownNameError
from rmft.providers.catalogue import ProviderFacts
from rmft.providers.connection import Connection
from rmft.providers.provider import Checkpoint, JobRequest, JobState, Status
from rmft.providers.replies import a_list, a_text, an_object, maybe_number, maybe_text

STATUSES: Mapping[str, Status] = {
    "running": "running",
    "succeeded": "succeeded",
    "failed": "failed",
    "cancelled": "cancelled",
}  # all others, such as validating_files and queued, wait
NOT_READY = {"pending", "running", "notrunning"}  # of Azure's files
JOBS_PER_PAGE, PAGES = 100, 20
LARGEST_SEED = 2**31


class OpenAIProvider:
    """Implements `FineTuneProvider`."""

    def __init__(self, connection: Connection, facts: ProviderFacts, *, pause: float = 2.0) -> None:
        """pause: seconds between two looks at a file that is not ready yet."""
        self.connection, self.facts, self.pause = connection, facts, pause

    def check(self, model: str) -> date | None:
        """See `FineTuneProvider`."""
        models = self.connection.request("GET", "/models", lambda body: a_list(body, "data"))
        known = {maybe_text(each, "id") or "": each for each in models}
        if model not in known:
            raise EndpointError(f"{self.connection.host}: {UnknownNameError('model', model, known)}")
        shutdown = maybe_text(known[model], "shutdown_date")
        try:
            return date.fromisoformat(shutdown) if shutdown else None
        except ValueError:
            return None

    def upload(self, path: Path) -> str:
        """See `FineTuneProvider`. Raises EndpointError, too, when the provider can't read the file."""
        form = {"purpose": "fine-tune"}
        file = self.connection.request(
            "POST", "/files", lambda body: a_text(body, "id"), body=form, file=path
        )
        while (status := self._file_status(file)) in NOT_READY:
            time.sleep(self.pause)
        if status == "error":
            raise EndpointError(f"{self.connection.host} can't use the uploaded file '{path}' ({file}).")
        return file

    def create(self, request: JobRequest) -> str:
        """See `FineTuneProvider`."""
        multiplier = request.learning_rate_multiplier
        rates = {} if multiplier is None else {"learning_rate_multiplier": multiplier}
        body = {
            "model": request.model,
            "training_file": request.file,
            "suffix": request.suffix,
            "seed": request.seed % LARGEST_SEED,
            "method": {
                "type": "supervised",
                "supervised": {"hyperparameters": {"n_epochs": request.epochs, **rates}},
            },
        }
        return self.connection.request(
            "POST", "/fine_tuning/jobs", lambda reply: a_text(reply, "id"), body=body, repeatable=False
        )

    def find_job(self, file: str) -> str | None:
        """See `FineTuneProvider`; among the newest 2,000 jobs."""
        query = {"limit": str(JOBS_PER_PAGE)}
        for _ in range(PAGES):
            jobs, more = self.connection.request("GET", "/fine_tuning/jobs", _page, query=query)
            for job, trained_on in jobs:
                if trained_on == file:
                    return job
            if not (jobs and more):
                return None
            query["after"] = jobs[-1][0]
        return None

    def poll(self, job: str) -> JobState:
        """See `FineTuneProvider`."""
        return self.connection.request("GET", f"/fine_tuning/jobs/{quote(job, safe='')}", _state)

    def cancel(self, job: str) -> None:
        """See `FineTuneProvider`."""
        try:
            self.connection.request("POST", f"/fine_tuning/jobs/{quote(job, safe='')}/cancel", an_object)
        except EndpointError as error:
            if error.status not in (400, 404):  # it has ended already, or is gone
                raise

    def checkpoints(self, job: str) -> list[Checkpoint]:
        """See `FineTuneProvider`."""
        path = f"/fine_tuning/jobs/{quote(job, safe='')}/checkpoints"
        found = self.connection.request(
            "GET", path, lambda body: [_checkpoint(c) for c in a_list(body, "data")]
        )
        return sorted(found, key=lambda checkpoint: checkpoint.step)

    def serve(self, model: str, say: Callable[[str], None]) -> str | None:  # noqa: ARG002
        """See `FineTuneProvider`: a fine-tuned model answers by its name at once."""
        return model

    def _file_status(self, file: str) -> str:
        return self.connection.request(
            "GET", f"/files/{quote(file, safe='')}", lambda body: (maybe_text(body, "status") or "").lower()
        )


class AzureProvider(OpenAIProvider):
    """Implements `FineTuneProvider` for Azure OpenAI, where fine-tuned models have to be deployed."""

    def serve(self, model: str, say: Callable[[str], None]) -> str | None:
        """See `FineTuneProvider`. Deploying takes rights over the resource that the key does not give."""
        name = f"rmft-{hashlib.sha256(model.encode()).hexdigest()[:16]}"
        ask = {"model": name, "messages": [{"role": "user", "content": "1"}], "max_tokens": 1}
        try:
            self.connection.chat(ask)
        except EndpointError as error:
            if error.status != 404:
                raise
            say(
                f"Deploy the model to go on: az cognitiveservices account deployment create --name RESOURCE "
                f"--resource-group GROUP --deployment-name {name} --model-name '{model}' --model-version 1 "
                "--model-format OpenAI --sku-name Standard --sku-capacity 50"
            )
            return None
        return name


def _page(body: Any) -> tuple[list[tuple[str, str | None]], bool]:
    """Jobs with their files, the newest first, and whether there are more."""
    jobs = [(a_text(job, "id"), maybe_text(job, "training_file")) for job in a_list(body, "data")]
    return jobs, body.get("has_more") is True


def _state(body: Any) -> JobState:
    status = STATUSES.get(a_text(body, "status").lower(), "waiting")
    model = maybe_text(body, "fine_tuned_model")
    if status == "succeeded" and model is None:
        raise ValueError("a job that has succeeded names no model")
    error = body.get("error")
    message = maybe_text(error, "message") if isinstance(error, dict) else None
    tokens = maybe_number(body, "trained_tokens")
    return JobState(status, model, None if tokens is None else int(tokens), message or a_text(body, "status"))


def _checkpoint(body: Any) -> Checkpoint:
    metrics = body.get("metrics") if isinstance(body, dict) else None
    return Checkpoint(
        name=a_text(body, "fine_tuned_model_checkpoint"),
        step=int(maybe_number(body, "step_number") or 0),
        loss=maybe_number(metrics, "train_loss") if isinstance(metrics, dict) else None,
    )
