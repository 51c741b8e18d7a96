"""Plan a swap from measured memory: beside the old version, in its own child, after it, or not at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from modelrepo_runtime.worker.footprint import Footprint

Mode = Literal["overlap", "inplace", "drain", "refuse"]

MIB = 1024 * 1024
GIB = 1024 * MIB
# Allocators, CUDA contexts and page tables grow after the warm-up: a twentieth, and no less than a quarter GiB.
MARGIN_SHARE = 0.05
MARGIN_BYTES = 256 * MIB

_SAME = ("environment, code and tensor layout are the same, and the model has a method reload",)


@dataclass(frozen=True, slots=True)
class Room:
    """Measured memory: free now, and all that there is; None where nothing can be measured."""

    free_bytes: int | None
    total_bytes: int | None


@dataclass(frozen=True, slots=True)
class SwapFacts:
    """All that the planner looks at. `device` is None for a slot on the CPU.

    `inplace`: why the child that serves cannot take the new version up in place; empty: it can.
    """

    wish: str
    incoming: Footprint
    serving: Footprint
    host: Room
    device: Room | None
    inplace: tuple[str, ...] = ("nothing serves",)


@dataclass(frozen=True, slots=True)
class SwapPlan:
    """How to swap, and why, in words for `modelrepo status`."""

    mode: Mode
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.mode}: {'; '.join(self.reasons)}"


def plan(facts: SwapFacts) -> SwapPlan:
    """Choose `overlap` where both versions fit at once; else `inplace` where the child can, `drain` where one fits.

    What the author asks for comes first, as far as it is possible; a version that cannot fit at all is refused.
    """
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
    if facts.wish == "inplace" and not facts.inplace:
        return SwapPlan("inplace", ("model.yaml asks for inplace", *_SAME))
    if facts.wish == "inplace":
        reasons = (f"inplace is not possible: {', '.join(facts.inplace)}", *reasons)
    if "drain" not in modes:
        return SwapPlan("overlap", reasons)
    if facts.wish == "overlap":
        reasons = ("model.yaml asks for overlap, which does not fit", *reasons)
    elif not facts.inplace:
        return SwapPlan("inplace", (*reasons, *_SAME))
    return SwapPlan("drain", reasons)


def _judge(place: str, need: int | None, room: Room, source: str) -> tuple[Mode, str]:
    if need is None:
        if place == "host":
            return "overlap", "host memory of the new version is not known, and is taken to fit"
        return "drain", "device memory of the new version is not known, so the old makes room first"
    wanted = need + max(MARGIN_BYTES, int(need * MARGIN_SHARE))
    told = f"{place} needs {size_text(wanted)} ({source}, with margin)"
    if room.total_bytes is not None and need > room.total_bytes:
        return "refuse", f"{told}, more than the {size_text(room.total_bytes)} that this slot has"
    if room.free_bytes is None:
        return "drain", f"{told}, and how much is free cannot be measured"
    if wanted > room.free_bytes:
        return "drain", f"{told}, {size_text(room.free_bytes)} are free beside the old version"
    return "overlap", f"{told}, {size_text(room.free_bytes)} are free"


def size_text(size_bytes: int) -> str:
    """Write a size for people."""
    return f"{size_bytes / GIB:.1f} GiB" if size_bytes >= GIB else f"{size_bytes / MIB:.0f} MiB"
