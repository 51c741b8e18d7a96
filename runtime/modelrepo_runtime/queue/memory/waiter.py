"""Waiting for news of the queue in memory."""

from __future__ import annotations

from collections.abc import Sequence

from modelrepo_runtime.queue.memory.state import State


class MemoryWaiter:
    """See Waiter."""

    def __init__(self, state: State, names: Sequence[str]) -> None:
        self._state, self._names = state, names
        self._woken = False
        with state.news:
            self._seen = self._count()

    def _count(self) -> int:
        return sum(self._state.told.get(name, 0) for name in self._names)

    def wait(self, timeout_s: float) -> bool:
        """See Waiter."""
        news = self._state.news
        with news:
            limit_s = min(timeout_s, self._state.timing.queue_poll_s)
            told = news.wait_for(lambda: self._woken or self._count() != self._seen, limit_s)
            self._woken, self._seen = False, self._count()
            return told

    def wake(self) -> None:
        """See Waiter."""
        with self._state.news:
            self._woken = True
            self._state.news.notify_all()

    def close(self) -> None:
        """See Waiter."""
