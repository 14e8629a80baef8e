"""The application: models and chat completions, and the routes of other modules."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import Response, StreamingResponse

from rmft import __version__
from rmft.server import refusals
from rmft.server.access import LOCAL_NAMES, MAX_FILE, BodyLimit, Gate
from rmft.server.adapters import adapter_routes
from rmft.server.answers import Answers, answered
from rmft.server.completions import completion_routes, tokenize_routes
from rmft.server.fine_tuning_routes import fine_tuning_routes
from rmft.server.refusals import ApiError
from rmft.server.schemas import ChatRequest
from rmft.server.service import Service
from rmft.server.store import Record

REFUSED = {"description": "A mistake of the client's, in the API's error shape"}


def make_app(
    service: Service,
    key: str | None,
    names: frozenset[str] = LOCAL_NAMES,
    others: Sequence[APIRouter] = (),
) -> FastAPI:
    """The ASGI application. key: what clients have to send, if any; names: see `Gate`. others: more
    routes."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        service.close()

    app = FastAPI(
        title="rmft serve",
        version=__version__,
        lifespan=lifespan,
        responses={400: REFUSED, 422: REFUSED},
        redirect_slashes=False,
    )
    refusals.install(app)
    app.include_router(_models(service), prefix="/v1")
    app.include_router(_chat(service), prefix="/v1")
    app.include_router(completion_routes(service), prefix="/v1")
    app.include_router(adapter_routes(service.adapters), prefix="/v1")
    app.include_router(tokenize_routes(service))
    app.include_router(fine_tuning_routes(service), prefix="/v1")
    for routes in others:
        app.include_router(routes, prefix="/v1")
    app.add_middleware(BodyLimit, others={"/v1/files": MAX_FILE, "/v1/completions": MAX_FILE})
    app.add_middleware(Gate, key=key, names=names)
    return app


def _models(service: Service) -> APIRouter:
    routes = APIRouter(tags=["models"])

    @routes.get("/models")
    async def list_models() -> Any:
        models = [_shown(model) for model in service.models().values()]
        return {"object": "list", "data": models}

    @routes.get("/models/{name:path}")
    async def get_model(name: str) -> Any:
        return _shown(service.model(name))

    @routes.delete("/models/{name:path}")
    async def delete_model(name: str) -> Any:
        with service.store.transaction():
            model = service.model(name)
            if name in service.bases or name in service.adapters.known:
                what = "a base model" if name in service.bases else "an adapter, which is unloaded"
                raise ApiError(f"'{name}' is {what}; only fine-tuned ones can be deleted.", param="model")
            if job := service.jobs.needing("model", name):
                raise ApiError(f"The job {job} starts from '{name}'; it has to end first.", code="in_use")
            service.store.remove("models", name)
        shutil.rmtree(service.store.model(model["job"]), ignore_errors=True)
        return {"id": name, "object": "model", "deleted": True}

    return routes


def _shown(model: Record) -> Record:
    shown = ("id", "object", "created", "owned_by", "root", "parent", "max_model_len")
    return {key: model[key] for key in shown if key in model}


def _chat(service: Service) -> APIRouter:
    routes = APIRouter(tags=["chat"])

    @routes.post("/chat/completions")
    async def create_chat_completion(asked: ChatRequest, request: Request) -> Response:
        base, folder = service.playing(asked.model)
        answers = await asyncio.to_thread(Answers, asked, base, asyncio.get_running_loop())
        service.generator.write(asked.model, folder, answers.writers)
        if asked.stream:
            return StreamingResponse(answers.streamed(), media_type="text/event-stream")
        return await answered(answers, request)

    return routes
