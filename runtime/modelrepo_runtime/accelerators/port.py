"""What the worker asks of an accelerator: which devices there are, and how much of their memory is free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from modelrepo_runtime.accelerators.faults import Fault

Kind = str
"""`cuda`, `rocm`, `cpu`, `mps`, or `x-` and the name that another vendor's plug-in gives it."""


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
    torch: str = ""
    """What torch calls such devices; needed of other vendors' only."""
    visible_in: str = ""
    """The variable that says which devices a child sees, by their indices; needed of other vendors' only."""

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

    def faults(self, device: Device) -> tuple[Fault, ...]:
        """Say what is wrong with `device`: what is now, and what lasts of what was since the first call for it.

        Called with every beat. A driver that says nothing is no fault; a device that it has lost is.
        """
        ...

    def forget_faults(self, device: Device) -> None:
        """Begin anew: somebody has seen to `device`."""
        ...

    def versions(self) -> DriverVersions: ...


Environ = Mapping[str, str]
