"""Which jobs a worker that leaves need not wait for: those that have just saved what they did."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from modelrepo_runtime.worker.holding import Held
from modelrepo_runtime.worker.slot import Slot


class Leaving:
    """From the moment on at which the worker was told to go: a job that saves a state then is ended and handed back.

    All that it did is kept then; what it would do until the end of the grace would be lost, unless it ended before.
    """

    def __init__(self, slots: Sequence[Slot]) -> None:
        self._slots = slots
        self._before = {held: held.state for slot in slots for held in _held(slot)}
        self._ending: dict[Slot, threading.Thread] = {}

    def end_saved(self) -> None:
        """End every job that has saved a state since; returns at once."""
        for slot in self._slots:
            held = _held(slot)
            if slot not in self._ending and held and all(each.state != self._before.get(each) for each in held):
                self._ending[slot] = threading.Thread(target=slot.abandon, name=f"leave {slot.parts.name}", daemon=True)
                self._ending[slot].start()


def _held(slot: Slot) -> tuple[Held, ...]:
    with slot.changed:
        return slot.all_held()
