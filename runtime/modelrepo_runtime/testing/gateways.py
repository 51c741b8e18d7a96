"""A gateway in a thread of this process, on a real socket: for tests and benchmarks."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from fastapi import FastAPI

from modelrepo_runtime.gateway.app import create_app
from modelrepo_runtime.gateway.parts import Parts
from modelrepo_runtime.gateway.serving import GatewayServer, Place

PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, whole."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes

    def json(self) -> Any:
        """Return what the body says."""
        return json.loads(self.body)


class LiveGateway:
    """Use as a context manager; `url` is where it listens."""

    def __init__(self, parts: Parts, place: Place | None = None, app: FastAPI | None = None) -> None:
        self.parts = parts
        self.app = app or create_app(parts)
        self.server = GatewayServer(self.app, place or Place(port=0))
        self.url = self.server.url
        self._started = threading.Event()
        self._thread = threading.Thread(target=self.server.run, args=(self._started.set,), name="gateway", daemon=True)

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Make one request; what is no bytes is sent as JSON."""
        connection, answer = self.open(method, path, body, token=token, headers=headers)
        try:
            named = {name.lower(): value for name, value in answer.getheaders()}
            return Reply(answer.status, named, answer.read())
        finally:
            connection.close()

    def open(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[HTTPConnection, HTTPResponse]:
        """Make one request and return its answer unread, for streams."""
        parts = urlsplit(self.url)
        connection = HTTPConnection(parts.hostname or "", parts.port, timeout=PATIENCE_S)
        sent = dict(headers or {})
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            sent.setdefault("Content-Type", "application/json")
        connection.request(method, path.removeprefix(self.url), body=body, headers=sent)
        return connection, connection.getresponse()

    def stop(self) -> None:
        """End it as SIGTERM does, and wait for that."""
        self.server.stop()
        self._thread.join(PATIENCE_S)
        if self._thread.is_alive():
            raise TimeoutError(f"the gateway at {self.url} did not end within {PATIENCE_S:g} s")

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._started.wait(PATIENCE_S):
            raise TimeoutError(f"the gateway at {self.url} did not start within {PATIENCE_S:g} s")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
