"""A gateway in this process, on a free port of 127.0.0.1: what tests and benchmarks of its clients stand before."""

from __future__ import annotations

import socket
import threading
import time
from types import TracebackType
from typing import Self

import uvicorn
from fastapi import FastAPI

from modelrepo.errors import ModelRepoError
from modelrepo.repository import Repository
from modelrepo_runtime.client import Client
from modelrepo_runtime.gateway.access import TokenBook
from modelrepo_runtime.gateway.addresses import AddressRules
from modelrepo_runtime.gateway.answers import on_error
from modelrepo_runtime.gateway.calls import Calls
from modelrepo_runtime.gateway.metrics import Metrics
from modelrepo_runtime.gateway.news import News
from modelrepo_runtime.gateway.parts import Parts
from modelrepo_runtime.gateway.settings import GatewaySettings
from modelrepo_runtime.gateway.signing import UrlSigner
from modelrepo_runtime.gateway.worker_api.routes import router
from modelrepo_runtime.jobstore import JobStore
from modelrepo_runtime.queue.port import JobQueue
from modelrepo_runtime.queue.tokens import MemoryTokens, TokenStore
from modelrepo_runtime.timing import Timing

START_S = 30.0


def worker_app(
    queue: JobQueue, repository: Repository, files: JobStore, timing: Timing, tokens: TokenStore | None = None
) -> FastAPI:
    """Return an application that has the routes for boxes and operators alone. Without tokens everybody may ask."""
    metrics, settings = Metrics(), GatewaySettings(open_to_all=tokens is None)
    queue_calls = Calls("queue", settings.queue_threads, settings.most_calls_waiting, metrics)
    book = TokenBook(tokens or MemoryTokens(), queue_calls, life_s=0.0, open_to_all=settings.open_to_all)
    parts = Parts(
        settings=settings,
        queue=queue,
        files=files,
        client=Client(repository, queue, files),
        rules=AddressRules(),
        signer=UrlSigner(b"for tests only"),
        queue_calls=queue_calls,
        store_calls=Calls("store", settings.store_threads, settings.most_calls_waiting, metrics),
        tokens=book,
        news=News(queue),
        metrics=metrics,
    )
    app = FastAPI()
    app.state.parts = parts
    app.add_exception_handler(ModelRepoError, on_error)
    app.include_router(router(parts, repository, timing))
    return app


class Serving:
    """Serves an application from a thread while the context lasts; `url` is where."""

    def __init__(self, app: FastAPI, *, port: int = 0) -> None:
        self._socket = socket.create_server(("127.0.0.1", port), backlog=2048)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        config = uvicorn.Config(
            app, log_level="warning", lifespan="on", timeout_graceful_shutdown=5, timeout_keep_alive=75
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), name="gateway", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        until = time.monotonic() + START_S
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > until:
                raise TimeoutError("the gateway did not start; see its log above")
            self._thread.join(0.005)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        self._thread.join(START_S)
        self._socket.close()
