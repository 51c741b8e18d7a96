"""The thread that lets jobs and files go when their retention is over."""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path

from modelrepo.errors import ModelRepoError
from modelrepo_runtime.jobstore import JobStore
from modelrepo_runtime.queue.port import JobQueue
from modelrepo_runtime.retention import Retention, sweep
from modelrepo_runtime.worker.journal import Journal

EVERY_S = 3600.0


class Sweeping:
    """Sweeps about once an hour. Every worker does; a second one finds nothing left."""

    def __init__(self, queue: JobQueue, files: JobStore, journal: Journal, every_s: float = EVERY_S) -> None:
        self._queue, self._files, self._journal, self._every_s = queue, files, journal, every_s
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="retention", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Sweep no more; a sweep under way need not be waited for, the next one goes on where it stops."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(1.0)

    def _run(self) -> None:
        while not self._stopped.wait(self._every_s):
            try:
                swept = sweep(self._queue, self._files, Retention())
            except (ModelRepoError, OSError) as error:
                self._journal.say("sweep-failed", error=error)
                continue
            if swept.jobs or swept.files:
                self._journal.say("swept", jobs=swept.jobs, files=swept.files)


def forget_old(folder: Path, kept_s: float) -> None:
    """Remove what lies in a folder for longer than that; other workers may do so at the same time."""
    for entry in folder.glob("*"):
        try:
            old = time.time() - entry.stat().st_mtime > kept_s
        except FileNotFoundError:
            continue
        if old:
            shutil.rmtree(entry, ignore_errors=True)
