"""Who waits for what in this process."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence


class News:
    """Tells waiters of ready models and changed jobs; what nobody waits for leaves no trace."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._waiters: dict[tuple[str, str], list[NewsWaiter]] = {}

    def waiter(self, models: Sequence[str], jobs: Sequence[str], poll_s: float) -> NewsWaiter:
        """Return a waiter for these; close it, or it is told for ever."""
        names = {("model", name) for name in models} | {("job", name) for name in jobs}
        waiter = NewsWaiter(self, names, poll_s)
        with self._guard:
            for name in names:
                self._waiters.setdefault(name, []).append(waiter)
        return waiter

    def tell(self, models: Iterable[str], jobs: Iterable[str]) -> None:
        """Wake whoever waits for these."""
        with self._guard:
            if not self._waiters:
                return
            names = [*(("model", name) for name in models), *(("job", name) for name in jobs)]
            woken = {waiter for name in names for waiter in self._waiters.get(name, ())}
        for waiter in woken:
            waiter.wake()

    def tell_all(self) -> None:
        """Wake everybody: something may have been missed."""
        with self._guard:
            woken = {waiter for waiters in self._waiters.values() for waiter in waiters}
        for waiter in woken:
            waiter.wake()

    def leave(self, waiter: NewsWaiter) -> None:
        """Tell a waiter nothing any more."""
        with self._guard:
            for name in waiter.names:
                others = [other for other in self._waiters.get(name, ()) if other is not waiter]
                if others:
                    self._waiters[name] = others
                else:
                    self._waiters.pop(name, None)


class NewsWaiter:
    """See Waiter."""

    def __init__(self, news: News, names: set[tuple[str, str]], poll_s: float) -> None:
        self.names = names
        self._news, self._poll_s = news, poll_s
        self._told = threading.Event()

    def wait(self, timeout_s: float) -> bool:
        """See Waiter."""
        told = self._told.wait(min(timeout_s, self._poll_s))
        self._told.clear()
        return told

    def wake(self) -> None:
        """See Waiter."""
        self._told.set()

    def close(self) -> None:
        """See Waiter."""
        self._news.leave(self)
