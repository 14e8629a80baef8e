"""A client's mistake, as the API tells of it."""

from __future__ import annotations

from typing import Any

INTERNAL = "The server failed on this request; its log says why. The request can be tried again."


class ApiError(Exception):
    """What a client is told: status is the HTTP status, param the field that is to blame."""

    def __init__(
        self, message: str, *, status: int = 400, code: str | None = None, param: str | None = None
    ) -> None:
        super().__init__(message)
        self.message, self.status, self.code, self.param = message, status, code, param

    def body(self) -> dict[str, Any]:
        """The JSON of the error."""
        kind = {401: "authentication_error"}.get(self.status, "invalid_request_error")
        kind = kind if self.status < 500 else "server_error"
        said = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return {"error": {key: text and text.encode(errors="replace").decode() for key, text in said.items()}}
