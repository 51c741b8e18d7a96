"""Sending jobs of the queue in memory back to their first stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from modelrepo.errors import Conflict, InvalidInput
from modelrepo_runtime.attempts import kept_away_from
from modelrepo_runtime.jobs import Status
from modelrepo_runtime.queue.memory.leasing import attempts_of
from modelrepo_runtime.queue.memory.records import Record
from modelrepo_runtime.queue.memory.state import State
from modelrepo_runtime.queue.memory.views import matches, status_of
from modelrepo_runtime.queue.port import JobFilter
from modelrepo_runtime.queue.steps import Step


def retry(state: State, which: Sequence[str] | JobFilter, *, force: bool, dry_run: bool) -> tuple[str, ...]:
    """Send failed jobs back, with fresh tries."""
    if isinstance(which, JobFilter):
        records = _failed(state, which, force=force)
    else:
        records = [state.record(job_id) for job_id in dict.fromkeys(which)]
    for record in records:
        if record.status is not Status.FAILED:
            raise Conflict(f"cannot retry {record.id}: it is {status_of(record)}; only a failed job can be sent back")
    for record in () if dry_run else records:
        _send_back(state, record)
    return tuple(record.id for record in records)


def _failed(state: State, where: JobFilter, *, force: bool) -> Sequence[Record]:
    if where.status not in (None, Status.FAILED):
        raise InvalidInput(f"cannot retry jobs that are {where.status}: only failed jobs can be sent back")
    failed = replace(where, status=Status.FAILED)
    found = [record for record in reversed(state.jobs.values()) if matches(state, record, failed)]
    spared = [record for record in found if force or record.error is None or record.error.code != "worker_lost"]
    return spared[: where.limit]


def _send_back(state: State, record: Record) -> None:
    record.status, record.finished, record.outcome, record.error, record.done_as = None, None, None, None, None
    record.pinned_version, record.pinned_stages, record.previous, record.restarts = None, None, None, 0
    state.note(record, "retried")
    state.queue(record, Step(Status.QUEUED, version=record.submission.version))


def pinned_waiting(state: State) -> tuple[tuple[str, str], ...]:
    """Return (model, version) that jobs past their first stage wait for and no live slot serves or loads."""
    served = {(slot.model, version) for slot in state.live() for version in (slot.version, slot.incoming_version)}
    pairs = {(r.model, r.lane.version) for r in state.pinned() if r.lane is not None and r.lane.version}
    return tuple(sorted(pairs - served))


def restart_pinned(state: State, model: str, version: str) -> int:
    """Send jobs that wait for a version that is served nowhere back."""
    records = [r for r in state.pinned() if r.lane and (r.model, r.lane.version) == (model, version)]
    for record in records:
        record.restarts += 1
        record.pinned_version, record.pinned_stages, record.previous = None, None, None
        state.note(record, "restarted", version=version)
        state.queue(record, Step(Status.QUEUED, avoid=kept_away_from(attempts_of(record))))
    return len(records)
