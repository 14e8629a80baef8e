"""Who may use the server, how much is read of what they send and for how long, and where it listens.

Who: those with the key; on loopback without one, only what was sent to loopback.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import socket
from collections.abc import Mapping

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rmft.errors import ConfigError
from rmft.server.refusals import ApiError, respond

KEY_VARIABLE = "RMFT_SERVE_KEY"
MAX_BODY, MAX_FILE = 2 * 10**6, 64 * 10**6
"""Bytes of any body, and of an upload with what is around its file."""
SILENCE, MAX_TIME = 30.0, 600.0
"""Seconds between two pieces of a body, and from its first to its last."""
THROWN_AWAY = 4  # times the limit: what is read on so that the client, still sending, hears the answer
LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})


class Gate:
    """ASGI middleware that lets a request pass or answers 401 or 400.

    Without a key the request's Host must be one of `names`, and so must its Origin, which a browser tells of
    the page that asks: pages from elsewhere are refused, also those that have their own name point at this
    machine.
    """

    def __init__(self, app: ASGIApp, key: str | None, names: frozenset[str]) -> None:
        self._app, self._names = app, names
        self._expected = None if key is None else f"Bearer {key}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        if refusal is None:
            await self._app(scope, receive, send)
        else:
            close = {"connection": "close"}  # what was sent along is not read
            await respond(refusal, close)(scope, receive, send)

    def _refusal(self, scope: Scope) -> ApiError | None:
        headers = Headers(scope=scope)
        if self._expected is not None:
            given = headers.get("authorization", "").encode("latin-1")
            if hmac.compare_digest(given, self._expected):
                return None
            what = "The key is wrong" if given else "There is no key"
            return ApiError(
                f"{what}. Send 'Authorization: Bearer KEY' with the key that the server was started with "
                f"in {KEY_VARIABLE}.",
                status=401,
                code="invalid_api_key",
            )
        host, origin = headers.get("host", ""), headers.get("origin")
        if self._known(host) and (origin is None or self._known(origin.partition("://")[2])):
            return None
        what, found = ("host", host) if origin is None or not self._known(host) else ("origin", origin)
        return ApiError(
            f"The request names the {what} {found!r:.100}; expected one of {', '.join(sorted(self._names))}. "
            f"From elsewhere the server is used with a key, which it takes from {KEY_VARIABLE}.",
            code=f"invalid_{what}",
        )

    def _known(self, place: str) -> bool:
        """Whether a name, with or without a port, is one of the server's."""
        name, _, port = place.rpartition(":")
        return (name if port.isdecimal() else place).lower() in self._names


class BodyLimit:
    """ASGI middleware: reading more than MAX_BODY bytes, or what `others` say for a path, raises a 413.

    A body that comes too slowly raises a 408.
    """

    def __init__(self, app: ASGIApp, others: Mapping[str, int]) -> None:
        self._app, self._others = app, others

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit, size, whole = self._others.get(scope["path"], MAX_BODY), 0, False
        ends = asyncio.get_running_loop().time() + MAX_TIME

        async def limited() -> Message:
            nonlocal size, whole
            if whole:  # what is left to come is that the client has gone
                return await receive()
            left = ends - asyncio.get_running_loop().time()
            try:
                message = await asyncio.wait_for(receive(), min(SILENCE, left))
            except TimeoutError:
                raise HTTPException(408) from None
            whole = not message.get("more_body")
            size += len(message.get("body", b""))
            if size > limit:
                while message.get("more_body") and size < THROWN_AWAY * limit:
                    message = await receive()
                    size += len(message.get("body", b""))
                raise HTTPException(413)
            return message

        await self._app(scope, limited, send)


def listen(host: str, port: int, key: str | None) -> socket.socket:
    """A socket that listens there; port 0: any free one.

    Raises ConfigError when the place can't be had, or is not loopback and there is no key.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        if key is None and not ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback:
            raise ConfigError(
                f"--host {host} can be reached from other machines, and no key is set. Put one into the "
                f"environment variable {KEY_VARIABLE}, or serve on 127.0.0.1."
            )
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen(1024)
        except OSError:
            listening.close()
            raise
    except (OSError, UnicodeError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"Can't serve on '{host}', port {port}: {reason}. Choose another --host or --port."
        ) from None
    return listening
