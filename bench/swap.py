"""How long a swap takes to show, how long the slot stands still for it, and what a thousand of them leave behind.

First a small model, a thousand times; then one with a checkpoint of 1 GiB, in each mode.

`visible` is the time from the change of active.yaml to the new child being ready, prefetched; the budget is what the
child itself needs (spawn, import, load, warm-up: `phases_s`) and half a second. `gap` is the time in which the slot
could take no job: from the end of the old version's last job to the new version's first offer. `rollback` is the time
from a change that asks for a version which fails to load, or to reload, to the report that refuses it while the old one
serves. `peak_over_one_copy` is the most that all children had for themselves during a swap, over the checkpoint's size.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelrepo_runtime.queue.port import SlotReport
from modelrepo_runtime.testing.live import LiveBox, LiveWorker, Size, size_of, slope
from modelrepo_runtime.testing.load import Load, Peak

VERSIONS = 4
QUEUED = 4
BUDGET_S = 0.5
PHASES = ("spawn_s", "import_s", "load_s", "warmup_s")
# Caches and allocators fill during the first swaps; growth is what comes after.
SETTLING_SHARE = 0.2

CODE = """
import time

class Model:
    def load(self, ctx):
        self.number = {number}

    def run(self, job):
        time.sleep(0.01)
"""

# One copy of the checkpoint, in memory of its own, filled anew by a reload; no other copy is ever there.
HEAVY_CODE = """
import time

class Model:
    def load(self, ctx):
        self.copy = bytearray(ctx.checkpoint("weights").stat().st_size)
        self.reload(ctx)

    def reload(self, ctx):
        with ctx.checkpoint("weights").open("rb", buffering=0) as file:
            at, view = 0, memoryview(self.copy)
            while at < len(view):
                at += file.readinto(view[at : at + (1 << 24)])
        if ctx.config["broken"]:
            raise ValueError("this version is broken")

    def run(self, job):
        time.sleep(0.01)
        return self.copy[-1]
"""
HEAVY_YAML = "swap: {mode}\ncheckpoints: {{weights: weights.safetensors}}\nconfig: {{broken: false}}\n"
MODES = ("overlap", "drain", "inplace")


@dataclass(slots=True)
class Measured:
    """What the swaps of a run took."""

    visible_s: list[float] = field(default_factory=list)
    beyond_s: list[float] = field(default_factory=list)
    """What `visible` is more than the child's own phases."""
    gaps_s: dict[str, list[float]] = field(default_factory=lambda: {"overlap": [], "drain": [], "inplace": []})
    phases: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in PHASES})
    sizes: list[Size] = field(default_factory=list)


def swap(box: LiveBox, worker: LiveWorker, version: str, mode: str, measured: Measured) -> None:
    """Promote a version and measure until the slot offers it."""
    generation = box.promote(version)
    changed_at = (box.folder / "repo" / "models" / box.model / "active.yaml").stat().st_mtime
    found: list[SlotReport] = []

    def offers() -> bool:
        found[:] = [slot for _, slot in box.slots() if slot.generation == generation and "gap_s" in (slot.phases or {})]
        return bool(found)

    box.until(offers, f"{version} serves")
    phases = found[0].phases or {}
    visible_s = phases["ready_at"] - changed_at
    measured.visible_s.append(visible_s)
    measured.gaps_s[mode].append(phases["gap_s"])
    if mode != "inplace":
        measured.beyond_s.append(visible_s - sum(phases[name] for name in PHASES))
        for name in PHASES:
            measured.phases[name].append(phases[name])
    measured.sizes.append(size_of(worker.pid))


def run(swaps: int, folder: Path) -> dict[str, Any]:
    """Do `swaps` swaps under load, overlap and drain in turn."""
    measured = Measured()
    with LiveBox(folder) as box:
        modes = ["overlap", "drain"]
        versions = [box.push(CODE.format(number=n), yaml=f"swap: {modes[n % 2]}\n") for n in range(VERSIONS)]
        box.promote(versions[-1])
        worker = box.worker(cpu_slots=1)
        box.serves(versions[-1], slots=1)
        # Prefetch: every version and the environment that they share come to the box once.
        for version in versions:
            box.serves(version, slots=1, generation=box.promote(version))
        load = Load(box, QUEUED)
        try:
            for number in range(swaps):
                swap(box, worker, versions[number % VERSIONS], modes[number % 2], measured)
                show(number + 1, swaps)
        finally:
            load.stop()
        failed, lost = load.ends()
        worker.stop()
    return result(measured, load.submitted, failed, lost)


@dataclass(slots=True)
class Heavy:
    """What swaps of a large model took in one mode."""

    measured: Measured = field(default_factory=Measured)
    rollback_s: list[float] = field(default_factory=list)
    peaks: list[float] = field(default_factory=list)


