"""Waiting for what the queue shows, and saying what changes on the way."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from modelrepo.errors import NotConverged
from modelrepo_cli.demo.telling import Tell
from modelrepo_runtime.jobs import Job, Status
from modelrepo_runtime.queue.port import JobFilter, JobQueue, SlotReport

T = TypeVar("T")
POLL_S = 0.05  # a demo watches closely; the queue answers in a millisecond


@dataclass(frozen=True, slots=True)
class Watch:
    """One model in one queue; `alive` raises where waiting on would be in vain."""

    queue: JobQueue
    model: str
    tell: Tell
    alive: Callable[[], None]

    def until(self, look: Callable[[], T | None], what: str, timeout_s: float) -> T:
        """Return the first answer that is not None. Raises: NotConverged, and whatever `alive` raises."""
        end = time.monotonic() + timeout_s
        while (found := look()) is None:
            self.alive()
            if time.monotonic() >= end:
                raise NotConverged(f"the demo waited {timeout_s:.0f} s in vain for {what}")
            time.sleep(POLL_S)
        return found

    def serving(self, worker: str, version: str, timeout_s: float) -> None:
        """Wait until every slot of a worker serves a version, and tell each change on the way."""
        shown: str | None = None

        def look() -> bool | None:
            nonlocal shown
            slots = self.slots(worker)
            line = "; ".join(_describe(slot) for slot in slots)
            if line != shown:
                if shown:
                    self.tell(f"  {worker}: {line}")
                shown = line
            done = slots and all(slot.version == version and slot.incoming is None for slot in slots)
            return True if done else None

        self.until(look, f"{worker} to serve {self.model}@{version}", timeout_s)

    def slots(self, worker: str) -> tuple[SlotReport, ...]:
        """Return the newest report of each slot of a worker."""
        reports = [report for report in self.queue.fleet() if report.info.name == worker]
        return tuple(slot for report in reports for slot in report.slots)

    def succeeded_by(self, version: str, more: int, timeout_s: float) -> None:
        """Wait until a version has ended that many more jobs."""
        start = self.versions()[version]
        self.until(
            lambda: True if self.versions()[version] >= start + more else None,
            f"{more} jobs by {self.model}@{version}",
            timeout_s,
        )

    def versions(self) -> Counter[str | None]:
        """Count the jobs that succeeded by version."""
        jobs = self.queue.list(JobFilter(model=self.model, status=Status.SUCCEEDED, limit=10_000))
        return Counter(job.version for job in jobs)

    def ended(self, job_id: str, timeout_s: float) -> Job:
        """Wait for a job's end and return it."""

        def look() -> Job | None:
            job = self.queue.get(job_id)
            return job if job.status.ended else None

        return self.until(look, f"the end of {job_id}", timeout_s)

    def all_ended(self, job_ids: Sequence[str], timeout_s: float) -> None:
        """Wait until none of the jobs is queued or running."""
        left = list(job_ids)

        def look() -> bool | None:
            while left and self.queue.get(left[-1]).status.ended:
                left.pop()
            return None if left else True

        self.until(look, f"the end of all {len(job_ids)} jobs", timeout_s)


def _describe(slot: SlotReport) -> str:
    serves = f"serves {slot.version}" if slot.version else "serves nothing yet"
    if slot.state != "open":
        serves = f"{slot.state}: {slot.reason or 'no reason given'}"
    if slot.incoming:
        serves += f", {slot.incoming.get('phase', 'preparing')} {slot.incoming.get('version', '')}".rstrip()
    return f"slot {slot.slot} {serves}"
