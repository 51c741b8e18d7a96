"""Devices that exist only in memory, for tests of what the worker does with them."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from modelrepo_runtime.accelerators.faults import Fault
from modelrepo_runtime.accelerators.port import Device, DriverVersions, Kind


class FakeAccelerator:
    """Devices whose memory is taken and given back by hand."""

    def __init__(
        self, memory_bytes: Sequence[int], *, kind: Kind = "cuda", driver: str = "570.1", runtime: str = "12.8"
    ) -> None:
        self.kind: Kind = kind
        self._versions = DriverVersions(driver, runtime)
        self._lock = threading.Lock()
        self._used = [0] * len(memory_bytes)
        self._faults: dict[int, tuple[Fault, ...]] = {}
        torch, visible_in = (kind[2:], "FAKE_VISIBLE_DEVICES") if kind.startswith("x-") else ("", "")
        self._devices = tuple(
            Device(kind, index, f"Fake {index}", size, f"GPU-fake-{index}", "fake", False, torch, visible_in)
            for index, size in enumerate(memory_bytes)
        )

    def probe(self) -> tuple[Device, ...]:
        return self._devices

    def free_bytes(self, device: Device) -> int | None:
        with self._lock:
            return device.memory_total_bytes - self._used[device.index]

    def faults(self, device: Device) -> tuple[Fault, ...]:
        with self._lock:
            return self._faults.get(device.index, ())

    def forget_faults(self, device: Device) -> None:
        with self._lock:
            self._faults.pop(device.index, None)

    def versions(self) -> DriverVersions:
        return self._versions

    def fail(self, index: int, *faults: Fault) -> None:
        """Have device `index` show these faults, or none."""
        with self._lock:
            self._faults[index] = faults

    def take(self, index: int, size_bytes: int) -> None:
        """Hold `size_bytes` more of device `index`; negative gives back."""
        with self._lock:
            self._used[index] += size_bytes
