"""One slot of many fails every job in a millisecond: it must not become the one that takes them all."""

import os
from collections import Counter
from pathlib import Path

from modelrepo_runtime.jobs import Status
from modelrepo_runtime.testing.live import LiveBox

SLOTS, JOBS = (20, 150) if os.environ.get("MODELREPO_ACCEPTANCE") == "full" else (8, 60)
BAD = "cpu7"

CODE = """
import time

class Model:
    def load(self, ctx):
        self.bad = "/cpu7/" in str(ctx.scratch)

    def run(self, job):
        if self.bad:
            raise RuntimeError("this box has a broken device")
        time.sleep(0.05)
"""


def test_a_slot_that_fails_every_job_is_cordoned_after_three(tmp_path: Path) -> None:
    with LiveBox(tmp_path) as box:
        version = box.push(CODE)
        box.promote(version)
        worker = box.worker(cpu_slots=SLOTS)
        box.serves(version, slots=SLOTS)
        jobs = [box.client.submit("live")["id"] for _ in range(JOBS)]
        box.until(lambda: all(box.queue.get(job).status.ended for job in jobs), "all jobs have ended")
        assert Counter(box.queue.get(job).status for job in jobs) == {Status.SUCCEEDED: JOBS}
        attempts = [row for row in box.queue.history() if row.event == "attempt"]
        failed = [row for row in attempts if row.cause != "succeeded"]
        assert {row.slot for row in failed} == {f"w/{BAD}"}
        assert len({row.job_id for row in failed}) == len(failed) == 3

        def said(slot: str) -> str | None:
            return next(report.state for _, report in box.slots() if report.slot == slot)

        box.until(lambda: said(BAD) == "cordoned", "the bad slot says that it is cordoned")
        report = next(report for _, report in box.slots() if report.slot == BAD)
        assert report.reason == "3 different jobs in a row failed here, the last by exception"
        assert report.deadline is not None
        assert f"cordoned slot={BAD}" in worker.text()
        states = Counter(report.state for _, report in box.slots())
        assert states == {"open": SLOTS - 1, "cordoned": 1}
        assert worker.stop() == 0
