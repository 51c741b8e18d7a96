"""The worker's end of the process that keeps saved states beyond the box; it is started with the first state."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Sequence

from modelrepo_runtime.worker.flush_messages import (
    Address,
    Became,
    FlushOrder,
    FlushReport,
    read_report,
    write_address,
    write_order,
)
from modelrepo_runtime.worker.journal import Journal

COMMAND = (sys.executable, "-m", "modelrepo_runtime.worker.flushing")
MOST_STARTS = 3
"""How often in a row the process is started that ends before it has flushed anything."""


class Flusher:
    """May be shared by threads."""

    def __init__(self, address: Address, journal: Journal, command: Sequence[str] = COMMAND) -> None:
        self._address, self._journal, self._command = address, journal, command
        self._changed = threading.Condition()
        self._process: subprocess.Popen[bytes] | None = None
        self._starts = 0
        self._stopped = False
        self._waiting: dict[tuple[str, int], FlushOrder] = {}
        """The newest state of each attempt that is not settled yet."""
        self._flushed: dict[tuple[str, int], int] = {}
        self._troubled: set[tuple[str, int]] = set()
        """Attempts of which a flush waits for a store or queue that does not answer; the reader's alone."""

    @property
    def pid(self) -> int | None:
        """The process, while there is one."""
        with self._changed:
            return self._process.pid if self._process is not None else None

    def flush(self, order: FlushOrder) -> None:
        """Have a state kept beyond the box; returns at once."""
        with self._changed:
            self._waiting[order.attempt] = order
            self._tell(order)

    def flushed(self, attempt: tuple[str, int]) -> int | None:
        """Return the number of an attempt's newest state that is kept; None where none is."""
        with self._changed:
            return self._flushed.get(attempt)

    @property
    def waiting(self) -> int:
        """How many attempts have a state that is not kept beyond the box yet."""
        with self._changed:
            return len(self._waiting)

    def wait(self, attempt: tuple[str, int], until: float) -> bool:
        """Wait until the newest state of an attempt is kept; False where it is not by then, or cannot be."""
        with self._changed:
            order = self._waiting.get(attempt)
            settled = self._changed.wait_for(lambda: attempt not in self._waiting, max(0.0, until - time.monotonic()))
            return settled and (order is None or self._flushed.get(attempt, 0) >= order.number)

    def forget(self, attempt: tuple[str, int]) -> None:
        """The attempt is over."""
        with self._changed:
            self._waiting.pop(attempt, None)
            self._flushed.pop(attempt, None)
            self._changed.notify_all()

    def stop(self) -> None:
        """Take no more. The process finishes what it has, and ends by itself."""
        with self._changed:
            self._stopped = True
            process, self._process = self._process, None
            self._waiting.clear()
            self._changed.notify_all()
        if process is not None and process.stdin is not None:
            process.stdin.close()

    def _tell(self, order: FlushOrder) -> None:
        """`_changed` is held."""
        if self._stopped:
            return
        try:
            if self._process is None:
                self._start()
            assert self._process is not None and self._process.stdin is not None
            self._process.stdin.write(write_order(order))
            self._process.stdin.flush()
        except OSError as error:
            self._journal.say_once("flusher", "state-not-flushed", job=order.job_id, error=error)

    def _start(self) -> None:
        self._starts += 1
        process = subprocess.Popen(
            list(self._command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        assert process.stdin is not None
        self._process = process
        threading.Thread(target=self._read, args=(process,), name="flushed", daemon=True).start()
        process.stdin.write(write_address(self._address))

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        for line in iter(process.stdout.readline, b""):
            try:
                self._hear(read_report(line))
            except (KeyError, TypeError, ValueError) as error:
                self._journal.confess("flusher", error)
        process.stdout.close()
        code = process.wait()
        with self._changed:
            if self._stopped or self._process is not process:
                return
            self._process = None
            self._journal.say("flusher-ended", code=code)
            if self._starts >= MOST_STARTS:
                self._waiting.clear()
                self._changed.notify_all()
            for order in list(self._waiting.values()):
                self._tell(order)

    def _hear(self, report: FlushReport) -> None:
        told = {"job": report.job_id, "fence": report.fence, "number": report.number, "reason": report.why or None}
        with self._changed:
            order = self._waiting.get(report.attempt)
            if report.became is Became.FLUSHED:
                self._starts = 0
                self._flushed[report.attempt] = max(report.number, self._flushed.get(report.attempt, 0))
            settles = report.became not in (Became.TROUBLE, Became.SUPERSEDED)
            if settles and order is not None and order.number <= report.number:
                del self._waiting[report.attempt]
            self._changed.notify_all()
        match report.became:
            case Became.TROUBLE:
                if report.attempt not in self._troubled:
                    self._journal.say("state-flush-waits", **told)
                    self._troubled.add(report.attempt)
            case Became.FAILED | Became.STALE:
                self._journal.say("state-not-flushed", **told, cause=report.became.value)
            case Became.FLUSHED:
                if report.attempt in self._troubled:
                    self._journal.say("state-flushed", **told, took_s=report.took_s)
                    self._troubled.discard(report.attempt)
            case Became.SUPERSEDED:
                pass
