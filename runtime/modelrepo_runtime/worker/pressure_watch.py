"""Watches memory for a worker: says when it is tight and when it is over, and gives back what the pool can spare."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from modelrepo_runtime.pool.checkpoints import CheckpointPool
from modelrepo_runtime.worker.journal import Journal
from modelrepo_runtime.worker.memory_pressure import Pressure, Reading, judge
from modelrepo_runtime.worker.pressure_reading import read_pressure

LOOK_S = 1.0
"""Others take memory by the second; the kernel's averages are of ten."""


class PressureWatch:
    """Remembers whether memory is tight. For any thread; `look` and `relieve` are each called by one.

    `changed` hears when it becomes tight, and when that is over.
    """

    def __init__(
        self,
        pool: CheckpointPool,
        journal: Journal,
        changed: Callable[[], None],
        *,
        read: Callable[[], Reading] = read_pressure,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pool, self._journal, self._changed = pool, journal, changed
        self._read, self._clock = read, clock
        self._lock = threading.Lock()
        self._pressure, self._reading = Pressure(), Reading()
        self._since = 0.0
        self._dropped_bytes = 0

    def look(self) -> None:
        """Look once, and tell what has changed."""
        reading = self._read()
        for path in reading.missing:
            self._journal.say_once(f"memory {path}", "memory-not-watched", missing=path, next="the rest is relied on")
        with self._lock:
            before, now = self._pressure, judge(reading, self._pressure)
            self._pressure, self._reading = now, reading
            began, dropped = self._since, self._dropped_bytes
            if now.tight and not before.tight:
                self._since, self._dropped_bytes = self._clock(), 0
        if now.tight and not before.tight:
            self._journal.say("memory-tight", reason=now.reason)
            self._changed()
        elif before.tight and not now.tight:
            self._journal.say("memory-easy", after_s=self._clock() - began, dropped_from_pool_bytes=dropped)
            self._changed()

    def tight(self) -> str | None:
        """Say, with figures, why nothing should be brought into memory now; None where it may. As of the last look."""
        with self._lock:
            return f"memory is tight: {self._pressure.reason}" if self._pressure.tight else None

    def relieve(self) -> None:
        """Give back what the pool's margin lacks and, while memory is tight, the oldest of what nobody uses."""
        self._pool.relieve()
        with self._lock:
            wanted = max(1, self._reading.lacking_bytes) if self._pressure.tight else 0
        if wanted:
            dropped = self._pool.shrink(wanted)
            with self._lock:
                self._dropped_bytes += dropped
