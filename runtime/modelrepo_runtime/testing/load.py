"""Jobs that are always queued while something is measured, and what the children of a worker hold meanwhile."""

from __future__ import annotations

import threading
from contextlib import suppress

import psutil

from modelrepo_runtime.jobs import Status
from modelrepo_runtime.queue.port import JobFilter
from modelrepo_runtime.testing.live import LiveBox

EVERYTHING = 10**9


class Load:
    """Keeps a few jobs queued, from a thread of its own."""

    def __init__(self, box: LiveBox, queued: int = 4) -> None:
        self.submitted = 0
        self._box, self._queued, self._stopped = box, queued, threading.Event()
        self._thread = threading.Thread(target=self._feed)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def ends(self) -> tuple[int, int]:
        """Wait until all jobs have ended; return how many failed and how many were lost."""
        box = self._box
        box.until(lambda: not (counted(box, Status.QUEUED) or counted(box, Status.RUNNING)), "all jobs have ended")
        succeeded = counted(box, Status.SUCCEEDED)
        ended = sum(counted(box, status) for status in Status if status.ended)
        return ended - succeeded, self.submitted - ended

    def _feed(self) -> None:
        waiting = JobFilter(status=Status.QUEUED, limit=self._queued)
        while not self._stopped.wait(0.02):
            for _ in range(self._queued - len(self._box.queue.list(waiting))):
                self._box.client.submit(self._box.model)
                self.submitted += 1


def counted(box: LiveBox, status: Status) -> int:
    """Count the jobs of a status."""
    return len(box.queue.list(JobFilter(status=status, limit=EVERYTHING)))


class Peak:
    """Looks all the time at the memory that a worker's children have for themselves, from a thread of its own."""

    def __init__(self, pid: int, every_s: float = 0.02) -> None:
        self._pid, self._every_s = pid, every_s
        self._bytes = 0
        self._lock, self._stopped = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def take(self) -> int:
        """Return the most bytes since the last call."""
        with self._lock:
            most, self._bytes = self._bytes, 0
            return most

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stopped.wait(self._every_s):
            held = own_bytes(self._pid)
            with self._lock:
                self._bytes = max(self._bytes, held)


def own_bytes(pid: int) -> int:
    """Return what the children of a process hold in memory, pages of files aside."""
    held = 0
    with suppress(psutil.Error):
        for child in psutil.Process(pid).children(recursive=True):
            with suppress(psutil.Error):
                memory = child.memory_info()
                held += memory.rss - memory.shared
    return held
