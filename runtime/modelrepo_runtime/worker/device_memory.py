"""A slot's device memory by the driver's own view: what is free, what children take of it, and what they give back."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from modelrepo.errors import DeviceHeld
from modelrepo_runtime.worker.serving import Serving
from modelrepo_runtime.worker.slot_states import Withheld
from modelrepo_runtime.worker.swap_plan import size_text

if TYPE_CHECKING:
    from modelrepo_runtime.worker.slot import Slot

# How long a driver may take to report memory of a child that is gone; then something else holds it.
MEMORY_RETURNS_S = 30.0
MEMORY_POLL_S = 0.05
# Of what was free and what the child held: the driver keeps a little for itself, and others come and go.
RETURNED_SHARE = 0.9


def free_bytes(slot: Slot) -> int | None:
    """Ask the driver for the slot's free memory, and remember the most that there ever was."""
    room = slot.parts.device_room()
    free = room.free_bytes if room else None
    if free is not None:
        slot.most_free_bytes = max(free, slot.most_free_bytes or 0)
    return free


def learn(slot: Slot, serving: Serving) -> None:
    """Measure what a child holds after work: allocators keep what the largest job took."""
    free = free_bytes(slot)
    device_bytes = None if free is None or slot.most_free_bytes is None else slot.most_free_bytes - free
    slot.parts.learnt.see(serving.prepared.version.digest, serving.child.footprint().own_bytes, device_bytes)


def due_after(slot: Slot, leaving: Serving, free_before: int | None, *, growth_bytes: int = 0) -> int | None:
    """Return how much must be free once a child has gone; None where nobody can know.

    `free_before`: measured before its end. `growth_bytes`: what whoever stays may take meanwhile.
    """
    held, most = slot.parts.learnt.of(leaving.prepared.version.digest), slot.most_free_bytes
    if free_before is None or most is None or held is None or held.device_bytes is None:
        return None
    return max(0, int(min(free_before + held.device_bytes, most) * RETURNED_SHARE) - growth_bytes)


def wait_returned(slot: Slot, wanted_bytes: int | None) -> None:
    """See that much become free. Raises: DeviceHeld, with the figures; what would be loaded now might not fit."""
    if wanted_bytes is None:
        return
    until = time.monotonic() + MEMORY_RETURNS_S
    while not slot.stopping:
        free = free_bytes(slot)
        if free is None or free >= wanted_bytes:
            return
        if time.monotonic() >= until:
            raise DeviceHeld(
                f"device memory was not returned {MEMORY_RETURNS_S:g} s after the end of the child that held it: "
                f"{size_text(free)} are free, {size_text(wanted_bytes)} were expected"
            )
        time.sleep(MEMORY_POLL_S)


def withhold(slot: Slot, wanted_bytes: int | None, error: DeviceHeld) -> None:
    """Let a slot take no jobs until its memory is back, and say so."""
    if wanted_bytes is None:
        return
    with slot.changed:
        slot.withheld = Withheld(str(error), wanted_bytes, time.monotonic() + slot.parts.timing.beat_s)
        slot.changed.notify_all()
    slot.parts.journal.say("memory-not-returned", slot=slot.parts.name, reason=error)
    slot.parts.session.tell_soon()


def look_again(slot: Slot) -> None:
    """Let a slot take jobs again once the memory is back that it was withheld for."""
    with slot.changed:
        withheld, now = slot.withheld, time.monotonic()
        if withheld is None or now < withheld.look_at:
            return
    free = free_bytes(slot)
    back = free is None or free >= withheld.wanted_bytes
    with slot.changed:
        slot.withheld = (
            None if back else Withheld(withheld.reason, withheld.wanted_bytes, now + slot.parts.timing.beat_s)
        )
        slot.changed.notify_all()
    if back:
        slot.parts.journal.say("memory-returned", slot=slot.parts.name, free_bytes=free)
        slot.parts.session.tell_soon()
