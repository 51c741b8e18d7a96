"""Which ready job is next: policy `slo-share`.

Kleinrock's time-dependent priority (largest weighted delay): the job that has used the largest share of its tier's SLO.
All jobs of a lane have one slope, so comparing the lanes' heads is exact: O(lanes x log n) for a claim.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar


class Waiting(Protocol):
    """A ready job, as far as rank is concerned."""

    @property
    def enqueued(self) -> float: ...

    @property
    def job(self) -> int: ...


Row = TypeVar("Row", bound=Waiting)


@dataclass(frozen=True, slots=True)
class Head:
    """A lane that is not empty, its oldest job, and the SLO of its tier."""

    lane: int
    enqueued: float
    slo_s: float


def slo_share(enqueued: float, now: float, slo_s: float) -> float:
    """Return the part of the SLO that has been waited; 1 is exactly on time."""
    return (now - enqueued) / slo_s


@dataclass(slots=True)
class _Reading(Generic[Row]):
    """How far into a lane a choice has read."""

    head: Head
    rows: Sequence[Row]
    next: int = 0


def choose(
    heads: Sequence[Head], now: float, limit: int, read: Callable[[int, int], Sequence[Row]]
) -> list[tuple[int, Row]]:
    """Return up to `limit` (lane, row) pairs, the greatest share first.

    `read(lane, count)` returns the first `count` rows of a lane, oldest first. It is called only for lanes that win,
    and deeper, by doubling, only while they go on winning.
    """
    heap = [(-slo_share(head.enqueued, now, head.slo_s), head.enqueued, head.lane, head) for head in heads]
    heapq.heapify(heap)
    readings: dict[int, _Reading[Row]] = {}
    chosen: list[tuple[int, Row]] = []
    while heap and len(chosen) < limit:
        _, _, lane, head = heapq.heappop(heap)
        reading = readings.get(lane)
        if reading is None:
            reading = readings[lane] = _Reading(head, read(lane, min(2, limit)))
        if reading.next < len(reading.rows):
            chosen.append((lane, reading.rows[reading.next]))
            reading.next += 1
        if reading.next == len(reading.rows) and len(chosen) < limit:
            deeper = read(lane, min(2 * reading.next, reading.next + limit - len(chosen)))
            reading.rows = deeper if len(deeper) > reading.next else reading.rows
        if reading.next < len(reading.rows):
            follower = reading.rows[reading.next]
            share = slo_share(follower.enqueued, now, head.slo_s)
            heapq.heappush(heap, (-share, follower.enqueued, lane, head))
    return chosen
