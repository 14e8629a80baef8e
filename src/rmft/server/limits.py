"""How large a request's body may be."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY, MAX_FILE = 2 * 10**6, 64 * 10**6
"""Bytes of any body, and of an upload with what is around its file."""
THROWN_AWAY = 4  # times the limit: what is read on so that the client, still sending, hears the answer


class BodyLimit:
    """ASGI middleware: reading more than MAX_BODY bytes, or what `others` say for a path, raises a 413."""

    def __init__(self, app: ASGIApp, others: Mapping[str, int]) -> None:
        self._app, self._others = app, others

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit, size = self._others.get(scope["path"], MAX_BODY), 0

        async def limited() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > limit:
                while message.get("more_body") and size < THROWN_AWAY * limit:
                    message = await receive()
                    size += len(message.get("body", b""))
                raise HTTPException(413)
            return message

        await self._app(scope, limited, send)
