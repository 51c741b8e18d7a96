"""Which ready job is next: policy `slo-share`.

Kleinrock's time-dependent priority (largest weighted delay): the job that has used the largest share of its tier's SLO.
All jobs of a lane have one slope, so comparing the lanes' heads is exact: O(lanes x log n) for a claim.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from modelrepo_runtime.jobs import StageNeed


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
    return max(0.0, now - enqueued) / slo_s


def wait_ended(stages: Sequence[StageNeed], starts: Iterable[tuple[str, float]]) -> float | None:
    """Return when a job's wait ended: as its accelerator stage was first started, or its first where it has none.

    `starts` are (stage, moment) of its attempts. None: it still waits.
    """
    last = next((stage.name for stage in stages if stage.on == "gpu"), stages[0].name)
    return min((at for stage, at in starts if stage == last), default=None)


def choose(
    heads: Sequence[Head], now: float, limit: int, read: Callable[[int, int, int], Sequence[Row]]
) -> list[tuple[int, Row]]:
    """Return up to `limit` (lane, row) pairs, the greatest share first.

    `read(lane, skip, count)` returns rows of a lane, oldest first. It is called only for lanes that win, and deeper, by
    doubling, only while they go on winning.
    """
    heap = [(-slo_share(head.enqueued, now, head.slo_s), head.enqueued, head.lane, head.slo_s) for head in heads]
    heapq.heapify(heap)
    rows: dict[int, list[Row]] = {}
    used: dict[int, int] = {}
    chosen: list[tuple[int, Row]] = []
    while heap and len(chosen) < limit:
        _, _, lane, slo_s = heap[0]
        if lane not in rows:
            rows[lane], used[lane] = list(read(lane, 0, min(2, limit))), 0
        known, at = rows[lane], used[lane]
        if at < len(known):
            chosen.append((lane, known[at]))
            used[lane] = at = at + 1
        if at == len(known) and len(chosen) < limit:
            known.extend(read(lane, at, min(at, limit - len(chosen))))
        if at == len(known):
            heapq.heappop(heap)
        else:
            after = known[at].enqueued
            heapq.heapreplace(heap, (-slo_share(after, now, slo_s), after, lane, slo_s))
    return chosen
