"""The outbox: what is written with a job's change, and how senders take it."""

from __future__ import annotations

import json
from collections.abc import Sequence

from modelrepo_runtime.jobs import JobError, Status, Webhook, new_id
from modelrepo_runtime.queue.fleet_events import KEPT_S, Happened
from modelrepo_runtime.queue.outbox import (
    PROGRESS_EVERY_S,
    Delivery,
    EventKind,
    OutboxState,
    Undelivered,
    as_of,
    host_of,
)
from modelrepo_runtime.queue.relational import fleet_events, reading
from modelrepo_runtime.queue.relational.transaction import Row, Snapshot, Transaction


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


def tell_progress(
    tx: Transaction,
    job: int,
    webhook: str | None,
    *,
    stage: str,
    attempt: int,
    version: str,
    fraction: float | None,
    message: str | None,
) -> None:
    """Tell how far a job is; what waits to be told is replaced, and at most one a second is."""
    if webhook is None:
        return
    facts = {
        "status": Status.RUNNING.value,
        "stage": stage,
        "attempt": attempt,
        "version": version,
        "progress": fraction,
        "message": message,
    }
    if tx.row("outbox_progress_replace", new_id("msg", tx.now), tx.now, json.dumps(facts), job) is not None:
        return
    last = tx.row("hook_get", job)
    before = last["progressed"] if last is not None and last["progressed"] is not None else None
    due = tx.now if before is None or not 0 <= tx.now - before < PROGRESS_EVERY_S else before + PROGRESS_EVERY_S
    tx.run("hook_progressed", job, due)
    _put(tx, job, webhook, EventKind.PROGRESS, facts, due)


def tell_finished(
    tx: Transaction,
    job: int,
    webhook: str | None,
    status: Status,
    *,
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


def _put(tx: Transaction, job: int, webhook: str, kind: EventKind, facts: dict[str, object], due: float) -> None:
    host = host_of(read_webhook(webhook).url)
    tx.run("outbox_insert", job, new_id("msg", tx.now), kind.value, tx.now, json.dumps(facts), host, due)


def take(
    tx: Transaction, holder: str, limit: int, lease_s: float, per_host: int, avoid: Sequence[str]
) -> tuple[Delivery, ...]:
    """Take due events for a while. Two that take at once never get the same one."""
    until = tx.now + lease_s
    busy = {row["host"]: row["tries"] for row in tx.rows("outbox_under_way", tx.now, until)}
    avoided = frozenset(avoid)
    found: list[Delivery] = []
    for row in tx.rows("outbox_ready", tx.now, until, per_host):
        if len(found) >= limit:
            break
        if row["host"] in avoided or busy.get(row["host"], 0) >= per_host:
            continue
        delivery = _delivery(tx, row)
        if delivery is None:
            tx.run("outbox_delete", row["id"])
        elif tx.row("outbox_take", holder, until, row["id"], tx.now) is not None:
            busy[row["host"]] = busy.get(row["host"], 0) + 1
            found.append(delivery)
    return tuple(found)


def _delivery(tx: Snapshot, row: Row) -> Delivery | None:
    """Return an event with its job as it was; None where the job is gone, or its progress of no interest any more."""
    if row["name"] is None or row["webhook"] is None:
        return None
    job = reading.get(tx, row["name"])
    if row["kind"] == EventKind.PROGRESS and job.status.ended:
        return None
    then = as_of(job, json.loads(row["facts"]))
    webhook = read_webhook(row["webhook"])
    return Delivery(row["id"], row["message"], row["kind"], row["at"], webhook, row["tries"], then)


def settle(tx: Transaction, number: int, holder: str, error: str | None, again_in_s: float | None) -> bool:
    """Write down what came of a try."""
    row = tx.row("outbox_held", number, holder)
    if row is None:
        return False
    if error is None:
        tx.run("outbox_delete", number)
    elif again_in_s is not None:
        tx.run("outbox_again", tx.now + again_in_s, error, number)
    else:
        _give_up(tx, row, error, row["tries"] + 1)
    return True


def _give_up(tx: Transaction, row: Row, error: str, tries: int) -> None:
    url = read_webhook(row["webhook"]).url
    what = (row["message"], row["name"], row["kind"], url, row["at"], tries, error)
    tx.run("outbox_give_up", *what, tx.now)
    tx.run("outbox_delete", row["id"])
    text = f"{row['kind']} of {row['name']} was not taken by {host_of(url)} in {tries} tries: {error}"
    fleet_events.note(tx, Happened.WEBHOOK_GIVEN_UP, text, job=row["name"])


def drop(tx: Transaction, job_id: str, reason: str) -> int:
    """Give up all events of a job, and write no more. Raises: JobNotFound."""
    number = reading.view(tx, job_id)["id"]
    rows = tx.rows("outbox_of_job", number)
    for row in rows:
        _give_up(tx, row, reason, row["tries"] + 1)
    tx.run("job_unhook", number)
    return len(rows)


def state(tx: Snapshot) -> OutboxState:
    """Count what waits and what was given up."""
    row = tx.only("outbox_state")
    age_s = None if row["oldest"] is None else max(0.0, tx.now - row["oldest"])
    return OutboxState(row["waiting"], age_s, row["given_up"])


def undelivered(tx: Snapshot, limit: int) -> tuple[Undelivered, ...]:
    """Return what was tried in vain, then what was given up, each newest first."""
    tried = [
        _undelivered(row, read_webhook(row["webhook"]).url, row["due"])
        for row in tx.rows("outbox_tried", limit)
        if row["webhook"] is not None
    ]
    lost = [_undelivered(row, row["url"], None) for row in tx.rows("outbox_lost", limit)]
    return tuple((tried + lost)[:limit])


def _undelivered(row: Row, url: str, due: float | None) -> Undelivered:
    return Undelivered(row["message"], row["name"], row["kind"], url, row["at"], row["tries"], row["error"], due)


def sweep(tx: Transaction) -> None:
    """Forget what was given up long ago."""
    tx.run("outbox_lost_sweep", tx.now - KEPT_S)
