"""What every request passes first: an id, limits, a line in the log, counters, and an answer whatever happens."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import re
import secrets
import time
from functools import partial
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from modelrepo_runtime.gateway.answers import MACHINES, Answer, answer
from modelrepo_runtime.gateway.logs import ABOUT
from modelrepo_runtime.gateway.metrics import Metrics
from modelrepo_runtime.gateway.refusals import Overloaded, TooLarge, TooSlow
from modelrepo_runtime.gateway.settings import GatewaySettings
from modelrepo_runtime.gateway.signing import CONTENT_PATH

log = logging.getLogger(__name__)

QUIET = ("/healthz", "/readyz", "/metrics", "/v1/worker/")
"""Asked all the time: only what goes wrong there is worth a line."""
DRAINED_BYTES, DRAINED_S = 8 << 20, 5.0
"""Of a body that was refused, what is still read."""
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_PROCESS, _NUMBERS = secrets.token_hex(6), itertools.count(1)


class Edge:
    """The outermost ASGI layer of a gateway, around each application that it has."""

    def __init__(self, settings: GatewaySettings, metrics: Metrics) -> None:
        self._settings, self._metrics = settings, metrics
        self._under_way = 0
        metrics.requests_under_way.set_function(lambda: self._under_way)

    def around(self, app: ASGIApp) -> ASGIApp:
        """Return an application behind this edge; all of them share its limits."""
        return partial(self._serve, app)

    async def _serve(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        request = _Request(scope, receive, send, self._settings)
        token = ABOUT.set(request.about)
        begun = time.perf_counter()
        self._under_way += 1
        try:
            if self._under_way > self._settings.most_requests:
                raise Overloaded("the gateway has all the requests that it can carry; ask again", retry_after_s=2.0)
            request.check()
            await app(scope, request.receive, request.send)
            request.check()
        except (asyncio.CancelledError, ConnectionError):
            request.status = request.status or 499
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets an answer and no traceback
            await self._answer(request, error)
        finally:
            self._under_way -= 1
            self._count(request, time.perf_counter() - begun)
            ABOUT.reset(token)

    async def _answer(self, request: _Request, error: Exception) -> None:
        cause = request.refused or error
        found = answer(cause)
        if found.status == 500:
            log.error("unexpected %s: %s", type(cause).__name__, cause, exc_info=cause)
        if request.status:
            raise error  # half an answer is out: only the end of the connection can say that it is none
        await request.answer(found)

    def _count(self, request: _Request, seconds: float) -> None:
        scope, status = request.scope, request.status or 500
        route = getattr(scope.get("route"), "path", "none")
        self._metrics.answered(scope["method"], route, status, seconds)
        if status >= 400:
            self._metrics.refusals.labels(request.about.get("code", str(status))).inc()
        if status < 500 and scope["path"].startswith(QUIET):
            return
        facts = {"method": scope["method"], "path": scope["path"], "status": status, "ms": round(seconds * 1000, 1)}
        log.info("request", extra={"facts": facts})


class _Request:
    """One request with its limits; `refused` is what its body was refused for."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, settings: GatewaySettings) -> None:
        self.scope, self._receive, self._send, self._settings = scope, receive, send, settings
        headers: dict[bytes, bytes] = dict(scope["headers"])
        told = headers.get(b"x-request-id", b"").decode("latin-1")
        self.about: dict[str, Any] = {"request": told if _REQUEST_ID.fullmatch(told) else _new_id()}
        self.status = 0
        self.refused: Exception | None = None
        self._answering = False
        self._came = 0
        self._ended = False
        self._limit = _limit(scope["path"], settings)
        length = headers.get(b"content-length", b"")
        if length.isdigit() and int(length) > self._limit:
            self.refused = self._too_large(int(length))

    def check(self) -> None:
        """Raise what the body was refused for, unless that is answered."""
        if self.refused is not None and not self.status:
            raise self.refused

    async def receive(self) -> Message:
        """Return the next part of the body, within the limits of size and silence."""
        if self.refused is not None:
            raise self.refused
        if self._ended:
            return await self._receive()  # waits for the client to go away
        try:
            async with asyncio.timeout(self._settings.silence_s):
                message = await self._receive()
        except TimeoutError:
            told = f"nothing of the body came for {self._settings.silence_s:.0f} s; send it again"
            self.refused = TooSlow(told)
            raise self.refused from None
        self._came += len(message.get("body", b""))
        self._ended = message["type"] != "http.request" or not message.get("more_body", False)
        if self._came > self._limit:
            self.refused = self._too_large(self._came)
            raise self.refused
        return message

    async def send(self, message: Message) -> None:
        """Send a part of the answer, the request's id in its headers; none that was made of a refused body."""
        if self.refused is not None and not self.status and not self._answering:
            return
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = [*message.get("headers", ()), (b"x-request-id", self.about["request"].encode())]
            message = {**message, "headers": headers}
        await self._send(message)

    async def answer(self, found: Answer) -> None:
        """Send a whole answer."""
        if isinstance(self.refused, TooLarge):
            await self._drain()
        body = json.dumps(found.body()).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        headers += [(name.lower().encode(), value.encode()) for name, value in found.headers().items()]
        if self.refused is not None:
            headers.append((b"connection", b"close"))  # the rest of the body is not read
        self.about["code"], self._answering = found.code, True
        await self.send({"type": "http.response.start", "status": found.status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})

    async def _drain(self) -> None:
        """Read a little on: a client that is cut off while it sends never sees its answer."""
        left = DRAINED_BYTES
        try:
            async with asyncio.timeout(DRAINED_S):
                while left > 0 and not self._ended:
                    message = await self._receive()
                    left -= len(message.get("body", b""))
                    self._ended = message["type"] != "http.request" or not message.get("more_body", False)
        except TimeoutError:
            pass

    def _too_large(self, size: int) -> TooLarge:
        return TooLarge(f"the body has {size} bytes or more, the limit is {self._limit}; hand large data over as files")


def _new_id() -> str:
    """Name a request: the process, and its number there."""
    return f"{_PROCESS}{next(_NUMBERS):06x}"


def _limit(path: str, settings: GatewaySettings) -> int:
    if path.startswith(CONTENT_PATH):
        return settings.file_bytes
    return settings.machine_body_bytes if path.startswith(MACHINES) else settings.body_bytes
