"""The JobQueue of one process, in memory: for tests, and for trying things out."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from modelrepo.errors import Conflict, InvalidInput, JobNotFound, StaleFence, StaleSession
from modelrepo_runtime.attempts import Attempt
from modelrepo_runtime.jobs import (
    Cause,
    Claim,
    Fence,
    Job,
    JobError,
    Json,
    Outcome,
    OutputFile,
    StageNeed,
    Status,
    Submission,
    new_id,
)
from modelrepo_runtime.queue.explain import Surroundings, explain
from modelrepo_runtime.queue.lanes import Lane, LiveSlot, Place, admits, fits
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
from modelrepo_runtime.queue.rank import Head, choose, slo_share
from modelrepo_runtime.queue.steps import (
    EXPIRED,
    MOST_RESTARTS,
    Held,
    Step,
    body_digest,
    check_submission,
    digest_of,
    key_reused,
    lost_outcome,
    outcome_text,
    step_after,
)
from modelrepo_runtime.queue.tiers import SHIPPED_TIERS, changed, unknown
from modelrepo_runtime.queue.turns import slots_allowed
from modelrepo_runtime.timing import Timing

BEATS_LEFT_OUT = 2
SILENT_FORGOTTEN_S = 7 * 24 * 3600.0
_NO_ANSWER = Outcome(Cause.PREEMPTED, counted=False)


@dataclass(frozen=True, slots=True)
class _Lease:
    fence: Fence
    session: str
    seq: int
    after: int | None
    place: Place
    stages: tuple[StageNeed, ...]
    stage_index: int
    attempt: int
    version: str
    claimed: float
    own_plan: bool


@dataclass(slots=True)
class _Record:
    """Everything about one job."""

    number: int
    id: str
    submission: Submission
    tier: str
    created: float
    lane: Lane | None = None
    due: float | None = None
    stage_index: int = 0
    attempt: int = 1
    lease: _Lease | None = None
    pinned_version: str | None = None
    pinned_stages: tuple[StageNeed, ...] | None = None
    previous: Json = None
    restarts: int = 0
    fraction: float | None = None
    message: str | None = None
    cancel_requested: bool = False
    status: Status | None = None
    finished: float | None = None
    done_as: _Lease | None = None
    outcome: Outcome | None = None
    error: JobError | None = None
    history: list[tuple[HistoryRow, str, Status | None, str]] = field(default_factory=list)
    """Each row with the digest of its finish, the status that followed, and the box."""

    @property
    def job(self) -> int:
        return self.number

    @property
    def enqueued(self) -> float:
        return self.created


@dataclass(slots=True)
class _Life:
    info: WorkerInfo
    number: int
    at: float
    slots: tuple[SlotReport, ...] = ()


class MemoryQueue:
    """See JobQueue. Nothing outlives the process."""

    def __init__(
        self, url: str = "memory://", timing: Timing | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self.url = url
        self.timing = timing or Timing.embedded()
        self._clock = clock
        self._lock = threading.RLock()
        self._news = threading.Condition(self._lock)
        self._jobs: dict[str, _Record] = {}
        self._keys: dict[tuple[str, str], tuple[str, str]] = {}
        self._lives: dict[str, _Life] = {}
        self._left_out: dict[int, int] = {}
        self._turns: dict[str, dict[str, float]] = {}
        self._tiers = {tier.name: tier for tier in SHIPPED_TIERS}
        self._numbers = 0
        self._fences = 0
        self._told: dict[str, int] = {}
        """Model or job -> times that there was news of it."""

    # Submitters.

    def submit(self, submission: Submission, *, idempotency_key: str | None = None) -> Job:
        """See JobQueue."""
        check_submission(submission)
        with self._lock:
            key = (submission.tenant, idempotency_key) if idempotency_key is not None else None
            if key in self._keys and key is not None:
                body, job_id = self._keys[key]
                if body != body_digest(submission):
                    raise key_reused(key[1])
                return self.get(job_id)
            tier = submission.tier or next(tier.name for tier in self._tiers.values() if tier.default)
            if tier not in self._tiers:
                raise unknown(tier, [known.name for known in self.tiers()])
            job_id = submission.job_id or new_id("job", self._clock())
            if job_id in self._jobs:
                raise Conflict(f"cannot submit {job_id}: the queue has a job of this id; leave the id to the queue")
            self._numbers += 1
            record = _Record(self._numbers, job_id, submission, tier, self._clock())
            self._jobs[job_id] = record
            if key is not None:
                self._keys[key] = (body_digest(submission), job_id)
            self._queue(record, Step(Status.QUEUED, version=submission.version))
            return self.get(job_id)

    def get(self, job_id: str) -> Job:
        """See JobQueue."""
        with self._lock:
            self._expire_due()
            record = self._record(job_id)
            return replace(
                self._view(record),
                inputs=dict(record.submission.inputs),
                files=dict(record.submission.files),
                position=self._position(record),
            )

    def list(self, where: JobFilter = JobFilter()) -> tuple[Job, ...]:  # noqa: B008 - frozen
        """See JobQueue."""
        with self._lock:
            found = [self._view(record) for record in reversed(self._jobs.values()) if self._matches(record, where)]
        return tuple(job for job in found if where.status in (None, job.status))[: where.limit]

    def cancel(self, job_id: str) -> Job:
        """See JobQueue."""
        with self._lock:
            record = self._record(job_id)
            if record.lease is not None:
                record.cancel_requested = True
                self._tell(record.submission.model, job_id)
            elif record.status is None:
                self._end(record, Status.CANCELLED, event="cancelled")
            return self.get(job_id)

    def retry(self, which: Sequence[str] | JobFilter, *, force: bool = False, dry_run: bool = False) -> tuple[str, ...]:
        """See JobQueue."""
        with self._lock:
            if isinstance(which, JobFilter):
                if which.status not in (None, Status.FAILED):
                    raise InvalidInput(f"cannot retry jobs that are {which.status}: only failed jobs can be sent back")
                failed = [r for r in reversed(self._jobs.values()) if r.status is Status.FAILED]
                found = [r for r in failed if self._matches(r, which)][: which.limit]
                records = [r for r in found if force or r.error is None or r.error.code != "worker_lost"]
            else:
                records = [self._record(job_id) for job_id in dict.fromkeys(which)]
            for record in records:
                if record.status is not Status.FAILED:
                    status = self._view(record).status
                    raise Conflict(f"cannot retry {record.id}: it is {status}; only a failed job can be sent back")
            if not dry_run:
                for record in records:
                    self._send_back(record)
            return tuple(record.id for record in records)

    def delete(self, job_id: str) -> Deleted:
        """See JobQueue."""
        with self._lock:
            record = self._record(job_id)
            if record.lease is not None:
                raise Conflict(f"cannot delete {job_id}: it is running; cancel it first")
            del self._jobs[job_id]
            self._keys = {key: known for key, known in self._keys.items() if known[1] != job_id}
            shared = {stored for other in self._jobs.values() for stored in other.submission.files.values()}
            self._tell(job_id)
            return Deleted(job_id, record.created, tuple(sorted(set(record.submission.files.values()) - shared)))

    # Workers.

    def hello(self, info: WorkerInfo) -> Session:
        """See JobQueue."""
        with self._lock:
            for session, life in list(self._lives.items()):
                same = (life.info.name, life.info.host) == (info.name, info.host)
                if same and life.at < self._live_since() and not self._held_by(session):
                    del self._lives[session]
            session = secrets.token_hex(8)
            self._lives[session] = _Life(info, 0, self._clock())
            return Session(session)

    def goodbye(self, session: Session) -> None:
        """See JobQueue."""
        with self._lock:
            for record in self._held_by(session.id):
                self._close(record, _NO_ANSWER, "attempt")
            self._lives.pop(session.id, None)

    def claim(self, session: Session, seq: int, offers: Sequence[Offer]) -> tuple[Claim, ...]:
        """See JobQueue."""
        if seq < 0:
            raise InvalidInput(f"cannot claim with sequence number {seq}: it must not be negative")
        with self._lock:
            life = self._life(session)
            again = [
                record
                for record in self._held_by(session.id)
                if record.lease is not None and record.lease.seq == seq and record.lease.after is None
            ]
            if again:
                return tuple(self._claim_of(record) for record in again)
            self._expire_due()
            return tuple(claim for offer in offers for claim in self._claim_for(life, session.id, seq, offer))

    def _claim_for(self, life: _Life, session: str, seq: int, offer: Offer) -> Sequence[Claim]:
        place = Place(life.info.name, offer.slot, life.info.host)
        lanes: dict[Lane, list[_Record]] = {}
        for record in self._jobs.values():
            if record.lane is not None and record.due is None and fits(record.lane, offer):
                lanes.setdefault(record.lane, []).append(record)
        live = self._live()
        open_lanes = [lane for lane in lanes if admits(lane, place, live)]
        for lane in open_lanes:
            lanes[lane].sort(key=lambda record: (record.created, record.number))
        heads = [
            Head(number, lanes[lane][0].created, self._tiers[lane.tier].slo_s) for number, lane in enumerate(open_lanes)
        ]
        rows = choose(heads, self._clock(), offer.limit, lambda number, count: lanes[open_lanes[number]][:count])
        return [self._lease(record, session, seq, None, place, offer) for _, record in rows]

    def _lease(self, record: _Record, session: str, seq: int, after: int | None, place: Place, offer: Offer) -> Claim:
        self._fences += 1
        stages = record.pinned_stages or record.submission.stages
        own_plan = bool(offer.plan) and record.stage_index == 0 and record.submission.version is None
        record.lease = _Lease(
            fence=Fence(self._fences, secrets.token_hex(8)),
            session=session,
            seq=seq,
            after=after,
            place=place,
            stages=offer.plan if own_plan else stages,
            stage_index=record.stage_index,
            attempt=record.attempt,
            version=offer.version,
            claimed=self._clock(),
            own_plan=own_plan,
        )
        record.lane = None
        self._tell(record.id)
        return self._claim_of(record)

    def _claim_of(self, record: _Record) -> Claim:
        lease = record.lease
        assert lease is not None
        stage = lease.stages[lease.stage_index]
        return Claim(
            job_id=record.id,
            fence=lease.fence,
            model=record.submission.model,
            version=lease.version,
            stage=stage.name,
            stage_index=lease.stage_index,
            last_stage=lease.stage_index == len(lease.stages) - 1,
            attempt=lease.attempt,
            inputs=dict(record.submission.inputs),
            previous=record.previous if lease.stage_index else None,
            tier=record.tier,
            enqueued=record.created,
            timeout_s=stage.timeout_s,
            created_at=record.created,
            files=dict(record.submission.files),
            slot=lease.place.slot,
        )

    def finish(
        self, session: Session, job_id: str, fence: Fence, outcome: Outcome, *, then: Offer | None = None
    ) -> FinishReply:
        """See JobQueue."""
        digest = digest_of(outcome_text(outcome))
        with self._lock:
            record = self._jobs.get(job_id)
            if record is None:
                raise _stale(job_id, fence)
            if record.lease is None or record.lease.fence != fence:
                return self._repeated(session, record, fence, outcome, digest)
            following = self._close(record, outcome, "attempt", then, session.id)
            status = record.history[-1][2]
            assert status is not None
            return FinishReply(status, following)

    def finish_all(
        self, session: Session, ends: Sequence[tuple[str, Fence, Outcome]]
    ) -> tuple[FinishReply | StaleFence, ...]:
        """See JobQueue."""
        answers: list[FinishReply | StaleFence] = []
        for job_id, fence, outcome in ends:
            try:
                answers.append(self.finish(session, job_id, fence, outcome))
            except StaleFence as error:
                answers.append(error)
        return tuple(answers)

    def _repeated(self, session: Session, record: _Record, fence: Fence, outcome: Outcome, digest: str) -> FinishReply:
        for row, known, status, _ in record.history:
            if row.event == "attempt" and row.fence == fence and known == digest and status is not None:
                after = record.lease is not None and record.lease.after == fence.number
                return FinishReply(status, self._claim_of(record) if after else None)
        refused = HistoryRow(
            record.id, "refused", self._clock(), outcome.cause.value, False, fence=fence, session=session.id
        )
        record.history.append((refused, "", None, ""))
        raise _stale(record.id, fence)

    def _close(
        self, record: _Record, outcome: Outcome, event: str, then: Offer | None = None, session: str = ""
    ) -> Claim | None:
        lease = record.lease
        assert lease is not None
        held = Held(
            stage_index=lease.stage_index,
            last_stage=lease.stage_index == len(lease.stages) - 1,
            attempt=lease.attempt,
            version=lease.version,
            wanted=record.submission.version,
            deadline=record.submission.deadline,
            cancel_requested=record.cancel_requested,
            slot=lease.place.key,
            box=lease.place.host,
        )
        step = step_after(held, outcome, self._attempts(record), self._clock(), self.timing)
        row = HistoryRow(
            job_id=record.id,
            event=event,
            at=self._clock(),
            cause=outcome.cause.value,
            counted=outcome.counted,
            stage=lease.stages[lease.stage_index].name,
            attempt=lease.attempt,
            fence=lease.fence,
            session=lease.session,
            slot=lease.place.key,
            version=lease.version,
            claimed_at=lease.claimed,
        )
        record.history.append((row, digest_of(outcome_text(outcome)), step.status, lease.place.host))
        record.lease, record.fraction, record.message = None, None, None
        if step.status is not Status.QUEUED:
            self._end(record, step.status, outcome, step.error, lease)
            return None
        if step.stage_index > lease.stage_index:
            record.pinned_version, record.previous = lease.version, outcome.result
            record.pinned_stages = lease.stages if lease.own_plan else record.pinned_stages
        self._queue(record, step)
        if then is None or step.stage_index <= lease.stage_index or record.lane is None or not fits(record.lane, then):
            return None
        place = Place(self._lives[session].info.name, then.slot, self._lives[session].info.host)
        return self._lease(record, session, -1, lease.fence.number, place, then)

    def hand_back(self, session: Session, job_id: str, fence: Fence, cause: Cause) -> Status:
        """See JobQueue."""
        return self.finish(session, job_id, fence, Outcome(cause, counted=False)).status

    def progress(self, job_id: str, fence: Fence, fraction: float | None, message: str | None) -> None:
        """See JobQueue."""
        with self._lock:
            record = self._jobs.get(job_id)
            if record is None or record.lease is None or record.lease.fence != fence:
                raise _stale(job_id, fence)
            record.fraction, record.message = fraction, message
            self._tell(job_id)

    def beat(self, session: Session, held: Sequence[tuple[str, Fence]], slots: Sequence[SlotReport]) -> BeatReply:
        """See JobQueue."""
        with self._lock:
            life = self._life(session)
            life.number, life.at, life.slots = life.number + 1, self._clock(), tuple(slots)
            told, leased, cancelled = set(held), set(), set()
            for record in self._held_by(session.id):
                lease = record.lease
                assert lease is not None
                leased.add((record.id, lease.fence))
                if (record.id, lease.fence) in told:
                    self._left_out.pop(lease.fence.number, None)
                    if record.cancel_requested:
                        cancelled.add(record.id)
                    continue
                beats = self._left_out[lease.fence.number] = self._left_out.get(lease.fence.number, 0) + 1
                if beats >= BEATS_LEFT_OUT and self._clock() - lease.claimed > self.timing.unanswered_claim_s:
                    del self._left_out[lease.fence.number]
                    self._close(record, _NO_ANSWER, "unanswered")
            return BeatReply(frozenset(cancelled), frozenset(told - leased))

    # The reaper.

    def beats(self) -> Mapping[str, int]:
        """See JobQueue."""
        with self._lock:
            holders = {record.lease.session for record in self._jobs.values() if record.lease is not None}
            return {session: self._lives[session].number if session in self._lives else -1 for session in holders}

    def expire_session(self, session_id: str, beat: int) -> tuple[Reaped, ...]:
        """See JobQueue."""
        with self._lock:
            if (self._lives[session_id].number if session_id in self._lives else -1) != beat:
                return ()
            reaped: list[Reaped] = []
            for record in self._held_by(session_id):
                assert record.lease is not None
                self._close(record, lost_outcome(record.lease.place.key), "attempt")
                reaped.append(Reaped(record.id, session_id, record.status or Status.QUEUED))
            return tuple(reaped)

    def tend(self) -> None:
        """See JobQueue."""
        with self._lock:
            self._expire_due()
            for session, life in list(self._lives.items()):
                if life.at < self._clock() - SILENT_FORGOTTEN_S and not self._held_by(session):
                    del self._lives[session]

    def pinned_waiting(self) -> tuple[tuple[str, str], ...]:
        """See JobQueue."""
        with self._lock:
            served = {(slot.model, v) for slot in self._live() for v in (slot.version, slot.incoming_version)}
            lanes = {
                (r.lane.model, r.lane.version) for r in self._pinned_records() if r.lane is not None and r.lane.version
            }
            return tuple(sorted(lanes - served))

    def restart_pinned(self, model: str, version: str) -> int:
        """See JobQueue."""
        with self._lock:
            records = [
                r for r in self._pinned_records() if r.lane and (r.lane.model, r.lane.version) == (model, version)
            ]
            for record in records:
                record.restarts += 1
                record.pinned_version, record.pinned_stages, record.previous = None, None, None
                self._note(record, "restarted", version=version)
                self._queue(record, Step(Status.QUEUED))
            return len(records)

    def _pinned_records(self) -> Sequence[_Record]:
        return [
            r
            for r in self._jobs.values()
            if r.lane is not None
            and r.due is None
            and r.stage_index > 0
            and r.submission.version is None
            and r.restarts < MOST_RESTARTS
        ]

    # Operators.

    def fleet(self) -> tuple[WorkerReport, ...]:
        """See JobQueue."""
        with self._lock:
            lives = sorted(self._lives.items(), key=lambda item: (-item[1].at, item[0]))
            return tuple(
                WorkerReport(
                    life.info,
                    session,
                    max(0.0, self._clock() - life.at),
                    tuple(sorted(life.slots, key=lambda report: report.slot)),
                )
                for session, life in lives
            )

    def take_turn(self, model: str, slot_key: str, slots_total: int, max_unavailable: str, ttl_s: float) -> bool:
        """See JobQueue."""
        allowed = slots_allowed(max_unavailable, slots_total)
        with self._lock:
            turns = self._turns_of(model)
            if len(turns.keys() - {slot_key}) >= allowed:
                return False
            turns[slot_key] = self._clock() + ttl_s
            return True

    def renew_turn(self, model: str, slot_key: str, ttl_s: float) -> bool:
        """See JobQueue."""
        with self._lock:
            turns = self._turns_of(model)
            if slot_key not in turns:
                return False
            turns[slot_key] = self._clock() + ttl_s
            return True

    def end_turn(self, model: str, slot_key: str) -> None:
        """See JobQueue."""
        with self._lock:
            self._turns_of(model).pop(slot_key, None)

    def _turns_of(self, model: str) -> dict[str, float]:
        known = self._turns.get(model, {})
        self._turns[model] = {slot: until for slot, until in known.items() if until > self._clock()}
        return self._turns[model]

    def tiers(self) -> tuple[Tier, ...]:
        """See JobQueue."""
        with self._lock:
            return tuple(sorted(self._tiers.values(), key=lambda tier: (tier.slo_s, tier.name)))

    def set_tier(self, name: str, *, slo_s: float | None = None, allowed_miss: float | None = None) -> Tier:
        """See JobQueue."""
        with self._lock:
            self._tiers[name] = changed(self._tiers.get(name), name, slo_s, allowed_miss)
            return self._tiers[name]

    def set_default_tier(self, name: str) -> None:
        """See JobQueue."""
        with self._lock:
            if name not in self._tiers:
                raise unknown(name, [tier.name for tier in self.tiers()])
            self._tiers = {key: replace(tier, default=key == name) for key, tier in self._tiers.items()}

    def explain(self, job_id: str) -> Explanation:
        """See JobQueue."""
        with self._lock:
            job, record = self.get(job_id), self._record(job_id)
            around = Surroundings(
                now=self._clock(),
                slo_s=self._tiers[record.tier].slo_s,
                lane=record.lane,
                due=record.due,
                holder=record.lease.place.key if record.lease else None,
                live=self._live(),
                history=self.history(job_id),
                restarts=record.restarts,
                restarts_allowed=MOST_RESTARTS,
            )
            return explain(job, around)

    def history(self, job_id: str | None = None) -> tuple[HistoryRow, ...]:
        """See JobQueue."""
        with self._lock:
            records = [self._record(job_id)] if job_id is not None else list(self._jobs.values())
            rows = [row for record in records for row, *_ in record.history]
            return tuple(sorted(rows, key=lambda row: row.at))

    def waiter(self, models: Sequence[str] = (), *, jobs: Sequence[str] = ()) -> Waiter:
        """See JobQueue."""
        return _MemoryWaiter(self._news, self._told, (*models, *jobs), self.timing.queue_poll_s)

    def close(self) -> None:
        """See JobQueue. The jobs stay while somebody holds the queue."""

    # One job.

    def _record(self, job_id: str) -> _Record:
        record = self._jobs.get(job_id)
        if record is None:
            raise JobNotFound(f"no job {job_id} in this queue; `modelrepo jobs list` shows what there is")
        return record

    def _life(self, session: Session) -> _Life:
        life = self._lives.get(session.id)
        if life is None:
            raise StaleSession(f"session {session.id} has ended; begin a new one")
        return life

    def _held_by(self, session: str) -> Sequence[_Record]:
        held = [
            record for record in self._jobs.values() if record.lease is not None and record.lease.session == session
        ]
        return sorted(held, key=lambda record: record.lease.fence.number if record.lease else 0)

    def _live_since(self) -> float:
        return self._clock() - self.timing.lease_s

    def _live(self) -> tuple[LiveSlot, ...]:
        return tuple(
            LiveSlot(
                Place(life.info.name, report.slot, life.info.host),
                report.state,
                report.model,
                report.version,
                report.incoming.get("version") if report.incoming else None,
            )
            for life in self._lives.values()
            if life.at > self._live_since()
            for report in life.slots
        )

    def _attempts(self, record: _Record) -> tuple[Attempt, ...]:
        attempts: list[Attempt] = []
        for row, _, _, box in record.history:
            if row.event == "retried":
                attempts = []
            elif row.event == "attempt" and row.cause != Cause.SUCCEEDED.value:
                attempts.append(Attempt(Cause(row.cause or ""), row.counted, row.slot or "", box))
        return tuple(attempts)

    def _queue(self, record: _Record, step: Step) -> None:
        stages = (record.pinned_stages if step.stage_index else None) or record.submission.stages
        name = stages[step.stage_index].name
        record.lane = Lane(record.submission.model, name, record.tier, step.version, step.avoid)
        record.stage_index, record.attempt = step.stage_index, step.attempt
        record.due = self._clock() + step.delay_s if step.delay_s > 0 else None
        if record.due is None:
            self._tell(record.submission.model)
        self._tell(record.id)

    def _end(
        self,
        record: _Record,
        status: Status,
        outcome: Outcome | None = None,
        error: JobError | None = None,
        lease: _Lease | None = None,
        event: str | None = None,
    ) -> None:
        record.lane, record.due, record.cancel_requested = None, None, False
        record.status, record.finished = status, self._clock()
        record.outcome, record.error, record.done_as = outcome, error, lease
        if event is not None:
            self._note(record, event, cause=status.value)
        self._tell(record.id)

    def _send_back(self, record: _Record) -> None:
        record.status, record.finished, record.outcome, record.error, record.done_as = None, None, None, None, None
        record.pinned_version, record.pinned_stages, record.previous, record.restarts = None, None, None, 0
        self._note(record, "retried")
        self._queue(record, Step(Status.QUEUED, version=record.submission.version))

    def _note(self, record: _Record, event: str, cause: str | None = None, version: str | None = None) -> None:
        row = HistoryRow(record.id, event, self._clock(), cause, version=version)
        record.history.append((row, "", None, ""))

    def _expire_due(self) -> None:
        now = self._clock()
        for record in self._jobs.values():
            if record.due is not None and record.due <= now:
                record.due = None
                self._tell(record.submission.model)
            deadline = record.submission.deadline
            if record.lane is not None and deadline is not None and deadline <= now:
                self._end(record, Status.EXPIRED, error=EXPIRED, event="expired")

    def _matches(self, record: _Record, where: JobFilter) -> bool:
        told = record.submission
        return (
            where.model in (None, told.model)
            and where.tier in (None, record.tier)
            and where.tenant in (None, told.tenant)
            and (where.older_than_s is None or record.created <= self._clock() - where.older_than_s)
        )

    def _position(self, record: _Record) -> int | None:
        if record.lane is None or record.due is not None:
            return None
        now = self._clock()
        share = slo_share(record.created, now, self._tiers[record.tier].slo_s)
        ahead = 0
        for other in self._jobs.values():
            if other.lane is None or other.due is not None or other.lane.model != record.lane.model:
                continue
            before = record.created if other.tier == record.tier else now - share * self._tiers[other.tier].slo_s
            ahead += other.created < before
        return ahead

    def _view(self, record: _Record) -> Job:
        status = record.status or (Status.RUNNING if record.lease else Status.QUEUED)
        lease, now = record.lease or record.done_as, self._clock()
        starts = [row.claimed_at for row, *_ in record.history if row.claimed_at is not None]
        starts += [record.lease.claimed] if record.lease else []
        stages = record.pinned_stages or record.submission.stages
        stage = lease.stages[lease.stage_index].name if lease else None
        done = record.outcome if status is Status.SUCCEEDED else None
        waited_until = now if status is Status.QUEUED else min([*starts, now])
        return Job(
            id=record.id,
            model=record.submission.model,
            tier=record.tier,
            tenant=record.submission.tenant,
            status=status,
            created_at=record.created,
            enqueued=record.created,
            version=lease.version if lease else record.pinned_version or record.submission.version,
            stage=stage if status.ended or stage else stages[record.stage_index].name,
            attempt=lease.attempt if lease else 0,
            progress=1.0 if status is Status.SUCCEEDED else record.fraction,
            message=record.message,
            started_at=min(starts, default=None),
            finished_at=record.finished,
            slo_share=None if status.ended else slo_share(record.created, waited_until, self._tiers[record.tier].slo_s),
            result=done.result if done else None,
            outputs=tuple[OutputFile, ...](done.outputs) if done else (),
            error=record.error,
            metadata=dict(record.submission.metadata),
            deadline=record.submission.deadline,
            log_key=record.outcome.log_key if record.outcome else None,
            cancel_requested=record.cancel_requested,
        )

    def _tell(self, *names: str) -> None:
        for name in names:
            self._told[name] = self._told.get(name, 0) + 1
        self._news.notify_all()


class _MemoryWaiter:
    """See Waiter."""

    def __init__(self, news: threading.Condition, told: Mapping[str, int], names: Sequence[str], poll_s: float) -> None:
        self._news, self._told, self._names, self._poll_s = news, told, names, poll_s
        self._woken = False
        with news:
            self._seen = self._count()

    def _count(self) -> int:
        return sum(self._told.get(name, 0) for name in self._names)

    def wait(self, timeout_s: float) -> bool:
        """See Waiter."""
        with self._news:
            woken = self._news.wait_for(
                lambda: self._woken or self._count() != self._seen, min(timeout_s, self._poll_s)
            )
            self._woken, self._seen = False, self._count()
            return woken

    def wake(self) -> None:
        """See Waiter."""
        with self._news:
            self._woken = True
            self._news.notify_all()

    def close(self) -> None:
        """See Waiter."""


_queues: dict[str, MemoryQueue] = {}
_queues_lock = threading.Lock()


def memory_queue(url: str, timing: Timing | None = None) -> MemoryQueue:
    """Return the queue of this name, which all of this process share; the first caller's timing holds."""
    with _queues_lock:
        return _queues.setdefault(url, MemoryQueue(url, timing))


def _stale(job_id: str, fence: Fence) -> StaleFence:
    return StaleFence(f"cannot write to {job_id} with fence {fence}: the attempt is not leased to it; drop its work")
