"""Picking rows for many polls at once while reading few: only of lanes that win, and of many lanes in one read."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
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


@dataclass(frozen=True, slots=True)
class Quota:
    """Lanes of which no more than `count` rows together may be taken."""

    lanes: frozenset[int]
    count: int


UNLIMITED = Quota(frozenset(), -1)

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
        rows, at = self.rows, self.at
        count = len(rows)
        while at < count and rows[at].job in gone:
            at += 1
        self.at = at
        return rows[at] if at < count else None

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
        self.head: Head | None = head
        self.number, self.since = head.lane, on_time_since(now, head.slo_s)
        self.first: _Cursor[Row] = _Cursor(head.lane, False, BEFORE_ALL)
        self.oldest: _Cursor[Row] = _Cursor(head.lane, True, BEFORE_ALL)
        self.on_time: _Cursor[Row] = _Cursor(head.lane, True, (self.since, -1))
        self.cursors = [self.oldest] if policy is Policy.FIFO else [self.first, self.oldest]
        if policy is Policy.LWDF_LATE:
            self.cursors.append(self.on_time)
        self.touched = False
        """True: a row was taken since `head` was made."""

    def row(self, which: Which, gone: set[int]) -> Row | None:
        """Return the row that goes; None where more must be read to know it, or the lane is empty."""
        if which is Which.OLDEST:
            return self.oldest.first(gone)
        first = self.first.first(gone)
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

    def look_again(self, gone: set[int]) -> None:
        """Make the head anew of the rows that are left."""
        self.touched = False
        oldest, head = self.oldest.first(gone), self.head
        if head is None or oldest is None or self.cursors[0].first(gone) is None:
            self.head = None
            return
        on_time = self.on_time.first(gone)
        on_time_at = on_time.enqueued if on_time is not None else None
        if (head.enqueued, head.on_time) != (oldest.enqueued, on_time_at):
            late = (head.allowed_miss, head.over, head.warm, on_time_at)
            self.head = Head(self.number, oldest.enqueued, head.slo_s, *late)


class Picker(Generic[Row]):
    """The lanes of a model at one moment, from which several polls take rows one after the other."""

    def __init__(self, heads: Sequence[Head], now: float, policy: Policy, read: Read[Row], wanted: int) -> None:
        """`wanted`: rows that all polls together may take; what is read ahead goes by it."""
        self._lanes: dict[int, _Lane[Row]] = {head.lane: _Lane(head, now, policy) for head in heads}
        self._now, self._policy, self._read, self._wanted = now, policy, read, wanted
        self._gone: set[int] = set()

    def pick(
        self, lanes: Mapping[int, bool], limit: int, picks: Picks, quota: Quota = UNLIMITED
    ) -> tuple[list[tuple[int, Row]], Picks]:
        """Take up to `limit` (lane, row) pairs of some lanes in the order in which they go.

        `lanes` says of each whether its model is warm. Returns the turns as they stand then, too.
        """
        chosen: list[tuple[int, Row]] = []
        left = quota.count
        if quota.lanes and left <= 0:
            lanes = {number: warm for number, warm in lanes.items() if number not in quota.lanes}
        board = Board(self._heads(lanes), self._now, self._policy, picks)
        while len(chosen) < limit and (won := board.next()) is not None:
            row = self._take(won, board)
            if row is not None:
                chosen.append((won.lane, row))
                left -= won.lane in quota.lanes
            if len(chosen) < limit:
                lane = self._lanes[won.lane]
                self._look_again(lane, board)
                board.put(won.lane, lane.head)
                if quota.lanes and left == 0:
                    for number in quota.lanes:
                        board.put(number, None)
        return chosen, board.picks

    def _heads(self, lanes: Mapping[int, bool]) -> list[Head]:
        heads: list[Head] = []
        for number, warm in lanes.items():
            lane = self._lanes[number]
            if lane.touched:
                self._look_again(lane, None)
            if (head := lane.head) is not None:
                if head.warm is not warm:
                    late = (head.allowed_miss, head.over, warm, head.on_time)
                    head = lane.head = Head(number, head.enqueued, head.slo_s, *late)
                heads.append(head)
        return heads

    def _take(self, won: Won, board: Board) -> Row | None:
        lane = self._lanes[won.lane]
        if (row := lane.row(won.which, self._gone)) is None:
            if self._wanted <= 1:
                self._read_on(lane.cursors_for(won.which), 1)
            else:
                self._read_widely(lane, board)
            row = lane.row(won.which, self._gone)
        lane.touched = True
        if row is not None:
            self._gone.add(row.job)
            self._wanted -= 1
        return row

    def _look_again(self, lane: _Lane[Row], board: Board | None) -> None:
        for cursor in lane.cursors:
            while not cursor.known(self._gone):
                self._read_widely(lane, board)
        lane.look_again(self._gone)

    def _read_widely(self, lane: _Lane[Row], board: Board | None) -> None:
        """Read on in this lane, and by the way in those of the next ranks that will want it soon."""
        wanted = max(1, self._wanted) + 1
        near = {lane.number: lane}
        if board is not None:
            near.update((number, self._lanes[number]) for number in board.leading(wanted))
        short = [cursor for one in near.values() for cursor in one.cursors if cursor.runs_short()]
        lanes = len({cursor.lane for cursor in short})
        self._read_on(short, min(wanted, math.ceil(READ_AHEAD * wanted / lanes)))

    def _read_on(self, cursors: Sequence[_Cursor[Row]], count: int) -> None:
        reading = [cursor for cursor in cursors if not cursor.ended]
        needs = [cursor.need(count) for cursor in reading]
        for cursor, need, rows in zip(reading, needs, self._read(needs), strict=True):
            cursor.take_in(need, rows)


def pick(
    heads: Sequence[Head],
    now: float,
    limit: int,
    read: Read[Row],
    policy: Policy = Policy.SLO_SHARE,
    picks: Picks = NO_PICKS,
) -> tuple[list[tuple[int, Row]], Picks]:
    """Return the (lane, row) pairs that one poll of up to `limit` rows takes, and the turns as they stand then."""
    return Picker(heads, now, policy, read, limit).pick({head.lane: head.warm for head in heads}, limit, picks)
