"""`rmft serve`: loads the models, takes the place to listen at, and answers until it is stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

import uvicorn
from fastapi import APIRouter
from uvicorn.protocols.http.h11_impl import H11Protocol

from rmft.policies.config import LocalConfig
from rmft.server.access import LOCAL_NAMES, listen
from rmft.server.app import make_app
from rmft.server.models import load_bases
from rmft.server.service import Service
from rmft.server.store import MAX_GB, Store

PATIENCE = 5  # seconds that answers may take to their end once the server is stopped
HEADERS_IN = 20  # seconds in which a request's headers have to come
MOST_CONNECTIONS = 2000


class Impatient(H11Protocol):
    """HTTP on one connection, which is closed when no whole request comes, or when there are too many."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait()
        if len(self.connections) > MOST_CONNECTIONS:
            transport.close()

    def on_response_complete(self) -> None:
        self._wait()
        super().on_response_complete()

    def _wait(self) -> None:
        self.loop.call_later(HEADERS_IN, self._close_if_none_came, self.cycle)

    def _close_if_none_came(self, last: object) -> None:
        if self.cycle is last and not self.transport.is_closing():
            self.transport.close()


def serve(
    folder: Path,
    models: list[str],
    host: str,
    port: int,
    key: str | None,
    config: LocalConfig,
    num_threads: int,
    say: Callable[[str], None],
    others: Mapping[str, Callable[[Store], APIRouter]] | None = None,
    max_gb: float = MAX_GB,
    adapters: Path | None = None,
) -> None:
    """Serve these models until the process is asked to end.

    folder: where files, jobs and fine-tuned models are kept. models: what `rmft models` lists, folders, or
    names on a hub. port: 0 takes a free one. key: what clients have to send; None: nothing, on loopback
    only. config: all models' settings but for the model. others: what is served besides, by its name: makes
    routes whose records are kept in the store. max_gb: how much the folder may hold. adapters: the folder
    that clients may load adapters from. Raises ConfigError, UnknownNameError and RunDirectoryError before
    anything is answered.
    """
    listening = listen(host, port, key)
    with listening:
        bases = load_bases(models, config)
        service, besides = Service(folder, bases, num_threads, max_gb, adapters), dict(others or {})
        routes = [make(service.store) for make in besides.values()]
        app = make_app(service, key, LOCAL_NAMES | {host.lower()}, routes)
        shown = f"[{host}]" if ":" in host else host
        say(f"Serving {', '.join([*bases, *besides])} at http://{shown}:{listening.getsockname()[1]}/v1")
        settings = uvicorn.Config(
            app, http=Impatient, log_level="warning", access_log=False, timeout_graceful_shutdown=PATIENCE
        )
        uvicorn.Server(settings).run(sockets=[listening])
