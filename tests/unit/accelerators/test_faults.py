# ruff: noqa: N802, N815 - names of the library that it stands for
"""What vendors tell of their devices' health."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from modelrepo_runtime.accelerators import Device, FakeAccelerator, Fault, FaultKind
from modelrepo_runtime.accelerators.amd import Amd
from modelrepo_runtime.accelerators.faults import XIDS_CORRECTED, XIDS_OF_PROGRAMS, of_xid
from modelrepo_runtime.accelerators.nvidia import Nvidia


@pytest.mark.parametrize("number", sorted(XIDS_OF_PROGRAMS | XIDS_CORRECTED))
def test_what_programs_cause_and_what_was_corrected_is_no_fault(number: int) -> None:
    assert of_xid(number) is None


@pytest.mark.parametrize(
    ("number", "kind"), [(48, "memory"), (64, "memory"), (74, "driver"), (79, "lost"), (119, "driver"), (999, "driver")]
)
def test_every_other_xid_is_a_fault_that_lasts(number: int, kind: str) -> None:
    fault = of_xid(number)
    assert fault is not None
    assert (fault.kind, fault.lasting) == (kind, True)
    assert f"Xid {number}" in fault.text


class Nvml:
    """A driver's library for one device, with what is wrong set by hand. Names and answers are NVML's own."""

    NVML_ERROR_GPU_IS_LOST, NVML_ERROR_NOT_FOUND, NVML_ERROR_TIMEOUT, NVML_ERROR_NOT_SUPPORTED = 15, 6, 10, 3
    NVML_MEMORY_ERROR_TYPE_UNCORRECTED, NVML_VOLATILE_ECC, NVML_TEMPERATURE_GPU = 1, 0, 0
    nvmlEventTypeXidCriticalError, nvmlClocksThrottleReasonHwThermalSlowdown = 8, 0x40

    class NVMLError(Exception):
        def __init__(self, value: int) -> None:
            self.value = value

    def __init__(self) -> None:
        self.lost = self.has_events = False
        self.has_events = True
        self.errors, self.failed_rows, self.reasons = 0, 0, 0
        self.xids: list[int] = []

    def nvmlInit(self) -> None: ...
    def nvmlDeviceGetCount(self) -> int:
        return 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> object:
        return "handle"

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> object:
        if self.lost:
            raise self.NVMLError(self.NVML_ERROR_GPU_IS_LOST)
        return "handle"

    def nvmlDeviceGetUUID(self, handle: object) -> str:
        return "GPU-0"

    def nvmlDeviceGetName(self, handle: object) -> str:
        return "H100"

    def nvmlDeviceGetMemoryInfo(self, handle: object) -> object:
        return SimpleNamespace(total=80 << 30, free=79 << 30)

    def nvmlDeviceGetMigMode(self, handle: object) -> tuple[int, int]:
        return 0, 0

    def nvmlDeviceGetTotalEccErrors(self, handle: object, kind: int, counter: int) -> int:
        return self.errors

    def nvmlDeviceGetRemappedRows(self, handle: object) -> tuple[int, int, int, int]:
        return 1, 0, 1, self.failed_rows

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: object) -> int:
        return self.reasons

    def nvmlDeviceGetTemperature(self, handle: object, sensor: int) -> int:
        return 93

    def nvmlEventSetCreate(self) -> object:
        return "events"

    def nvmlDeviceRegisterEvents(self, handle: object, kinds: int, events: object) -> None:
        if not self.has_events:
            raise self.NVMLError(self.NVML_ERROR_NOT_SUPPORTED)

    def nvmlEventSetWait_v2(self, events: object, timeout_ms: int) -> object:
        if not self.xids:
            raise self.NVMLError(self.NVML_ERROR_TIMEOUT)
        return SimpleNamespace(device="handle", eventData=self.xids.pop(0))


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Nvml:
    made = Nvml()
    monkeypatch.setitem(sys.modules, "pynvml", made)
    return made


def watched(library: Nvml) -> tuple[Any, Device]:
    nvidia = Nvidia({})
    (device,) = nvidia.probe()
    assert nvidia.faults(device) == ()
    return nvidia, device


def kinds(faults: tuple[Fault, ...]) -> list[str]:
    return sorted(fault.kind for fault in faults)


def test_an_xid_lasts_until_somebody_has_seen_to_the_device(library: Nvml) -> None:
    nvidia, device = watched(library)
    library.xids = [31, 74, 13]
    assert kinds(nvidia.faults(device)) == ["driver"]
    assert kinds(nvidia.faults(device)) == ["driver"]
    nvidia.forget_faults(device)
    assert nvidia.faults(device) == ()


def test_memory_errors_count_from_the_first_look_on(library: Nvml) -> None:
    library.errors = 5
    nvidia, device = watched(library)
    library.errors = 7
    (fault,) = nvidia.faults(device)
    assert (fault.kind, fault.text) == (
        FaultKind.MEMORY,
        "2 more ECC errors that could not be corrected since the worker started",
    )
    nvidia.forget_faults(device)
    assert nvidia.faults(device) == ()


def test_rows_that_could_not_be_remapped_and_heat_are_told(library: Nvml) -> None:
    nvidia, device = watched(library)
    library.failed_rows, library.reasons = 1, 0x40
    assert kinds(nvidia.faults(device)) == ["memory", "thermal"]
    library.reasons = 0
    assert kinds(nvidia.faults(device)) == ["memory"]


def test_a_device_that_fell_off_the_bus_is_lost(library: Nvml) -> None:
    nvidia, device = watched(library)
    library.lost = True
    assert kinds(nvidia.faults(device)) == ["lost"]


def test_a_driver_without_events_is_asked_for_the_rest(library: Nvml) -> None:
    library.has_events = False
    nvidia, device = watched(library)
    library.errors = 1
    assert kinds(nvidia.faults(device)) == ["memory"]


def add_amd(root: Path, minor: int) -> Path:
    device = root / f"sys/devices/pci/0000:{minor - 100}:00.0"
    (device / "ras").mkdir(parents=True)
    (device / "hwmon/hwmon3").mkdir(parents=True)
    render = root / f"sys/class/drm/renderD{minor}"
    render.mkdir(parents=True)
    (render / "device").symlink_to(device)
    told = {
        "vendor": "0x1002",
        "mem_info_vram_total": "1000",
        "ras/umc_err_count": "ue: 1\nce: 40",
        "ras/gfx_err_count": "ue: 0\nce: 0",
        "hwmon/hwmon3/temp1_input": "60000",
        "hwmon/hwmon3/temp1_crit": "100000",
    }
    for name, text in told.items():
        (device / name).write_text(text + "\n")
    return device


def test_the_kernel_tells_of_an_amd_device_what_could_not_be_corrected(tmp_path: Path) -> None:
    folder = add_amd(tmp_path, 128)
    other = add_amd(tmp_path, 129)
    amd = Amd({"PATH": ""}, tmp_path)
    first, second = amd.probe()
    assert amd.faults(first) == amd.faults(second) == ()
    (folder / "ras/umc_err_count").write_text("ue: 3\nce: 90\n")
    (other / "hwmon/hwmon3/temp1_input").write_text("101000\n")
    (fault,) = amd.faults(first)
    assert fault.text == "2 more memory errors that could not be corrected since the worker started"
    (heat,) = amd.faults(second)
    assert (heat.kind, heat.lasting) == ("thermal", False)
    amd.forget_faults(first)
    assert amd.faults(first) == ()


def test_an_amd_device_whose_folder_goes_is_lost_and_one_without_any_says_nothing(tmp_path: Path) -> None:
    folder = add_amd(tmp_path, 128)
    amd = Amd({"PATH": ""}, tmp_path)
    (device,) = amd.probe()
    assert amd.faults(device) == ()
    folder.rename(tmp_path / "gone")
    assert kinds(amd.faults(device)) == ["lost"]
    assert Amd({"PATH": ""}, tmp_path / "container").faults(device) == ()


def test_the_fake_fails_as_it_is_told_to() -> None:
    fake = FakeAccelerator([1 << 30])
    (device,) = fake.probe()
    assert fake.faults(device) == ()
    fake.fail(0, Fault(FaultKind.LOST, "gone"))
    assert kinds(fake.faults(device)) == ["lost"]
    fake.forget_faults(device)
    assert fake.faults(device) == ()
