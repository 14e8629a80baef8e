"""Fine-tuning at Together AI, by its own REST API: https://docs.together.ai/reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rmft.errors import EndpointError
from rmft.providers.catalogue import ProviderFacts
from rmft.providers.connection import Connection
from rmft.providers.provider import Checkpoint, JobRequest, JobState, Status
from rmft.providers.replies import a_list, a_text, an_object, maybe_number, maybe_text

STATUSES: Mapping[str, Status] = {
    "running": "running",
    "compressing": "running",
    "uploading": "running",
    "completed": "succeeded",
    "error": "failed",
    "user_error": "failed",
    "cancelled": "cancelled",
}  # all others, such as pending, queued and cancel_requested, wait
LEARNING_RATE = 1e-5  # of Together's own, which a multiplier is of
LARGEST_SEED = 2**31


class TogetherProvider:
    """Implements `FineTuneProvider`."""

    def __init__(self, connection: Connection, facts: ProviderFacts) -> None:
        self.connection, self.facts = connection, facts

    def check(self, model: str) -> date | None:
        """See `FineTuneProvider`; Together tells no dates."""
        query = {"model_name": model}
        limits = self.connection.request("GET", "/fine-tunes/models/limits", an_object, query=query)
        if maybe_number(limits, "max_num_epochs") is None and "lora_training" not in limits:
            said = maybe_text(limits, "message") or "it tells no limits for it"
            raise EndpointError(f"{self.connection.host} can't fine-tune '{model}': {said:.200}")
        return None

    def upload(self, path: Path) -> str:
        """See `FineTuneProvider`."""
        form = {"purpose": "fine-tune", "file_name": path.name, "file_type": "jsonl"}
        return self.connection.request(
            "POST", "/files/upload", lambda body: a_text(body, "id"), body=form, file=path
        )

    def create(self, request: JobRequest) -> str:
        """See `FineTuneProvider`. What a job before made is gone on from as that job's last checkpoint."""
        source = {"model": request.base} if request.job is None else {"from_checkpoint": request.job}
        body = {
            **source,
            "training_file": request.file,
            "n_epochs": request.epochs,
            "n_checkpoints": 1,
            "batch_size": "max",
            "learning_rate": LEARNING_RATE * (request.learning_rate_multiplier or 1.0),
            "training_method": {"method": "sft", "train_on_inputs": False},
            "random_seed": request.seed % LARGEST_SEED,
            "suffix": request.suffix,
        }
        return self.connection.request(
            "POST", "/fine-tunes", lambda reply: a_text(reply, "id"), body=body, repeatable=False
        )

    def find_job(self, file: str) -> str | None:
        """See `FineTuneProvider`."""
        jobs = self.connection.request("GET", "/fine-tunes", lambda body: a_list(body, "data"))
        return next((a_text(job, "id") for job in jobs if maybe_text(job, "training_file") == file), None)

    def poll(self, job: str) -> JobState:
        """See `FineTuneProvider`."""
        return self.connection.request("GET", f"/fine-tunes/{quote(job, safe='')}", _state)

    def cancel(self, job: str) -> None:
        """See `FineTuneProvider`."""
        try:
            self.connection.request("POST", f"/fine-tunes/{quote(job, safe='')}/cancel", an_object)
        except EndpointError as error:
            if error.status not in (400, 404):  # it has ended already, or is gone
                raise

    def checkpoints(self, job: str) -> list[Checkpoint]:
        """See `FineTuneProvider`; Together tells no losses."""
        path = f"/fine-tunes/{quote(job, safe='')}/checkpoints"
        found = self.connection.request(
            "GET", path, lambda body: [_checkpoint(c) for c in a_list(body, "data")]
        )
        return sorted(found, key=lambda checkpoint: checkpoint.step)

    def serve(self, model: str, say: Callable[[str], None]) -> str | None:
        """See `FineTuneProvider`: the name of the dedicated endpoint that the user started."""
        query = {"type": "dedicated", "mine": "true"}
        for endpoint in self.connection.request(
            "GET", "/endpoints", lambda b: a_list(b, "data"), query=query
        ):
            if maybe_text(endpoint, "model") == model:
                if maybe_text(endpoint, "state") == "STARTED":
                    return a_text(endpoint, "name")
                say(f"The endpoint of {model} is {maybe_text(endpoint, 'state') or 'not ready'}")
                return None
        say(
            "To go on, put the model on a dedicated endpoint (billed by the minute until you delete it): "
            f"together endpoints create --model {model} --hardware HARDWARE"
        )
        return None


def _state(body: Any) -> JobState:
    said = a_text(body, "status").lower()
    status = STATUSES.get(said, "waiting")
    model = maybe_text(body, "model_output_name") or maybe_text(body, "x_model_output_name")
    if status == "succeeded" and model is None:
        raise ValueError("a job that has completed names no model")
    tokens = maybe_number(body, "token_count")
    events = body.get("events")
    told = [maybe_text(event, "message") for event in events or [] if isinstance(event, dict)]
    reason = told[-1] if status == "failed" and told and told[-1] else said
    model = model if status == "succeeded" else None
    return JobState(status, model, None if tokens is None else int(tokens), reason)


def _checkpoint(body: Any) -> Checkpoint:
    name = maybe_text(body, "object_name") or a_text(body, "path")
    return Checkpoint(name, int(maybe_number(body, "step") or 0))
