"""The port's calls, each under the one lock."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from modelrepo.errors import Conflict, InvalidInput, StaleFence
from modelrepo_runtime.attempts import kept_away_from
from modelrepo_runtime.jobs import Cause, Claim, Fence, Job, Outcome, Status, Submission, new_id
from modelrepo_runtime.queue.explain import Surroundings, explain
from modelrepo_runtime.queue.memory import leasing
from modelrepo_runtime.queue.memory.records import Life, Record
from modelrepo_runtime.queue.memory.state import State
from modelrepo_runtime.queue.memory.views import matches, position, status_of, view
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
    BEATS_LEFT_OUT,
    MOST_RESTARTS,
    NO_ANSWER,
    SILENT_FORGOTTEN_S,
    Step,
    body_digest,
    check_submission,
    key_reused,
    lost_outcome,
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
            if isinstance(which, JobFilter):
                records = self._failed(which, force=force)
            else:
                records = [self._state.record(job_id) for job_id in dict.fromkeys(which)]
            for record in records:
                if record.status is not Status.FAILED:
                    status = status_of(record)
                    raise Conflict(f"cannot retry {record.id}: it is {status}; only a failed job can be sent back")
            for record in () if dry_run else records:
                self._send_back(record)
            return tuple(record.id for record in records)

    def _failed(self, where: JobFilter, *, force: bool) -> Sequence[Record]:
        if where.status not in (None, Status.FAILED):
            raise InvalidInput(f"cannot retry jobs that are {where.status}: only failed jobs can be sent back")
        failed = replace(where, status=Status.FAILED)
        found = [record for record in reversed(self._state.jobs.values()) if matches(self._state, record, failed)]
        return [r for r in found[: where.limit] if force or r.error is None or r.error.code != "worker_lost"]

    def _send_back(self, record: Record) -> None:
        record.status, record.finished, record.outcome, record.error, record.done_as = None, None, None, None, None
        record.pinned_version, record.pinned_stages, record.previous, record.restarts = None, None, None, 0
        self._state.note(record, "retried")
        self._state.queue(record, Step(Status.QUEUED, version=record.submission.version))

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
            state = self._state
            for session, life in list(state.lives.items()):
                same = (life.info.name, life.info.host) == (info.name, info.host)
                if same and not state.beats(life) and not state.held_by(session):
                    del state.lives[session]
            session = secrets.token_hex(8)
            state.lives[session] = Life(info, 0, state.clock())
            return Session(session)

    def goodbye(self, session: Session) -> None:
        """See JobQueue."""
        with self._lock:
            for record in self._state.held_by(session.id):
                leasing.close(self._state, record, NO_ANSWER)
            self._state.lives.pop(session.id, None)

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
            life = self._state.life(session.id)
            life.number, life.at, life.slots = life.number + 1, self._state.clock(), tuple(slots)
            told = set(held)
            records = self._state.held_by(session.id)
            leased = {(record.id, record.held.fence) for record in records}
            cancelled = {r.id for r in records if r.cancel_requested and (r.id, r.held.fence) in told}
            for record in records:
                self._note_beat(record, told=(record.id, record.held.fence) in told)
            return BeatReply(frozenset(cancelled), frozenset(told - leased))

    def _note_beat(self, record: Record, *, told: bool) -> None:
        left_out, number = self._state.left_out, record.held.fence.number
        if told:
            left_out.pop(number, None)
            return
        left_out[number] = left_out.get(number, 0) + 1
        age_s = self._state.clock() - record.held.claimed
        if left_out[number] >= BEATS_LEFT_OUT and not 0 <= age_s <= self.timing.unanswered_claim_s:
            leasing.close(self._state, record, NO_ANSWER, "unanswered")

    def beats(self) -> Mapping[str, int]:
        """See JobQueue."""
        with self._lock:
            lives = self._state.lives
            holders = {record.lease.session for record in self._state.jobs.values() if record.lease is not None}
            return {session: lives[session].number if session in lives else -1 for session in holders}

    def expire_session(self, session_id: str, beat: int) -> tuple[Reaped, ...]:
        """See JobQueue."""
        with self._lock:
            life = self._state.lives.get(session_id)
            if (life.number if life is not None else -1) != beat:
                return ()
            return tuple(
                Reaped(record.id, session_id, leasing.close(self._state, record, lost_outcome(record.held.place.key)))
                for record in self._state.held_by(session_id)
            )

    def tend(self) -> None:
        """See JobQueue."""
        with self._lock:
            self._state.move_due()
            silent_since = self._state.clock() - SILENT_FORGOTTEN_S
            for session, life in list(self._state.lives.items()):
                if life.at < silent_since and not self._state.held_by(session):
                    del self._state.lives[session]

    def pinned_waiting(self) -> tuple[tuple[str, str], ...]:
        """See JobQueue."""
        with self._lock:
            live = self._state.live()
            served = {(slot.model, version) for slot in live for version in (slot.version, slot.incoming_version)}
            lanes = {(r.model, r.lane.version) for r in self._state.pinned() if r.lane is not None and r.lane.version}
            return tuple(sorted(lanes - served))

    def restart_pinned(self, model: str, version: str) -> int:
        """See JobQueue."""
        with self._lock:
            pinned = self._state.pinned()
            records = [r for r in pinned if r.lane and (r.model, r.lane.version) == (model, version)]
            for record in records:
                record.restarts += 1
                record.pinned_version, record.pinned_stages, record.previous = None, None, None
                self._state.note(record, "restarted", version=version)
                avoid = kept_away_from(leasing.attempts_of(record))
                self._state.queue(record, Step(Status.QUEUED, avoid=avoid))
            return len(records)

    def fleet(self) -> tuple[WorkerReport, ...]:
        """See JobQueue."""
        with self._lock:
            now = self._state.clock()
            lives = sorted(self._state.lives.items(), key=lambda item: (-item[1].at, item[0]))
            return tuple(
                WorkerReport(life.info, session, abs(now - life.at), tuple(sorted(life.slots, key=lambda s: s.slot)))
                for session, life in lives
            )

    def take_turn(self, model: str, slot_key: str, slots_total: int, max_unavailable: str, ttl_s: float) -> bool:
        """See JobQueue."""
        allowed = slots_allowed(max_unavailable, slots_total)
        with self._lock:
            turns = self._state.turns_of(model, ttl_s)
            if len(turns.keys() - {slot_key}) >= allowed:
                return False
            turns[slot_key] = self._state.clock() + ttl_s
            return True

    def renew_turn(self, model: str, slot_key: str, ttl_s: float) -> bool:
        """See JobQueue."""
        with self._lock:
            turns = self._state.turns_of(model, ttl_s)
            if slot_key not in turns:
                return False
            turns[slot_key] = self._state.clock() + ttl_s
            return True

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
            records = [self._state.record(job_id)] if job_id is not None else list(self._state.jobs.values())
            rows = [entry.row for record in records for entry in record.history]
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
