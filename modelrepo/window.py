"""Calls in threads, with a bound on how many bytes they hold at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

from modelrepo.errors import Stopped

IN_FLIGHT_BYTES = 128 << 20
SMALLEST_BYTES = 64 << 10  # what a queued call counts at least, so that no more than a few thousand wait
THREADS = 8  # enough to hide a store's latency; more only adds switches on small boxes


class Window:
    """Run calls in a few threads while at most `in_flight_bytes` are held by them.

    The first error ends everything: later calls are dropped, and leaving the `with` block raises it. `on_failure` is
    called once it is known, for calls that wait for something else. Only after a KeyboardInterrupt are calls that are
    under way not waited for.
    """

    def __init__(
        self,
        *,
        threads: int = THREADS,
        in_flight_bytes: int = IN_FLIGHT_BYTES,
        stop: Callable[[], bool] | None = None,
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        self._limit = in_flight_bytes
        self._held = 0
        self._stop, self._on_failure = stop, on_failure
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="modelrepo-transfer")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._fail(error)
        try:
            # Whoever presses Ctrl-C does not want to wait for a server that is silent.
            self._pool.shutdown(wait=not isinstance(error, KeyboardInterrupt))
        except BaseException as interrupt:
            self._fail(interrupt)
            raise
        if error is None and self._error is not None:
            raise self._error

    def submit(self, size_bytes: int, call: Callable[..., object], *args: Any) -> None:
        """Queue `call`, which will hold `size_bytes`; blocks until they fit. One call may be larger than the limit.

        Raises:
            Stopped: `stop()` said so. Any error of an earlier call is raised too.
        """
        size_bytes = max(size_bytes, SMALLEST_BYTES)
        with self._changed:
            while self._error is None and self._held and self._held + size_bytes > self._limit:
                self._check_stop()
                self._changed.wait(0.2)
            self._check_stop()
            if self._error is not None:
                raise self._error
            self._held += size_bytes
        future = self._pool.submit(self._run, call, args)
        future.add_done_callback(lambda done: self._done(size_bytes, done))

    def check(self) -> None:
        """Raise the first error of a call, or Stopped."""
        self._check_stop()
        if self._error is not None:
            raise self._error

    def _run(self, call: Callable[..., object], args: tuple[Any, ...]) -> None:
        if self._error is None:
            self._check_stop()
            call(*args)

    def _done(self, size_bytes: int, future: Future[None]) -> None:
        error = future.exception()
        if error is not None:
            self._fail(error)
        with self._changed:
            self._held -= size_bytes
            self._changed.notify_all()

    def _fail(self, error: BaseException) -> None:
        with self._changed:
            if self._error is None:
                self._error = error
            self._changed.notify_all()
        self._on_failure()

    def _check_stop(self) -> None:
        if self._stop is not None and self._stop():
            raise Stopped("stopped on request before it was done; run it again and it goes on from what is there")
