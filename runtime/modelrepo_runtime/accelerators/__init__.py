"""What this box can compute on: NVIDIA, AMD, Apple and the CPU behind one small port."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from modelrepo.errors import InvalidInput
from modelrepo_runtime.accelerators.amd import Amd
from modelrepo_runtime.accelerators.cpu import Apple, Cpu
from modelrepo_runtime.accelerators.fake import FakeAccelerator
from modelrepo_runtime.accelerators.faults import Fault, FaultKind
from modelrepo_runtime.accelerators.layout import SlotLayout, lay_out
from modelrepo_runtime.accelerators.nvidia import Nvidia
from modelrepo_runtime.accelerators.port import Accelerator, Device, DriverVersions
from modelrepo_runtime.accelerators.visible import child_environment, torch_devices

if TYPE_CHECKING:
    from modelrepo.contract.conditions import AcceleratorFacts

PLUG_INS = "modelrepo.accelerators"
"""The group of entry points under which packages bring further accelerators: callables of the environment."""

__all__ = [
    "Accelerator",
    "Box",
    "Device",
    "DriverVersions",
    "FakeAccelerator",
    "Fault",
    "FaultKind",
    "SlotLayout",
    "child_environment",
    "facts",
    "find_box",
    "lay_out",
    "probe",
    "torch_devices",
]


@dataclass(frozen=True, slots=True)
class Box:
    """One box: the vendor whose devices were found, and those devices."""

    accelerator: Accelerator
    devices: tuple[Device, ...]

    def free_bytes(self, devices: Sequence[Device]) -> int | None:
        """Return the least free memory among `devices`; None where a driver will not say."""
        free = [self.accelerator.free_bytes(device) for device in devices]
        known = [size for size in free if size is not None]
        return min(known) if known and len(known) == len(free) else None


def find_box(environ: Mapping[str, str] | None = None) -> Box:
    """Find the first vendor with devices that this process may use; the CPU where there is none."""
    environ = os.environ if environ is None else environ
    own: list[Callable[[Mapping[str, str]], Accelerator]] = [Nvidia, Amd, lambda _: Apple()]
    for make in (*own, *others()):
        accelerator = make(environ)
        devices = accelerator.probe()
        if devices:
            return Box(accelerator, devices)
    cpu = Cpu()
    return Box(cpu, cpu.probe())


def probe() -> tuple[Device, ...]:
    """List the devices that this process may use: accelerators, else the CPU as one device."""
    return find_box().devices


def facts(devices: Sequence[Device], versions: DriverVersions | None = None) -> AcceleratorFacts:
    """Say of `devices` what `accelerators:` and `host.gpu` conditions ask; no device is the CPU."""
    from modelrepo.contract.conditions import AcceleratorFacts

    if not devices or devices[0].kind == "cpu":
        return AcceleratorFacts(kind="cpu", version=None, count=0, memory_bytes=0, driver=None)
    versions = _versions_of(devices[0]) if versions is None else versions
    return AcceleratorFacts(
        kind=devices[0].kind,
        version=versions.runtime,
        count=len(devices),
        memory_bytes=min(device.memory_total_bytes for device in devices),
        driver=versions.driver,
    )


def others() -> Iterator[Callable[[Mapping[str, str]], Accelerator]]:
    """Yield the factories of accelerators that other packages bring, by the names of their entry points.

    Raises: InvalidInput for one that cannot be loaded: a box that would silently serve on its CPU helps nobody.
    """
    for entry in sorted(entry_points(group=PLUG_INS), key=lambda entry: entry.name):
        try:
            yield entry.load()
        except Exception as error:
            raise InvalidInput(
                f"cannot load the accelerator plug-in {entry.name} ({entry.value}): {error}; mend or uninstall it"
            ) from error


def _versions_of(device: Device) -> DriverVersions:
    if device.kind == "mps":
        return Apple().versions()
    own: dict[str, Callable[[Mapping[str, str]], Accelerator]] = {"cuda": Nvidia, "rocm": Amd}
    if device.kind in own:
        return own[device.kind](os.environ).versions()
    made = (other(os.environ) for other in others())
    return next((each.versions() for each in made if each.kind == device.kind), DriverVersions())
