"""Writing events to the outbox, in the transaction of the change that they tell of."""

from __future__ import annotations

import json
from collections.abc import Mapping

from modelrepo_runtime.jobs import JobError, Status, Webhook, new_id
from modelrepo_runtime.queue.outbox import PROGRESS_EVERY_S, EventKind, host_of
from modelrepo_runtime.queue.relational.rows import LeaseRow
from modelrepo_runtime.queue.relational.transaction import Transaction


def write_webhook(webhook: Webhook | None) -> str | None:
    """Return a webhook as a job's row keeps it."""
    return None if webhook is None else json.dumps([webhook.url, webhook.secret])


def read_webhook(text: str) -> Webhook:
    """Read what `write_webhook` wrote."""
    return Webhook(*json.loads(text))


def tell_started(tx: Transaction, job: int, webhook: str | None, stage: str, attempt: int, version: str) -> None:
    """Tell that a job runs for the first time; `webhook` is as its row has it, None where nobody is told."""
    if webhook is None or tx.row("hook_started", job) is None:
        return
    facts = {"status": Status.RUNNING.value, "stage": stage, "attempt": attempt, "version": version}
    _put(tx, job, webhook, EventKind.STARTED, facts, tx.now)


def tell_progress(tx: Transaction, row: LeaseRow, fraction: float | None, message: str | None) -> None:
    """Tell how far a job is; what waits to be told is replaced, and at most one a second is."""
    if row.webhook is None:
        return
    facts = {
        "status": Status.RUNNING.value,
        "stage": row.stage,
        "attempt": row.attempt,
        "version": row.version,
        "progress": fraction,
        "message": message,
    }
    if tx.row("outbox_progress_replace", new_id("msg", tx.now), tx.now, json.dumps(facts), row.job) is not None:
        return
    last = tx.row("hook_get", row.job)
    before = last["progressed"] if last is not None and last["progressed"] is not None else None
    due = tx.now if before is None or not 0 <= tx.now - before < PROGRESS_EVERY_S else before + PROGRESS_EVERY_S
    tx.run("hook_progressed", row.job, due)
    _put(tx, row.job, row.webhook, EventKind.PROGRESS, facts, due)


def tell_finished(
    tx: Transaction,
    job: int,
    webhook: str | None,
    status: Status,
    version: str | None,
    stage: str | None,
    attempt: int,
    error: JobError | None,
) -> None:
    """Tell that a job has ended; what waits for a later try is tried now, so that the news is not held up by it."""
    if webhook is None:
        return
    facts = {
        "status": status.value,
        "finished_at": tx.now,
        "stage": stage,
        "attempt": attempt,
        "version": version,
        "error": error.to_json() if error is not None else None,
        "progress": 1.0 if status is Status.SUCCEEDED else None,
    }
    tx.run("outbox_progress_drop", job)
    tx.run("outbox_kick", tx.now, job)
    _put(tx, job, webhook, EventKind.FINISHED, facts, tx.now)


def _put(tx: Transaction, job: int, webhook: str, kind: EventKind, facts: Mapping[str, object], due: float) -> None:
    host = host_of(read_webhook(webhook).url)
    tx.run("outbox_insert", job, new_id("msg", tx.now), kind.value, tx.now, json.dumps(facts), host, due)
