"""One attempt that this worker holds, and how it may be told to end early."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from enum import StrEnum

from modelrepo_runtime.jobs import Claim


class End(StrEnum):
    """Why a running attempt is ended before its time."""

    CANCELLED = "cancelled"
    """Its user does not want it any more; the queue wants a finish."""
    LOST = "lost"
    """The lease is somebody else's; no finish would be accepted."""
    PREEMPTED = "preempted"
    """The worker must go, or the version was rolled back at once: handed back, uncounted."""


class Held:
    """A claim from its arrival to its finish. Threads: the slot's runs it, the beat thread may end it."""

    def __init__(self, claim: Claim, requested_at: float) -> None:
        self.claim = claim
        self.requested_at = requested_at
        """CLOCK_BOOTTIME at which the claim was sent."""
        self.began_at = time.time()
        """When its work here began, epoch seconds; until then, when it was claimed."""
        self._lock = threading.Lock()
        self._end: End | None = None
        self._stop: Callable[[], None] | None = None
        self._progress: tuple[float | None, str | None] | None = None
        self.fraction: float | None = None
        """How far its model said last that it is."""
        self.state: int | None = None
        """The number of the newest state that this attempt has saved."""

    @property
    def ended(self) -> End | None:
        with self._lock:
            return self._end

    def end(self, why: End) -> None:
        """Ask the attempt to end. Only the first reason acts, but a lost lease stays lost."""
        with self._lock:
            if self._end is End.LOST or (self._end is not None and why is not End.LOST):
                return
            first = self._end is None
            self._end = why
            stop = self._stop if first else None
        if stop is not None:
            stop()

    def run_with(self, stop: Callable[[], None]) -> End | None:
        """Say how the attempt is stopped from now on; returns the reason where it is to end already."""
        with self._lock:
            if self._end is None:
                self._stop = stop
            return self._end

    def finishing(self) -> None:
        """The child is done with it: nothing is left to be stopped."""
        with self._lock:
            self._stop = None

    def progressed(self, fraction: float | None, message: str | None) -> None:
        with self._lock:
            self._progress = (fraction, message)
            self.fraction = fraction

    def saved(self, number: int) -> None:
        """A state was saved: a later attempt can go on from there."""
        self.state = number

    def take_progress(self) -> tuple[float | None, str | None] | None:
        """Return what is new since the last call."""
        with self._lock:
            progress, self._progress = self._progress, None
            return progress
