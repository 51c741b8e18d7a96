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
from collections.abc import Callable
from dataclasses import dataclass

LAG_S = 2.0
SWEEP_S = 30.0
Key = tuple[float, int]
BEFORE_ALL: Key = (-math.inf, -1)


@dataclass(slots=True)
class _Mark:
    start: Key = BEFORE_ALL
    seen: Key | None = None
    at: float = 0.0


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
            mark = self._marks.setdefault((lane, by_age), _Mark())
            if mark.seen is None:
                mark.seen, mark.at = before, now
            elif now - mark.at >= self._lag_s:
                mark.start = max(mark.start, mark.seen)
                mark.seen, mark.at = before, now

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
            mark.start, mark.seen = min(mark.start, before), None

    def forget(self, lanes: set[int]) -> None:
        """Drop what is known of lanes that are no more."""
        with self._guard:
            self._marks = {place: mark for place, mark in self._marks.items() if place[0] not in lanes}
