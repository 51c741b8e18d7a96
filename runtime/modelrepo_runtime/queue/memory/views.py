"""Looking at jobs in memory."""

from __future__ import annotations

from modelrepo_runtime.jobs import Job, Status
from modelrepo_runtime.queue.memory.records import Record
from modelrepo_runtime.queue.memory.state import State
from modelrepo_runtime.queue.port import JobFilter
from modelrepo_runtime.queue.rank import slo_share, wait_ended


def status_of(record: Record) -> Status:
    """Return what a user sees."""
    return record.status or (Status.RUNNING if record.lease else Status.QUEUED)


def view(state: State, record: Record) -> Job:
    """Return a job as everybody sees it, without its inputs and its position."""
    status, lease, now = status_of(record), record.lease or record.done_as, state.clock()
    rows = [entry.row for entry in record.history]
    starts = [(row.stage, row.claimed_at) for row in rows if row.stage is not None and row.claimed_at is not None]
    starts += [(record.lease.stage.name, record.lease.claimed)] if record.lease else []
    done = record.outcome if status is Status.SUCCEEDED else None
    waited_until = wait_ended(record.lease.stages, starts) if record.lease else None
    stage = lease.stage.name if lease else None
    return Job(
        id=record.id,
        model=record.model,
        tier=record.tier,
        tenant=record.submission.tenant,
        status=status,
        created_at=record.created,
        enqueued=record.enqueued,
        version=lease.version if lease else record.pinned_version or record.submission.version,
        stage=stage if status.ended or stage else record.stages[record.stage_index].name,
        attempt=lease.attempt if lease else 0,
        progress=1.0 if done else record.fraction,
        message=record.message,
        started_at=min((at for _, at in starts), default=None),
        finished_at=record.finished,
        slo_share=None
        if status.ended
        else slo_share(record.enqueued, waited_until or now, state.tiers[record.tier].slo_s),
        result=done.result if done else None,
        outputs=done.outputs if done else (),
        error=record.error,
        metadata=dict(record.submission.metadata),
        deadline=record.submission.deadline,
        log_key=record.outcome.log_key if record.outcome else None,
        cancel_requested=record.cancel_requested,
    )


def matches(state: State, record: Record, where: JobFilter) -> bool:
    """True if a filter lets a job through."""
    return (
        where.status in (None, status_of(record))
        and where.ended in (None, status_of(record).ended)
        and where.model in (None, record.model)
        and where.tier in (None, record.tier)
        and where.tenant in (None, record.submission.tenant)
        and (where.older_than_s is None or record.created <= state.clock() - where.older_than_s)
    )


def position(state: State, record: Record) -> int | None:
    """Return how many jobs of its model would be taken before a ready one; None for others."""
    if not record.ready:
        return None
    now = state.rank_time()
    share = slo_share(record.enqueued, now, state.tiers[record.tier].slo_s)
    ahead = 0
    for other in state.jobs.values():
        if other.ready and other.model == record.model:
            same = other.tier == record.tier
            ahead += other.enqueued < (record.enqueued if same else now - share * state.tiers[other.tier].slo_s)
    return ahead
