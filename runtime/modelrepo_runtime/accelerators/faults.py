"""What can be wrong with a device, and which of it a slot must not run jobs on."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class FaultKind(StrEnum):
    """Where a fault was seen."""

    LOST = "lost"
    """The driver does not find the device any more: it fell off the bus."""
    DRIVER = "driver"
    """The driver told of an error of the device itself: an Xid of NVIDIA's."""
    MEMORY = "memory"
    """Memory errors that could not be corrected: ECC, RAS, rows that could not be remapped."""
    THERMAL = "thermal"
    """So hot that the hardware slows itself down."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong with one device, in words."""

    kind: FaultKind
    text: str

    @property
    def lasting(self) -> bool:
        """True where only a reset, a restart or a person ends it; heat passes by itself."""
        return self.kind is not FaultKind.THERMAL


# Xids that a program causes by what it does on a healthy device: an illegal access or instruction, a channel that was
# ended with it, a context switch or a video engine that took too long. All others are the device's, or the driver's.
# Source: NVIDIA, "XID Errors", the table of Xid messages and their causes.
XIDS_OF_PROGRAMS = frozenset({13, 31, 43, 45, 68, 109})
# A row of memory was remapped; many single-bit errors. Both were corrected, and jobs are none the worse for them.
XIDS_CORRECTED = frozenset({63, 92})
XIDS_IN_WORDS = {
    48: "an ECC error of two bits",
    64: "a row of memory could not be remapped",
    74: "an NVLink error",
    79: "it fell off the bus",
    94: "an ECC error that was contained",
    95: "an ECC error that was not contained",
    119: "its system processor does not answer",
    120: "an error of its system processor",
}


def of_xid(number: int) -> Fault | None:
    """Return the fault that an Xid tells of; None where a program caused it, or nothing came of it."""
    if number in XIDS_OF_PROGRAMS | XIDS_CORRECTED:
        return None
    kind = FaultKind.LOST if number == 79 else FaultKind.MEMORY if number in (48, 64, 94, 95) else FaultKind.DRIVER
    words = XIDS_IN_WORDS.get(number)
    return Fault(kind, f"the driver reported Xid {number}" + (f" ({words})" if words else ""))


def of_memory_errors(before: int, now: int, what: str) -> Fault | None:
    """Return the fault that a counter tells of which only counts up; None where it did not."""
    if now <= before:
        return None
    return Fault(FaultKind.MEMORY, f"{now - before} more {what} since the worker started")
