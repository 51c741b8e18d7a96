"""What a worker measures for whoever looks at it: memory, the pool, states that wait to leave the box.

A report that changes is a row that is written, for each of thousands of slots: figures that waver are told anew only
once they have moved by a part of their whole that matters.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import psutil

from modelrepo_runtime.accelerators import Accelerator, Device
from modelrepo_runtime.jobs import Json
from modelrepo_runtime.memory_limits import group_limits
from modelrepo_runtime.pool.checkpoints import NO_POOL, CheckpointPool
from modelrepo_runtime.worker.report_size import MOST_SHORT, NOTE_BYTES, SHORT_BYTES, clip, clip_all
from modelrepo_runtime.worker.slot import Slot
from modelrepo_runtime.worker.states import States

LOOK_S = 5.0
CHILD_LOOK_S = 15.0
"""Measuring a child looks at every process of the box."""
MATTERS = 1 / 32
"""Of a whole: a figure that has moved by less is told as it was."""


class Steady:
    """Tells figures as they were until they have moved by a part of their whole that matters."""

    def __init__(self) -> None:
        self._told: dict[str, int] = {}

    def of(self, name: str, value: int | None, whole: int | None) -> int | None:
        """Return what is to be told of a figure that is `value` now, of `whole` at most."""
        if value is None:
            self._told.pop(name, None)
            return None
        told = self._told.get(name)
        if told is None or abs(value - told) >= max(1, int((whole or value) * MATTERS)):
            self._told[name] = told = value
        return told


@dataclass(frozen=True, slots=True)
class BoxSources:
    """Where the facts of a box come from."""

    pool: CheckpointPool
    states: States
    sick: Callable[[], Mapping[str, str]]
    """Slots whose devices are not well, and why."""
    notes: Callable[[], Sequence[str]] = lambda: ()
    """What else whoever looks at the box should read, a line each."""


class Figures:
    """Measures now and then in a thread of its own; what it found last is read with each beat, at no cost."""

    def __init__(
        self,
        accelerator: Accelerator,
        devices: Mapping[str, Sequence[Device]],
        slots: Callable[[], Mapping[str, Slot]],
        sources: BoxSources,
    ) -> None:
        self._accelerator, self._devices, self._slots, self._sources = accelerator, devices, slots, sources
        self._steady = Steady()
        self._lock = threading.Lock()
        self._of_slots: dict[str, dict[str, Json]] = {}
        self._of_box: dict[str, Json] = {}
        self._children: dict[str, tuple[int, float, int]] = {}
        """Slot -> pid, when it was measured, bytes."""

    def look(self) -> None:
        """Measure once."""
        slots = self._slots()
        of_slots = {name: self._slot(name, slots.get(name)) for name in self._devices}
        of_box = self._box()
        with self._lock:
            self._of_slots, self._of_box = of_slots, of_box

    def of_slot(self, name: str) -> Mapping[str, Json]:
        """Return `device_used_bytes` and `device_total_bytes` by the driver, and `child_bytes`; as far as known."""
        with self._lock:
            return self._of_slots.get(name, {})

    def of_box(self) -> Mapping[str, Json]:
        """Return `memory`, `pool`, `states`, `sick` and `notes` of the box."""
        with self._lock:
            return self._of_box

    def _slot(self, name: str, slot: Slot | None) -> dict[str, Json]:
        found: dict[str, Json] = {}
        devices = [device for device in self._devices[name] if device.kind != "cpu"]
        free = [self._accelerator.free_bytes(device) for device in devices]
        known = [size for size in free if size is not None]
        if devices and len(known) == len(devices):
            total = sum(device.memory_total_bytes for device in devices)
            found["device_used_bytes"] = self._steady.of(f"device {name}", total - sum(known), total)
            found["device_total_bytes"] = total
        child = self._child(name, slot) if slot is not None else None
        if child is not None:
            found["child_bytes"] = self._steady.of(f"child {name}", child, None)
        return found

    def _child(self, name: str, slot: Slot) -> int | None:
        with slot.changed:
            serving = slot.serving
        if serving is None or not serving.child.alive:
            self._children.pop(name, None)
            return None
        child, now = serving.child, time.monotonic()
        known = self._children.get(name)
        if known is None or known[0] != child.pid or now - known[1] >= CHILD_LOOK_S:
            known = self._children[name] = (child.pid, now, child.footprint().own_bytes)
        return known[2]

    def _box(self) -> dict[str, Json]:
        sources = self._sources
        sick = [f"{slot}: {why}" for slot, why in sorted(sources.sick().items())]
        box: dict[str, Json] = {"memory": self._memory(), "pool": pool_facts(sources.pool)}
        box["states"] = {"waiting": sources.states.waiting}
        if sick:
            box["sick"] = list(clip_all(sick, SHORT_BYTES, MOST_SHORT))
        notes = sources.notes()
        if notes:
            box["notes"] = list(clip_all(notes, SHORT_BYTES, MOST_SHORT))
        return box

    def _memory(self) -> dict[str, Json]:
        """Measure MemAvailable, and the room in the control group that leaves least."""
        memory = psutil.virtual_memory()
        total = int(memory.total)
        available = self._steady.of("available", int(memory.available), total)
        found: dict[str, Json] = {"total_bytes": total, "available_bytes": available}
        groups = [(max(0, limit - used), limit) for limit, used in group_limits()]
        if groups:
            free, limit = min(groups)
            found |= {"group_limit_bytes": limit, "group_free_bytes": self._steady.of("group", free, limit)}
        return found


def pool_facts(pool: CheckpointPool) -> dict[str, Json]:
    """Say how a pool stands: `state` is `on`, or `off` with the `reason`."""
    report = pool.report()
    if report is None:
        reason = pool.problem or f"the worker was started with --pool {NO_POOL}"
        return {"state": "off", "reason": clip(reason, NOTE_BYTES)}
    return {
        "state": "on",
        "folder": clip(report.folder, NOTE_BYTES),
        "entries": report.entries,
        "used_bytes": report.used_bytes,
        "held_bytes": report.held_bytes,
        "limit_bytes": report.limit_bytes,
    }
