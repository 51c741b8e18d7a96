"""How long a swap takes to show, how long the slot stands still for it, and what a thousand of them leave behind.

`visible` is the time from the change of active.yaml to the new child being ready, prefetched; the budget is what the
child itself needs (spawn, import, load, warm-up: `phases_s`) and half a second. `gap` is the time in which the slot
could take no job: from the end of the old version's last job to the new version's first offer.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelrepo_runtime.jobs import Status
from modelrepo_runtime.queue.port import JobFilter, SlotReport
from modelrepo_runtime.testing.live import LiveBox, LiveWorker, Size, size_of, slope

VERSIONS = 4
QUEUED = 4
EVERYTHING = 10**9
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


@dataclass(slots=True)
class Measured:
    """What the swaps of a run took."""

    visible_s: list[float] = field(default_factory=list)
    beyond_s: list[float] = field(default_factory=list)
    """What `visible` is more than the child's own phases."""
    gaps_s: dict[str, list[float]] = field(default_factory=lambda: {"overlap": [], "drain": []})
    phases: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in PHASES})
    sizes: list[Size] = field(default_factory=list)


class Load:
    """Keeps a few jobs queued, from a thread of its own."""

    def __init__(self, box: LiveBox) -> None:
        self.submitted = 0
        self._box, self._stopped = box, threading.Event()
        self._thread = threading.Thread(target=self._feed)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _feed(self) -> None:
        waiting = JobFilter(status=Status.QUEUED, limit=QUEUED)
        while not self._stopped.wait(0.02):
            for _ in range(QUEUED - len(self._box.queue.list(waiting))):
                self._box.client.submit(self._box.model)
                self.submitted += 1


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
    measured.beyond_s.append(visible_s - sum(phases[name] for name in PHASES))
    measured.gaps_s[mode].append(phases["gap_s"])
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
        load = Load(box)
        try:
            for number in range(swaps):
                swap(box, worker, versions[number % VERSIONS], modes[number % 2], measured)
                show(number + 1, swaps)
        finally:
            load.stop()
        box.until(lambda: not (counted(box, Status.QUEUED) or counted(box, Status.RUNNING)), "all jobs have ended")
        succeeded = counted(box, Status.SUCCEEDED)
        ended = sum(counted(box, status) for status in Status if status.ended)
        worker.stop()
    return result(measured, load.submitted, ended - succeeded, load.submitted - ended)


def counted(box: LiveBox, status: Status) -> int:
    return len(box.queue.list(JobFilter(status=status, limit=EVERYTHING)))


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
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output, and nothing else")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="modelrepo-bench-") as folder:
        found = run(options.swaps, Path(folder))
    if options.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name}: {value}")


if __name__ == "__main__":
    main()
