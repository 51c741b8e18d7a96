"""Learnt memory: what the jobs of a model, stage and size class need, and which slots have it.

A need is the greatest that the newest attempts have shown: of the newest twenty of the last day, so that it comes down
again after a change of code. Where a smaller slot has done such a job in that time, what that slot has is enough: some
models take all that there is.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from modelrepo_runtime.job_memory import NO_NEED, JobMemory, MemoryNeed, MemoryRoom, MemoryUse, size_text

NEWEST = 20
"""Attempts that a need rests on."""
OLDEST_S = 24 * 3600.0
REFUSED_FOR_S = 3600.0
"""How long after its newest attempt a size class is refused: then one is let in, and measured anew."""
ENDS_THAT_REFUSE = 2
"""Ends for want of memory that it takes to refuse others: one may have been bad luck."""


@dataclass(frozen=True, slots=True)
class NeedKey:
    """Whose need is learnt; no size class is one of its own."""

    model: str
    stage: str
    size: str | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """What one attempt has shown of one kind of memory."""

    at: float
    use: MemoryUse


@dataclass(frozen=True, slots=True)
class Window:
    """The newest attempts, the newest first."""

    seen: tuple[Seen, ...] = ()

    def after(self, new: Seen) -> Window:
        """Learn from one more attempt."""
        return Window((new, *self.seen)[:NEWEST])

    def need_bytes(self, now: float) -> int:
        """Return what a slot must have; 0 where nothing is known."""
        recent = self._recent(now)
        if not recent:
            return 0
        most_lacked = max((use.slot_bytes or 0 for use in recent if use.ran_out), default=0)
        did_it = [use.slot_bytes for use in recent if not use.ran_out and (use.slot_bytes or 0) > most_lacked]
        most = max(use.shown_bytes for use in recent)
        return min([most, *(each for each in did_it if each is not None)])

    def refuses(self, largest_bytes: int, now: float) -> bool:
        """True where it is sure enough that slots of up to this much do no such job."""
        recent = self._recent(now)
        if not recent or now - self.seen[0].at >= REFUSED_FOR_S:
            return False
        lacked = [use for use in recent if use.ran_out]
        if lacked and len(lacked) < ENDS_THAT_REFUSE and max(use.peak_bytes for use in recent) <= largest_bytes:
            return False
        return not any(
            not use.ran_out and use.slot_bytes is not None and use.slot_bytes <= largest_bytes for use in recent
        )

    def _recent(self, now: float) -> list[MemoryUse]:
        return [each.use for each in self.seen if now - each.at < OLDEST_S]


@dataclass(frozen=True, slots=True)
class LearntMemory:
    """What the newest attempts of one key have shown."""

    accelerator: Window = Window()
    host: Window = Window()

    def after(self, at: float, memory: JobMemory) -> LearntMemory:
        """Learn from one more attempt."""
        accelerator, host = self.accelerator, self.host
        if memory.accelerator is not None:
            accelerator = accelerator.after(Seen(at, memory.accelerator))
        if memory.host is not None:
            host = host.after(Seen(at, memory.host))
        return LearntMemory(accelerator, host)

    def need(self, now: float) -> MemoryNeed:
        return MemoryNeed(self.accelerator.need_bytes(now), self.host.need_bytes(now))

    def to_text(self) -> str:
        """Write it as one line."""
        return json.dumps([_written(self.accelerator), _written(self.host)], separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str) -> LearntMemory:
        """Read what `to_text` wrote."""
        return cls(*(Window(tuple(_read(each) for each in window)) for window in json.loads(text)))


def _written(window: Window) -> list[list[object]]:
    return [[each.at, each.use.peak_bytes, each.use.slot_bytes, int(each.use.ran_out)] for each in window.seen]


def _read(value: Sequence[float]) -> Seen:
    at, peak, slot, ran_out = value
    return Seen(at, MemoryUse(int(peak), None if slot is None else int(slot), bool(ran_out)))


def greater(one: JobMemory | None, other: JobMemory | None) -> JobMemory | None:
    """Return of attempts in the same slot what took most of each kind."""
    if one is None or other is None:
        return one or other
    return JobMemory(_most(one.accelerator, other.accelerator), _most(one.host, other.host))


def _most(*uses: MemoryUse | None) -> MemoryUse | None:
    return max((use for use in uses if use is not None), key=lambda use: use.shown_bytes, default=None)


@dataclass(frozen=True, slots=True)
class RoomOfSlots:
    """The memory that some slots have, and which kinds of stages they run."""

    room: MemoryRoom
    on: tuple[str, ...] = ("cpu", "gpu")


@dataclass(frozen=True, slots=True)
class Refused:
    """A need that no known slot meets, for a message."""

    stage: str
    kind: str
    need_bytes: int
    largest_bytes: int

    def __str__(self) -> str:
        return (
            f"stage {self.stage} needs {size_text(self.need_bytes)} of {self.kind} memory, as jobs of this size class"
            f" have shown, and the largest slot that serves the model has {size_text(self.largest_bytes)}"
        )


@dataclass(frozen=True, slots=True)
class Admission:
    """What is learnt and which slots there are, at one moment."""

    at: float = 0.0
    learnt: Mapping[NeedKey, LearntMemory] = field(default_factory=dict)
    rooms: Mapping[str, Sequence[RoomOfSlots]] = field(default_factory=dict)
    """By model, each kind of slot once; of slots that serve it or go to it, whatever their state."""

    def constraint(self, key: NeedKey, on: str, least: MemoryNeed = NO_NEED) -> MemoryNeed | None:
        """Return what a waiting job's slot must have; None where all known slots have it, or none has.

        `least`: what this job itself has shown beyond what is learnt.
        """
        learnt = self.learnt.get(key)
        need = least if learnt is None else learnt.need(self.at).or_more(least)
        rooms = self._rooms(key.model, on)
        if not need or not any(need.met_by(room) for room in rooms):
            return None
        on_device = _told_apart(need.accelerator_bytes, [room.accelerator_bytes for room in rooms])
        on_host = _told_apart(need.host_bytes, [room.host_bytes for room in rooms])
        return MemoryNeed(on_device, on_host) or None

    def refusal(self, key: NeedKey, on: str) -> Refused | None:
        """Return why no known slot could ever do such a job; None where one could, or nobody can be sure."""
        learnt, rooms = self.learnt.get(key), self._rooms(key.model, on)
        if learnt is None or not rooms:
            return None
        need = learnt.need(self.at)
        if any(need.met_by(room) for room in rooms):
            return None
        kinds = (
            ("accelerator", need.accelerator_bytes, learnt.accelerator, [room.accelerator_bytes for room in rooms]),
            ("host", need.host_bytes, learnt.host, [room.host_bytes for room in rooms]),
        )
        for kind, wanted, window, known in kinds:
            has = [each for each in known if each is not None]
            if len(has) == len(known) and max(has) < wanted and window.refuses(max(has), self.at):
                return Refused(key.stage, kind, wanted, max(has))
        return None

    def _rooms(self, model: str, on: str) -> list[MemoryRoom]:
        return [each.room for each in self.rooms.get(model, ()) if on in each.on]


def _told_apart(need_bytes: int, rooms: Sequence[int | None]) -> int:
    """Return a need as lanes tell jobs apart by it: 0 where all slots meet it, else in coarse steps.

    Never more than the smallest slot that meets it has.
    """
    known = [room for room in rooms if room is not None]
    if all(room >= need_bytes for room in known):
        return 0
    step = max(1, (1 << need_bytes.bit_length()) // 32)
    rounded = -(-need_bytes // step) * step
    return min([rounded, *(room for room in known if room >= need_bytes)])


def rooms_by_model(rows: Iterable[tuple[str, RoomOfSlots]]) -> dict[str, list[RoomOfSlots]]:
    """Sort slots by the model that they serve."""
    found: dict[str, list[RoomOfSlots]] = {}
    for model, room in rows:
        found.setdefault(model, []).append(room)
    return found
