"""The routes of files and fine-tuning jobs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, File, Form, Query, UploadFile
from fastapi.responses import FileResponse

from rmft.server.conversation import check_training_file
from rmft.server.jobs import PRIVATE
from rmft.server.refusals import ApiError
from rmft.server.schemas import JobRequest
from rmft.server.service import Service
from rmft.server.store import Record, new_id, now

MAX_NAME = 200  # characters of a file's name, which is only told again
Limit = Annotated[int, Query(ge=1, le=100)]
FileLimit = Annotated[int, Query(ge=1, le=10_000)]
After = Annotated[str | None, Query(max_length=200)]
Order = Annotated[Literal["asc", "desc"], Query()]


def fine_tuning_routes(service: Service) -> APIRouter:
    """Those of this service."""
    routes = APIRouter()
    routes.include_router(_files(service))
    routes.include_router(_jobs(service))
    return routes


def _files(service: Service) -> APIRouter:
    routes, store = APIRouter(prefix="/files", tags=["files"]), service.store

    @routes.post("")
    def upload_file(
        file: Annotated[UploadFile, File()], purpose: Annotated[Literal["fine-tune"], Form()]
    ) -> Any:
        store.check_room(file.size or 0)
        file_id = new_id("file")
        path = store.file(file_id)
        try:
            with path.open("wb") as out:
                shutil.copyfileobj(file.file, out)
                out.flush()
                os.fsync(out.fileno())
            check_training_file(path)
            record = {
                "id": file_id,
                "object": "file",
                "bytes": path.stat().st_size,
                "created_at": now(),
                "filename": (file.filename or "file")[-MAX_NAME:],
                "purpose": purpose,
                "status": "processed",
                "status_details": None,
                "expires_at": None,
            }
            store.add("files", record)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return record

    @routes.get("")
    def list_files(
        purpose: Annotated[str | None, Query(max_length=64)] = None,
        limit: FileLimit = 10_000,
        after: After = None,
        order: Order = "desc",
    ) -> Any:
        if purpose not in (None, "fine-tune"):
            return _page([], False)
        return _page(*store.page("files", "", limit, after, newest_first=order == "desc"))

    @routes.get("/{file_id}")
    def get_file(file_id: str) -> Any:
        return store.get("files", file_id)

    @routes.get("/{file_id}/content")
    def get_file_content(file_id: str) -> FileResponse:
        store.get("files", file_id)
        return FileResponse(store.file(file_id), media_type="application/octet-stream")

    @routes.delete("/{file_id}")
    def delete_file(file_id: str) -> Any:
        with store.transaction():
            store.get("files", file_id)
            if job := service.jobs.needing("training_file", file_id):
                raise ApiError(f"The job {job} needs this file; it has to end first.", code="in_use")
            store.remove("files", file_id)
        store.file(file_id).unlink(missing_ok=True)
        return {"id": file_id, "object": "file", "deleted": True}

    return routes


def _jobs(service: Service) -> APIRouter:
    routes, store = APIRouter(prefix="/fine_tuning/jobs", tags=["fine-tuning"]), service.store

    @routes.post("")
    def create_job(asked: JobRequest) -> Any:
        job = service.jobs.create(asked)
        service.worker.wake()
        return _shown(job)

    @routes.get("")
    def list_jobs(limit: Limit = 20, after: After = None) -> Any:
        jobs, more = store.page("jobs", "", limit, after)
        return _page([_shown(job) for job in jobs], more)

    @routes.get("/{job_id}")
    def get_job(job_id: str) -> Any:
        return _shown(store.get("jobs", job_id))

    @routes.post("/{job_id}/cancel")
    def cancel_job(job_id: str) -> Any:
        store.get("jobs", job_id)
        job = service.jobs.cancel(job_id)
        service.worker.stop(job_id)
        return _shown(job)

    @routes.get("/{job_id}/events")
    def list_events(job_id: str, limit: Limit = 20, after: After = None) -> Any:
        store.get("jobs", job_id)
        return _page(*store.page("events", job_id, limit, after))

    @routes.get("/{job_id}/checkpoints")
    def list_checkpoints(job_id: str, limit: Limit = 10, after: After = None) -> Any:  # noqa: ARG001
        """The finished model, which is the only one that is kept."""
        job = store.get("jobs", job_id)
        if job["status"] != "succeeded" or after is not None:
            return _page([], False)
        checkpoint = {
            "id": job_id.replace("ftjob", "ftckpt"),
            "object": "fine_tuning.job.checkpoint",
            "created_at": job["finished_at"],
            "fine_tuned_model_checkpoint": job["fine_tuned_model"],
            "fine_tuning_job_id": job_id,
            "metrics": {"step": job["steps"]},
            "step_number": job["steps"],
        }
        return _page([checkpoint], False)

    return routes


def _page(records: Sequence[Record], more: bool) -> Record:
    ends = {"first_id": records[0]["id"], "last_id": records[-1]["id"]} if records else {}
    return {"object": "list", "data": records, "has_more": more, **ends}


def _shown(job: Record) -> Record:
    return {key: value for key, value in job.items() if key not in PRIVATE}
