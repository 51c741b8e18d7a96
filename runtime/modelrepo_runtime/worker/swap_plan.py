"""Plan a swap from measured memory: beside the old version, after it, or not at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from modelrepo_runtime.worker.footprint import Footprint

Mode = Literal["overlap", "drain", "refuse"]

MIB = 1024 * 1024
GIB = 1024 * MIB
# Allocators, CUDA contexts and page tables grow after the warm-up: a twentieth, and no less than a quarter GiB.
MARGIN_SHARE = 0.05
MARGIN_BYTES = 256 * MIB


@dataclass(frozen=True, slots=True)
class Room:
    """Measured memory: free now, and all that there is; None where nothing can be measured."""

    free_bytes: int | None
    total_bytes: int | None


@dataclass(frozen=True, slots=True)
class SwapFacts:
    """All that the planner looks at. `device` is None for a slot on the CPU."""

    wish: str
    incoming: Footprint
    serving: Footprint
    host: Room
    device: Room | None


@dataclass(frozen=True, slots=True)
class SwapPlan:
    """How to swap, and why, in words for `modelrepo status`."""

    mode: Mode
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.mode}: {'; '.join(self.reasons)}"


def plan(facts: SwapFacts) -> SwapPlan:
    """Choose `overlap` where both versions fit at once, `drain` where only one does, `refuse` where none can."""
    places = [("host", facts.incoming.host_bytes, facts.host)]
    if facts.device is not None:
        places.append(("device", facts.incoming.device_bytes, facts.device))
    verdicts = [_judge(name, need, room, facts.incoming.source) for name, need, room in places]
    reasons = tuple(reason for _, reason in verdicts)
    modes = {mode for mode, _ in verdicts}
    if "refuse" in modes:
        return SwapPlan("refuse", reasons)
    if facts.wish == "drain":
        return SwapPlan("drain", ("model.yaml asks for drain",))
    if facts.wish == "inplace":
        reasons = ("inplace is not offered by this worker, planned as auto", *reasons)
    if "drain" in modes:
        asked = ("model.yaml asks for overlap, which does not fit",) if facts.wish == "overlap" else ()
        return SwapPlan("drain", asked + reasons)
    return SwapPlan("overlap", reasons)


def _judge(place: str, need: int | None, room: Room, source: str) -> tuple[Mode, str]:
    if need is None:
        if place == "host":
            return "overlap", "host memory of the new version is not known, and is taken to fit"
        return "drain", "device memory of the new version is not known, so the old makes room first"
    wanted = need + max(MARGIN_BYTES, int(need * MARGIN_SHARE))
    told = f"{place} needs {_size(wanted)} ({source}, with margin)"
    if room.total_bytes is not None and need > room.total_bytes:
        return "refuse", f"{told}, more than the {_size(room.total_bytes)} that this slot has"
    if room.free_bytes is None:
        return "drain", f"{told}, and how much is free cannot be measured"
    if wanted > room.free_bytes:
        return "drain", f"{told}, {_size(room.free_bytes)} are free beside the old version"
    return "overlap", f"{told}, {_size(room.free_bytes)} are free"


def _size(size_bytes: int) -> str:
    return f"{size_bytes / GIB:.1f} GiB" if size_bytes >= GIB else f"{size_bytes / MIB:.0f} MiB"
