"""The nouns of job memory: what an attempt took, what a slot has, what a job needs; bytes. Imports nothing of ours."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """What an attempt took at most of one kind of memory, and what its slot had of it."""

    peak_bytes: int
    slot_bytes: int | None = None
    """None: the slot does not know."""
    ran_out: bool = False
    """True: it ended because the slot had no more."""

    @property
    def shown_bytes(self) -> int:
        """What this attempt has shown that one needs: more than the slot had, where that was not enough."""
        return max(self.peak_bytes, (self.slot_bytes or 0) + 1) if self.ran_out else self.peak_bytes

    def to_json(self) -> dict[str, Any]:
        return {"peak_bytes": self.peak_bytes, "slot_bytes": self.slot_bytes, "ran_out": self.ran_out}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> MemoryUse:
        return cls(value["peak_bytes"], value["slot_bytes"], value["ran_out"])


@dataclass(frozen=True, slots=True)
class JobMemory:
    """Both kinds, of an attempt that ran alone; None: not measured."""

    accelerator: MemoryUse | None = None
    """Of its fullest device, against the smallest of its slot."""
    host: MemoryUse | None = None

    def __bool__(self) -> bool:
        return self.accelerator is not None or self.host is not None

    @property
    def ran_out(self) -> bool:
        return any(use is not None and use.ran_out for use in (self.accelerator, self.host))

    def to_json(self) -> dict[str, Any]:
        kinds = {"accelerator": self.accelerator, "host": self.host}
        return {kind: use.to_json() for kind, use in kinds.items() if use is not None}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> JobMemory:
        known = (value.get(kind) for kind in ("accelerator", "host"))
        return cls(*(MemoryUse.from_json(each) if each is not None else None for each in known))


@dataclass(frozen=True, slots=True)
class MemoryRoom:
    """What a slot has; None where it does not know, which is enough for anything."""

    accelerator_bytes: int | None = None
    """Of the smallest of its devices."""
    host_bytes: int | None = None
    """What a job of it may take at most: the box's, or its control group's."""

    def __str__(self) -> str:
        return _told((("accelerator", self.accelerator_bytes), ("host", self.host_bytes)))


ANY_ROOM = MemoryRoom()


@dataclass(frozen=True, slots=True)
class MemoryNeed:
    """What a slot must have at least; 0: whatever."""

    accelerator_bytes: int = 0
    host_bytes: int = 0

    def __bool__(self) -> bool:
        return self.accelerator_bytes > 0 or self.host_bytes > 0

    def met_by(self, room: MemoryRoom) -> bool:
        """True where a slot has enough of both, as far as it knows."""
        return (room.accelerator_bytes is None or room.accelerator_bytes >= self.accelerator_bytes) and (
            room.host_bytes is None or room.host_bytes >= self.host_bytes
        )

    def or_more(self, other: MemoryNeed) -> MemoryNeed:
        """Return the greater need of each kind."""
        return MemoryNeed(max(self.accelerator_bytes, other.accelerator_bytes), max(self.host_bytes, other.host_bytes))

    def __str__(self) -> str:
        return _told((("accelerator", self.accelerator_bytes), ("host", self.host_bytes)))


NO_NEED = MemoryNeed()


def shown_need(memory: JobMemory | None) -> MemoryNeed:
    """Return what an attempt that ran out has shown that another slot must have."""
    if memory is None:
        return NO_NEED
    uses = (memory.accelerator, memory.host)
    return MemoryNeed(*(use.shown_bytes if use is not None and use.ran_out else 0 for use in uses))


def _told(kinds: Iterable[tuple[str, int | None]]) -> str:
    told = [f"{size_text(size)} of {kind} memory" for kind, size in kinds if size]
    return " and ".join(told) or "memory of unknown size"


def size_text(size_bytes: float) -> str:
    """Write a size with three digits: `31.5 GiB`."""
    number, unit = float(size_bytes), 0
    while number >= 1000 and unit < len(_UNITS) - 1:
        number, unit = number / 1024, unit + 1
    return f"{number:.3g} {_UNITS[unit]}"
