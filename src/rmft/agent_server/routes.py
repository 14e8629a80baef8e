"""The routes of an agent: /v1/episodes, and below it decide and observe."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Header

from rmft.agent_server.desk import Desk
from rmft.agent_server.schemas import DecideRequest, EpisodeRequest, ObserveRequest
from rmft.agents.agent import Agent
from rmft.server.store import Store

Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        description="Names a request, so that the same one again gets the same answer and changes nothing.",
    ),
]


def agent_routes(agent: Agent, store: Store) -> APIRouter:
    """Those of this agent, whose episodes are kept in `store`."""
    desk = Desk(agent, store)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        desk.close()

    routes = APIRouter(prefix="/episodes", tags=["episodes"], lifespan=lifespan)

    @routes.post("")
    async def begin_episode(asked: EpisodeRequest, key: Key = None) -> Any:
        return await desk.do(partial(desk.begin, asked, key))

    @routes.get("/{episode_id}")
    async def get_episode(episode_id: str) -> Any:
        return await desk.do(partial(desk.show, episode_id))

    @routes.delete("/{episode_id}")
    async def delete_episode(episode_id: str) -> Any:
        return await desk.do(partial(desk.remove, episode_id))

    @routes.post("/{episode_id}/decide")
    async def decide(episode_id: str, asked: DecideRequest | None = None, key: Key = None) -> Any:
        return await desk.do(partial(desk.decide, episode_id, asked or DecideRequest(), key))

    @routes.post("/{episode_id}/observe")
    async def observe(episode_id: str, asked: ObserveRequest, key: Key = None) -> Any:
        return await desk.do(partial(desk.observe, episode_id, asked, key))

    return routes
