"""Looks at the health of the slots' devices with every beat, and takes slots out whose device must not be used."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from modelrepo_runtime.accelerators import Accelerator, Device, Fault
from modelrepo_runtime.worker.journal import Journal

CALM_LOOKS = 3
"""So often in a row a device must have been cool before its slot takes jobs again."""


@dataclass(frozen=True, slots=True)
class Sickness:
    """Why a slot takes no jobs on account of its devices."""

    reason: str
    lasting: bool
    calm: int = 0
    """Looks since the heat was seen last."""


def judge(seen: Sequence[tuple[Device, Fault]], before: Sickness | None) -> Sickness | None:
    """Say what is to be made of the faults of one slot's devices; what lasts stays until somebody has seen to it."""
    if before is not None and before.lasting:
        return before
    lasting = [each for each in seen if each[1].lasting]
    if lasting:
        return Sickness(
            f"{_told(lasting)}; reset or replace it, then uncordon the slot or start the worker again", True
        )
    if seen:
        return Sickness(f"{_told(seen)}; it takes jobs again once it has cooled down", False)
    if before is None or before.calm + 1 >= CALM_LOOKS:
        return None
    return Sickness(before.reason, False, before.calm + 1)


def _told(seen: Sequence[tuple[Device, Fault]]) -> str:
    return ", ".join(f"{device.label} is not well: {fault.text}" for device, fault in seen)


class DeviceWatch:
    """Remembers which slots are sick. For any thread.

    `fell_sick` hears of a slot that may run nothing any more, what runs included; `changed` of any other change.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        devices: Mapping[str, Sequence[Device]],
        journal: Journal,
        *,
        fell_sick: Callable[[str], None],
        changed: Callable[[str], None],
    ) -> None:
        self._accelerator, self._devices, self._journal = accelerator, devices, journal
        self._fell_sick, self._changed = fell_sick, changed
        self._lock = threading.Lock()
        self._sick: dict[str, Sickness] = {}

    def look(self) -> None:
        """Look at every device once."""
        for slot in self._devices:
            self.look_at(slot)

    def look_at(self, slot: str) -> None:
        """Look at the devices of one slot."""
        devices = self._devices.get(slot, ())
        seen = [(device, fault) for device in devices for fault in self._accelerator.faults(device)]
        with self._lock:
            before = self._sick.get(slot)
            now = judge(seen, before)
            if now is not None:
                self._sick[slot] = now
            else:
                self._sick.pop(slot, None)
        if (now and now.reason) != (before and before.reason):
            self._journal.say("device-sick" if now else "device-well", slot=slot, reason=now.reason if now else None)
            (self._fell_sick if now and now.lasting else self._changed)(slot)

    def cordon(self, slot: str) -> str | None:
        """Say why a slot takes no jobs."""
        with self._lock:
            sickness = self._sick.get(slot)
        return sickness.reason if sickness else None

    def sick(self) -> Mapping[str, str]:
        """Return each slot whose devices are not well, and why."""
        with self._lock:
            return {slot: sickness.reason for slot, sickness in self._sick.items()}

    def is_broken(self, slot: str) -> bool:
        """Tell whether not even a child should be started there."""
        with self._lock:
            sickness = self._sick.get(slot)
        return sickness is not None and sickness.lasting

    def forget(self, slot: str) -> None:
        """Take a slot's devices for well until they show the contrary: somebody has seen to them."""
        for device in self._devices.get(slot, ()):
            self._accelerator.forget_faults(device)
        with self._lock:
            self._sick.pop(slot, None)
