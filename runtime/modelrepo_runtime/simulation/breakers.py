"""The breakers of a simulated day's versions, and whom their failures were counted against."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from enum import Enum, auto

from modelrepo_runtime.jobs import Cause
from modelrepo_runtime.queue.version_breaker import WINDOW_S, VersionRecord
from modelrepo_runtime.simulation.fleet import Slot


class Turn(Enum):
    """What an attempt's end did to its version's breaker."""

    NONE = auto()
    OPENED = auto()
    CLOSED = auto()
    PROBED = auto()
    """It was open, and is."""


class Breakers:
    """Judges versions by the attempts at their accelerator stage."""

    def __init__(self) -> None:
        self._records: dict[str, VersionRecord] = {}
        self._recent: deque[tuple[float, int, str]] = deque()
        """(moment, job, version) of attempts that ended badly, within the breaker's window."""

    def record(self, version: str) -> VersionRecord | None:
        """Return what is known of a version; None while no attempt at it has ended."""
        return self._records.get(version)

    def failing(self, version: str) -> bool:
        """True while a version's breaker is open; slots that have not swapped to it do not."""
        record = self._records.get(version)
        return record is not None and record.since is not None

    def ended(self, slot: Slot, cluster: str, job: int, cause: Cause, span: tuple[float, float]) -> tuple[bool, Turn]:
        """Take in an attempt's end; return whether it counts, and what it did. `span`: claimed at, ended at."""
        version, (claimed_at, now) = slot.version, span
        record = self._records.setdefault(version, VersionRecord())
        since = record.since
        counted = record.ended(slot.key, cluster, cause, claimed_at=claimed_at, now=now)
        if cause is not Cause.SUCCEEDED and record.since is None:
            self._recent.append((now, job, version))
        while self._recent and self._recent[0][0] < now - WINDOW_S:
            self._recent.popleft()
        if since is None:
            return counted, Turn.NONE if record.since is None else Turn.OPENED
        return counted, Turn.CLOSED if record.since is None else Turn.PROBED

    def failed_by(self, version: str) -> Iterator[int]:
        """Yield the jobs that lately failed by a version, once for each attempt."""
        return (job for _, job, failed in self._recent if failed == version)
