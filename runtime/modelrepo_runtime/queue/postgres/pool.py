"""A few connections that many threads share."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from modelrepo.errors import Unreachable
from modelrepo_runtime.queue.postgres.runner import Runner
from modelrepo_runtime.queue.postgres.translating import translated

WAIT_S = 30.0


class Pool:
    """At most `size` connections, opened when they are needed; the one used last is used next.

    A connection that failed is closed, and with it all that were idle: after a restart of the server none lives.
    """

    def __init__(self, shown_url: str, open_one: Callable[[], Runner], size: int) -> None:
        self._shown, self._open = shown_url, open_one
        self._idle: list[Runner] = []
        self._room = threading.BoundedSemaphore(size)
        self._guard = threading.Lock()
        self._closed = False

    @contextmanager
    def taken(self) -> Iterator[Runner]:
        """Lend a connection. Raises: Unreachable, and what `translated` makes of the driver's errors."""
        if not self._room.acquire(timeout=WAIT_S):
            raise Unreachable(f"queue {self._shown} did not answer: all connections were busy for {WAIT_S:g} s")
        try:
            with translated(self._shown):
                runner = self._take()
                try:
                    yield runner
                finally:
                    self._give_back(runner)
        finally:
            self._room.release()

    def _take(self) -> Runner:
        with self._guard:
            if self._closed:
                raise Unreachable(f"queue {self._shown} is closed")
            if self._idle:
                return self._idle.pop()
        return self._open()

    def _give_back(self, runner: Runner) -> None:
        alive = runner.leave()
        with self._guard:
            if alive and not self._closed:
                self._idle.append(runner)
                return
            leaving, self._idle = self._idle, []
        for one in (runner, *leaving):
            one.close()

    def close(self) -> None:
        """Close what is idle now and the rest when it is given back; closing twice is legal."""
        with self._guard:
            self._closed = True
            leaving, self._idle = self._idle, []
        for runner in leaving:
            runner.close()
