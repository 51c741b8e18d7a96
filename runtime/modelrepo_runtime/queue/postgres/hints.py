"""Where the live rows of each lane begin, so that a claim does not read past what was deleted before them.

A row that is deleted stays in the indexes until nobody can see it any more: with a snapshot held for minutes, a claim
that began at a lane's start would pass hundreds of thousands of them. It begins at the first row that this process saw
alive two seconds ago instead. Rows that come in below that are rare, and are found otherwise: what comes back by intent
is in `again`, which is always read from its start; what took longer than two seconds to be committed, by the sweep.
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

LAG_S = 2.0
STEPS = 8
"""Notes of where a lane begins within the lag: what a claim reads past is no older than the lag and one step."""
SWEEP_S = 30.0
Key = tuple[float, int]
BEFORE_ALL: Key = (-math.inf, -1)


@dataclass(slots=True)
class _Mark:
    start: Key = BEFORE_ALL
    seen: deque[tuple[float, Key]] = field(default_factory=deque)
    """What was seen within the lag, and when, the oldest first."""


class Hints:
    """For one process; claims of several shards may use it at once."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, lag_s: float = LAG_S) -> None:
        self._clock, self._lag_s = clock, lag_s
        self._guard = threading.Lock()
        self._marks: dict[tuple[int, bool], _Mark] = {}

    def saw(self, lane: int, by_age: bool, before: Key) -> None:
        """Note that no row of a lane that is not newer than now comes up to `before`."""
        now = self._clock()
        with self._guard:
            mark = self._marks.get((lane, by_age))
            if mark is None:
                mark = self._marks[lane, by_age] = _Mark()
            seen = mark.seen
            while seen and now - seen[0][0] >= self._lag_s:
                mark.start = max(mark.start, seen.popleft()[1])
            if not seen or now - seen[-1][0] >= self._lag_s / STEPS:
                seen.append((now, before))

    def start(self, lane: int, by_age: bool) -> Key:
        """Return a key after which all live rows come that are worth a look."""
        mark = self._marks.get((lane, by_age))
        return mark.start if mark is not None else BEFORE_ALL

    def ages(self) -> str:
        """Return where each lane begins by age, as JSON: lane -> enqueued."""
        with self._guard:
            starts = [(lane, mark.start[0]) for (lane, by_age), mark in self._marks.items() if by_age]
        return json.dumps({lane: at for lane, at in starts if at > -math.inf})

    def all(self) -> dict[tuple[int, bool], Key]:
        """Return every start that is not a lane's own."""
        with self._guard:
            return {place: mark.start for place, mark in self._marks.items() if mark.start != BEFORE_ALL}

    def lower(self, lane: int, by_age: bool, before: Key) -> None:
        """Begin earlier: a live row was found there."""
        with self._guard:
            mark = self._marks.setdefault((lane, by_age), _Mark())
            mark.start = min(mark.start, before)
            mark.seen.clear()

    def forget(self, lanes: set[int]) -> None:
        """Drop what is known of lanes that are no more."""
        with self._guard:
            self._marks = {place: mark for place, mark in self._marks.items() if place[0] not in lanes}
