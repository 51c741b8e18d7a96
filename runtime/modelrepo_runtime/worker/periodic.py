"""A thread that does one thing again and again."""

from __future__ import annotations

import threading
from collections.abc import Callable

from modelrepo.errors import Unreachable
from modelrepo_runtime.worker.journal import Journal

STOP_S = 1.0


class Periodic:
    """Calls `act` every so often. Other workers do the same: what one of them leaves undone, the next one does."""

    def __init__(self, name: str, act: Callable[[], None], every_s: float, journal: Journal) -> None:
        self._name, self._act, self._every_s, self._journal = name, act, every_s, journal
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Call no more; a call under way is not waited for long. Twice is legal."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(STOP_S)

    def _run(self) -> None:
        while not self._stopped.wait(self._every_s):
            try:
                self._act()
            except Unreachable as error:
                self._journal.say_once("queue", "queue-unreachable", error=error)
            except Exception as error:  # noqa: BLE001 - the next call may succeed, and nobody else makes it here
                self._journal.confess(self._name, error)
