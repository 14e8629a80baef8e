"""A client's mistakes, and every other error, in the API's own shape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

INTERNAL = "The server failed on this request; its log says why. The request can be tried again."
_CODES = {
    **{404: "unknown_url", 405: "method_not_allowed"},
    **{408: "request_timeout", 413: "request_too_large"},
}


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


def install(app: FastAPI) -> None:
    """Let every error of `app`'s be answered in the API's shape."""
    app.add_exception_handler(ApiError, _own)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Exception, _internal)


def respond(error: ApiError, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The response that tells of `error`."""
    return JSONResponse(error.body(), error.status, headers)


async def _own(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ApiError)
    return respond(error)


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    message = {
        404: f"There is no {request.method} {request.url.path:.200} here; see /docs.",
        405: f"{request.url.path:.200} does not take {request.method}; see /docs.",
        408: "The request's body came too slowly.",
        413: "The request's body is too large: a file may have 64 MB, anything else 2 MB.",
    }.get(error.status_code, str(error.detail))
    code = _CODES.get(error.status_code, "invalid_request")
    return respond(ApiError(message, status=error.status_code, code=code), error.headers)


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"][1:] if not str(part).startswith("function-"))
    if first["type"] == "json_invalid":
        said = first.get("ctx", {}).get("error", "")
        return respond(ApiError(f"The body is not JSON: {said} at byte {place}.", code="invalid_json"))
    if first["type"] == "extra_forbidden":
        message = f"'{place}' is not supported by this server. Leave it out."
        return respond(ApiError(message, code="unsupported_parameter", param=place))
    found = repr(first.get("input"))
    shown = found if len(found) <= 80 else f"{found[:77]}..."
    message = f"'{place}' can't be used: {first['msg']}; found {shown}."
    return respond(ApiError(message, code="invalid_value", param=place or None))


async def _internal(_: Request, __: Exception) -> JSONResponse:
    return respond(ApiError(INTERNAL, status=500, code="internal_error"))
