"""A queue under test, and what its tests do over and over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from modelrepo_runtime.jobs import (
    Cause,
    Claim,
    Job,
    Outcome,
    StageNeed,
    Status,
    Submission,
)
from modelrepo_runtime.queue.port import JobQueue, Offer, Session, SlotReport, WorkerInfo
from modelrepo_runtime.testing.clock import FakeClock
from modelrepo_runtime.timing import Timing

ONE_STAGE = (StageNeed("run"),)
TWO_STAGES = (StageNeed("prepare", "cpu", 60.0), StageNeed("generate", "gpu", 600.0))
SUCCEEDED = Outcome(Cause.SUCCEEDED, {"answer": 42})


@dataclass(frozen=True)
class Rows:
    """How many jobs there are in each place."""

    ready: int
    delayed: int
    leased: int
    ended: int


class Peek(Protocol):
    """Counts behind the adapter's back."""

    def __call__(self) -> Rows: ...


@dataclass
class Bench:
    """A queue under test with its clock, and short words for what tests do over and over."""

    queue: JobQueue
    clock: FakeClock
    peek: Peek
    timing: Timing
    seq: int = 0

    def submit(self, model: str = "m", **facts: Any) -> Job:
        key = facts.pop("idempotency_key", None)
        submission = Submission(model, facts.pop("inputs", {"n": 1}), facts.pop("stages", ONE_STAGE), **facts)
        return self.queue.submit(submission, idempotency_key=key)

    def worker(self, name: str = "w", host: str = "box", *, open_for: str | None = "m", slot: str = "0") -> Session:
        session = self.queue.hello(WorkerInfo(name, host, 1, slots=(slot,)))
        if open_for is not None:
            self.queue.beat(session, (), (SlotReport(slot, "open", open_for, "v1"),))
        return session

    def claim(self, session: Session, offer: Offer | None = None, **facts: Any) -> tuple[Claim, ...]:
        self.seq += 1
        return self.queue.claim(session, self.seq, [offer or offer_of(**facts)])

    def claim_one(self, session: Session, offer: Offer | None = None, **facts: Any) -> Claim:
        (claim,) = self.claim(session, offer, **facts)
        return claim

    def finish(self, session: Session, claim: Claim, outcome: Outcome = SUCCEEDED, **facts: Any) -> Status:
        return self.queue.finish(session, claim.job_id, claim.fence, outcome, **facts).status

    def fail(self, session: Session, claim: Claim, cause: Cause, **facts: Any) -> Status:
        return self.finish(session, claim, Outcome(cause, **facts))


def offer_of(slot: str = "0", model: str = "m", version: str = "v1", **facts: Any) -> Offer:
    """Return an offer for single-stage jobs unless told otherwise."""
    return Offer(slot, model, version, facts.pop("stages", ("run",)), **facts)
