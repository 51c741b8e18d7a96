"""A gateway in this process, on a free port of 127.0.0.1: what tests and benchmarks of its clients stand before."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self

from modelrepo.repository import Repository
from modelrepo_runtime.gateway.app import assemble, create_app
from modelrepo_runtime.gateway.serving import GatewayServer, Place
from modelrepo_runtime.gateway.settings import GatewaySettings
from modelrepo_runtime.jobstore import JobStore
from modelrepo_runtime.queue.port import JobQueue
from modelrepo_runtime.queue.tokens import MemoryTokens, TokenStore
from modelrepo_runtime.timing import Timing

START_S = 30.0


class Serving:
    """Serves a queue from a thread while the context lasts; `url` is where. Without tokens everybody may ask."""

    def __init__(
        self,
        queue: JobQueue,
        repository: Repository,
        files: JobStore,
        timing: Timing,
        tokens: TokenStore | None = None,
        *,
        port: int = 0,
    ) -> None:
        settings = GatewaySettings(open_to_all=tokens is None, token_cache_s=0.0, stop_grace_s=5.0)
        self.parts = assemble(settings, queue, repository, files, tokens=tokens or MemoryTokens(), timing=timing)
        self._server = GatewayServer(create_app(self.parts), Place(port=port))
        self.url = self._server.url
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._server.run, args=(self._started.set,), name="gateway", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._started.wait(START_S):
            raise TimeoutError("the gateway did not start; see its log above")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.stop()
        self._thread.join(START_S)
