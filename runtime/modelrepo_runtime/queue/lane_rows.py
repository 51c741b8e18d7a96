"""The ready rows of one lane in memory, in the orders that rank asks for."""

from __future__ import annotations

import heapq
import math
from typing import Generic, Protocol, TypeVar

from modelrepo_runtime.queue.rank import Head, Policy, Which, on_time_since


class Tagged(Protocol):
    """A ready job that has its place among the tenants of its lane."""

    @property
    def tag(self) -> float: ...

    @property
    def enqueued(self) -> float: ...

    @property
    def job(self) -> int: ...


Row = TypeVar("Row", bound=Tagged)


class LaneRows(Generic[Row]):
    """Adding and taking cost O(log rows). Moments that it is asked for must not go back."""

    def __init__(self, lane: int, slo_s: float, allowed_miss: float = 0.05, *, over: bool = False) -> None:
        self.lane, self.slo_s, self.allowed_miss, self.over = lane, slo_s, allowed_miss, over
        self._rows: dict[int, Row] = {}
        self._by_tag: list[tuple[float, int]] = []
        self._by_age: list[tuple[float, int]] = []
        """Under `lwdf-late` without those that were late when last asked."""
        self._late: list[tuple[float, int]] = []
        self._head: Head | None = None
        self._head_jobs = (-1, -1)
        """The jobs that the head speaks of: the oldest, and the oldest on time."""
        self._head_until = math.inf
        """A row that was enqueued before this makes another head."""

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, row: Row) -> None:
        """Add a row; its job must not be in the lane."""
        self._rows[row.job] = row
        heapq.heappush(self._by_tag, (row.tag, row.job))
        heapq.heappush(self._by_age, (row.enqueued, row.job))
        if row.enqueued < self._head_until:
            self._head = None

    def remove(self, job: int) -> Row | None:
        """Take a job out wherever it stands; None where it is not here."""
        return self._rows.pop(job, None)

    def head(self, now: float, policy: Policy, *, warm: bool = True) -> Head | None:
        """Return what the lane is compared by, or None where it is empty."""
        known, with_on_time = self._head, policy is Policy.LWDF_LATE
        if known is not None and known.warm is warm and self._head_jobs[0] in self._rows:
            if not with_on_time:
                return known
            if known.on_time is None:
                if self._head_until == math.inf:  # all are late, and stay so until another comes
                    return known
            elif self._head_jobs[1] in self._rows and known.on_time >= on_time_since(now, self.slo_s):
                return known
        on_time = self._on_time(now) if with_on_time else None
        oldest = self._oldest()
        if oldest is None:
            self._head = None
            return None
        self._head_jobs = oldest[1], self._by_age[0][1] if on_time is not None else -1
        self._head_until = oldest[0] if not with_on_time else math.inf if on_time is None else on_time
        self._head = Head(self.lane, oldest[0], self.slo_s, self.allowed_miss, self.over, warm, on_time)
        return self._head

    def take(self, which: Which, now: float) -> Row:
        """Take the row that a `Won` names. Raises: LookupError where there is none."""
        first = self._first()
        if first is None:
            raise LookupError(f"lane {self.lane} is empty")
        if which is Which.FIRST:
            return self._rows.pop(first)
        on_time = self._rows[first].enqueued >= on_time_since(now, self.slo_s)
        job: int | None = first
        if which is Which.OLDEST or (which is Which.LATE and on_time):
            oldest = self._oldest()
            job = oldest[1] if oldest is not None else None
        elif which is Which.ON_TIME and not on_time:
            self._on_time(now)
            job = self._by_age[0][1] if self._by_age else None
        if job is None:
            raise LookupError(f"lane {self.lane} has no row that is {which.value}")
        return self._rows.pop(job)

    def _first(self) -> int | None:
        while self._by_tag and self._by_tag[0][1] not in self._rows:
            heapq.heappop(self._by_tag)
        return self._by_tag[0][1] if self._by_tag else None

    def _oldest(self) -> tuple[float, int] | None:
        late, young = self._swept(self._late), self._swept(self._by_age)
        if late and young:
            return min(late[0], young[0])
        return late[0] if late else young[0] if young else None

    def _on_time(self, now: float) -> float | None:
        since = on_time_since(now, self.slo_s)
        while self._swept(self._by_age) and self._by_age[0][0] < since:
            heapq.heappush(self._late, heapq.heappop(self._by_age))
        return self._by_age[0][0] if self._by_age else None

    def _swept(self, heap: list[tuple[float, int]]) -> list[tuple[float, int]]:
        while heap and heap[0][1] not in self._rows:
            heapq.heappop(heap)
        return heap
