"""AMD devices: amd-smi, else rocm-smi, else the kernel's own files, whichever is there first."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from modelrepo_runtime.accelerators.amd_health import KernelHealth
from modelrepo_runtime.accelerators.faults import Fault
from modelrepo_runtime.accelerators.port import Device, DriverVersions, Environ, Kind
from modelrepo_runtime.accelerators.tools import json_of, number
from modelrepo_runtime.accelerators.visible import visible

_UNITS = {"B": 1, "KB": 1024, "MB": 1024**2, "GB": 1024**3}
_AMD_PCI_VENDOR = "0x1002"


@dataclass(frozen=True, slots=True)
class _Card:
    device: Device
    used_bytes: int | None


class Amd:
    """The AMD devices of this box. `root` stands in for `/` in tests."""

    kind: Kind = "rocm"

    def __init__(self, environ: Environ, root: Path = Path("/")) -> None:
        self._environ, self._root = environ, root
        self._health = KernelHealth()

    def probe(self) -> tuple[Device, ...]:
        devices = [card.device for card in self._cards()]
        return visible(devices, self._environ.get("ROCR_VISIBLE_DEVICES"))

    def free_bytes(self, device: Device) -> int | None:
        for card in self._cards():
            if card.device.index == device.index and card.used_bytes is not None:
                return max(0, card.device.memory_total_bytes - card.used_bytes)
        return None

    def faults(self, device: Device) -> tuple[Fault, ...]:
        return self._health.faults(device, self._kernel_folders())

    def forget_faults(self, device: Device) -> None:
        self._health.forget(device)

    def versions(self) -> DriverVersions:
        answer = json_of(["amd-smi", "version", "--json"], self._environ)
        first = answer[0] if isinstance(answer, list) and answer else answer
        told = first if isinstance(first, Mapping) else {}
        runtime = _version(told.get("rocm_version")) or _version(_line(self._root / "opt/rocm/.info/version"))
        driver = _version(told.get("amdgpu_version")) or _line(self._root / "sys/module/amdgpu/version") or None
        return DriverVersions(driver=driver, runtime=runtime)

    def _cards(self) -> list[_Card]:
        return self._from_amd_smi() or self._from_rocm_smi() or list(self._from_kernel())

    def _from_amd_smi(self) -> list[_Card]:
        usage = {number(row.get("gpu")): row for row in _rows(json_of(_AMD_SMI_MEMORY, self._environ))}
        cards = []
        for row in _rows(json_of(_AMD_SMI_STATIC, self._environ)):
            index = number(row.get("gpu"))
            if index is None:
                continue
            asic, memory = _part(row, "asic"), _part(usage.get(index, {}), "mem_usage")
            total = _size(memory.get("total_vram")) or _size(_part(row, "vram").get("size")) or 0
            name = str(asic.get("market_name") or "AMD")
            uuid = _uuid(asic.get("asic_serial"))
            used = _size(memory.get("used_vram"))
            cards.append(_Card(Device("rocm", index, name, total, uuid, "amd"), used))
        return cards

    def _from_rocm_smi(self) -> list[_Card]:
        answer = json_of(_ROCM_SMI, self._environ)
        cards = []
        for card, told in answer.items() if isinstance(answer, Mapping) else ():
            named = re.fullmatch(r"card(\d+)", str(card))
            if named is None or not isinstance(told, Mapping):
                continue
            facts = {str(key).lower(): value for key, value in told.items()}
            total = number(facts.get("vram total memory (b)")) or 0
            used = number(facts.get("vram total used memory (b)"))
            name = str(facts.get("card series") or facts.get("device name") or facts.get("card model") or "AMD")
            device = Device("rocm", int(named[1]), name, total, _uuid(facts.get("unique id")), "amd")
            cards.append(_Card(device, used))
        return sorted(cards, key=lambda found: found.device.index)

    def _from_kernel(self) -> Iterator[_Card]:
        for index, folder in enumerate(self._kernel_folders()):
            total = number(_line(folder / "mem_info_vram_total"))
            if not total:
                continue
            name = _line(folder / "product_name") or "AMD"
            device = Device("rocm", index, name, total, _uuid(_line(folder / "unique_id")), "amd")
            yield _Card(device, number(_line(folder / "mem_info_vram_used")))

    def _kernel_folders(self) -> list[Path]:
        """Order devices as ROCR numbers them: by KFD node where KFD is there, else by PCI address."""
        drm = self._root / "sys/class/drm"
        nodes = sorted((self._root / "sys/class/kfd/kfd/topology/nodes").glob("*"), key=lambda node: int(node.name))
        minors = [minor for minor in map(_render_minor, nodes) if minor]
        if minors:
            return [drm / f"renderD{minor}" / "device" for minor in minors]
        folders = [path / "device" for path in drm.glob("renderD*")]
        amd = [folder for folder in folders if _line(folder / "vendor") == _AMD_PCI_VENDOR]
        return sorted(amd, key=lambda folder: folder.resolve().name)


_AMD_SMI_STATIC = ["amd-smi", "static", "--asic", "--vram", "--json"]
_AMD_SMI_MEMORY = ["amd-smi", "metric", "--mem-usage", "--json"]
_ROCM_SMI = ["rocm-smi", "--showproductname", "--showuniqueid", "--showmeminfo", "vram", "--json"]


def _rows(answer: object) -> list[Mapping[str, object]]:
    """Find amd-smi's list of devices: bare in ROCm 6, under `gpu_data` from ROCm 7 on."""
    if isinstance(answer, Mapping):
        answer = answer.get("gpu_data")
    return [row for row in answer if isinstance(row, Mapping)] if isinstance(answer, list) else []


def _part(row: Mapping[str, object], name: str) -> Mapping[str, object]:
    part = row.get(name)
    return part if isinstance(part, Mapping) else {}


def _size(value: object) -> int | None:
    """Read `{"value": 192, "unit": "GB"}` as amd-smi prints sizes; its units are powers of 1024."""
    if not isinstance(value, Mapping):
        return None
    amount = number(value.get("value"))
    return None if amount is None else amount * _UNITS.get(str(value.get("unit", "B")).upper(), 1)


def _uuid(serial: object) -> str:
    """Write a serial as ROCR names the device: GPU- and 16 hexadecimal digits."""
    digits = str(serial or "").lower().removeprefix("0x")
    return f"GPU-{digits.zfill(16)}" if digits and set(digits) <= set("0123456789abcdef") else ""


def _version(text: object) -> str | None:
    found = re.match(r"\d+(?:\.\d+)+", str(text or ""))
    return found[0] if found else None


def _line(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _render_minor(node: Path) -> str | None:
    """Return a KFD node's DRM render minor; None for a CPU node, which has no SIMDs."""
    facts = dict(line.split(maxsplit=1) for line in _line(node / "properties").splitlines() if " " in line)
    return facts.get("drm_render_minor") if number(facts.get("simd_count")) else None
