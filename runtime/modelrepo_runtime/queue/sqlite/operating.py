"""What people do to jobs and tiers, and what the queue does to itself."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from modelrepo.errors import Conflict, InvalidInput
from modelrepo_runtime.attempts import kept_away_from
from modelrepo_runtime.jobs import Fence, Status
from modelrepo_runtime.queue.lanes import Lane
from modelrepo_runtime.queue.port import Deleted, JobFilter, Tier
from modelrepo_runtime.queue.sqlite import reading
from modelrepo_runtime.queue.sqlite.claiming import slots_live
from modelrepo_runtime.queue.sqlite.finishing import attempts_of, held
from modelrepo_runtime.queue.sqlite.stages import read_stages
from modelrepo_runtime.queue.sqlite.statements import sql
from modelrepo_runtime.queue.sqlite.waiting import MOST_MOVED, Last, dequeue, end, enqueue, move_due, note
from modelrepo_runtime.queue.sqlite.writer import Transaction
from modelrepo_runtime.queue.steps import MOST_RESTARTS, shown_progress, stale
from modelrepo_runtime.queue.tiers import changed, unknown
from modelrepo_runtime.timing import Timing


def cancel(tx: Transaction, job_id: str) -> None:
    """End a waiting job, or mark a running one."""
    connection = tx.connection
    row = reading.view(connection, job_id)
    if row["status"] is not None:
        return
    if row["fence"] is not None:
        connection.execute(sql("cancel_insert"), (row["id"], tx.now))
        tx.ready_models.add(row["model"])
        tx.changed_jobs.add(job_id)
        return
    dequeue(connection, row["id"], row["model"], row["enqueued"])
    end(tx, row["id"], job_id, Status.CANCELLED, Last(row["pinned_version"] or row["wanted"]), event="cancelled")


def progress(tx: Transaction, job_id: str, fence: Fence, fraction: float | None, message: str | None) -> None:
    """Replace what is shown of a running attempt. Raises: StaleFence."""
    row = held(tx, job_id, fence)
    if row is None:
        raise stale(job_id, fence)
    tx.connection.execute(sql("progress_put"), (row.job, *shown_progress(fraction, message)))
    tx.changed_jobs.add(job_id)


def retry(tx: Transaction, which: Sequence[str] | JobFilter, *, force: bool, dry_run: bool) -> tuple[str, ...]:
    """Send failed jobs back to their first stage."""
    names = _failed(tx, which, force=force) if isinstance(which, JobFilter) else tuple(dict.fromkeys(which))
    rows = [reading.view(tx.connection, name) for name in names]
    for row in rows:
        if row["status"] != Status.FAILED.value:
            status = row["status"] or ("queued" if row["fence"] is None else "running")
            raise Conflict(f"cannot retry {row['name']}: it is {status}; only a failed job can be sent back")
    if not dry_run:
        for row in rows:
            _send_back(tx, row)
    return names


def _failed(tx: Transaction, where: JobFilter, *, force: bool) -> tuple[str, ...]:
    if where.status not in (None, Status.FAILED):
        raise InvalidInput(f"cannot retry jobs that are {where.status}: only failed jobs can be sent back")
    before = tx.now - where.older_than_s if where.older_than_s is not None else None
    values = (where.model, where.tier, where.tenant, before, int(force), where.limit)
    return tuple(row["name"] for row in tx.connection.execute(sql("failed_jobs"), values).fetchall())


def _send_back(tx: Transaction, row: sqlite3.Row) -> None:
    job = row["id"]
    for name in ("done_delete", "failed_delete", "pinned_delete", "progress_delete", "cancel_delete"):
        tx.connection.execute(sql(name), (job,))
    if row["deadline"] is not None:
        tx.connection.execute(sql("deadline_insert"), (row["deadline"], job))
    note(tx, job, "retried")
    first = read_stages(row["stages"])[0].name
    enqueue(tx, job, row["enqueued"], Lane(row["model"], first, row["tier"], row["wanted"]), 0, 1)
    tx.changed_jobs.add(row["name"])


def delete(tx: Transaction, job_id: str) -> Deleted:
    """Forget a job that does not run. Raises: JobNotFound, Conflict."""
    connection = tx.connection
    row = reading.view(connection, job_id)
    if row["fence"] is not None:
        raise Conflict(f"cannot delete {job_id}: it is running; cancel it first")
    job = row["id"]
    files = tuple(found["store_key"] for found in connection.execute(sql("input_files_unshared"), (job,)))
    if row["status"] is None:
        dequeue(connection, job, row["model"], row["enqueued"])
    if row["deadline"] is not None:
        connection.execute(sql("deadline_delete"), (row["deadline"], job))
    for table in ("payload", "input_file", "idempotency", "pinned", "progress", "cancel", "done", "failed", "history"):
        connection.execute(f"delete from {table} where job = ?", (job,))
    connection.execute("delete from job where id = ?", (job,))
    tx.changed_jobs.add(job_id)
    return Deleted(job_id, row["created"], files)


def set_tier(tx: Transaction, name: str, slo_s: float | None, allowed_miss: float | None) -> Tier:
    """Add or change a tier. Raises: InvalidInput."""
    known = {tier.name: tier for tier in reading.tiers(tx.connection)}
    tier = changed(known.get(name), name, slo_s, allowed_miss)
    tx.connection.execute(sql("tier_put"), (tier.name, tier.slo_s, tier.allowed_miss, int(tier.default)))
    return tier


def set_default_tier(tx: Transaction, name: str) -> None:
    """Choose the tier of submissions that name none. Raises: InvalidInput."""
    known = [tier.name for tier in reading.tiers(tx.connection)]
    if name not in known:
        raise unknown(name, known)
    tx.connection.execute(sql("tier_default"), (name,))


def tend(tx: Transaction, timing: Timing) -> None:
    """Move what time alone moves, and sweep."""
    move_due(tx, timing.longest_delay_s)
    tx.connection.execute(sql("left_out_sweep"))
    tx.connection.execute(sql("lanes_sweep"))
    tx.connection.execute(sql("turns_past"), (tx.now,))


def pinned_waiting(connection: sqlite3.Connection, now: float, timing: Timing) -> tuple[tuple[str, str], ...]:
    """Return (model, version) that jobs past their first stage wait for and no live slot serves or loads."""
    live = slots_live(connection, now, timing)
    served = {(slot.model, version) for slot in live for version in (slot.version, slot.incoming_version)}
    pairs = connection.execute(sql("pinned_pairs"), (MOST_RESTARTS,)).fetchall()
    return tuple((row["model"], row["version"]) for row in pairs if (row["model"], row["version"]) not in served)


def restart_pinned(tx: Transaction, model: str, version: str) -> int:
    """Send jobs that wait for a version that is served nowhere back to their first stage."""
    connection = tx.connection
    rows = connection.execute(sql("pinned_ready"), (model, version, MOST_RESTARTS, MOST_MOVED)).fetchall()
    for row in rows:
        dequeue(connection, row["job"], model, row["enqueued"])
        connection.execute(sql("pinned_put"), (row["job"], None, None, 0, None, row["restarts"] + 1))
        note(tx, row["job"], "restarted", version=version)
        first = read_stages(row["stages"])[0].name
        avoid = kept_away_from(attempts_of(tx, row["job"]))
        enqueue(tx, row["job"], row["enqueued"], Lane(model, first, row["tier"], avoid=avoid), 0, 1)
        tx.changed_jobs.add(row["name"])
    return len(rows)