def run_heavy(swaps: int, size_bytes: int, folder: Path) -> dict[str, Any]:
    """Swap a model with one large checkpoint to and fro in each mode, each time once to a version that fails."""
    found = {mode: Heavy() for mode in MODES}
    with LiveBox(folder) as box:
        versions = {mode: [push_heavy(box, mode, number, size_bytes) for number in range(2)] for mode in MODES}
        box.promote(versions[MODES[0]][0])
        worker = box.worker(cpu_slots=1)
        load, peak = Load(box, QUEUED), Peak(worker.pid)
        try:
            for mode in MODES:
                for version in versions[mode]:  # prefetch
                    box.serves(version, slots=1, generation=box.promote(version))
                for number in range(swaps):
                    peak.take()
                    swap(box, worker, versions[mode][number % 2], mode, found[mode].measured)
                    settle(box)
                    found[mode].peaks.append(peak.take() / size_bytes)
                    other = versions[mode][(number + 1) % 2]
                    found[mode].rollback_s.append(fail(box, other, versions[mode][number % 2]))
                    show(len(found[mode].peaks), swaps)
        finally:
            peak.stop()
            load.stop()
        failed, lost = load.ends()
        worker.stop()
    return {
        "heavy_swaps": swaps * len(MODES),
        "heavy_mib": size_bytes >> 20,
        "heavy_visible_s_p50": {mode: rounded(percentile(each.measured.visible_s, 50)) for mode, each in found.items()},
        "heavy_gap_ms_p50": {
            mode: rounded(percentile(each.measured.gaps_s[mode], 50), 1e3) for mode, each in found.items()
        },
        "inplace_gap_ms_p50": rounded(percentile(found["inplace"].measured.gaps_s["inplace"], 50), 1e3),
        "rollback_s_p50": {mode: rounded(percentile(each.rollback_s, 50)) for mode, each in found.items()},
        "peak_over_one_copy": {mode: rounded(percentile(each.peaks, 50)) for mode, each in found.items()},
        "heavy_jobs": load.submitted,
        "heavy_failed": failed,
        "heavy_lost": lost,
    }


def push_heavy(box: LiveBox, mode: str, number: int, size_bytes: int) -> str:
    """Publish a version with one tensor of so many bytes; of one number they are the same in all modes."""
    source = box.folder / f"source-{box.model}"
    source.mkdir(exist_ok=True)
    header = json.dumps({"w": {"dtype": "U8", "shape": [size_bytes], "data_offsets": [0, size_bytes]}}).encode()
    with (source / "weights.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        piece = random.Random(number).randbytes(min(size_bytes, 1 << 24))
        for start in range(0, size_bytes, len(piece)):
            file.write(piece[: size_bytes - start])
    return box.push(HEAVY_CODE, yaml=HEAVY_YAML.format(mode=mode))


def fail(box: LiveBox, version: str, serving: str) -> float:
    """Ask for a version that does not come up; return the seconds until that is refused and the old one serves."""
    box.promote(version, config_set={"broken": True})
    changed_at = (box.folder / "repo" / "models" / box.model / "active.yaml").stat().st_mtime

    def refused() -> bool:
        return [(slot.state, slot.version) for _, slot in box.slots()] == [("refused", serving)]

    box.until(refused, f"{version} is refused and {serving} serves")
    took_s = time.time() - changed_at
    box.promote(serving, config_unset=["broken"])
    settle(box)
    return took_s


def settle(box: LiveBox) -> None:
    """Wait until the slot is open and no swap is under way."""
    box.until(lambda: [(slot.state, slot.incoming) for _, slot in box.slots()] == [("open", None)], "the swap is over")


def result(measured: Measured, jobs: int, failed: int, lost: int) -> dict[str, Any]:
    settled = measured.sizes[int(len(measured.sizes) * SETTLING_SHARE) :]
    beyond_s = percentile(measured.beyond_s, 99)
    return {
        "swaps": len(measured.visible_s),
        "jobs": jobs,
        "failed": failed,
        "lost": lost,
        "visible_s_p50": rounded(percentile(measured.visible_s, 50)),
        "visible_s_p99": rounded(percentile(measured.visible_s, 99)),
        "phases_s": {name: rounded(percentile(values, 50)) for name, values in measured.phases.items()},
        "overlap_gap_ms_p50": rounded(percentile(measured.gaps_s["overlap"], 50), 1e3),
        "overlap_gap_ms_p99": rounded(percentile(measured.gaps_s["overlap"], 99), 1e3),
        "drain_gap_ms_p50": rounded(percentile(measured.gaps_s["drain"], 50), 1e3),
        "rss_slope_kib_per_swap": rounded(slope([size.rss_bytes / 1024 for size in settled])),
        "fd_slope_per_swap": rounded(slope([float(size.descriptors) for size in settled])),
        "notes": [
            f"visible is {rounded(beyond_s)} s beyond the child's own phases at p99; the budget is {BUDGET_S} s",
            f"a torch-free child, Python {platform.python_version()}, one slot on the CPU, jobs of 10 ms always queued",
            f"slopes over the last {len(settled)} swaps",
        ],
    }


def percentile(values: Sequence[float], share: int) -> float | None:
    if not values:
        return None
    if len(values) == 1:
        return values[0]
    return statistics.quantiles(values, n=100, method="inclusive")[share - 1]


def rounded(value: float | None, scale: float = 1.0) -> float | None:
    return None if value is None else round(value * scale, 3)


def show(done: int, swaps: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{done} of {swaps} swaps", end="" if done < swaps else "\n", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--swaps", type=int, default=1000)
    parser.add_argument("--heavy-swaps", type=int, default=10, help="in each mode, of the large model")
    parser.add_argument("--heavy-mib", type=int, default=1024, help="the size of its checkpoint")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output, and nothing else")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="modelrepo-bench-") as folder:
        found = run(options.swaps, Path(folder) / "small")
        found |= run_heavy(options.heavy_swaps, options.heavy_mib << 20, Path(folder) / "heavy")
    if options.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name}: {value}")


if __name__ == "__main__":
    main()
