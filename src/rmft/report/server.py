"""`rmft view`: the page on loopback, its pieces made when they are asked for. It only reads."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock
from urllib.parse import unquote, urlsplit

from rmft.errors import RmftError, RunDirectoryError
from rmft.report.page import page_with
from rmft.report.pieces import Pieces

HOST = "127.0.0.1"
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class ViewServer(ThreadingHTTPServer):
    """Serves the page of some runs on a port of this machine alone; 0 is any port that is free.

    Raises RunDirectoryError when a folder is no run directory or the port is taken.
    """

    daemon_threads = True

    def __init__(self, run_dirs: Sequence[Path], port: int = 0) -> None:
        self.pieces = Pieces(run_dirs)
        self.making = Lock()  # one piece at a time: two requests for the same one cost one
        self.page = page_with(None).encode()
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise RunDirectoryError(
                f"Can't listen on port {port} of this machine: {error.strerror}. Choose another --port, or "
                "leave it out to take any that is free."
            ) from None

    @property
    def address(self) -> str:
        return f"http://{HOST}:{self.server_address[1]}/"

    def handle_error(self, *_: object) -> None:
        """A browser that goes away in the middle of an answer is no mistake; anything else is told."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(*_)  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    """GET / is the page, GET /data/NAME a piece. Anything else, and any other name of the host, is refused:
    a page elsewhere could otherwise reach this server by a name of its own."""

    server: ViewServer
    server_version, sys_version = "rmft", ""
    protocol_version = "HTTP/1.1"
    timeout = 60

    def do_GET(self) -> None:
        port = self.server.server_address[1]
        if self.headers.get("Host") not in (f"{HOST}:{port}", f"localhost:{port}"):
            self._refuse(HTTPStatus.FORBIDDEN, f"This server is {HOST}:{port} and answers to no other name.")
            return
        path = urlsplit(self.path).path
        if path == "/":
            self._answer(HTTPStatus.OK, "text/html; charset=utf-8", self.server.page)
            return
        try:
            if not path.startswith("/data/"):
                raise LookupError(path)
            with self.server.making:
                piece = self.server.pieces.piece(unquote(path.removeprefix("/data/")))
            content = json.dumps(piece, allow_nan=False, separators=(",", ":")).encode()
        except RmftError as error:
            self._refuse(HTTPStatus.GONE, str(error))
        except (LookupError, ValueError):
            self._refuse(HTTPStatus.NOT_FOUND, f"There is no {path[:200]!r} here.")
        else:
            self._answer(HTTPStatus.OK, "application/json", content)

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        self._answer(status, "application/json", json.dumps({"error": message}).encode())

    def _answer(self, status: HTTPStatus, kind: str, content: bytes) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **HEADERS}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *_: object) -> None:
        """Say nothing: a terminal full of requests tells nobody anything."""
