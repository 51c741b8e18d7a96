"""The one seam at which errors become answers: a status and `{"error": {code, message, retryable}}`, no traceback."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from modelrepo.errors import (
    Conflict,
    InvalidAdapter,
    InvalidInput,
    InvalidJobInput,
    ModelRepoError,
    NoSpace,
    NotFound,
    Unreachable,
)
from modelrepo_runtime.gateway.logs import note
from modelrepo_runtime.gateway.refusals import Refusal
from modelrepo_runtime.remote.failures import code_of, tell

log = logging.getLogger(__name__)

MACHINES = ("/v1/worker/", "/v1/fleet/")
"""Callers there are ours: they raise the error again, and learn no address of what is behind the gateway."""
RETRY_AFTER_S = 1.0
_DATABASE = re.compile(r"\b(?:postgres(?:ql)?|sqlite)://[^\s;,]*")
_STORE = re.compile(r"\b(?!https?:)[a-z][a-z0-9]*://[^\s;,]*")
_SEND_JSON = "send JSON, with the header `Content-Type: application/json`"
_AWAY = "the gateway cannot reach its queue or its files; nothing may have been changed: ask again"
"""Its log has the reason, under the request's id."""
_HTTP_CODES = {
    400: "invalid_request",
    404: "not_found",
    405: "method_not_allowed",
    408: "too_slow",
    413: "too_large",
    415: "unsupported_media_type",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """How an error is answered."""

    status: int
    code: str
    message: str
    retryable: bool = False
    pointer: str | None = None
    """RFC 6901, into the body of the request."""
    retry_after_s: float | None = None

    def body(self) -> dict[str, Any]:
        """Return the document that says so."""
        error: dict[str, Any] = {"code": self.code, "message": self.message, "retryable": self.retryable}
        if self.pointer is not None:
            error["pointer"] = self.pointer
        return {"error": error}

    def headers(self) -> dict[str, str]:
        """Return the headers that go with it."""
        told = {} if self.retry_after_s is None else {"Retry-After": str(max(1, round(self.retry_after_s)))}
        return {**told, "WWW-Authenticate": "Bearer"} if self.status == 401 else told


def answer(error: BaseException) -> Answer:
    """Return how an error is answered. What is inside the fleet, such as names of stores, stays out of it."""
    if not isinstance(error, ModelRepoError):
        return Answer(500, "internal", "the gateway failed; its log has the reason under the request's id", True)
    code, message = code_of(type(error)), str(error)
    later = getattr(error, "retry_after_s", None)
    if isinstance(error, Refusal):
        return Answer(error.http_status, code, message, error.http_status in (408, 429, 503), retry_after_s=later)
    if later is not None:
        return Answer(429, code, message, True, retry_after_s=later)
    if isinstance(error, InvalidJobInput):
        return Answer(422, code, message, pointer=f"/inputs{error.pointer}")
    if isinstance(error, InvalidAdapter):
        return Answer(422, code, message, pointer=error.pointer)
    if isinstance(error, InvalidInput):
        return Answer(422, code, message)
    if isinstance(error, NotFound):
        return Answer(404, code, _veiled(message))
    if isinstance(error, Conflict):
        return Answer(409, code, message)
    if isinstance(error, Unreachable | NoSpace):
        return Answer(503, "unreachable", _AWAY, True, retry_after_s=RETRY_AFTER_S)
    return Answer(500, code, "the gateway failed; its log has the reason under the request's id", True)


async def on_error(request: Request, error: Exception) -> JSONResponse:
    """Answer one of our own errors."""
    found = answer(error)
    if found.status >= 500 and not isinstance(error, Refusal):
        log.warning("%s: %s", code_of(type(error)), error, exc_info=error if found.status == 500 else None)
    body = found.body()
    if isinstance(error, ModelRepoError) and request.scope["path"].startswith(MACHINES):
        is_away = isinstance(error, Unreachable | NoSpace) and not isinstance(error, Refusal)
        told = tell(error)
        body = {"error": {**body["error"], **told, "message": _AWAY if is_away else _veiled(told["message"])}}
    return _response(found, body)


async def on_invalid_request(request: Request, error: Exception) -> JSONResponse:
    """Answer a request that breaks the API's own schema, by the first place where it does."""
    assert isinstance(error, RequestValidationError)
    first: Mapping[str, Any] = error.errors()[0]
    where: Sequence[str | int] = first.get("loc", ())
    if first.get("type") in ("json_invalid", "json_type"):
        return _response(Answer(422, "invalid_json", "the body is no JSON", pointer=""))
    if first.get("type") == "model_attributes_type" and tuple(where) == ("body",):
        kind = request.headers.get("content-type", "")
        told = "the body is no JSON object" if "json" in kind else f"the body is {kind!r}; {_SEND_JSON}"
        return _response(Answer(422, "invalid_request", told, pointer=""))
    source, place = str(where[0]) if where else "body", where[1:]
    message = f"{_words(source)} {'.'.join(map(str, place))}".strip() + f": {first.get('msg', 'is not allowed')}"
    pointer = "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in place)
    found = Answer(422, "invalid_request", message, pointer=pointer if source == "body" else None)
    return _response(found)


async def on_http_error(_: Request, error: Exception) -> JSONResponse:
    """Answer what the framework refuses: no such path, no such method."""
    assert isinstance(error, HTTPException)
    code = _HTTP_CODES.get(error.status_code, "refused")
    return _response(Answer(error.status_code, code, str(error.detail)), headers=error.headers)


def _response(
    found: Answer, body: dict[str, Any] | None = None, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    note(code=found.code)
    return JSONResponse(body or found.body(), found.status, {**found.headers(), **(headers or {})})


def _veiled(message: str) -> str:
    """Leave the addresses of databases and stores out of a message, and with them what may be a password."""
    return _STORE.sub("this gateway's store", _DATABASE.sub("this gateway's queue", message))


def _words(source: str) -> str:
    return {"body": "the body", "query": "the query", "path": "the path", "header": "the header"}.get(source, source)
