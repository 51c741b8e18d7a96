"""What people do to jobs and tiers, and what the queue does to itself."""

from __future__ import annotations

from collections.abc import Sequence

from modelrepo.errors import Conflict, InvalidInput
from modelrepo_runtime.jobs import Fence, Status
from modelrepo_runtime.queue.fleet_events import Happened
from modelrepo_runtime.queue.port import Deleted, JobFilter, Tier
from modelrepo_runtime.queue.relational import breaking, fleet_events, orders, outbox, reading, tenancy
from modelrepo_runtime.queue.relational.crediting import audit, give_back
from modelrepo_runtime.queue.relational.finishing import held
from modelrepo_runtime.queue.relational.learning import learn
from modelrepo_runtime.queue.relational.pinning import release_slots, reroute
from modelrepo_runtime.queue.relational.rows import SAVED, leases_to_end
from modelrepo_runtime.queue.relational.telling import tell_progress
from modelrepo_runtime.queue.relational.transaction import Row, Transaction
from modelrepo_runtime.queue.relational.waiting import Last, end, move_due, send_back
from modelrepo_runtime.queue.steps import shown_progress, stale
from modelrepo_runtime.queue.tiers import TierFigures, changed, unknown
from modelrepo_runtime.timing import Timing

MOST_LOOKS = 10
FORGOTTEN_WITH_A_JOB = (
    "idempotency_delete",  # first: who submits with this key again waits for it
    "payload_delete",
    "input_files_delete",
    "pinned_delete",
    "handover_delete",
    "state_drop",
    "state_delete",
    "progress_delete",
    "cancel_delete",
    "done_delete",
    "failed_delete",
    "history_delete",
    "outbox_delete_job",
    "hook_delete",
    "job_delete",
)
"""Statements that take a job's number and delete what there is of it."""


def cancel(tx: Transaction, job_id: str) -> None:
    """End a waiting job, or mark a running one; while nobody claims jobs of its model."""
    left = _withdrawn(tx, job_id)
    if left is None:
        return
    row, fence = left
    if fence is not None:
        tx.run("lease_cancel", fence)
        tx.run("cancel_insert", row["id"], tx.now)
        tx.ready_models.add(row["model"])
        tx.changed_jobs.add(job_id)
        return
    give_back(tx, [row["id"]])
    if row["starts"] == "[]":
        tenancy.refund(tx, row)
    end(tx, row["id"], job_id, Status.CANCELLED, Last(row["pinned_version"] or row["wanted"]), event="cancelled")


def _withdrawn(tx: Transaction, job_id: str) -> tuple[Row, int | None] | None:
    """Take a job out of where it waits: the job and None; of one that runs its fence; None for one that has ended.

    No claim runs meanwhile, so a job that waits is moved by nobody else but who ends its lease just now. Whoever ends,
    begins or puts back a lease locks it first, as we do: one that we see runs until we are done, and who waited for us
    finds it marked, or gone. Where both lease and row are gone since we looked, the job has moved on: we look again.
    """
    for _ in range(MOST_LOOKS):
        row = reading.view(tx, job_id)
        if row["status"] is not None:
            return None
        held_by = leases_to_end(tx, "lease.job = ?", row["id"])
        if held_by and tx.row("staged_delete", held_by[0].fence) is None:
            return row, held_by[0].fence
        if held_by:
            tx.run("lease_delete", held_by[0].fence)
        elif not _taken_out(tx, row):
            continue
        return reading.view(tx, job_id), None
    raise Conflict(f"cannot stop {job_id}: it went from stage to stage {MOST_LOOKS} times meanwhile; try again")


def _taken_out(tx: Transaction, row: Row) -> bool:
    there = tx.row("ready_of_job", row["model"], row["enqueued"], row["id"])
    if there is not None:
        return tx.row("ready_withdraw", there["lane"], there["tag"], row["id"], there["enqueued"]) is not None
    return tx.row("delayed_withdraw", row["id"]) is not None


def progress(tx: Transaction, job_id: str, fence: Fence, fraction: float | None, message: str | None) -> None:
    """Replace what is shown of a running attempt. Raises: StaleFence."""
    row = held(tx, job_id, fence)
    if row is None:
        raise stale(job_id, fence)
    shown = shown_progress(fraction, message)
    before = tx.row("progress_get", row.job) if row.progressed == SAVED else None
    if before is not None and (before["fraction"] or 0.0) > (shown[0] or 0.0):
        shown = (before["fraction"], shown[1])  # an attempt that goes on from a state has been there before
    tx.run("progress_put", row.job, *shown)
    tell_progress(tx, row, *shown)
    tx.changed_jobs.add(job_id)


