"""Claims and finishes on the queue in memory."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from modelrepo_runtime.attempts import Attempt
from modelrepo_runtime.jobs import Cause, Claim, Fence, Outcome, Status
from modelrepo_runtime.queue.lanes import Lane, Place, admits, fits
from modelrepo_runtime.queue.memory.records import Entry, Lease, Record
from modelrepo_runtime.queue.memory.state import State
from modelrepo_runtime.queue.port import FinishReply, HistoryRow, Offer
from modelrepo_runtime.queue.rank import Head, choose
from modelrepo_runtime.queue.steps import AFTER_NO_CLAIM, Held, digest_of, outcome_text, stale, step_after


@dataclass(frozen=True, slots=True)
class Holder:
    """Who takes leases, and with which call."""

    session: str
    seq: int
    after: int | None = None


def claim(state: State, session: str, seq: int, offers: Sequence[Offer]) -> tuple[Claim, ...]:
    """Lease up to `limit` jobs for each offer, or tell the leases of the same call again."""
    state.life(session)
    again = [r for r in state.held_by(session) if (r.held.seq, r.held.after) == (seq, None)]
    if again:
        return tuple(claim_of(record) for record in again)
    state.move_due()
    return tuple(found for offer in offers for found in _claim_for(state, Holder(session, seq), offer))


def _claim_for(state: State, holder: Holder, offer: Offer) -> list[Claim]:
    info = state.life(holder.session).info
    place, live = Place(info.name, offer.slot, info.host), state.live()
    lanes: dict[Lane, list[Record]] = {}
    for record in state.jobs.values():
        if record.ready and record.lane is not None and fits(record.lane, offer):
            lanes.setdefault(record.lane, []).append(record)
    rows = [
        sorted(records, key=lambda record: record.enqueued)
        for lane, records in lanes.items()
        if admits(lane, place, live)
    ]
    heads = [Head(n, records[0].enqueued, state.tiers[records[0].tier].slo_s) for n, records in enumerate(rows)]
    chosen = choose(heads, state.rank_time(), offer.limit, lambda lane, skip, count: rows[lane][skip : skip + count])
    return [_lease(state, record, holder, offer) for _, record in chosen]


def _lease(state: State, record: Record, holder: Holder, offer: Offer) -> Claim:
    info = state.life(holder.session).info
    state.fences += 1
    own_plan = record.pinned_stages is not None
    if record.stage_index == 0:
        own_plan = bool(offer.plan) and record.submission.version is None
    record.lease = Lease(
        fence=Fence(state.fences, secrets.token_hex(8)),
        session=holder.session,
        seq=holder.seq,
        after=holder.after,
        place=Place(info.name, offer.slot, info.host),
        stages=offer.plan if own_plan and record.stage_index == 0 else record.stages,
        own_plan=own_plan,
        stage_index=record.stage_index,
        attempt=record.attempt,
        version=offer.version,
        claimed=state.clock(),
    )
    record.lane = None
    state.tell(record.id)
    return claim_of(record)


def claim_of(record: Record) -> Claim:
    """Return the claim of a lease that is held."""
    lease = record.held
    return Claim(
        job_id=record.id,
        fence=lease.fence,
        model=record.model,
        version=lease.version,
        stage=lease.stage.name,
        stage_index=lease.stage_index,
        last_stage=lease.last_stage,
        attempt=lease.attempt,
        inputs=dict(record.submission.inputs),
        previous=record.previous if lease.stage_index else None,
        tier=record.tier,
        enqueued=record.enqueued,
        timeout_s=lease.stage.timeout_s,
        created_at=record.created,
        files=dict(record.submission.files),
        slot=lease.place.slot,
    )


def finish(
    state: State, session: str, job_id: str, fence: Fence, outcome: Outcome, then: Offer | None = None
) -> FinishReply:
    """End an attempt as its holder says, or tell a repeat the first answer again. Raises: StaleFence."""
    digest = digest_of(outcome_text(outcome))
    record = state.leased(job_id, fence)
    if record is None:
        return _repeated(state, session, job_id, fence, outcome, digest)
    status = close(state, record, outcome)
    if then is None or status is not Status.QUEUED or record.lane is None:
        return FinishReply(status)
    info = state.life(session).info
    admitted = admits(record.lane, Place(info.name, then.slot, info.host), state.live())
    if outcome.cause is not Cause.SUCCEEDED or not fits(record.lane, then) or not admitted:
        return FinishReply(status)
    return FinishReply(status, _lease(state, record, Holder(session, AFTER_NO_CLAIM, fence.number), then))


def _repeated(state: State, session: str, job_id: str, fence: Fence, outcome: Outcome, digest: str) -> FinishReply:
    record = state.jobs.get(job_id)
    if record is None:
        raise stale(job_id, fence)
    for entry in record.history:
        if (entry.row.event, entry.row.fence, entry.digest) == ("attempt", fence, digest) and entry.status is not None:
            after = record.lease is not None and record.lease.after == fence.number
            return FinishReply(entry.status, claim_of(record) if after else None)
    what = (job_id, "refused", state.clock(), outcome.cause.value, False)
    record.history.append(Entry(HistoryRow(*what, fence=fence, session=session)))
    raise stale(job_id, fence)


def close(state: State, record: Record, outcome: Outcome, event: str = "attempt") -> Status:
    """Take a lease back, write down how it ended, and end the job or queue it again."""
    lease = record.held
    facts = Held(
        stage_index=lease.stage_index,
        last_stage=lease.last_stage,
        attempt=lease.attempt,
        version=lease.version,
        wanted=record.submission.version,
        deadline=record.submission.deadline,
        cancel_requested=record.cancel_requested,
        slot=lease.place.key,
        box=lease.place.host,
    )
    step = step_after(facts, outcome, attempts_of(record), state.clock(), state.timing)
    row = HistoryRow(
        job_id=record.id,
        event=event,
        at=state.clock(),
        cause=outcome.cause.value,
        counted=outcome.counted,
        stage=lease.stage.name,
        attempt=lease.attempt,
        fence=lease.fence,
        session=lease.session,
        slot=lease.place.key,
        version=lease.version,
        claimed_at=lease.claimed,
    )
    record.history.append(Entry(row, digest_of(outcome_text(outcome)), step.status, lease.place.host))
    record.lease, record.fraction, record.message = None, None, None
    state.left_out.pop(lease.fence.number, None)
    if step.status is not Status.QUEUED:
        state.end(record, step.status, last=lease, outcome=outcome, error=step.error)
        return step.status
    if step.stage_index > lease.stage_index:
        record.pinned_version, record.previous = lease.version, outcome.result
        record.pinned_stages = lease.stages if lease.own_plan else None
    state.queue(record, step)
    return step.status


def attempts_of(record: Record) -> tuple[Attempt, ...]:
    """Return the ended attempts at a job that did not succeed."""
    attempts: list[Attempt] = []
    for entry in record.history:
        row = entry.row
        if row.event == "retried":
            attempts = []
        elif row.event == "attempt" and row.cause is not None and row.cause != Cause.SUCCEEDED.value:
            attempts.append(Attempt(Cause(row.cause), row.counted, row.slot or "", entry.box))
    return tuple(attempts)
