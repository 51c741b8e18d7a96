"""Whether memory is tight, judged from what is free and from how long processes wait for it. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from modelrepo_runtime.worker.swap_plan import MIB, size_text

LEAST_SHARE = 0.05
LEAST_BYTES, MOST_BYTES = 64 * MIB, 256 * MIB
"""What should be free of each place that bounds us: this share of it, within these two. Less is tight. It is less than
the pool's margin, so that a pool that has filled up to its margin is not taken for want of memory."""
TIGHT_SOME_PERCENT, TIGHT_FULL_PERCENT = 20.0, 10.0
"""Of the last ten seconds, in which some or all of the processes waited for memory. More is tight."""
EASY_FACTOR = 2.0
"""It is easy again with this much more free, and this much less waiting, than what makes it tight."""
CALM_LOOKS = 3
"""So often in a row it must look easy before it is."""


class MemoryState(StrEnum):
    """`easy`: work goes on; `tight`: nothing is staged, loaded or claimed, and what is spare is given back."""

    EASY = "easy"
    TIGHT = "tight"


MEMORY_TRANSITIONS: dict[MemoryState, frozenset[MemoryState]] = {
    MemoryState.EASY: frozenset({MemoryState.TIGHT}),
    MemoryState.TIGHT: frozenset({MemoryState.EASY}),
}


@dataclass(frozen=True, slots=True)
class Room:
    """What is free of a place that bounds us, page cache included. `place` is in words."""

    place: str
    free_bytes: int
    total_bytes: int

    @property
    def least_bytes(self) -> int:
        """What should be free of it; of a tiny one no more than a quarter."""
        return min(MOST_BYTES, max(LEAST_BYTES, int(self.total_bytes * LEAST_SHARE)), self.total_bytes // 4)


@dataclass(frozen=True, slots=True)
class Stall:
    """The kernel's pressure stall information of a place: percent of the last ten seconds."""

    place: str
    some_percent: float
    full_percent: float


@dataclass(frozen=True, slots=True)
class Reading:
    """One look. `missing`: files that would say more, and are not there."""

    rooms: tuple[Room, ...] = ()
    stalls: tuple[Stall, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def lacking_bytes(self) -> int:
        """What would have to be given back for every place to be easy."""
        return max((int(EASY_FACTOR * room.least_bytes) - room.free_bytes for room in self.rooms), default=0)


@dataclass(frozen=True, slots=True)
class Pressure:
    """How memory stands. `reason` has the figures that made it tight."""

    state: MemoryState = MemoryState.EASY
    reason: str = ""
    calm: int = 0
    """Looks in a row that found it easy while it still counts as tight."""

    @property
    def tight(self) -> bool:
        return self.state is MemoryState.TIGHT


def judge(reading: Reading, before: Pressure) -> Pressure:
    """Return how memory stands after a look."""
    tight = "; ".join(_against(reading, 1.0))
    if tight:
        return Pressure(MemoryState.TIGHT, tight)
    if not before.tight:
        return Pressure()
    still = "; ".join(_against(reading, EASY_FACTOR))
    if still:
        return Pressure(MemoryState.TIGHT, still)
    if before.calm + 1 < CALM_LOOKS:
        return Pressure(MemoryState.TIGHT, before.reason, before.calm + 1)
    return Pressure()


def _against(reading: Reading, factor: float) -> Iterator[str]:
    """Say what speaks against calling it easy, once `factor` times as much is asked for."""
    for room in reading.rooms:
        wanted = int(room.least_bytes * factor)
        if room.free_bytes < wanted:
            yield f"{size_text(room.free_bytes)} are free {room.place}, {size_text(wanted)} should be"
    for stall in reading.stalls:
        most_some, most_full = TIGHT_SOME_PERCENT / factor, TIGHT_FULL_PERCENT / factor
        if stall.some_percent >= most_some or stall.full_percent >= most_full:
            yield (
                f"processes {stall.place} wait for memory: some of them {stall.some_percent:g} % and all of them "
                f"{stall.full_percent:g} % of the last 10 s, less than {most_some:g} % and {most_full:g} % should be"
            )
