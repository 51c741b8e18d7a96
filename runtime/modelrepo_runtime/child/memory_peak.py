"""How much memory one job took at most, as its own process can tell."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

_HERE = Path("/proc/self")


class MemoryPeak:
    """Begins to watch when it is made; `taken` says what was taken since. Measuring never fails a job."""

    def __init__(self, process: Path = _HERE) -> None:
        self._process = process
        self._host_known = _begin_host(process)
        _begin_accelerator()

    def taken(self) -> dict[str, int | None]:
        """Return the peaks in bytes, None for what cannot be told.

        `accelerator`: what torch had allocated on the fullest device, with what was there before, such as weights.
        `host`: what this process had of its own, without pages of files: the kernel takes those back first.
        """
        return {
            "accelerator": _accelerator_bytes(),
            "host": _host_bytes(self._process) if self._host_known else None,
        }


def _begin_host(process: Path) -> bool:
    """Set the high-water mark to what is resident now; False where the kernel cannot."""
    try:
        (process / "clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _host_bytes(process: Path) -> int | None:
    try:
        lines = (process / "status").read_text().splitlines()
        parts = [line.partition(":") for line in lines]
        known = {name: int(rest.split()[0]) * 1024 for name, _, rest in parts if name in _LINES}
        return max(0, known["VmHWM"] - known["RssFile"] - known["RssShmem"])
    except (OSError, ValueError, KeyError, IndexError):
        return None


_LINES = {"VmHWM", "RssFile", "RssShmem"}


def _cuda() -> Any:
    """Return torch's devices where the model has begun to use them; ROCm goes by the same name."""
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    return cuda if cuda is not None and cuda.is_initialized() else None


def _begin_accelerator() -> None:
    try:
        cuda = _cuda()
        for device in range(cuda.device_count()) if cuda is not None else ():
            cuda.reset_peak_memory_stats(device)
    except Exception:  # noqa: BLE001 - whatever torch this is, and in whatever state
        pass


def _accelerator_bytes() -> int | None:
    try:
        cuda = _cuda()
        if cuda is None:
            return None
        return max((int(cuda.max_memory_allocated(device)) for device in range(cuda.device_count())), default=None)
    except Exception:  # noqa: BLE001 - as above: a device that has failed answers nothing
        return None
