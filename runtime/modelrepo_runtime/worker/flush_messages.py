"""What a worker and the process that flushes states for it say to each other: lines of JSON over pipes."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from modelrepo_runtime.jobs import Fence


@dataclass(frozen=True, slots=True)
class Address:
    """The first line: where states are kept, and by which queue their pointers are moved."""

    queue: str
    files: str | None
    """None: behind the gateway that `queue` is."""
    token: str | None = None


@dataclass(frozen=True, slots=True)
class FlushOrder:
    """A state that lies on this box and is to be kept beyond it."""

    job_id: str
    fence: Fence
    created_at: float
    digest: str
    number: int
    path: Path

    @property
    def attempt(self) -> tuple[str, int]:
        return self.job_id, self.fence.number


class Became(StrEnum):
    """What became of a state."""

    FLUSHED = "flushed"
    SUPERSEDED = "superseded"
    """A newer one was saved before it was kept."""
    STALE = "stale"
    """The attempt is somebody else's by now."""
    FAILED = "failed"
    """It cannot be kept, now or later."""
    TROUBLE = "trouble"
    """It is tried again."""


@dataclass(frozen=True, slots=True)
class FlushReport:
    """What the other process says of one state."""

    job_id: str
    fence: int
    number: int
    became: Became
    why: str = ""
    took_s: float = 0.0

    @property
    def attempt(self) -> tuple[str, int]:
        return self.job_id, self.fence


def write_address(address: Address) -> bytes:
    return _line(asdict(address))


def read_address(line: bytes) -> Address:
    return Address(**json.loads(line))


def write_order(order: FlushOrder) -> bytes:
    return _line({**asdict(order), "fence": str(order.fence), "path": str(order.path)})


def read_order(line: bytes) -> FlushOrder:
    facts = json.loads(line)
    return FlushOrder(**{**facts, "fence": Fence.parse(facts["fence"]), "path": Path(facts["path"])})


def write_report(report: FlushReport) -> bytes:
    return _line(asdict(report))


def read_report(line: bytes) -> FlushReport:
    facts = json.loads(line)
    return FlushReport(**{**facts, "became": Became(facts["became"])})


def _line(document: dict[str, object]) -> bytes:
    return json.dumps(document).encode() + b"\n"
