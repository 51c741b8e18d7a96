"""Synchronous calls from the event loop, in a bounded number of threads: what bounds threads bounds connections."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, ParamSpec, TypeVar

from modelrepo_runtime.gateway.metrics import Metrics
from modelrepo_runtime.gateway.refusals import Overloaded

P = ParamSpec("P")
T = TypeVar("T")


class Calls:
    """Runs calls in threads of its own; whoever awaits one holds none meanwhile."""

    def __init__(self, name: str, threads: int, most_waiting: int, metrics: Metrics) -> None:
        self._name, self._most = name, threads + most_waiting
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=f"gateway-{name}")
        self._seconds = metrics.call_seconds.labels(name)
        self._under_way = 0
        metrics.calls_under_way.labels(name).set_function(lambda: self._under_way)

    async def run(self, call: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
        """Return what the call returns. Raises: Overloaded, and whatever the call raises.

        Where its caller gives up, the call itself still runs to its end.
        """
        if self._under_way >= self._most:
            raise Overloaded(f"{self._under_way} calls wait for the {self._name} already; ask again", retry_after_s=1.0)
        self._under_way += 1
        begun = time.perf_counter()
        context = contextvars.copy_context()
        future = asyncio.get_running_loop().run_in_executor(self._pool, partial(context.run, call, *args, **named))
        future.add_done_callback(partial(self._ended, begun))
        return await asyncio.shield(future)

    def _ended(self, begun: float, future: asyncio.Future[Any]) -> None:
        if not future.cancelled():
            future.exception()  # looked at, also where its caller is gone
        self._under_way -= 1
        self._seconds.observe(time.perf_counter() - begun)

    def close(self) -> None:
        """Take no more calls; those that wait are dropped, those that run end by themselves."""
        self._pool.shutdown(wait=False, cancel_futures=True)
