"""How many slots a cluster's CPU workers prepare for: counted over the whole fleet, so not anew for every claim."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

KEPT_S = 1.0
"""Slots live for as long as a lease after their last beat: a second more changes little, and limits are for grants."""
MOST_KEPT = 1000

Key = tuple[object, ...]
Rows = Sequence[Any]


class Feeding:
    """For one process; claims of several shards may use it at once. A count of none is not kept."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, kept_s: float = KEPT_S) -> None:
        self._clock, self._kept_s = clock, kept_s
        self._guard = threading.Lock()
        self._known: dict[Key, tuple[Rows, float]] = {}

    def rows(self, key: Key, count: Callable[[], Rows]) -> Rows:
        """Return what `count` finds for (cluster, model, version), or found within the last second."""
        with self._guard:
            found, until = self._known.get(key, ((), float("-inf")))
        if self._clock() < until:
            return found
        found = count()
        with self._guard:
            if len(self._known) >= MOST_KEPT:
                self._known.clear()
            self._known.pop(key, None)
            if found[0][0]:
                self._known[key] = (found, self._clock() + self._kept_s)
        return found
