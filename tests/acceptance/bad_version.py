"""A fleet in threads: each slot behaves as a worker's does at the port, and runs jobs that take no time.

`v1` answers; every other version raises on every job.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from modelrepo_runtime.jobs import Cause, Claim, JobError, Outcome, StageNeed, Status, Submission
from modelrepo_runtime.queue.port import JobFilter, JobQueue, Offer, Session, SlotReport, WorkerInfo
from modelrepo_runtime.queue.reaper import Reaper
from modelrepo_runtime.timing import Timing
from modelrepo_runtime.worker.breaker import Breaker

MODEL, RUN = "m", (StageNeed("run"),)
CLUSTERS = ("a", "b")
LIMIT_S = 300.0
RAISED = Outcome(Cause.EXCEPTION, error=JobError("exception", "no such layer", True))


@dataclass
class Fleet:
    """Use as a context manager; `target` is what `active.yaml` would say."""

    queue: JobQueue
    timing: Timing
    size: int
    target: str = "v2"
    stop: threading.Event = field(default_factory=threading.Event)
    failures: list[BaseException] = field(default_factory=list)
    threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Fleet:
        self.threads = [threading.Thread(target=self._guarded, args=(number,)) for number in range(self.size)]
        self.threads.append(threading.Thread(target=self._look_after))
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join()
        if self.failures:
            raise self.failures[0]

    def submit(self, count: int) -> list[str]:
        return [self.queue.submit(Submission(MODEL, {"n": number}, RUN)).id for number in range(count)]

    def count(self, status: Status) -> int:
        return len(self.queue.list(JobFilter(status=status, limit=1_000_000)))

    def until(self, jobs: Sequence[str], what: str) -> None:
        """Wait until all jobs have succeeded."""
        waiter = self.queue.waiter([MODEL], jobs=jobs[-1:])
        end = time.monotonic() + LIMIT_S
        while self.count(Status.SUCCEEDED) < len(jobs):
            if time.monotonic() > end or self.failures:
                raise TimeoutError(f"not within {LIMIT_S:g} s: {what}; {self.queue.queue_report()}")
            waiter.wait(0.2)
        waiter.close()

    def _guarded(self, number: int) -> None:
        try:
            Slot(self, number).run()
        except BaseException as error:
            self.failures.append(error)

    def _look_after(self) -> None:
        reaper = Reaper(self.queue, self.timing)
        while not self.stop.wait(self.timing.beat_s):
            reaper.look()


class Slot:
    """A worker of one slot."""

    def __init__(self, fleet: Fleet, number: int) -> None:
        self.fleet, self.queue, self.timing = fleet, fleet.queue, fleet.timing
        self.name = f"{CLUSTERS[number % len(CLUSTERS)]}-{number}"
        self.version = fleet.target
        self.breaker = Breaker(
            first_backoff_s=self.timing.cordon_first_s, longest_backoff_s=self.timing.cordon_longest_s
        )
        self.held: Claim | None = None

    def run(self) -> None:
        info = WorkerInfo(self.name, f"box-{self.name}", 1, self.name.partition("-")[0], ("0",))
        session, waiter, seq, beaten = self.queue.hello(info), self.queue.waiter([MODEL]), 0, float("-inf")
        while not self.fleet.stop.is_set():
            if self.version != self.fleet.target:  # between two jobs
                self.version = self.fleet.target
                self.breaker = self.breaker.swapped(time.monotonic())
                beaten = float("-inf")
            if time.monotonic() - beaten > self.timing.beat_s:
                self._beat(session)
                beaten = time.monotonic()
            seq += 1
            if not self._take(session, seq):
                waiter.wait(self.timing.beat_s)
        waiter.close()
        self.queue.goodbye(session)

    def _take(self, session: Session, seq: int) -> bool:
        if not self.breaker.may_claim(time.monotonic()):
            return False
        for claim in self.queue.claim(session, seq, [Offer("0", MODEL, self.version, ("run",), plan=RUN)]):
            answer = Outcome(Cause.SUCCEEDED, {"by": self.version}) if self.version == "v1" else RAISED
            self.queue.finish(session, claim.job_id, claim.fence, answer)
            self.breaker = self.breaker.after(claim.job_id, answer.cause, last_stage=True, now=time.monotonic())
            return True
        return False

    def _beat(self, session: Session) -> None:
        state = "cordoned" if self.breaker.cordoned else "open"
        self.queue.beat(session, (), (SlotReport("0", state, MODEL, self.version, reason=self.breaker.reason),))
