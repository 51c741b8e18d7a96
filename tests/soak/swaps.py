"""An hour of swaps in every mode, under load, with a torch child: what grows with them, and what does not.

Prints one JSON object. Slopes are least squares over all swaps but the first fifth, in which caches and allocators
fill; a unit of the slope is one swap.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from modelrepo_runtime.jobs import Status
from modelrepo_runtime.queue.port import SlotReport
from modelrepo_runtime.testing.live import PYPROJECT, LiveBox, LiveWorker, Size, size_of, slope
from modelrepo_runtime.testing.load import Load, own_bytes

MODES = ("overlap", "drain", "inplace")
ROUND = 10
"""Swaps of one mode before the next mode's turn."""
QUEUED = 4
WIDTH = 1024
SETTLING_SHARE = 0.2
TORCH = "torch==2.13.0"

CODE = """
import torch

class Model:
    def load(self, ctx):
        self.weights = {name: torch.empty_like(tensor) for name, tensor in ctx.load_safetensors("weights").items()}
        self.reload(ctx)

    def reload(self, ctx):
        for name, tensor in ctx.load_safetensors("weights").items():
            self.weights[name].copy_(tensor)

    def run(self, job):
        with torch.inference_mode():
            return float((self.weights["w"][0] @ self.weights["w"]).sum())
"""
YAML = "swap: {mode}\ncheckpoints: {{weights: weights.safetensors}}\n"


@dataclass(slots=True)
class Grown:
    """What was seen after each swap."""

    worker: list[Size] = field(default_factory=list)
    child_bytes: dict[str, list[float]] = field(default_factory=lambda: {mode: [] for mode in MODES})
    latency_s: list[float] = field(default_factory=list)
    visible_s: dict[str, list[float]] = field(default_factory=lambda: {mode: [] for mode in MODES})
    gap_s: dict[str, list[float]] = field(default_factory=lambda: {mode: [] for mode in MODES})


def soak(swaps: int, minutes: float, folder: Path, width: int = WIDTH) -> dict[str, Any]:
    """Swap up to so many times in each mode, within the minutes."""
    grown = Grown()
    with LiveBox(folder) as box:
        versions = {mode: [push(box, mode, number, width) for number in range(2)] for mode in MODES}
        box.promote(versions[MODES[0]][0])
        worker = box.worker(cpu_slots=1)
        box.until(lambda: any(slot.version for _, slot in box.slots()), "the environment is built", limit_s=1800.0)
        load, until = Load(box, QUEUED), time.monotonic() + 60 * minutes
        try:
            done = dict.fromkeys(MODES, 0)
            while min(done.values()) < swaps and time.monotonic() < until:
                for mode in MODES:
                    for _ in range(min(ROUND, swaps - done[mode])):
                        swap(box, worker, mode, versions[mode][done[mode] % 2], grown)
                        done[mode] += 1
                tell(done, swaps)
        finally:
            load.stop()
        failed, lost = load.ends()
        worker.stop()
    ours = len(grown.latency_s)
    return result(grown, done, load.submitted + ours, failed, lost + ours)


def push(box: LiveBox, mode: str, number: int, width: int) -> str:
    """Publish a version with a matrix of its own."""
    source = box.folder / f"source-{box.model}"
    source.mkdir(exist_ok=True)
    size_bytes = 4 * width * width
    header = json.dumps({"w": {"dtype": "F32", "shape": [width, width], "data_offsets": [0, size_bytes]}}).encode()
    dice = random.Random(number)
    row = struct.pack(f"<{width}f", *(dice.random() for _ in range(width)))
    (source / "weights.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + row * width)
    project = PYPROJECT.replace("dependencies = []", f'dependencies = ["{TORCH}", "numpy"]').replace(">=3.9", ">=3.11")
    return box.push(CODE, yaml=YAML.format(mode=mode), project=project)


def swap(box: LiveBox, worker: LiveWorker, mode: str, version: str, grown: Grown) -> None:
    """Promote a version, wait until it offers and nothing of the swap is left, and look at everything."""
    began, generation = time.monotonic(), box.promote(version)
    found: list[SlotReport] = []

    def offers() -> bool:
        found[:] = [slot for _, slot in box.slots() if slot.generation == generation and "gap_s" in (slot.phases or {})]
        return bool(found) and found[0].incoming is None

    box.until(offers, f"{version} serves")
    grown.visible_s[mode].append(time.monotonic() - began)
    grown.gap_s[mode].append((found[0].phases or {})["gap_s"])
    grown.latency_s.append(latency_s(box))
    grown.worker.append(size_of(worker.pid))
    grown.child_bytes[mode].append(float(own_bytes(worker.pid)))


def latency_s(box: LiveBox) -> float:
    """Submit a job and wait for its end."""
    began = time.monotonic()
    job = box.client.submit(box.model)["id"]
    box.until(lambda: box.queue.get(job).status is Status.SUCCEEDED, f"job {job} succeeds")
    return time.monotonic() - began


def result(grown: Grown, done: dict[str, int], jobs: int, failed: int, lost: int) -> dict[str, Any]:
    """Sum up."""
    sizes = settled(grown.worker)
    return {
        "swaps": done,
        "jobs": jobs,
        "failed": failed,
        "lost": lost,
        "worker_rss_slope_kib": round(slope([size.rss_bytes / 1024 for size in sizes]), 3),
        "worker_descriptors_slope": round(slope([float(size.descriptors) for size in sizes]), 4),
        "children_slope": round(slope([float(size.children) for size in sizes]), 4),
        "latency_slope_ms": round(1e3 * slope(settled(grown.latency_s)), 4),
        "child_slope_kib": {mode: round(slope(settled(seen)) / 1024, 3) for mode, seen in grown.child_bytes.items()},
        "latency_ms_p50": round(1e3 * statistics.median(grown.latency_s), 1),
        "visible_s_p50": {mode: round(statistics.median(seen), 3) for mode, seen in grown.visible_s.items()},
        "gap_ms_p50": {mode: round(1e3 * statistics.median(seen), 3) for mode, seen in grown.gap_s.items()},
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}",
        "python": platform.python_version(),
    }


def settled(values: Sequence[Any]) -> Sequence[Any]:
    """Return what came after caches and allocators had filled."""
    return values[int(len(values) * SETTLING_SHARE) :]


def tell(done: dict[str, int], swaps: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{min(done.values())} of {swaps} swaps in each mode", end="", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--swaps", type=int, default=1000, help="in each mode")
    parser.add_argument("--minutes", type=float, default=60.0, help="stop after so many, however many swaps that were")
    parser.add_argument("--out", type=Path, help="also write the object to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="modelrepo-soak-") as folder:
        found = soak(options.swaps, options.minutes, Path(folder))
    text = json.dumps(found, indent=2)
    print(text)
    if options.out is not None:
        options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
