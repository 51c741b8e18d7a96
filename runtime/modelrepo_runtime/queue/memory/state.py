"""The queue in memory: its records, and the changes that several calls share. The caller holds the lock."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from modelrepo.errors import JobNotFound, StaleSession
from modelrepo_runtime.jobs import Fence, JobError, Outcome, Status
from modelrepo_runtime.queue.lanes import Lane, LiveSlot, Place
from modelrepo_runtime.queue.memory.records import Entry, Lease, Life, Record
from modelrepo_runtime.queue.port import HistoryRow, Tier
from modelrepo_runtime.queue.steps import EXPIRED, MOST_RESTARTS, Step, enqueued_after
from modelrepo_runtime.queue.tiers import SHIPPED_TIERS
from modelrepo_runtime.timing import Timing


@dataclass(slots=True)
class State:
    """All there is; `news` is notified with every change."""

    timing: Timing
    clock: Callable[[], float]
    lock: threading.RLock = field(default_factory=threading.RLock)
    news: threading.Condition = field(init=False)
    jobs: dict[str, Record] = field(default_factory=dict)
    keys: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    """(tenant, idempotency key) -> (digest of the body, job)."""
    lives: dict[str, Life] = field(default_factory=dict)
    left_out: dict[int, int] = field(default_factory=dict)
    """Fence number -> beats that left its lease out."""
    turns: dict[str, dict[str, float]] = field(default_factory=dict)
    """Model -> slot -> when its turn runs out."""
    tiers: dict[str, Tier] = field(default_factory=lambda: {tier.name: tier for tier in SHIPPED_TIERS})
    numbers: int = 0
    fences: int = 0
    told: dict[str, int] = field(default_factory=dict)
    """Model or job -> times that there was news of it."""

    def __post_init__(self) -> None:
        self.news = threading.Condition(self.lock)

    def record(self, job_id: str) -> Record:
        """Raises: JobNotFound."""
        record = self.jobs.get(job_id)
        if record is None:
            raise JobNotFound(f"no job {job_id} in this queue; `modelrepo jobs list` shows what there is")
        return record

    def leased(self, job_id: str, fence: Fence) -> Record | None:
        """Return the job on which exactly this fence holds the lease."""
        record = self.jobs.get(job_id)
        return record if record is not None and record.lease is not None and record.lease.fence == fence else None

    def life(self, session: str) -> Life:
        """Raises: StaleSession."""
        life = self.lives.get(session)
        if life is None:
            raise StaleSession(f"session {session} has ended; begin a new one")
        return life

    def held_by(self, session: str) -> Sequence[Record]:
        """Return the jobs that a session holds, the oldest fence first."""
        held = [record for record in self.jobs.values() if record.lease is not None and record.lease.session == session]
        return sorted(held, key=lambda record: record.held.fence.number)

    def beats(self, life: Life) -> bool:
        """True if a session was heard of within a lease."""
        return abs(self.clock() - life.at) < self.timing.lease_s

    def rank_time(self) -> float:
        """Return the moment at which a job enters, and at which waits are compared."""
        newest = next(reversed(self.jobs.values()), None)
        return enqueued_after(newest.enqueued if newest is not None else None, self.clock())

    def live(self) -> tuple[LiveSlot, ...]:
        """Return the slots of every session that beats."""
        return tuple(
            LiveSlot(
                Place(life.info.name, report.slot, life.info.host),
                report.state,
                report.model,
                report.version,
                report.incoming.get("version") if report.incoming else None,
            )
            for life in self.lives.values()
            if self.beats(life)
            for report in life.slots
        )

    def pinned(self) -> list[Record]:
        """Return waiting jobs past their first stage that may begin again."""
        return [
            record
            for record in self.jobs.values()
            if record.ready
            and record.stage_index > 0
            and record.submission.version is None
            and record.restarts < MOST_RESTARTS
        ]

    def queue(self, record: Record, step: Step) -> None:
        """Make a job wait as a step says."""
        stages = record.stages if step.stage_index else record.submission.stages
        name = stages[step.stage_index].name
        record.lane = Lane(record.model, name, record.tier, step.version, step.avoid)
        record.stage_index, record.attempt = step.stage_index, step.attempt
        record.due = self.clock() + step.delay_s if step.delay_s > 0 else None
        if record.due is None:
            self.tell(record.model)
        self.tell(record.id)

    def end(
        self,
        record: Record,
        status: Status,
        *,
        last: Lease | None = None,
        outcome: Outcome | None = None,
        error: JobError | None = None,
        event: str | None = None,
    ) -> None:
        """End a job; `event` where no attempt's row of the history says so."""
        record.lane, record.due, record.cancel_requested = None, None, False
        record.status, record.finished = status, self.clock()
        record.outcome, record.error, record.done_as = outcome, error, last
        if event is not None:
            self.note(record, event, cause=status.value)
        self.tell(record.id)

    def note(self, record: Record, event: str, cause: str | None = None, version: str | None = None) -> None:
        """Append to the history what happened without an attempt."""
        record.history.append(Entry(HistoryRow(record.id, event, self.clock(), cause, version=version)))

    def move_due(self) -> None:
        """Make due retries ready, and end waiting jobs whose deadline has passed."""
        now = self.clock()
        for record in self.jobs.values():
            if record.due is not None and not now < record.due <= now + self.timing.longest_delay_s:
                record.due = None
                self.tell(record.model)
            deadline = record.submission.deadline
            if record.lane is not None and deadline is not None and deadline <= now:
                self.end(record, Status.EXPIRED, error=EXPIRED, event="expired")

    def turns_of(self, model: str, ttl_s: float) -> dict[str, float]:
        """Return the turns of a model that have not run out, nor were taken before the clock went back."""
        known, now = self.turns.get(model, {}), self.clock()
        self.turns[model] = {slot: until for slot, until in known.items() if now < until <= now + ttl_s}
        return self.turns[model]

    def tell(self, *names: str) -> None:
        """Wake whoever waits for news of a model or job."""
        for name in names:
            self.told[name] = self.told.get(name, 0) + 1
        self.news.notify_all()
