"""The box itself as a device, for models that run without an accelerator; Apple's GPU shares its memory."""

from __future__ import annotations

import platform

import psutil

from modelrepo_runtime.accelerators.faults import Fault
from modelrepo_runtime.accelerators.port import Device, DriverVersions, Kind


class Cpu:
    """The processor. There is always exactly one device, however many cores it has."""

    kind: Kind = "cpu"

    def probe(self) -> tuple[Device, ...]:
        name = platform.processor() or platform.machine() or "cpu"
        return (Device("cpu", 0, name, int(psutil.virtual_memory().total)),)

    def free_bytes(self, device: Device) -> int | None:  # noqa: ARG002
        return int(psutil.virtual_memory().available)

    def faults(self, device: Device) -> tuple[Fault, ...]:  # noqa: ARG002
        return ()

    def forget_faults(self, device: Device) -> None: ...

    def versions(self) -> DriverVersions:
        return DriverVersions()


class Apple:
    """The GPU of an Apple processor: present on every arm64 Mac, in the box's own memory."""

    kind: Kind = "mps"

    def probe(self) -> tuple[Device, ...]:
        if (platform.system(), platform.machine()) != ("Darwin", "arm64"):
            return ()
        return (Device("mps", 0, "Apple", int(psutil.virtual_memory().total), vendor="apple"),)

    def free_bytes(self, device: Device) -> int | None:  # noqa: ARG002
        return int(psutil.virtual_memory().available)

    def faults(self, device: Device) -> tuple[Fault, ...]:  # noqa: ARG002
        return ()

    def forget_faults(self, device: Device) -> None: ...

    def versions(self) -> DriverVersions:
        return DriverVersions(driver=platform.mac_ver()[0] or None)
