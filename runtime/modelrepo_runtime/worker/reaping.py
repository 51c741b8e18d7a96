"""The thread that takes jobs back from workers that are gone; embedded, every worker process runs one."""

from __future__ import annotations

import threading

from modelrepo.errors import Unreachable
from modelrepo_runtime.queue.reaper import Reaper
from modelrepo_runtime.worker.journal import Journal


class Reaping:
    """Looks about once a beat."""

    def __init__(self, reaper: Reaper, every_s: float, journal: Journal) -> None:
        self._reaper, self._every_s, self._journal = reaper, every_s, journal
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reaper", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Look no more. A look under way need not be waited for: whatever it does is as well done by others."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(self._every_s)

    def _run(self) -> None:
        while not self._stopped.wait(self._every_s):
            try:
                for reaped in self._reaper.look():
                    self._journal.say("reaped", job=reaped.job_id, session=reaped.session, status=reaped.status.value)
            except Unreachable as error:
                self._journal.say_once("queue", "queue-unreachable", error=error)
            except Exception as error:  # noqa: BLE001 - the next look may succeed, and nobody else looks here
                self._journal.confess("reaper", error)
