"""Swaps while jobs are always queued: none fails, none is lost, none runs on a version that is neither old nor new."""

import os
import threading
import time
from collections import Counter
from pathlib import Path

from modelrepo.promotion import Rollout
from modelrepo_runtime.jobs import Status
from modelrepo_runtime.queue.port import JobFilter
from modelrepo_runtime.testing.live import LiveBox, size_of, slope

SWAPS = 200 if os.environ.get("MODELREPO_ACCEPTANCE") == "full" else 20
VERSIONS = 6
SLOTS = 2
QUEUED = 12
# A worker that learns, logs and caches grows a little at first; a leak of one child's descriptors would be far more.
SETTLED = SWAPS // 3
FD_SLOPE = 0.1
RSS_SLOPE_BYTES = 128 << 10

CODE = """
import time

class Model:
    def load(self, ctx):
        self.version = ctx.version

    def run(self, job):
        time.sleep(0.005)
        return {{"version": self.version, "number": {number}}}
"""


class Feeder:
    """Keeps jobs queued, from a thread of its own."""

    def __init__(self, box: LiveBox) -> None:
        self.jobs: list[str] = []
        self._box = box
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._feed)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _feed(self) -> None:
        waiting = JobFilter(status=Status.QUEUED, limit=QUEUED)
        while not self._stopped.wait(0.01):
            for _ in range(QUEUED - len(self._box.queue.list(waiting))):
                self.jobs.append(self._box.client.submit("live")["id"])


def test_swaps_under_load_lose_nothing(tmp_path: Path) -> None:
    with LiveBox(tmp_path) as box:
        swap = ["swap: overlap\n", "swap: drain\n"]
        versions = [box.push(CODE.format(number=n), yaml=swap[n % 2]) for n in range(VERSIONS)]
        box.promote(versions[0])
        worker = box.worker(cpu_slots=SLOTS)
        box.serves(versions[0], slots=SLOTS)
        feeder = Feeder(box)
        # (from when on, what may be claimed): both while a swap is under way, the new one alone once all say so.
        allowed: list[tuple[float, set[str]]] = [(0.0, {versions[0]})]
        sizes = []
        try:
            for number in range(1, SWAPS + 1):
                old, new = versions[(number - 1) % VERSIONS], versions[number % VERSIONS]
                allowed.append((time.time(), {old, new}))
                generation = box.promote(new, rollout=Rollout("1"))
                box.serves(new, slots=SLOTS, generation=generation)
                allowed.append((time.time(), {new}))
                sizes.append(size_of(worker.pid))
        finally:
            feeder.stop()
        jobs = feeder.jobs
        box.until(lambda: not unended(box), "every job has ended")
        found = [box.queue.get(job) for job in jobs]
        assert Counter(job.status for job in found) == {Status.SUCCEEDED: len(jobs)}
        assert len(jobs) > SWAPS
        attempts = [row for row in box.queue.history() if row.event == "attempt"]
        assert Counter(row.cause for row in attempts) == {"succeeded": len(jobs)}
        for row in attempts:
            assert row.claimed_at is not None
            may_run = [versions_then for since, versions_then in allowed if since <= row.claimed_at][-1]
            assert row.version in may_run, f"{row} ran on neither the old nor the new version, {may_run}"
        results = {job.result["version"] for job in found}
        assert results == set(versions)
        assert all(job.version == job.result["version"] for job in found)
        settled = sizes[SETTLED:]
        assert max(size.children for size in settled) <= 2 * SLOTS
        assert slope([size.descriptors for size in settled]) <= FD_SLOPE
        assert slope([size.rss_bytes for size in settled]) <= RSS_SLOPE_BYTES
        assert worker.stop() == 0


def unended(box: LiveBox) -> bool:
    return bool(box.queue.list(JobFilter(status=Status.QUEUED)) or box.queue.list(JobFilter(status=Status.RUNNING)))
