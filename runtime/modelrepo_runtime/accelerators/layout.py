"""Which devices make a slot: `--slots auto | 8x1 | 2x4 | 0,1,2,3;4,5` and `--cpu-slots N`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from modelrepo.errors import InvalidInput
from modelrepo_runtime.accelerators.port import Device

MAX_CPU_SLOTS = 1024


@dataclass(frozen=True, slots=True)
class SlotLayout:
    """One slot: its name on this box and its devices; none is a slot on the CPU."""

    name: str
    devices: tuple[Device, ...]

    @property
    def label(self) -> str:
        """Name the slot's devices for people: `cuda:0,1`, `cpu`."""
        if not self.devices:
            return "cpu"
        first, *rest = (device.label for device in self.devices)
        return ",".join([first, *(label.partition(":")[2] for label in rest)])

    @property
    def lock_names(self) -> tuple[str, ...]:
        """Name what no two workers of one box may hold at once: the slot, and its further devices."""
        return (self.name, *(_name(device) for device in self.devices[1:]))

    @property
    def on_cpu(self) -> bool:
        return not self.devices or self.devices[0].kind == "cpu"


def lay_out(slots: str, cpu_slots: int, devices: Sequence[Device]) -> tuple[SlotLayout, ...]:
    """Divide the accelerators of a box into slots.

    `auto` is a slot a device; on a box without an accelerator, one slot on the CPU unless `cpu_slots` asks for some.

    Raises:
        InvalidInput: the text cannot be read, or asks for devices that are not there or are taken twice.
    """
    if not 0 <= cpu_slots <= MAX_CPU_SLOTS:
        raise InvalidInput(
            f"cannot make {cpu_slots} slots on the CPU: give --cpu-slots a number from 0 to {MAX_CPU_SLOTS}"
        )
    accelerators = [device for device in devices if device.kind != "cpu"]
    groups = _groups(slots.strip(), accelerators)
    if slots.strip() == "auto" and not groups and not cpu_slots:
        cpu_slots = 1
    found = [SlotLayout(_name(group[0]), tuple(group)) for group in groups]
    found += [SlotLayout(f"cpu{place}", ()) for place in range(cpu_slots)]
    if not found:
        raise InvalidInput(f"cannot start a worker without slots: --slots {slots} and --cpu-slots 0 leave none")
    return tuple(found)


def _groups(text: str, devices: list[Device]) -> list[list[Device]]:
    if text == "auto":
        return [[device] for device in devices]
    if text == "none":
        return []
    counted = re.fullmatch(r"(\d+)x(\d+)", text)
    if counted:
        slots, each = int(counted[1]), int(counted[2])
        if slots * each > len(devices) or not slots * each:
            raise InvalidInput(f"cannot lay out --slots {text}: it takes {slots * each} devices, {_here(devices)}")
        return [devices[place * each : (place + 1) * each] for place in range(slots)]
    if not re.fullmatch(r"\d+(,\d+)*(;\d+(,\d+)*)*", text):
        raise InvalidInput(f"cannot read --slots {text!r}: write auto, none, 8x1, 2x4 or 0,1,2,3;4,5")
    return _listed(text, devices)


def _listed(text: str, devices: list[Device]) -> list[list[Device]]:
    by_index: dict[int, Device] = {}
    for device in devices:
        # Parts of one MIG device share its number: a number then names none of them, only their place in the list does.
        by_index.setdefault(device.index, device)
    if any(device.mig for device in devices):
        by_index = dict(enumerate(devices))
    taken: set[int] = set()
    groups = []
    for group in text.split(";"):
        indices = [int(part) for part in group.split(",")]
        for index in indices:
            if index not in by_index:
                raise InvalidInput(f"cannot lay out --slots {text}: there is no device {index}, {_here(devices)}")
            if index in taken:
                raise InvalidInput(
                    f"cannot lay out --slots {text}: device {index} is in it twice; name each device once"
                )
            taken.add(index)
        groups.append([by_index[index] for index in indices])
    return groups


def _here(devices: list[Device]) -> str:
    return f"this box has {', '.join(device.label for device in devices)}" if devices else "this box shows none"


def _name(device: Device) -> str:
    """Name a device so that two workers on one box that share it collide on its lock."""
    return f"{device.kind}{device.uuid[-12:] if device.mig else device.index}"
