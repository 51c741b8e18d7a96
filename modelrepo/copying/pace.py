"""How fast bytes may move: an average over all threads of one copy."""

from __future__ import annotations

import threading
from collections.abc import Callable

from modelrepo.clock import Clock
from modelrepo.errors import Stopped

STOP_POLL_S = 0.5


class Pace:
    """Holds callers back so that no more than `bytes_per_s` move, on average since the first; None holds nobody."""

    def __init__(self, bytes_per_s: float | None, *, clock: Clock | None = None) -> None:
        self._bytes_per_s, self._clock = bytes_per_s, clock or Clock()
        self._guard = threading.Lock()
        self._free_at = self._clock.monotonic()

    def wait_for(self, size_bytes: int, stop: Callable[[], bool]) -> None:
        """Wait until `size_bytes` more may move; callers are served in the order in which they come.

        Raises:
            Stopped: `stop()` said so.
        """
        if self._bytes_per_s is None:
            return
        with self._guard:
            turn = max(self._free_at, self._clock.monotonic())
            self._free_at = turn + size_bytes / self._bytes_per_s
        while (left_s := turn - self._clock.monotonic()) > 0:
            if stop():
                raise Stopped("stopped on request while it waited for its turn; run it again and it goes on")
            self._clock.sleep(min(left_s, STOP_POLL_S))
