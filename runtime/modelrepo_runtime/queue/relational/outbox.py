"""The outbox as its senders see it: what is due is taken for a while, and settled."""

from __future__ import annotations

import json
from collections.abc import Sequence

from modelrepo_runtime.queue.fleet_events import KEPT_S, Happened
from modelrepo_runtime.queue.outbox import Delivery, EventKind, OutboxState, Undelivered, as_of, host_of
from modelrepo_runtime.queue.relational import fleet_events, reading
from modelrepo_runtime.queue.relational.telling import read_webhook
from modelrepo_runtime.queue.relational.transaction import Row, Snapshot, Transaction


def choose(tx: Snapshot, limit: int, lease_s: float, per_host: int, avoid: Sequence[str]) -> tuple[int, ...]:
    """Return which events may be sent now. Looks at all that are due, so nobody waits for it: it only reads."""
    busy = {row["host"]: row["tries"] for row in tx.rows("outbox_under_way", tx.now, tx.now + lease_s)}
    avoided = frozenset(avoid)
    found: list[int] = []
    for row in tx.rows("outbox_ready", tx.now, tx.now + lease_s, per_host):
        if len(found) >= limit:
            break
        if row["host"] not in avoided and busy.get(row["host"], 0) < per_host:
            busy[row["host"]] = busy.get(row["host"], 0) + 1
            found.append(row["id"])
    return tuple(found)


def take(
    tx: Transaction, holder: str, chosen: Sequence[int], lease_s: float, predictions: reading.Predictions
) -> tuple[Delivery, ...]:
    """Take those of the chosen events that nobody else has taken meanwhile.

    An event is taken by the update of its row: two senders never both find it free. Its job is not deleted before we
    are done, since that deletes this row first.
    """
    found: list[Delivery] = []
    for number in chosen:
        if tx.row("outbox_take", holder, tx.now + lease_s, number, tx.now) is None:
            continue
        delivery = _delivery(tx, tx.only("outbox_taken", number), predictions)
        if delivery is None:
            tx.run("outbox_delete", number)
        else:
            found.append(delivery)
    return tuple(found)


def _delivery(tx: Snapshot, row: Row, predictions: reading.Predictions) -> Delivery | None:
    """Return an event with its job as it was; None where the job is gone, or its progress of no interest any more."""
    if row["name"] is None or row["webhook"] is None:
        return None
    job = reading.get(tx, row["name"], predictions)
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
    often = "1 try" if tries == 1 else f"{tries} tries"
    text = f"{row['kind']} of {row['name']} was not taken by {host_of(url)} in {often}: {error}"
    fleet_events.note(tx, Happened.WEBHOOK_GIVEN_UP, text, job=row["name"])


def drop(tx: Transaction, job_id: str, reason: str) -> int:
    """Give up all events of a job, and write no more. Raises: JobNotFound."""
    number = reading.view(tx, job_id)["id"]
    rows = tx.select("outbox_of_job", tx.statements.held("outbox"), number)  # what is just settled is not given up
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
