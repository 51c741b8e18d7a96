"""Picking many rows in one claim while reading few: rows are read only of lanes that win, many lanes in one read."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from modelrepo_runtime.queue.lane_rows import Tagged
from modelrepo_runtime.queue.rank import NO_PICKS, Board, Head, Picks, Policy, Which, Won, on_time_since

BEFORE_ALL = (-math.inf, -1)
"""A key before the first row's."""
READ_AHEAD = 2
"""Rows that a read asks for, over those still wanted: a second read costs more than rows that are not used."""

Row = TypeVar("Row", bound=Tagged)


@dataclass(frozen=True, slots=True)
class Need:
    """Rows wanted of a lane: the next `count` after a key."""

    lane: int
    by_age: bool
    """True: ordered by (enqueued, job); False: by (tag, job)."""
    after: tuple[float, int]
    count: int


Read = Callable[[Sequence[Need]], Sequence[Sequence[Row]]]
"""Reads for all needs at once; fewer rows than wanted mean that the lane has no more."""


@dataclass(slots=True)
class _Cursor(Generic[Row]):
    """Rows of a lane in one order, as far as they are read, and how many are behind us."""

    lane: int
    by_age: bool
    start: tuple[float, int]
    rows: list[Row] = field(default_factory=list)
    at: int = 0
    ended: bool = False

    def first(self, gone: set[int]) -> Row | None:
        """Return the first row that is not gone; None: unknown, or there is none if `ended`."""
        while self.at < len(self.rows) and self.rows[self.at].job in gone:
            self.at += 1
        return self.rows[self.at] if self.at < len(self.rows) else None

    def known(self, gone: set[int]) -> bool:
        return self.first(gone) is not None or self.ended

    def runs_short(self) -> bool:
        return not self.ended and len(self.rows) - self.at <= self.at

    def need(self, count: int) -> Need:
        after = self.start
        if self.rows:
            last = self.rows[-1]
            after = (last.enqueued if self.by_age else last.tag, last.job)
        return Need(self.lane, self.by_age, after, max(count, self.at))

    def take_in(self, need: Need, rows: Sequence[Row]) -> None:
        self.rows.extend(rows)
        self.ended = len(rows) < need.count


class _Lane(Generic[Row]):
    """What is known of a lane."""

    def __init__(self, head: Head, now: float, policy: Policy) -> None:
        self.head, self.since = head, on_time_since(now, head.slo_s)
        self.first: _Cursor[Row] = _Cursor(head.lane, False, BEFORE_ALL)
        self.oldest: _Cursor[Row] = _Cursor(head.lane, True, BEFORE_ALL)
        self.on_time: _Cursor[Row] = _Cursor(head.lane, True, (self.since, -1))
        self.cursors = [self.oldest] if policy is Policy.FIFO else [self.first, self.oldest]
        if policy is Policy.LWDF_LATE:
            self.cursors.append(self.on_time)

    def row(self, which: Which, gone: set[int]) -> Row | None:
        """Return the row that goes; None where more must be read to know it, or the lane is empty."""
        first = self.first.first(gone)
        if which is Which.OLDEST:
            return self.oldest.first(gone)
        if first is None or which is Which.FIRST:
            return first
        on_time = first.enqueued >= self.since
        if which is Which.ON_TIME:
            return first if on_time else self.on_time.first(gone)
        return self.oldest.first(gone) if on_time else first

    def cursors_for(self, which: Which) -> list[_Cursor[Row]]:
        """Return all that is needed to know the row that goes, where none goes after it."""
        return {
            Which.FIRST: [self.first],
            Which.OLDEST: [self.oldest],
            Which.ON_TIME: [self.first, self.on_time],
            Which.LATE: [self.first, self.oldest],
        }[which]

    def head_now(self, gone: set[int]) -> Head | None:
        oldest, on_time = self.oldest.first(gone), self.on_time.first(gone)
        if oldest is None or (self.first in self.cursors and self.first.first(gone) is None):
            return None
        head = self.head
        on_time_at = on_time.enqueued if on_time is not None else None
        return Head(head.lane, oldest.enqueued, head.slo_s, head.allowed_miss, head.over, head.warm, on_time_at)


def pick(
    heads: Sequence[Head],
    now: float,
    limit: int,
    read: Read[Row],
    policy: Policy = Policy.SLO_SHARE,
    picks: Picks = NO_PICKS,
) -> tuple[list[tuple[int, Row]], Picks]:
    """Return up to `limit` (lane, row) pairs in the order in which they go, and the turns as they stand then."""
    board = Board(heads, now, policy, picks)
    picking = _Picking(board, {head.lane: _Lane(head, now, policy) for head in heads}, read)
    while len(picking.chosen) < limit:
        won = board.next()
        if won is None:
            break
        picking.take(won, limit)
    return picking.chosen, board.picks


class _Picking(Generic[Row]):
    def __init__(self, board: Board, lanes: dict[int, _Lane[Row]], read: Read[Row]) -> None:
        self.chosen: list[tuple[int, Row]] = []
        self._board, self._lanes, self._read = board, lanes, read
        self._gone: set[int] = set()

    def take(self, won: Won, limit: int) -> None:
        """Take a row of the lane that won, and rank the lane anew unless that was the last pick."""
        lane = self._lanes[won.lane]
        if (row := lane.row(won.which, self._gone)) is None:
            if limit - len(self.chosen) == 1:
                self._read_on(lane.cursors_for(won.which), 1)
            else:
                self._read_widely(lane, limit)
            row = lane.row(won.which, self._gone)
        if row is not None:
            self._gone.add(row.job)
            self.chosen.append((won.lane, row))
        if len(self.chosen) < limit:
            while not all(cursor.known(self._gone) for cursor in lane.cursors):
                self._read_widely(lane, limit)
            self._board.put(won.lane, lane.head_now(self._gone))

    def _read_widely(self, lane: _Lane[Row], limit: int) -> None:
        """Read on in this lane, and by the way in those of the next ranks that will want it soon."""
        wanted = limit - len(self.chosen) + 1
        near = {lane.head.lane: lane}
        near.update((number, self._lanes[number]) for number in self._board.leading(wanted))
        short = [cursor for one in near.values() for cursor in one.cursors if cursor.runs_short()]
        lanes = len({cursor.lane for cursor in short})
        self._read_on(short, min(wanted, math.ceil(READ_AHEAD * wanted / lanes)))

    def _read_on(self, cursors: list[_Cursor[Row]], count: int) -> None:
        cursors = [cursor for cursor in cursors if not cursor.ended]
        needs = [cursor.need(count) for cursor in cursors]
        for cursor, need, rows in zip(cursors, needs, self._read(needs), strict=True):
            cursor.take_in(need, rows)
