"""What the kernel's files tell of an AMD device's health: RAS counters, temperature, a lost device."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from pathlib import Path

from modelrepo_runtime.accelerators.faults import Fault, FaultKind, of_memory_errors
from modelrepo_runtime.accelerators.port import Device
from modelrepo_runtime.accelerators.tools import number


class KernelHealth:
    """Watches devices from the first look at each.

    `ras/*_err_count` of the amdgpu driver holds `ue: N` for errors that were not corrected; `hwmon/*/temp*_input` and
    `_crit` are thousandths of a degree C. Source: the Linux kernel's documentation of amdgpu, "RAS" and "hwmon".
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._folders: dict[str, Path] = {}
        self._errors_before: dict[str, int] = {}
        self._seen: dict[str, Fault] = {}

    def faults(self, device: Device, folders: Sequence[Path]) -> tuple[Fault, ...]:
        """Return what is wrong with a device; `folders` are the kernel's, by the index of their devices.

        Where there are none, as in some containers, nothing can be said.
        """
        with self._lock:
            folder = self._folders.get(device.label)
            if folder is None:
                if device.index >= len(folders):
                    return ()
                folder = self._folders[device.label] = folders[device.index].resolve()
            if not folder.is_dir():
                return (Fault(FaultKind.LOST, "the driver does not find the device any more"),)
            count = _uncorrected(folder)
            before = self._errors_before.setdefault(device.label, count)
            fault = of_memory_errors(before, count, "memory errors that could not be corrected")
            if fault is not None:
                self._seen[device.label] = fault
            lasting = self._seen.get(device.label)
        heat = _heat(folder)
        return tuple(fault for fault in (lasting, heat) if fault is not None)

    def forget(self, device: Device) -> None:
        """Begin anew with a device that somebody has seen to."""
        with self._lock:
            self._seen.pop(device.label, None)
            self._errors_before.pop(device.label, None)
            self._folders.pop(device.label, None)


def _uncorrected(folder: Path) -> int:
    """Add up the errors of all blocks of a device; 0 where it counts none."""
    told = (_text(file) for file in folder.glob("ras/*_err_count"))
    return sum(int(found[1]) for text in told if (found := re.search(r"^ue:\s*(\d+)", text, re.MULTILINE)))


def _heat(folder: Path) -> Fault | None:
    for sensor in sorted(folder.glob("hwmon/hwmon*/temp*_input")):
        now = number(_text(sensor))
        most = number(_text(sensor.with_name(sensor.name.replace("_input", "_crit"))))
        if now is not None and most and now >= most:
            return Fault(FaultKind.THERMAL, f"so hot that it slows itself down: {now // 1000} degrees C")
    return None


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
