"""The port's calls, each under the one lock."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from modelrepo.errors import Conflict, InvalidInput, StaleFence
from modelrepo_runtime.jobs import Cause, Claim, Fence, Job, Outcome, Status, Submission, new_id
from modelrepo_runtime.queue.explain import Surroundings, explain
from modelrepo_runtime.queue.memory import fleet, leasing, operating
from modelrepo_runtime.queue.memory.records import Record
from modelrepo_runtime.queue.memory.state import State
from modelrepo_runtime.queue.memory.views import matches, position, view
from modelrepo_runtime.queue.memory.waiter import MemoryWaiter
from modelrepo_runtime.queue.port import (
    BeatReply,
    Deleted,
    Explanation,
    FinishReply,
    HistoryRow,
    JobFilter,
    Offer,
    Reaped,
    Session,
    SlotReport,
    Tier,
    Waiter,
    WorkerInfo,
    WorkerReport,
)
from modelrepo_runtime.queue.steps import (
    MOST_RESTARTS,
    Step,
    body_digest,
    check_submission,
    key_reused,
    shown_progress,
    stale,
)
from modelrepo_runtime.queue.tiers import changed, unknown
from modelrepo_runtime.queue.turns import slots_allowed
from modelrepo_runtime.timing import Timing


class MemoryQueue:
    """See JobQueue. Nothing outlives the process."""

    def __init__(
        self, url: str = "memory://", timing: Timing | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self.url = url
        self.timing = timing or Timing.embedded()
        self._state = State(self.timing, clock)
        self._lock = self._state.lock

    def submit(self, submission: Submission, *, idempotency_key: str | None = None) -> Job:
        """See JobQueue."""
        check_submission(submission, idempotency_key)
        with self._lock:
            state = self._state
            key = (submission.tenant, idempotency_key) if idempotency_key is not None else None
            if key is not None and key in state.keys:
                body, job_id = state.keys[key]
                if body != body_digest(submission):
                    raise key_reused(key[1])
                return self.get(job_id)
            tier = submission.tier or next(tier.name for tier in state.tiers.values() if tier.default)
            if tier not in state.tiers:
                raise unknown(tier, [known.name for known in self.tiers()])
            job_id = submission.job_id or new_id("job", state.clock())
            if job_id in state.jobs:
                raise Conflict(f"cannot submit {job_id}: the queue has a job of this id; leave the id to the queue")
            state.numbers += 1
            record = Record(state.numbers, job_id, submission, tier, state.clock(), state.rank_time())
            state.jobs[job_id] = record
            if key is not None:
                state.keys[key] = (body_digest(submission), job_id)
            state.queue(record, Step(Status.QUEUED, version=submission.version))
            return self._whole(record)

    def get(self, job_id: str) -> Job:
        """See JobQueue."""
        with self._lock:
            self._state.move_due()
            return self._whole(self._state.record(job_id))

    def _whole(self, record: Record) -> Job:
        told = record.submission
        place = position(self._state, record)
        return replace(view(self._state, record), inputs=dict(told.inputs), files=dict(told.files), position=place)

    def list(self, where: JobFilter = JobFilter()) -> tuple[Job, ...]:  # noqa: B008 - frozen
        """See JobQueue."""
        with self._lock:
            found = [record for record in reversed(self._state.jobs.values()) if matches(self._state, record, where)]
            return tuple(view(self._state, record) for record in found[: where.limit])

    def cancel(self, job_id: str) -> Job:
        """See JobQueue."""
        with self._lock:
            record = self._state.record(job_id)
            if record.lease is not None:
                record.cancel_requested = True
                self._state.tell(record.model, job_id)
            elif record.status is None:
                self._state.end(record, Status.CANCELLED, event="cancelled")
            return self._whole(record)

    def retry(self, which: Sequence[str] | JobFilter, *, force: bool = False, dry_run: bool = False) -> tuple[str, ...]:
        """See JobQueue."""
        with self._lock:
            return operating.retry(self._state, which, force=force, dry_run=dry_run)

    def delete(self, job_id: str) -> Deleted:
        """See JobQueue."""
        with self._lock:
            state, record = self._state, self._state.record(job_id)
            if record.lease is not None:
                raise Conflict(f"cannot delete {job_id}: it is running; cancel it first")
            del state.jobs[job_id]
            state.keys = {key: known for key, known in state.keys.items() if known[1] != job_id}
            shared = {stored for other in state.jobs.values() for stored in other.submission.files.values()}
            state.tell(job_id)
            return Deleted(job_id, record.created, tuple(sorted(set(record.submission.files.values()) - shared)))

    def hello(self, info: WorkerInfo) -> Session:
        """See JobQueue."""
        with self._lock:
            return Session(fleet.hello(self._state, info))

    def goodbye(self, session: Session) -> None:
        """See JobQueue."""
        with self._lock:
            fleet.goodbye(self._state, session.id)

    def claim(self, session: Session, seq: int, offers: Sequence[Offer]) -> tuple[Claim, ...]:
        """See JobQueue."""
        if seq < 0:
            raise InvalidInput(f"cannot claim with sequence number {seq}: it must not be negative")
        with self._lock:
            return leasing.claim(self._state, session.id, seq, offers)

    def finish(
        self, session: Session, job_id: str, fence: Fence, outcome: Outcome, *, then: Offer | None = None
    ) -> FinishReply:
        """See JobQueue."""
        with self._lock:
            return leasing.finish(self._state, session.id, job_id, fence, outcome, then)

    def finish_all(
        self, session: Session, ends: Sequence[tuple[str, Fence, Outcome]]
    ) -> tuple[FinishReply | StaleFence, ...]:
        """See JobQueue."""
        answers: list[FinishReply | StaleFence] = []
        with self._lock:
            for job_id, fence, outcome in ends:
                try:
                    answers.append(leasing.finish(self._state, session.id, job_id, fence, outcome))
                except StaleFence as error:
                    answers.append(error)
        return tuple(answers)

    def hand_back(self, session: Session, job_id: str, fence: Fence, cause: Cause) -> Status:
        """See JobQueue."""
        return self.finish(session, job_id, fence, Outcome(cause, counted=False)).status

    def progress(self, job_id: str, fence: Fence, fraction: float | None, message: str | None) -> None:
        """See JobQueue."""
        with self._lock:
            record = self._state.leased(job_id, fence)
            if record is None:
                raise stale(job_id, fence)
            record.fraction, record.message = shown_progress(fraction, message)
            self._state.tell(job_id)

    def beat(self, session: Session, held: Sequence[tuple[str, Fence]], slots: Sequence[SlotReport]) -> BeatReply:
        """See JobQueue."""
        with self._lock:
            return fleet.beat(self._state, session.id, held, slots)

    def beats(self) -> Mapping[str, int]:
        """See JobQueue."""
        with self._lock:
            lives = self._state.lives
            holders = {record.lease.session for record in self._state.jobs.values() if record.lease is not None}
            return {session: lives[session].number if session in lives else -1 for session in holders}

    def expire_session(self, session_id: str, beat: int) -> tuple[Reaped, ...]:
        """See JobQueue."""
        with self._lock:
            return fleet.expire_session(self._state, session_id, beat)

    def tend(self) -> None:
        """See JobQueue."""
        with self._lock:
            self._state.move_due()
            fleet.forget_silent(self._state)

    def pinned_waiting(self) -> tuple[tuple[str, str], ...]:
        """See JobQueue."""
        with self._lock:
            return operating.pinned_waiting(self._state)

    def restart_pinned(self, model: str, version: str) -> int:
        """See JobQueue."""
        with self._lock:
            return operating.restart_pinned(self._state, model, version)

    def fleet(self) -> tuple[WorkerReport, ...]:
        """See JobQueue."""
        with self._lock:
            return fleet.fleet(self._state)

    def take_turn(self, model: str, slot_key: str, slots_total: int, max_unavailable: str, ttl_s: float) -> bool:
        """See JobQueue."""
        with self._lock:
            return fleet.take_turn(self._state, model, slot_key, slots_allowed(max_unavailable, slots_total), ttl_s)

    def renew_turn(self, model: str, slot_key: str, ttl_s: float) -> bool:
        """See JobQueue."""
        with self._lock:
            return fleet.renew_turn(self._state, model, slot_key, ttl_s)

    def end_turn(self, model: str, slot_key: str) -> None:
        """See JobQueue."""
        with self._lock:
            self._state.turns.get(model, {}).pop(slot_key, None)

    def tiers(self) -> tuple[Tier, ...]:
        """See JobQueue."""
        with self._lock:
            return tuple(sorted(self._state.tiers.values(), key=lambda tier: (tier.slo_s, tier.name)))

    def set_tier(self, name: str, *, slo_s: float | None = None, allowed_miss: float | None = None) -> Tier:
        """See JobQueue."""
        with self._lock:
            tiers = self._state.tiers
            tiers[name] = changed(tiers.get(name), name, slo_s, allowed_miss)
            return tiers[name]

    def set_default_tier(self, name: str) -> None:
        """See JobQueue."""
        with self._lock:
            tiers = self._state.tiers
            if name not in tiers:
                raise unknown(name, [tier.name for tier in self.tiers()])
            self._state.tiers = {key: replace(tier, default=key == name) for key, tier in tiers.items()}

    def explain(self, job_id: str) -> Explanation:
        """See JobQueue."""
        with self._lock:
            job, record = self.get(job_id), self._state.record(job_id)
            around = Surroundings(
                now=self._state.clock(),
                slo_s=self._state.tiers[record.tier].slo_s,
                lane=record.lane,
                due=record.due,
                holder=record.lease.place.key if record.lease else None,
                live=self._state.live(),
                history=self.history(job_id),
                restarts=record.restarts,
                restarts_allowed=MOST_RESTARTS,
            )
            return explain(job, around)

    def history(self, job_id: str | None = None) -> tuple[HistoryRow, ...]:
        """See JobQueue."""
        with self._lock:
            if job_id is not None:
                return tuple(entry.row for entry in self._state.record(job_id).history)
            rows = [entry.row for record in self._state.jobs.values() for entry in record.history]
            return tuple(sorted(rows, key=lambda row: row.at))

    def waiter(self, models: Sequence[str] = (), *, jobs: Sequence[str] = ()) -> Waiter:
        """See JobQueue."""
        return MemoryWaiter(self._state, (*models, *jobs))

    def close(self) -> None:
        """See JobQueue. The jobs stay while somebody holds the queue."""


_queues: dict[str, MemoryQueue] = {}
_queues_lock = threading.Lock()


def memory_queue(url: str, timing: Timing | None = None) -> MemoryQueue:
    """Return the queue of this name, which all of this process share; the first caller's timing holds."""
    with _queues_lock:
        return _queues.setdefault(url, MemoryQueue(url, timing))
