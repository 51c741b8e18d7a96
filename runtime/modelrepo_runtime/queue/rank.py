"""Which lane is next: the policies.

`slo-share` is Kleinrock's time-dependent priority (largest weighted delay): the lane whose oldest job has used the
largest share of its tier's SLO. All jobs of a lane have one slope, so comparing the lanes' heads is exact: O(lanes) for
a claim. `lwdf-late` is for overload: largest weighted delay first (Stolyar and Ramanan 2001) among jobs that can still
be in time, and one pick in ten by the share of the SLO among those that cannot.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import NamedTuple

from modelrepo_runtime.jobs import StageNeed

TURN = 10
"""One pick in so many goes to those that stand back: tenants far ahead, and under `lwdf-late` late jobs."""
COLD_WAITS_UNTIL = 0.8
"""Share of its SLO up to which a lane whose model would have to be loaded stands behind those that are loaded."""
SMALLEST_MISS = 1e-6
"""A tier that allows no miss at all would have an infinite weight."""


class Policy(StrEnum):
    """How lanes are compared."""

    SLO_SHARE = "slo-share"
    LWDF_LATE = "lwdf-late"
    STRICT = "strict"
    """The shortest SLO first, then the oldest. For comparison: it starves."""
    FIFO = "fifo"
    """The oldest first, whatever its tier and tenant. For comparison."""


class Which(StrEnum):
    """Which row of the lane that won goes."""

    FIRST = "first"
    """The one of least (tag, job)."""
    OLDEST = "oldest"
    ON_TIME = "on time"
    """The first one if it is on time, else the oldest that is."""
    LATE = "late"
    """The first one if it is late, else the oldest."""


class Head(NamedTuple):
    """A lane that is not empty, as far as it is compared with others."""

    lane: int
    enqueued: float
    """Of its oldest row."""
    slo_s: float
    allowed_miss: float = 0.05
    over: bool = False
    """Rows of tenants that are far ahead: spare capacity, and one pick in ten."""
    warm: bool = True
    """False: who takes from it must load a model first."""
    on_time: float | None = None
    """Of its oldest row that is not late; asked for by `lwdf-late` only. None: all are late."""


@dataclass(frozen=True, slots=True)
class Picks:
    """Picks that those who stand back have lost since they last had a turn; whoever claims keeps it between claims."""

    over: int = 0
    late: int = 0
    turn: int = -1
    """The lane of tenants far ahead that went last: they take turns, or the largest flood would have them all."""


NO_PICKS = Picks()


class Won(NamedTuple):
    """The lane that is next, and which of its rows."""

    lane: int
    which: Which


def slo_share(enqueued: float, now: float, slo_s: float) -> float:
    """Return the part of the SLO that has been waited; 1 is exactly on time."""
    return max(0.0, now - enqueued) / slo_s


@cache
def lwdf_weight(slo_s: float, allowed_miss: float) -> float:
    """Return what a second of waiting weighs under `lwdf-late`: -ln(allowed miss) / SLO."""
    return -math.log(max(allowed_miss, SMALLEST_MISS)) / slo_s


def on_time_since(now: float, slo_s: float) -> float:
    """Return the `enqueued` from which on jobs are not late."""
    return now - slo_s


def wait_ended(stages: Sequence[StageNeed], starts: Iterable[tuple[str, float]]) -> float | None:
    """Return when a job's wait ended: as its accelerator stage was first started, or its first where it has none.

    `starts` are (stage, moment) of its attempts. None: it still waits.
    """
    last = next((stage.name for stage in stages if stage.on == "gpu"), stages[0].name)
    return min((at for stage, at in starts if stage == last), default=None)


Key = tuple[bool, float, float, float, int, int]
"""Cold and not urgent, class, rank, enqueued, lane; the smallest is next. Last: of which state of the lane."""


class Board:
    """The lanes of one claim, compared at one moment. Take `next`, take a row of that lane, `put` what it is then."""

    def __init__(
        self, heads: Iterable[Head], now: float, policy: Policy = Policy.SLO_SHARE, picks: Picks = NO_PICKS
    ) -> None:
        self.picks = picks
        self._now, self._policy = now, policy
        self._states: dict[int, int] = {}
        self._regular: list[Key] = []
        self._late: list[Key] = []
        self._over: dict[int, Head] = {}
        for head in heads:
            self._states[head.lane] = 0
            if head.over and policy is not Policy.FIFO:
                self._over[head.lane] = head
                continue
            self._regular.append(self._key(head, 0))
            if policy is Policy.LWDF_LATE and self._is_late(head):
                self._late.append(self._late_key(head, 0))
        heapq.heapify(self._regular)
        heapq.heapify(self._late)

    def next(self) -> Won | None:
        """Return the lane whose turn it is, and count the turn; None where all are empty."""
        best = self._top(self._regular)
        if self._over:
            lost = self.picks.over + 1
            if best is None or lost >= TURN:
                lane = self._next_over()
                self.picks = Picks(self.picks.over if best is None else 0, self.picks.late, lane)
                return Won(lane, Which.FIRST)
            self.picks = Picks(lost, self.picks.late, self.picks.turn)
        if best is None:
            return None
        if self._policy is not Policy.LWDF_LATE:
            return Won(best[4], Which.OLDEST if self._policy is Policy.FIFO else Which.FIRST)
        if best[1]:
            return Won(best[4], Which.LATE)
        late = self._top(self._late)
        if late is None:
            return Won(best[4], Which.ON_TIME)
        turn_of_late = self.picks.late + 1 >= TURN
        self.picks = Picks(self.picks.over, 0 if turn_of_late else self.picks.late + 1, self.picks.turn)
        return Won(late[4], Which.LATE) if turn_of_late else Won(best[4], Which.ON_TIME)

    def put(self, lane: int, head: Head | None) -> None:
        """Say what a lane is after a row was taken of it; None: empty."""
        if self._over.pop(lane, None) is not None:
            if head is not None:
                self._over[lane] = head
            return
        self._states[lane] = state = self._states[lane] + 1
        if head is None:
            return
        heapq.heappush(self._regular, self._key(head, state))
        if self._policy is Policy.LWDF_LATE and self._is_late(head):
            heapq.heappush(self._late, self._late_key(head, state))

    def leading(self, count: int) -> list[int]:
        """Return up to `count` lanes in the order of their rank, those that stand back last."""
        keys = heapq.nsmallest(count, self._regular)
        return [*(key[4] for key in keys if self._states[key[4]] == key[5]), *self._over][:count]

    def _next_over(self) -> int:
        warm = [lane for lane, head in self._over.items() if not self._waits_cold(head, head.enqueued)]
        lanes = warm or list(self._over)
        return min((lane for lane in lanes if lane > self.picks.turn), default=min(lanes))

    def _top(self, heap: list[Key]) -> Key | None:
        while heap and self._states[heap[0][4]] != heap[0][5]:
            heapq.heappop(heap)
        return heap[0] if heap else None

    def _is_late(self, head: Head) -> bool:
        return head.enqueued < on_time_since(self._now, head.slo_s)

    def _key(self, head: Head, state: int) -> Key:
        kind, rank, enqueued = 0.0, 0.0, head.enqueued
        if self._policy is Policy.SLO_SHARE:
            rank = -slo_share(enqueued, self._now, head.slo_s)
        elif self._policy is Policy.LWDF_LATE:
            kind, enqueued = (1.0, enqueued) if head.on_time is None else (0.0, head.on_time)
            rank = -lwdf_weight(head.slo_s, head.allowed_miss) * max(0.0, self._now - enqueued)
        elif self._policy is Policy.STRICT:
            rank = head.slo_s
        return (self._waits_cold(head, enqueued), kind, rank, enqueued, head.lane, state)

    def _late_key(self, head: Head, state: int) -> Key:
        return (False, 0.0, -slo_share(head.enqueued, self._now, head.slo_s), head.enqueued, head.lane, state)

    def _waits_cold(self, head: Head, enqueued: float) -> bool:
        return not head.warm and slo_share(enqueued, self._now, head.slo_s) <= COLD_WAITS_UNTIL


def first_pick(
    heads: Sequence[Head], now: float, policy: Policy = Policy.SLO_SHARE, picks: Picks = NO_PICKS
) -> tuple[Won | None, Picks]:
    """Return what a Board of these lanes says next, and its picks then: for claims of one job, which need no heap."""
    stands_back = False
    for head in heads:
        if not head.warm:
            board = Board(heads, now, policy, picks)
            return board.next(), board.picks
        stands_back = stands_back or head.over
    if stands_back and policy is not Policy.FIFO:
        main = [head for head in heads if not head.over]
        lost = picks.over + 1
        if not main or lost >= TURN:
            lanes = [head.lane for head in heads if head.over]
            lane = min((lane for lane in lanes if lane > picks.turn), default=min(lanes))
            return Won(lane, Which.FIRST), Picks(0 if main else picks.over, picks.late, lane)
        heads, picks = main, Picks(lost, picks.late, picks.turn)
    if not heads:
        return None, picks
    if policy is Policy.LWDF_LATE:
        return _first_by_lwdf(heads, now, picks)
    best, least = heads[0], (math.inf, math.inf, 0)
    for head in heads:
        rank = head.slo_s if policy is Policy.STRICT else 0.0
        if policy is Policy.SLO_SHARE:
            rank = -slo_share(head.enqueued, now, head.slo_s)
        if (key := (rank, head.enqueued, head.lane)) < least:
            best, least = head, key
    return Won(best.lane, Which.OLDEST if policy is Policy.FIFO else Which.FIRST), picks


def _first_by_lwdf(heads: Sequence[Head], now: float, picks: Picks) -> tuple[Won, Picks]:
    best, least = heads[0], (math.inf, math.inf, math.inf, 0)
    late = (math.inf, math.inf, -1)
    for head in heads:
        late_class, since = (1.0, head.enqueued) if head.on_time is None else (0.0, head.on_time)
        rank = -lwdf_weight(head.slo_s, head.allowed_miss) * max(0.0, now - since)
        if (key := (late_class, rank, since, head.lane)) < least:
            best, least = head, key
        if head.enqueued < on_time_since(now, head.slo_s):
            late = min(late, (-slo_share(head.enqueued, now, head.slo_s), head.enqueued, head.lane))
    if best.on_time is None:
        return Won(best.lane, Which.LATE), picks
    if late[2] < 0:
        return Won(best.lane, Which.ON_TIME), picks
    turn_of_late = picks.late + 1 >= TURN
    picks = Picks(picks.over, 0 if turn_of_late else picks.late + 1, picks.turn)
    return Won(late[2], Which.LATE) if turn_of_late else Won(best.lane, Which.ON_TIME), picks
