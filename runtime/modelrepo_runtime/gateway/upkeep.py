"""What every gateway does now and then for all: lost jobs are taken back, old ones and their files let go."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from modelrepo.errors import Unreachable
from modelrepo_runtime.jobstore import JobStore
from modelrepo_runtime.queue.port import JobQueue
from modelrepo_runtime.queue.reaper import Reaper
from modelrepo_runtime.retention import Retention, delete_dropped, sweep
from modelrepo_runtime.timing import Timing

log = logging.getLogger(__name__)

SWEEP_EVERY_S = 3600.0
STOP_S = 2.0


class Upkeep:
    """Three threads. Other gateways do the same: what one leaves undone, the next one does."""

    def __init__(self, queue: JobQueue, files: JobStore, timing: Timing) -> None:
        self._queue, self._files = queue, files
        self._reaper = Reaper(queue, timing)
        self._stopped = threading.Event()
        self._threads = [
            threading.Thread(target=self._repeat, args=(act, every_s), name=f"gateway-{name}", daemon=True)
            for name, act, every_s in (
                ("reaper", self._reap, timing.beat_s),
                ("sweep", self._sweep, SWEEP_EVERY_S),
                ("states", self._drop_states, timing.lease_s),
            )
        ]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End; what is under way is not waited for long."""
        self._stopped.set()
        for thread in self._threads:
            thread.join(STOP_S)

    def _reap(self) -> None:
        for reaped in self._reaper.look():
            facts = {"job": reaped.job_id, "session": reaped.session, "status": reaped.status.value}
            log.info("taken back from a lost worker", extra={"facts": facts})

    def _sweep(self) -> None:
        swept = sweep(self._queue, self._files, Retention())
        if swept.jobs or swept.files:
            log.info("let go by age", extra={"facts": {"jobs": swept.jobs, "files": swept.files}})

    def _drop_states(self) -> None:
        delete_dropped(self._queue, self._files)

    def _repeat(self, act: Callable[[], None], every_s: float) -> None:
        while not self._stopped.wait(every_s):
            try:
                act()
            except Unreachable as error:
                log.warning("upkeep waits: %s", error)
            except Exception:
                log.exception("upkeep failed; it is tried again")
