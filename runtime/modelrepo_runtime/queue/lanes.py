"""Lanes: the ready jobs that every poll reading them may claim."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from modelrepo_runtime.job_memory import ANY_ROOM, MemoryNeed, MemoryRoom
from modelrepo_runtime.queue.port import Offer


@dataclass(frozen=True, slots=True)
class Lane:
    """What the ready jobs of a lane have in common; they are alike to a claim, so only heads are compared."""

    model: str
    stage: str
    tier: str
    version: str | None = None
    """None: any version may take it. Always set past the first stage."""
    avoid: frozenset[str] = frozenset()
    """Constraint class: places to keep away from while another live one may take the job."""
    cluster: str | None = None
    """Set where what the stage before handed over lies in one cluster's own storage; None: any cluster."""
    over: bool = False
    """True for the twin that holds the jobs of tenants who are ahead of their share."""
    memory: MemoryNeed | None = None
    """Constraint class as well: what a slot must have. None: all have it, or nobody knows."""


@dataclass(frozen=True, slots=True)
class Place:
    """A slot that could take a job, and where it is."""

    worker: str
    slot: str
    host: str

    @property
    def key(self) -> str:
        return f"{self.worker}/{self.slot}"

    def avoided_by(self, avoid: frozenset[str]) -> bool:
        """True if a job that keeps away from `avoid` keeps away from here."""
        return f"slot:{self.key}" in avoid or f"box:{self.host}" in avoid


@dataclass(frozen=True, slots=True)
class LiveSlot:
    """A slot of a session that beats, as last reported."""

    place: Place
    state: str
    model: str | None
    version: str | None
    incoming_version: str | None = None
    cluster: str = "local"
    on: tuple[str, ...] = ("cpu", "gpu")
    also: tuple[str, ...] = ()
    """Further versions that it holds a child of."""
    room: MemoryRoom = ANY_ROOM

    def may_take(self, lane: Lane, kind: str | None = None) -> bool:
        """True if this slot is open for the lane's jobs, whose stage runs on `kind`, and none of them avoids it."""
        has_room = lane.memory is None or lane.memory.met_by(self.room)
        return self.state == "open" and has_room and self.serves(lane, kind) and not self.place.avoided_by(lane.avoid)

    def serves(self, lane: Lane, kind: str | None = None) -> bool:
        """True if it serves, or goes to, what the lane's jobs wait for."""
        return (
            self.model == lane.model
            and lane.version in (None, self.version, self.incoming_version, *self.also)
            and lane.cluster in (None, self.cluster)
            and (kind is None or kind in self.on)
        )


def fits(lane: Lane, offer: Offer) -> bool:
    """True if the offer's version, stages and memory match the lane, whatever it avoids."""
    if lane.model != offer.model or (lane.memory is not None and not lane.memory.met_by(offer.room)):
        return False
    return lane.version in (None, offer.version) and stage_taken(lane, offer) in offer.stages


def stage_taken(lane: Lane, offer: Offer) -> str:
    """Return the stage at which the offer would take the lane's jobs: those of no version follow the offer's plan."""
    return offer.plan[0].name if lane.version is None and offer.plan else lane.stage


def kind_taken(lane: Lane, offer: Offer) -> str | None:
    """Return what the stage runs on at which the offer would take the lane's jobs; None where it does not say."""
    stage = stage_taken(lane, offer)
    return next((each.on for each in offer.plan if each.name == stage), None)


def admits(lane: Lane, place: Place, live: Callable[[], Iterable[LiveSlot]], kind: str | None = None) -> bool:
    """True if `place` may take the lane's jobs: none avoids it, or no other live slot on `kind` may take them.

    `live` is asked only where one avoids it: there may be thousands of slots.
    """
    return not place.avoided_by(lane.avoid) or not any(slot.may_take(lane, kind) for slot in live())


_MEMORY = "memory:"


def write_constraint(avoid: frozenset[str], memory: MemoryNeed | None = None) -> str:
    """Write a constraint class, which is places and a need, as one canonical text."""
    needs = [f"{_MEMORY}{memory.accelerator_bytes}:{memory.host_bytes}"] if memory is not None else []
    return "\n".join(sorted((*avoid, *needs)))


def read_avoid(text: str) -> frozenset[str]:
    """Read the places of what `write_constraint` wrote."""
    return frozenset(line for line in text.split("\n") if not line.startswith(_MEMORY)) if text else frozenset()


def read_memory(text: str) -> MemoryNeed | None:
    """Read the need of what `write_constraint` wrote."""
    if _MEMORY not in text:
        return None
    line = next((line for line in text.split("\n") if line.startswith(_MEMORY)), None)
    return None if line is None else MemoryNeed(*map(int, line.removeprefix(_MEMORY).split(":")))
