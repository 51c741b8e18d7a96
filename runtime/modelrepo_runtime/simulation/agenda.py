"""The virtual clock and what is due on it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from typing import Any


class Agenda:
    """Acts in the order of their moments; of one moment, in the order in which they were noted."""

    __slots__ = ("_due", "_noted", "now")

    def __init__(self) -> None:
        self.now = 0.0
        self._due: list[tuple[float, int, Callable[[Any], None], Any]] = []
        self._noted = 0

    def at(self, moment: float, act: Callable[[Any], None], what: Any = None) -> None:
        """Note that `act(what)` is to be called at a moment, or now where that has passed."""
        self._noted += 1
        heappush(self._due, (max(moment, self.now), self._noted, act, what))

    def after(self, delay_s: float, act: Callable[[Any], None], what: Any = None) -> None:
        """Note that `act(what)` is to be called `delay_s` from now."""
        self._noted += 1
        heappush(self._due, (self.now + delay_s, self._noted, act, what))

    def run(self, arrivals: Sequence[float], arrive: Callable[[int], None], ended: Callable[[], bool]) -> None:
        """Let time pass until `ended`, or nothing is due any more; `arrive(n)` is called at the n-th arrival.

        Of one moment, what is noted comes before what arrives.
        """
        due, count, coming = self._due, 0, len(arrivals)
        next_at = arrivals[0] if arrivals else math.inf
        while True:
            if due and due[0][0] <= next_at:
                self.now, _, act, what = heappop(due)
                act(what)
            elif count < coming:
                self.now = next_at
                arrive(count)
                count += 1
                next_at = arrivals[count] if count < coming else math.inf
            else:
                return
            if count == coming and ended():
                return
