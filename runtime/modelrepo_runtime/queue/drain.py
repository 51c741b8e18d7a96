"""The order in which waiting jobs go if no more come: picked by handfuls, so that a million cost little more than some.

The rank is that of claims: the greatest weight x wait of a lane's oldest job goes first, tenants far ahead last. A
handful is a sixty-fourth of what went before it; the first hundred jobs are picked one by one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

FINENESS = 64
SAME_INSTANT_S = 5e-7
"""Half of the least time between two jobs: a moment that was interpolated is off by less."""


@dataclass(frozen=True, slots=True)
class Rivals:
    """Waiting jobs of one weight, as if they came evenly between the oldest and the newest."""

    weight: float
    over: bool
    depth: int
    oldest: float
    newest: float
    mean_s: float | None
    """How long a slot takes for one; None: unknown."""

    def enqueued(self, place: int) -> float:
        """Return when the job at a place came."""
        if place <= 0 or self.depth < 2:
            return self.oldest
        return self.oldest + (self.newest - self.oldest) * place / (self.depth - 1)

    def joined(self, other: Rivals) -> Rivals:
        """Return both as one."""
        return replace(
            self,
            depth=self.depth + other.depth,
            oldest=min(self.oldest, other.oldest),
            newest=max(self.newest, other.newest),
        )


@dataclass(frozen=True, slots=True)
class _Pick:
    at: float
    share: float
    over: bool


class Drain:
    """What slots that are free in so many seconds do, from a moment on."""

    def __init__(self, rivals: Iterable[Rivals], free_in_s: Sequence[float], at: float) -> None:
        self._rivals = [each for each in rivals if each.depth > 0]
        self._free_in_s, self._began = sorted(free_in_s), at
        self._picks: list[_Pick] = []
        self._end: float | None = None
        """When a job goes that all others precede; None: unknown."""
        if self._free_in_s:
            self._end = self._run()

    def start(self, enqueued: float, weight: float, *, over: bool = False) -> float | None:
        """Return when a job goes that came at `enqueued`; None where that is not known."""
        if not self._free_in_s:
            return None
        for pick in self._picks:
            if over is pick.over:
                if (pick.at - enqueued + SAME_INSTANT_S) * weight >= pick.share:
                    return pick.at
            elif pick.over:
                return pick.at
        return self._end

    def _run(self) -> float | None:
        taken = [0] * len(self._rivals)
        count, work_s = 0, 0.0
        while True:
            at = self._moment(count, work_s)
            chosen, share = -1, -math.inf
            for place, rivals in enumerate(self._rivals):
                if taken[place] < rivals.depth:
                    rank = (at - rivals.enqueued(taken[place])) * rivals.weight
                    before = chosen >= 0 and self._rivals[chosen].over
                    if chosen < 0 or (rivals.over, -rank) < (before, -share):
                        chosen, share = place, rank
            if chosen < 0:
                return at
            rivals = self._rivals[chosen]
            self._picks.append(_Pick(at, share, rivals.over))
            if rivals.mean_s is None:
                return None
            handful = min(max(1, count // FINENESS), rivals.depth - taken[chosen])
            taken[chosen] += handful
            count += handful
            work_s += handful * rivals.mean_s

    def _moment(self, count: int, work_s: float) -> float:
        """Return when the slot is free that takes the next job after so many."""
        rounds, place = divmod(count, len(self._free_in_s))
        return self._began + self._free_in_s[place] + (rounds * work_s / count if count else 0.0)
