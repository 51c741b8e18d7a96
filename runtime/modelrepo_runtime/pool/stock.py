"""What lies in the pool, what room there is, and what goes when room is wanted. Pure: nobody looks at a file here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from modelrepo.fetching.disk import human

MIB = 1 << 20
STEP_BYTES = 64 * MIB
"""What is reserved at once. The kernel ends who takes more than its group has, so room is read again between steps."""
MARGIN_BYTES = 512 * MIB
"""What stays free beside the pool: a worker, its children's allocators, and what NCCL and loaders put on /dev/shm."""


@dataclass(frozen=True, slots=True)
class Item:
    """One entry. `last_used_ns` is a wall time; `held`: somebody has it open, and its memory would not come back."""

    key: str
    size_bytes: int
    last_used_ns: int = 0
    held: bool = False


@dataclass(frozen=True, slots=True)
class Stock:
    """Everything in the pool. `leaving_bytes`: names are gone, maps are not; `promised`: what is being filled."""

    items: tuple[Item, ...] = ()
    leaving_bytes: int = 0
    promised_bytes: int = 0
    unwritten_bytes: int = 0
    """Of what is promised, what the kernel has not given yet."""

    @property
    def used_bytes(self) -> int:
        return sum(item.size_bytes for item in self.items) + self.leaving_bytes + self.promised_bytes

    @property
    def held_bytes(self) -> int:
        return sum(item.size_bytes for item in self.items if item.held) + self.leaving_bytes + self.promised_bytes

    @property
    def evictable_bytes(self) -> int:
        return sum(item.size_bytes for item in self.items if not item.held)


@dataclass(frozen=True, slots=True)
class Headroom:
    """Free bytes by the place that bounds them, in words: `in the control group`, `in /dev/shm`."""

    free: Mapping[str, int]

    @property
    def least(self) -> tuple[str, int]:
        return min(self.free.items(), key=lambda place: place[1])


@dataclass(frozen=True, slots=True)
class Lack:
    """How much too little room there is, and where, in words."""

    size_bytes: int
    where: str


def lack(
    need_bytes: int, stock: Stock, headroom: Headroom, margin_bytes: int, limit_bytes: int | None = None
) -> Lack | None:
    """Tell what keeps `need_bytes` from being reserved now; None where they fit.

    need + margin + what others were promised <= min(every headroom), and the pool stays within its limit, if one is
    given.
    """
    place, free_bytes = headroom.least
    by_room = need_bytes + margin_bytes + stock.unwritten_bytes - free_bytes
    by_limit = 0 if limit_bytes is None else need_bytes + stock.used_bytes - limit_bytes
    if max(by_room, by_limit) <= 0:
        return None
    if limit_bytes is not None and by_limit >= by_room:
        return Lack(by_limit, f"it may hold {human(limit_bytes)} and holds {human(stock.used_bytes)}")
    beside = f", of which {human(margin_bytes)} stay free" if margin_bytes else ""
    return Lack(by_room, f"{human(max(0, free_bytes))} are free {place}{beside}")


def choose(items: Iterable[Item], size_bytes: int, *, at_best: bool = False) -> Sequence[Item] | None:
    """Choose what goes, least recently used first, of what nobody holds.

    Where all of that is not enough, nothing should: None, or with `at_best` all of it.
    """
    gone: list[Item] = []
    freed_bytes = 0
    for item in sorted((item for item in items if not item.held), key=lambda item: (item.last_used_ns, item.key)):
        if freed_bytes >= size_bytes:
            break
        gone.append(item)
        freed_bytes += item.size_bytes
    return gone if at_best or freed_bytes >= size_bytes else None
