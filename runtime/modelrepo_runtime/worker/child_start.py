"""Start a child of a prepared version in a slot, and wait until it is warm."""

from __future__ import annotations

import itertools
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

from modelrepo_runtime.supervision.record import is_recorded
from modelrepo_runtime.worker.device_memory import free_bytes
from modelrepo_runtime.worker.footprint import expected
from modelrepo_runtime.worker.preparing import Prepared, child_spec
from modelrepo_runtime.worker.serving import Serving
from modelrepo_runtime.worker.target import Target

if TYPE_CHECKING:
    from modelrepo_runtime.worker.slot import Slot

# Logs of starts are small, and the last few tell what changed.
KEPT_FOLDERS = 5

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
    parts.make_room(need.host_bytes or 0)
    with parts.reservations.of(need, devices):
        child = parts.start_child(spec)
        slot.starting(child, target)
        try:
            phases = dict(child.load(parts.load_timeout_s))
            ready_at = time.time()
            after = free_bytes(slot)
            device_bytes = max(0, before - after) if before is not None and after is not None else None
            parts.learnt.see(prepared.version.digest, child.footprint().own_bytes, device_bytes)
        except BaseException:
            child.stop(0)
            raise
        finally:
            slot.started(child)
    phases["start_s"] = time.monotonic() - began
    parts.journal.say("child-ready", slot=parts.name, version=prepared.version, pid=child.pid, **phases)
    return Serving(prepared, child, target, {**phases, "ready_at": ready_at})


def _sweep(children: Path) -> None:
    """Remove the folders of earlier children but the newest; one that still records a process stays."""
    if not children.is_dir():
        return
    ended = sorted(folder for folder in children.iterdir() if not is_recorded(folder))
    for folder in ended[: -KEPT_FOLDERS or None]:
        shutil.rmtree(folder, ignore_errors=True)
