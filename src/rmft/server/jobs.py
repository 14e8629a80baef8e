"""Fine-tuning jobs as records: accepted, taken up, and ended exactly once, each step one transaction.

A job is queued, running, and then succeeded, failed or cancelled; see `rmft.server.worker` for what runs it.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, Literal

from rmft.files import sync
from rmft.server.models import Base, unknown_model
from rmft.server.refusals import ApiError
from rmft.server.schemas import JobRequest
from rmft.server.store import Record, Store, new_id, now

ENDED = frozenset({"succeeded", "failed", "cancelled"})
AUTO = {"n_epochs": 3, "batch_size": 8, "learning_rate_multiplier": 1.0}
"""What `auto` stands for."""
PRIVATE = frozenset({"base", "steps"})


class Jobs:
    """The jobs of a store. bases: the base models by name."""

    def __init__(self, store: Store, bases: dict[str, Base]) -> None:
        self.store, self._bases = store, bases

    def create(self, request: JobRequest) -> Record:
        """Accept a job. Raises ApiError (404, 400) when there is no such model or file."""
        self.store.check_room()
        with self.store.transaction():
            if self.store.find("files", request.training_file) is None:
                raise ApiError(
                    f"There is no file '{request.training_file}'. Upload it first.",
                    code="file_not_found",
                    param="training_file",
                )
            chosen = {
                name: AUTO[name] if value == "auto" else value
                for name, value in request.chosen.model_dump().items()
            }
            job_id = new_id("ftjob")
            job: Record = {
                "id": job_id,
                "object": "fine_tuning.job",
                "created_at": now(),
                "status": "queued",
                "model": request.model,
                "base": self._base_of(request.model),
                "training_file": request.training_file,
                "validation_file": None,
                "user_provided_suffix": request.suffix,
                "seed": int(job_id[-8:], 16) if request.seed is None else request.seed,
                "hyperparameters": chosen,
                "method": {"type": "supervised", "supervised": {"hyperparameters": chosen}},
                "metadata": request.metadata,
                "organization_id": "rmft",
                "integrations": [],
                "result_files": [],
                "steps": 0,
                "trained_tokens": None,
                "fine_tuned_model": None,
                "error": None,
                "estimated_finish": None,
                "finished_at": None,
            }
            self.store.add("jobs", job)
            self._tell(job_id, "The job is accepted")
        return job

    def _base_of(self, name: str) -> str:
        """The base model of what a client calls a model, a fine-tuned one included."""
        model = self.store.find("models", name)
        base = str(model["base"]) if model else name
        if base not in self._bases:
            raise unknown_model(name, [*self._bases, *(each["id"] for each in self.store.all("models"))])
        return base

    def owed(self) -> list[Record]:
        """Those that have not ended, the oldest first."""
        return [job for job in self.store.all("jobs") if job["status"] not in ENDED]

    def needing(self, entry: Literal["training_file", "model"], value: str) -> str | None:
        """The id of a job that has not ended and needs this file or model, if there is one."""
        return next((str(job["id"]) for job in self.owed() if job[entry] == value), None)

    def status(self, job_id: str) -> str | None:
        """A job's status; None when there is no such job."""
        job = self.store.find("jobs", job_id)
        return None if job is None else str(job["status"])

    def take_up(self, job_id: str) -> bool:
        """Now it is running, if it is still to be run at all."""
        with self.store.transaction():
            status = self.status(job_id)
            if status == "running":
                self._tell(job_id, "The server was stopped; the job begins anew", level="warn")
            elif status == "queued":
                self.store.change("jobs", job_id, status="running")
                self._tell(job_id, "The job is running")
            return status in ("queued", "running")

    def step(self, job_id: str, step: int, steps: int, loss: float) -> None:
        """Tell of a step of training, of so many."""
        with self.store.transaction():
            self.store.change("jobs", job_id, steps=steps)
            data = {"step": step, "total_steps": steps, "train_loss": loss}
            text = f"Step {step} of {steps}: training loss {loss:.4f}"
            self._tell(job_id, text, kind="metrics", data=data)

    def succeed(self, job: Record, trained: Path, tokens: int) -> None:
        """Publish the policy that lies whole in the folder `trained`, unless the job was cancelled.

        tokens: how many it was trained on.
        """
        job_id, target = job["id"], self.store.model(job["id"])
        with self.store.transaction():
            if self.status(job_id) != "running":
                return
            shutil.rmtree(target, ignore_errors=True)  # of a kill between this renaming and the records
            for path in (*trained.iterdir(), trained):
                sync(path)
            os.rename(trained, target)
            suffix = (job["user_provided_suffix"] or "").replace(" ", "-")
            name = f"ft:{job['base']}:rmft:{suffix}:{job_id[-8:]}"
            model = {"id": name, "object": "model", "created": now(), "owned_by": "rmft"}
            self.store.add("models", model | {"base": job["base"], "job": job_id})
            ended = {"status": "succeeded", "finished_at": now(), "trained_tokens": tokens}
            self.store.change("jobs", job_id, fine_tuned_model=name, **ended)
            self._tell(job_id, f"The new model is {name}")

    def fail(self, job_id: str, message: str, code: str | None) -> None:
        """End it, unless it was cancelled."""
        with self.store.transaction():
            if self.status(job_id) == "running":
                error = {"code": code, "message": message, "param": None}
                self.store.change("jobs", job_id, status="failed", finished_at=now(), error=error)
                self._tell(job_id, f"The job has failed: {message}", level="error")

    def cancel(self, job_id: str) -> Record:
        """End a job that has not ended; one that was cancelled already stays so. Raises ApiError (400)."""
        with self.store.transaction():
            status = self.status(job_id)
            if status in ENDED and status != "cancelled":
                raise ApiError(
                    f"The job '{job_id}' has {status} already and can't be cancelled.", code="job_has_ended"
                )
            if status != "cancelled":
                self._tell(job_id, "The job is cancelled")
                return self.store.change("jobs", job_id, status="cancelled", finished_at=now())
            return self.store.change("jobs", job_id)

    def _tell(
        self, job_id: str, message: str, *, level: str = "info", kind: str = "message", data: Any = None
    ) -> None:
        event = {
            "id": new_id("ftevent"),
            "object": "fine_tuning.job.event",
            "created_at": now(),
            "level": level,
            "message": message,
            "type": kind,
            "data": data or {},
        }
        self.store.add("events", event, owner=job_id)
