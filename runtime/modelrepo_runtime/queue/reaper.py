"""Take jobs back from workers that are gone, trusting only what was seen.

A session is dead when its beat has not moved for one lease on the reaper's own monotonic clock, while it looked without
a failed call and without a gap in its own loop. Whatever disturbs the watching (a start, an outage, a suspend) begins
it anew, so nobody is expired for one full lease after it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from modelrepo_runtime.queue.port import JobQueue, Reaped
from modelrepo_runtime.timing import Timing


@dataclass(slots=True)
class Reaper:
    """Watches one queue. Any number may watch the same; call `look` about once a beat, from one thread."""

    queue: JobQueue
    timing: Timing
    clock: Callable[[], float] = time.monotonic
    _seen: dict[str, tuple[int, float]] = field(default_factory=dict)
    """Session -> its newest beat, and since when that has been the newest."""
    _unserved: dict[tuple[str, str], float] = field(default_factory=dict)
    """(model, version) that jobs wait for and no live session serves -> since when."""
    _read: float | None = None
    """When it last began to read the beats."""

    def look(self) -> tuple[Reaped, ...]:
        """Look once: move what time alone moves, take back what dead sessions hold, restart what waits for no one.

        Raises: what the queue raises, after which the watching begins anew.
        """
        try:
            self.queue.tend()
            reaped = self._expire()
            self._restart(self.queue.pinned_waiting())
        except BaseException:
            self._begin_anew()
            raise
        return reaped

    def _begin_anew(self) -> None:
        self._seen.clear()
        self._unserved.clear()
        self._read = None

    def _expire(self) -> tuple[Reaped, ...]:
        now = self.clock()  # before the reading: a pause within it shows as a gap at the next one
        if self._read is not None and now - self._read > self.timing.reaper_gap_s + self.timing.beat_s:
            self._begin_anew()
        self._read = now
        self._seen = {
            session: self._seen[session] if self._seen.get(session, (None, 0.0))[0] == beat else (beat, now)
            for session, beat in self.queue.beats().items()
        }
        reaped: list[Reaped] = []
        for session, (beat, since) in self._seen.items():
            if now - since >= self.timing.lease_s:
                reaped.extend(self.queue.expire_session(session, beat))
        return tuple(reaped)

    def _restart(self, waiting: tuple[tuple[str, str], ...]) -> None:
        now = self.clock()
        self._unserved = {pair: self._unserved.get(pair, now) for pair in waiting}
        for (model, version), since in self._unserved.items():
            if now - since >= self.timing.lease_s:
                self.queue.restart_pinned(model, version)
