"""The order in which jobs must go, the slow way: everything that waits is sorted anew for every pick."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from modelrepo_runtime.queue.rank import NO_PICKS, Picks, Policy


@dataclass(frozen=True)
class WaitingJob:
    """A job that waits, with all that its order depends on."""

    lane: int
    job: int
    enqueued: float
    tag: float
    slo_s: float
    allowed_miss: float = 0.05
    over: bool = False
    warm: bool = True

    def late(self, now: float) -> bool:
        return self.enqueued < now - self.slo_s

    def share(self, now: float) -> float:
        return max(0.0, now - self.enqueued) / self.slo_s


def reference_order(
    waiting: Sequence[WaitingJob], now: float, limit: int, policy: Policy, picks: Picks = NO_PICKS
) -> tuple[list[int], Picks]:
    """Return the jobs that the next `limit` picks take, and the turns as they stand then."""
    left = list(waiting)
    taken: list[int] = []
    while left and len(taken) < limit:
        job, picks = _next(left, now, policy, picks)
        left.remove(job)
        taken.append(job.job)
    return taken, picks


def _next(left: list[WaitingJob], now: float, policy: Policy, picks: Picks) -> tuple[WaitingJob, Picks]:
    if policy is Policy.FIFO:
        warm = [job for job in left if not _cold_waits(left, job, now, policy)] or left
        return min(warm, key=lambda job: (job.enqueued, job.lane, job.job)), picks
    pool, over = [job for job in left if not job.over], [job for job in left if job.over]
    if pool and over:
        picks = replace(picks, over=(picks.over + 1) % 10)
    if not pool or (over and picks.over == 0):
        return _next_that_stands_back(over, now, picks)
    if policy is Policy.LWDF_LATE:
        return _next_of_overload(pool, now, picks)
    warm = [job for job in pool if not _cold_waits(pool, job, now, policy)] or pool
    if policy is Policy.STRICT:
        lane = min(warm, key=lambda job: (job.slo_s, job.enqueued, job.lane)).lane
    else:
        lane = min(warm, key=lambda job: (-job.share(now), job.enqueued, job.lane)).lane
    return _first(pool, lane), picks


def _next_that_stands_back(over: list[WaitingJob], now: float, picks: Picks) -> tuple[WaitingJob, Picks]:
    warm = [job for job in over if not _cold_waits(over, job, now, Policy.SLO_SHARE)] or over
    lane = min((job.lane for job in warm if job.lane > picks.turn), default=min(job.lane for job in warm))
    return _first(over, lane), replace(picks, turn=lane)


def _next_of_overload(pool: list[WaitingJob], now: float, picks: Picks) -> tuple[WaitingJob, Picks]:
    def weighted(job: WaitingJob) -> tuple[float, float, int]:
        weight = -math.log(max(job.allowed_miss, 1e-6)) / job.slo_s
        return (-weight * max(0.0, now - job.enqueued), job.enqueued, job.lane)

    late = [job for job in pool if job.late(now)]
    warm = [job for job in pool if not _cold_waits(pool, job, now, Policy.LWDF_LATE)] or pool
    on_time = [job for job in warm if not job.late(now)]
    if not on_time:
        heads = [job for job in warm if all(o.late(now) for o in pool if o.lane == job.lane)]
        return _of_kind(pool, min(heads, key=weighted).lane, now, late=True), picks
    if late:
        picks = replace(picks, late=(picks.late + 1) % 10)
        if picks.late == 0:
            lane = min(late, key=lambda job: (-job.share(now), job.enqueued, job.lane)).lane
            return _of_kind(pool, lane, now, late=True), picks
    return _of_kind(pool, min(on_time, key=weighted).lane, now, late=False), picks


def _cold_waits(pool: list[WaitingJob], job: WaitingJob, now: float, policy: Policy) -> bool:
    rows = [other for other in pool if other.lane == job.lane]
    if policy is Policy.LWDF_LATE:
        rows = [other for other in rows if not other.late(now)] or rows
    return not job.warm and min(rows, key=lambda other: other.enqueued).share(now) <= 0.8


def _first(pool: list[WaitingJob], lane: int) -> WaitingJob:
    return min((job for job in pool if job.lane == lane), key=lambda job: (job.tag, job.job))


def _of_kind(pool: list[WaitingJob], lane: int, now: float, *, late: bool) -> WaitingJob:
    first = _first(pool, lane)
    if first.late(now) == late:
        return first
    kind = [job for job in pool if job.lane == lane and job.late(now) == late]
    return min(kind, key=lambda job: (job.enqueued, job.job))