def retry(tx: Transaction, which: Sequence[str] | JobFilter, *, force: bool, dry_run: bool) -> tuple[str, ...]:
    """Send failed jobs back to their first stage."""
    names = _failed(tx, which, force=force) if isinstance(which, JobFilter) else tuple(dict.fromkeys(which))
    rows = [reading.view(tx, name) for name in names]
    for row in rows:
        if row["status"] != Status.FAILED.value:
            status = row["status"] or ("queued" if row["fence"] is None else "running")
            raise Conflict(f"cannot retry {row['name']}: it is {status}; only a failed job can be sent back")
    if not dry_run:
        for row in rows:
            send_back(tx, row, "retried")
    return names


def _failed(tx: Transaction, where: JobFilter, *, force: bool) -> tuple[str, ...]:
    if where.status not in (None, Status.FAILED):
        raise InvalidInput(f"cannot retry jobs that are {where.status}: only failed jobs can be sent back")
    before = tx.now - where.older_than_s if where.older_than_s is not None else None
    values = (where.model, where.tier, where.tenant, before, int(force), where.limit)
    return tuple(row["name"] for row in tx.rows("failed_jobs", *values))


def delete_ended(tx: Transaction, job_id: str) -> Deleted | None:
    """Forget a job that has ended; None where it has not, or not any more. Raises: JobNotFound."""
    row = _held(tx, job_id)
    # By this row it is known that nobody else sends the job back: a version's breaker does, and `retry`.
    return _forget(tx, row) if row["status"] is not None and tx.row("done_withdraw", row["id"]) is not None else None


def delete_waiting(tx: Transaction, job_id: str) -> Deleted | None:
    """Forget a job that waits, while nobody claims jobs of its model; None where it has ended.

    Raises: JobNotFound; Conflict while it runs.
    """
    _held(tx, job_id)
    left = _withdrawn(tx, job_id)
    if left is None:
        return None
    row, fence = left
    if fence is not None:
        raise Conflict(f"cannot delete {job_id}: it is running; cancel it first")
    give_back(tx, [row["id"]])
    return _forget(tx, row)


def _held(tx: Transaction, job_id: str) -> Row:
    """Return a job that nobody else deletes meanwhile, as it is then."""
    tx.select("job_held", tx.statements.held("job"), reading.view(tx, job_id)["id"])
    return reading.view(tx, job_id)


def _forget(tx: Transaction, row: Row) -> Deleted:
    job, job_id = row["id"], row["name"]
    files = tuple(found["store_key"] for found in tx.rows("input_files_unshared", job))
    if row["deadline"] is not None:
        tx.run("deadline_delete", row["deadline"], job)
    for name in FORGOTTEN_WITH_A_JOB:
        tx.run(name, job)
    tx.changed_jobs.add(job_id)
    return Deleted(job_id, row["created"], files)


def set_tier(tx: Transaction, name: str, figures: TierFigures) -> Tier:
    """Add or change a tier. Raises: InvalidInput."""
    known = {tier.name: tier for tier in reading.tiers(tx)}
    tier = changed(known.get(name), name, figures)
    flags = (int(tier.default), int(tier.refuse_late))
    tx.run("tier_put", tier.name, tier.slo_s, tier.allowed_miss, *flags, tier.keep_files_s, tier.keep_jobs_s)
    text = f"tier {tier.name} may wait {tier.slo_s:g} s, and {tier.allowed_miss:.0%} of its jobs longer"
    fleet_events.note(tx, Happened.TIER_SET, text)
    return tier


def set_default_tier(tx: Transaction, name: str) -> None:
    """Choose the tier of submissions that name none. Raises: InvalidInput."""
    known = [tier.name for tier in reading.tiers(tx)]
    if name not in known:
        raise unknown(name, known)
    tx.run("tier_default", name)
    fleet_events.note(tx, Happened.TIER_SET, f"jobs that name no tier are {name}")


def tend(tx: Transaction, timing: Timing) -> None:
    """Move what time alone moves, and sweep."""
    move_due(tx, timing.longest_delay_s)
    tx.run("left_out_sweep")
    audit(tx)
    tx.run("staged_sweep")
    release_slots(tx)
    reroute(tx, timing)
    tx.run("lanes_sweep")
    tenancy.sweep(tx)
    learn(tx)
    breaking.sweep(tx)
    tx.run("turns_past", tx.now)
    outbox.sweep(tx)
    orders.sweep(tx)
    fleet_events.sweep(tx)
