"""How many bytes one piece of work may hold in memory, whoever of its threads holds them."""

from __future__ import annotations

import threading
from collections.abc import Callable

LOOK_AGAIN_S = 0.2  # how often a taker that waits asks whether it still should


class Allowance:
    """Bytes that may be held at once. One taker may take more than there is, if nobody holds any."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._held = 0
        self._changed = threading.Condition()

    def take(self, size_bytes: int, check: Callable[[], None]) -> None:
        """Wait until `size_bytes` may be held; `check` raises where that is no longer wanted."""
        with self._changed:
            while self._held and self._held + size_bytes > self._limit:
                check()
                self._changed.wait(LOOK_AGAIN_S)
            check()
            self._held += size_bytes

    def give_back(self, size_bytes: int) -> None:
        """Hold so many bytes less."""
        with self._changed:
            self._held -= size_bytes
            self._changed.notify_all()
