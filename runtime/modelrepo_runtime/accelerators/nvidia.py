"""NVIDIA devices: NVML through nvidia-ml-py, else what nvidia-smi prints."""

from __future__ import annotations

import importlib
import re
import threading
from types import ModuleType
from typing import Any

from modelrepo_runtime.accelerators.faults import Fault, FaultKind
from modelrepo_runtime.accelerators.nvml_health import NvmlHealth
from modelrepo_runtime.accelerators.port import Device, DriverVersions, Environ, Kind
from modelrepo_runtime.accelerators.tools import number, output_of
from modelrepo_runtime.accelerators.visible import visible

MIB = 1024 * 1024
_QUERY = ("index", "uuid", "name", "memory.total", "memory.free", "driver_version")


class Nvidia:
    """The NVIDIA devices of this box; `library=False` asks nvidia-smi alone."""

    kind: Kind = "cuda"

    def __init__(self, environ: Environ, *, library: bool = True) -> None:
        self._environ = environ
        self._nvml = _Nvml.open() if library else None
        self._listed: set[str] = set()
        """UUIDs that nvidia-smi has listed once."""

    def probe(self) -> tuple[Device, ...]:
        devices = self._nvml.devices() if self._nvml else tuple(row for row, _, _ in self._smi())
        return visible(devices, self._environ.get("CUDA_VISIBLE_DEVICES"))

    def free_bytes(self, device: Device) -> int | None:
        if self._nvml:
            return self._nvml.free_bytes(device)
        return next((free for row, free, _ in self._smi() if row.uuid == device.uuid), None)

    def faults(self, device: Device) -> tuple[Fault, ...]:
        if self._nvml:
            return self._nvml.health.faults(device)
        rows = self._smi()
        if any(row.uuid == device.uuid for row, _, _ in rows):
            self._listed.add(device.uuid)
        elif rows and device.uuid in self._listed:  # a tool that shows nothing at all says nothing of any device
            return (Fault(FaultKind.LOST, "nvidia-smi does not list the device any more"),)
        return ()

    def forget_faults(self, device: Device) -> None:
        if self._nvml:
            self._nvml.health.forget(device)

    def versions(self) -> DriverVersions:
        if self._nvml:
            return self._nvml.versions()
        rows = self._smi()
        header = output_of(["nvidia-smi"], self._environ) or ""
        cuda = re.search(r"CUDA Version:\s*(\d+\.\d+)", header)
        return DriverVersions(driver=rows[0][2] if rows else None, runtime=cuda[1] if cuda else None)

    def _smi(self) -> list[tuple[Device, int | None, str]]:
        command = ["nvidia-smi", f"--query-gpu={','.join(_QUERY)}", "--format=csv,noheader,nounits"]
        found: list[tuple[Device, int | None, str]] = []
        for line in (output_of(command, self._environ) or "").splitlines():
            cells = [cell.strip() for cell in line.split(",")]
            if len(cells) != len(_QUERY) or not cells[0].isdigit():
                continue
            total, free = number(cells[3]), number(cells[4])
            device = Device("cuda", int(cells[0]), cells[2], (total or 0) * MIB, cells[1], "nvidia")
            found.append((device, None if free is None else free * MIB, cells[5]))
        return found


class _Nvml:
    """The driver's own library. Its calls are made one at a time."""

    def __init__(self, library: ModuleType) -> None:
        self._library: Any = library
        self._lock = threading.Lock()
        self.health = NvmlHealth(library, self._lock)

    @classmethod
    def open(cls) -> _Nvml | None:
        """Load libnvidia-ml; None where the box has none, or it does not start."""
        library = importlib.import_module("pynvml")
        try:
            library.nvmlInit()
        except library.NVMLError:
            return None
        return cls(library)

    def devices(self) -> tuple[Device, ...]:
        with self._lock:
            found: list[Device] = []
            for index in range(self._library.nvmlDeviceGetCount()):
                handle = self._library.nvmlDeviceGetHandleByIndex(index)
                parts = self._mig_parts(handle)
                found += [self._device(part, index, mig=True) for part in parts] or [self._device(handle, index)]
            return tuple(found)

    def free_bytes(self, device: Device) -> int | None:
        with self._lock:
            try:
                handle = self._library.nvmlDeviceGetHandleByUUID(device.uuid)
                return int(self._library.nvmlDeviceGetMemoryInfo(handle).free)
            except self._library.NVMLError:
                return None

    def versions(self) -> DriverVersions:
        with self._lock:
            driver = self._ask(self._library.nvmlSystemGetDriverVersion)
            cuda = self._ask(self._library.nvmlSystemGetCudaDriverVersion_v2)
        runtime = f"{int(cuda) // 1000}.{int(cuda) % 1000 // 10}" if cuda is not None else None
        return DriverVersions(driver=None if driver is None else _text(driver), runtime=runtime)

    def _device(self, handle: object, index: int, *, mig: bool = False) -> Device:
        name = self._ask(self._library.nvmlDeviceGetName, handle)
        uuid = self._ask(self._library.nvmlDeviceGetUUID, handle)
        memory = self._ask(self._library.nvmlDeviceGetMemoryInfo, handle)
        total = int(memory.total) if memory is not None else 0
        return Device("cuda", index, _text(name or "NVIDIA"), total, _text(uuid or ""), "nvidia", mig)

    def _mig_parts(self, handle: object) -> list[object]:
        mode = self._ask(self._library.nvmlDeviceGetMigMode, handle)
        if not mode or not mode[0]:
            return []
        parts = []
        for place in range(self._ask(self._library.nvmlDeviceGetMaxMigDeviceCount, handle) or 0):
            part = self._ask(self._library.nvmlDeviceGetMigDeviceHandleByIndex, handle, place)
            if part is not None:
                parts.append(part)
        return parts

    def _ask(self, call: Any, *arguments: object) -> Any:
        """Call NVML; None where this driver or device does not support the question."""
        try:
            return call(*arguments)
        except self._library.NVMLError:
            return None


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
