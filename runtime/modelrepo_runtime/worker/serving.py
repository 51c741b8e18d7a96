"""A child that serves in a slot, and the few things that a slot needs of the rest of the worker."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from modelrepo.contract import StageSpec
from modelrepo_runtime.accelerators import SlotLayout
from modelrepo_runtime.job_memory import ANY_ROOM, MemoryRoom
from modelrepo_runtime.jobs import Json
from modelrepo_runtime.queue.port import Offer
from modelrepo_runtime.supervision.spec import ChildSpec
from modelrepo_runtime.timing import Timing
from modelrepo_runtime.worker.attempt import Attempts
from modelrepo_runtime.worker.calling import Runs
from modelrepo_runtime.worker.claiming import Claimer
from modelrepo_runtime.worker.footprint import Learnt
from modelrepo_runtime.worker.journal import Journal
from modelrepo_runtime.worker.memory import Reservations
from modelrepo_runtime.worker.preparing import Prepared, SlotBox, Source
from modelrepo_runtime.worker.session import WorkerSession
from modelrepo_runtime.worker.swap_plan import Room
from modelrepo_runtime.worker.target import Target

# A model without an end to its loading would hold its slot for ever; as long as a stage may take unless it says more.
LOAD_TIMEOUT_S = 3600.0


class Measured(Protocol):
    """The host memory of a child and all that it has started, without what it shares through files."""

    @property
    def own_bytes(self) -> int: ...


class SlotChild(Runs, Protocol):
    """A child as its slot sees it."""

    @property
    def pid(self) -> int: ...

    @property
    def alive(self) -> bool: ...

    @property
    def state(self) -> str: ...

    @property
    def has_memory_group(self) -> bool: ...

    def load(self, timeout_s: float | None) -> Mapping[str, float]: ...

    @property
    def reloads(self) -> bool:
        """Whether its model can take up another version in place."""

    def reload(self, spec: ChildSpec, timeout_s: float | None) -> float:
        """Take up another version in place; see Child.reload."""

    def footprint(self) -> Measured: ...

    def dump_stacks(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Serving:
    """A warm child and what it runs. `target` is the newest change that asks for exactly this."""

    prepared: Prepared
    child: SlotChild
    target: Target
    phases: Mapping[str, float] = field(default_factory=dict)

    def offers(self, slot: str, accelerator: str | None = None, room: MemoryRoom = ANY_ROOM) -> tuple[Offer, ...]:
        """Return the ways to use the slot: at once for all stages, or one by one where some take batches."""
        whole, stages = self.offer(slot, accelerator, room), self.prepared.chosen.stages
        if all(stage.max_batch == 1 for stage in stages):
            return (whole,)
        return tuple(replace(whole, stages=(stage.name,), limit=stage.max_batch) for stage in stages)

    def stage(self, name: str) -> StageSpec:
        """Return one of the stages that it runs. Raises: StopIteration."""
        return next(stage for stage in self.prepared.chosen.stages if stage.name == name)

    def offer(self, slot: str, accelerator: str | None = None, room: MemoryRoom = ANY_ROOM) -> Offer:
        chosen = self.prepared.chosen
        name, stages = (chosen.version.model, chosen.version.version), tuple(stage.name for stage in chosen.stages)
        return Offer(slot, *name, stages, plan=chosen.plan, accelerator=accelerator, room=room)


@dataclass(frozen=True, slots=True)
class SlotParts:
    """What a slot works with. One value for each slot, so that tests can give it whatever they like."""

    name: str
    layout: SlotLayout
    folder: Path
    box: SlotBox
    timing: Timing
    journal: Journal
    session: WorkerSession
    claimer: Claimer
    attempts: Attempts
    source: Source
    learnt: Learnt
    reservations: Reservations
    start_child: Callable[[ChildSpec], SlotChild]
    host_room: Callable[[], Room]
    device_room: Callable[[], Room | None]
    """None for a slot on the CPU."""
    slots_total: Callable[[str], int]
    """How many slots of the fleet serve a model: what a share of `max_unavailable` is taken of."""
    look_again: Callable[[str], None]
    """Read a model's active version now; the slot hears of a change before this returns."""
    slot_descriptors: tuple[int, ...] = ()
    """Locks that every process of a child holds on to."""
    load_timeout_s: float = LOAD_TIMEOUT_S
    make_room: Callable[[int], None] = lambda _: None
    """Have so much host memory free before a child takes it, where `host_room` counts what others would give up."""
    cordon: Callable[[], str | None] = lambda: None
    """Why an operator lets this slot take no jobs, or the health of its devices; None where it may."""
    drop_spare: Callable[[], None] = lambda: None
    """Give back all host memory that nobody uses, for a try that is to have the slot for itself."""
    tight: Callable[[], str | None] = lambda: None
    """Why nothing should be brought into the box's memory now, with figures; None where it may. Asked all the time."""
    device_broken: Callable[[], bool] = lambda: False
    """Whether its devices are past use: no child is started then. As of the last look; asked all the time."""
    room: MemoryRoom = ANY_ROOM
    """The memory that a job of it may take."""
    figures: Callable[[], Mapping[str, Json]] = dict
    """What was measured last of its memory."""
    look_at_devices: Callable[[], None] = lambda: None
    """Look at the health of its devices now."""
