"""What NVIDIA's library tells of a device's health: Xids, counters, remapped rows, heat, a device that is lost."""

from __future__ import annotations

import threading
from typing import Any

from modelrepo_runtime.accelerators.faults import Fault, FaultKind, of_memory_errors, of_xid
from modelrepo_runtime.accelerators.port import Device

MOST_EVENTS = 64
"""Taken in one look: a device that is dying reports without end."""


class NvmlHealth:
    """Watches devices from the first look at each. `library` is pynvml or what stands for it; one call at a time."""

    def __init__(self, library: Any, lock: threading.Lock) -> None:
        self._library, self._lock = library, lock
        self._events: Any = None
        self._errors_before: dict[str, int] = {}
        self._reported: dict[str, dict[str, Fault]] = {}

    def faults(self, device: Device) -> tuple[Fault, ...]:
        """Return what is wrong with a device now, and what lasts of what was seen since the first look."""
        with self._lock:
            handle = self._handle(device)
            if handle is None:
                return (Fault(FaultKind.LOST, "the driver does not find the device any more"),)
            if device.uuid not in self._errors_before:
                self._begin(device, handle)
            self._take_events()
            seen = self._reported.setdefault(device.uuid, {})
            for fault in (self._memory_errors(device, handle), self._rows(handle)):
                if fault is not None:
                    seen[fault.kind] = fault
            heat = self._heat(handle)
            return (*seen.values(), *((heat,) if heat else ()))

    def forget(self, device: Device) -> None:
        """Begin anew with a device that somebody has seen to."""
        with self._lock:
            self._reported.pop(device.uuid, None)
            self._errors_before.pop(device.uuid, None)

    def _handle(self, device: Device) -> Any:
        """Find a device by its UUID, which it keeps; None where the driver has lost it."""
        try:
            handle = self._library.nvmlDeviceGetHandleByUUID(device.uuid)
            self._library.nvmlDeviceGetMemoryInfo(handle)
        except self._library.NVMLError as error:
            gone = (self._library.NVML_ERROR_GPU_IS_LOST, self._library.NVML_ERROR_NOT_FOUND)
            return None if getattr(error, "value", None) in gone else _handle_or_none(self._library, device)
        return handle

    def _begin(self, device: Device, handle: Any) -> None:
        self._errors_before[device.uuid] = self._count(handle)
        try:
            if self._events is None:
                self._events = self._library.nvmlEventSetCreate()
            kinds = self._library.nvmlEventTypeXidCriticalError
            self._library.nvmlDeviceRegisterEvents(handle, kinds, self._events)
        except self._library.NVMLError:
            pass  # parts of a device and old drivers have no events: what else is asked must do

    def _take_events(self) -> None:
        for _ in range(MOST_EVENTS if self._events is not None else 0):
            try:
                event = self._library.nvmlEventSetWait_v2(self._events, 0)
                fault = of_xid(int(event.eventData))
                uuid = self._library.nvmlDeviceGetUUID(event.device)
            except self._library.NVMLError:
                return
            if fault is not None:
                name = uuid.decode() if isinstance(uuid, bytes) else str(uuid)
                self._reported.setdefault(name, {})[fault.text] = fault

    def _count(self, handle: Any) -> int:
        try:
            uncorrected, since_boot = self._library.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, self._library.NVML_VOLATILE_ECC
            return int(self._library.nvmlDeviceGetTotalEccErrors(handle, uncorrected, since_boot))
        except self._library.NVMLError:
            return 0

    def _memory_errors(self, device: Device, handle: Any) -> Fault | None:
        before = self._errors_before[device.uuid]
        return of_memory_errors(before, self._count(handle), "ECC errors that could not be corrected")

    def _rows(self, handle: Any) -> Fault | None:
        try:
            *_, failed = self._library.nvmlDeviceGetRemappedRows(handle)
        except self._library.NVMLError:
            return None
        return (
            Fault(FaultKind.MEMORY, "rows of its memory could not be remapped; it wants replacing") if failed else None
        )

    def _heat(self, handle: Any) -> Fault | None:
        try:
            reasons = self._library.nvmlDeviceGetCurrentClocksThrottleReasons(handle)
            if not reasons & self._library.nvmlClocksThrottleReasonHwThermalSlowdown:
                return None
            degrees = self._library.nvmlDeviceGetTemperature(handle, self._library.NVML_TEMPERATURE_GPU)
        except self._library.NVMLError:
            return None
        return Fault(FaultKind.THERMAL, f"so hot that it slows itself down: {degrees} degrees C")


def _handle_or_none(library: Any, device: Device) -> Any:
    try:
        return library.nvmlDeviceGetHandleByUUID(device.uuid)
    except library.NVMLError:
        return None
