"""Start a child of a prepared version in a slot, and wait until it is warm."""

from __future__ import annotations

import itertools
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

from modelrepo.errors import EntrypointFailed
from modelrepo_runtime.worker.footprint import expected
from modelrepo_runtime.worker.preparing import Prepared, child_spec
from modelrepo_runtime.worker.serving import Serving
from modelrepo_runtime.worker.target import Target

if TYPE_CHECKING:
    from modelrepo_runtime.worker.slot import Slot

# Logs of starts are small, and the last few tell what changed.
KEPT_FOLDERS = 5
# How long a driver may take to report memory of a child that is gone; then something else holds it.
MEMORY_RETURNS_S = 30.0
MEMORY_POLL_S = 0.05
# Of what was free and what the child held: the driver keeps a little for itself, and others come and go.
RETURNED_SHARE = 0.9

_numbers = itertools.count(1)


def start(slot: Slot, prepared: Prepared, target: Target) -> Serving:
    """Start and load a child.

    Raises:
        EntrypointFailed: it does not import, load or warm up; its log says why.
        OSError: the process cannot be started.
    """
    parts = slot.parts
    began = time.monotonic()
    children = parts.folder / "children"
    _sweep(children)
    folder = children / f"{time.time_ns():x}-{next(_numbers)}"
    spec = child_spec(prepared, parts.layout, folder, parts.slot_descriptors)
    devices = frozenset(device.label for device in parts.layout.devices)
    need = expected(prepared.chosen.needs, parts.learnt.of(prepared.version.digest), None)
    before = free_bytes(slot)
    with parts.reservations.of(need, devices):
        child = parts.start_child(spec)
        slot.starting(child, target)
        try:
            phases = dict(child.load(parts.load_timeout_s))
            ready_at = time.time()
            after = free_bytes(slot)
            device_bytes = max(0, before - after) if before is not None and after is not None else None
            parts.learnt.see(prepared.version.digest, child.footprint().rss_bytes, device_bytes)
        except BaseException:
            child.stop(0)
            raise
        finally:
            slot.started(child)
    phases["start_s"] = time.monotonic() - began
    parts.journal.say("child-ready", slot=parts.name, version=prepared.version, pid=child.pid, **phases)
    return Serving(prepared, child, target, {**phases, "ready_at": ready_at})


def learn(slot: Slot, serving: Serving) -> None:
    """Measure what a child holds after work: allocators keep what the largest job took."""
    free = free_bytes(slot)
    device_bytes = None if free is None or slot.most_free_bytes is None else slot.most_free_bytes - free
    slot.parts.learnt.see(serving.prepared.version.digest, serving.child.footprint().rss_bytes, device_bytes)


def wait_returned(slot: Slot, free_before: int, held_bytes: int | None) -> None:
    """See the device memory of a child that was just ended come back, by the driver's own view.

    Raises:
        EntrypointFailed: it does not; what would be loaded now might not fit.
    """
    most = slot.most_free_bytes
    if held_bytes is None or most is None:
        return
    wanted = int(min(free_before + held_bytes, most) * RETURNED_SHARE)
    until = time.monotonic() + MEMORY_RETURNS_S
    while not slot.stopping:
        free = free_bytes(slot)
        if free is None or free >= wanted:
            return
        if time.monotonic() >= until:
            raise EntrypointFailed(
                f"device memory was not returned {MEMORY_RETURNS_S:g} s after the end of the child that held it: "
                f"{free} bytes are free, {wanted} were expected; see which process holds the device"
            )
        time.sleep(MEMORY_POLL_S)


def free_bytes(slot: Slot) -> int | None:
    """Ask the driver for the slot's free memory, and remember the most that there ever was."""
    room = slot.parts.device_room()
    free = room.free_bytes if room else None
    if free is not None:
        slot.most_free_bytes = max(free, slot.most_free_bytes or 0)
    return free


def _sweep(children: Path) -> None:
    """Remove the folders of earlier children but the newest; one that still records a process stays."""
    if not children.is_dir():
        return
    ended = sorted(folder for folder in children.iterdir() if not (folder / "process.json").exists())
    for folder in ended[: -KEPT_FOLDERS or None]:
        shutil.rmtree(folder, ignore_errors=True)
