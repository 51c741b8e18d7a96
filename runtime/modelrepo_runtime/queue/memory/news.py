"""Waiting for news of a queue in memory."""

from __future__ import annotations

import threading
from collections.abc import Sequence


class News:
    """How often there was news of each model and job."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self._told: dict[str, int] = {}

    def tell(self, *names: str) -> None:
        """Wake whoever waits for news of these models and jobs."""
        if not names:
            return
        with self.changed:
            for name in names:
                self._told[name] = self._told.get(name, 0) + 1
            self.changed.notify_all()

    def count(self, names: Sequence[str]) -> int:
        """Return how often there was news of any of these; the caller holds `changed`."""
        return sum(self._told.get(name, 0) for name in names)


class MemoryWaiter:
    """See Waiter."""

    def __init__(self, news: News, names: Sequence[str], poll_s: float) -> None:
        self._news, self._names, self._poll_s = news, names, poll_s
        self._woken = False
        with news.changed:
            self._seen = news.count(names)

    def wait(self, timeout_s: float) -> bool:
        """See Waiter."""
        news = self._news
        with news.changed:
            limit_s = min(timeout_s, self._poll_s)
            told = news.changed.wait_for(lambda: self._woken or news.count(self._names) != self._seen, limit_s)
            self._woken, self._seen = False, news.count(self._names)
            return told

    def wake(self) -> None:
        """See Waiter."""
        with self._news.changed:
            self._woken = True
            self._news.changed.notify_all()

    def close(self) -> None:
        """See Waiter."""
