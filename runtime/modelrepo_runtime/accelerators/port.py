"""What the worker asks of an accelerator: which devices there are, and how much of their memory is free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

Kind = Literal["cuda", "rocm", "cpu", "mps"]


@dataclass(frozen=True, slots=True)
class Device:
    """One device of this box. `index` is the vendor's own number of it, the one that children are given."""

    kind: Kind
    index: int
    name: str
    memory_total_bytes: int
    uuid: str = ""
    vendor: str = ""
    mig: bool = False

    @property
    def label(self) -> str:
        """Name the device as `status` shows it: `cuda:0`, `rocm:3`, `cpu`."""
        if self.kind in ("cpu", "mps"):
            return self.kind
        return f"{self.kind}:{self.uuid if self.mig else self.index}"


@dataclass(frozen=True, slots=True)
class DriverVersions:
    """The driver's own version, and the newest CUDA or ROCm that it can run; None where it does not say."""

    driver: str | None = None
    runtime: str | None = None


class Accelerator(Protocol):
    """One vendor's devices on this box. Absent hardware is an empty `probe`, never an error."""

    kind: Kind

    def probe(self) -> tuple[Device, ...]:
        """List the devices that the worker's own environment leaves it, in the vendor's order."""
        ...

    def free_bytes(self, device: Device) -> int | None:
        """Ask the driver how much memory of `device` is free now; None where it will not say."""
        ...

    def versions(self) -> DriverVersions: ...


Environ = Mapping[str, str]
