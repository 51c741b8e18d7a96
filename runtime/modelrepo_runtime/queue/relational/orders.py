"""Orders to workers: written by operators, handed out with beats, confirmed by sessions."""

from __future__ import annotations

import json
from collections.abc import Sequence

from modelrepo.errors import WorkerNotFound
from modelrepo.names import near_names
from modelrepo_runtime.queue.fleet_events import Happened
from modelrepo_runtime.queue.orders import (
    FORGOTTEN_AFTER_S,
    REPLACES,
    STANDING,
    GivenOrder,
    Order,
    OrderDone,
    OrderDraft,
    Verb,
    check_draft,
    place,
)
from modelrepo_runtime.queue.relational import fleet_events
from modelrepo_runtime.queue.relational.claiming import holder_of
from modelrepo_runtime.queue.relational.transaction import Row, Snapshot, Transaction
from modelrepo_runtime.queue.steps import AFTER_NO_CLAIM


def give(tx: Transaction, drafts: Sequence[OrderDraft], by: str | None) -> tuple[GivenOrder, ...]:
    """Write orders, each in place of what it contradicts. Raises: InvalidInput, WorkerNotFound."""
    for draft in drafts:
        check_draft(draft)
        _check_place(tx, draft)
    return tuple(give_one(tx, draft, by) for draft in drafts)


def give_one(tx: Transaction, draft: OrderDraft, by: str | None) -> GivenOrder:
    """Write an order; for the queue itself, which knows what it asks for."""
    for row in _rows(tx, "where worker = ?", draft.worker):
        if Verb(row["verb"]) in REPLACES[draft.verb] and draft.slot in (None, row["slot"]):
            tx.run("order_delete", row["id"])
        elif draft.verb is Verb.UNCORDON and row["slot"] is None and row["verb"] in (Verb.CORDON, Verb.DRAIN):
            _leave_to_others(tx, row, draft)
    number = _insert(tx, draft, by)
    text = f"{draft} was ordered" + (f" by {by}" if by else "") + (f": {draft.reason}" if draft.reason else "")
    model = (draft.argument or "").partition("@")[0] if draft.verb is Verb.ASSIGN else None
    fleet_events.note(tx, Happened.ORDER_GIVEN, text, worker=draft.worker, slot=draft.slot, model=model)
    order = Order(number, draft.verb.value, draft.slot, draft.argument, draft.reason)
    return GivenOrder(order, draft.worker, tx.now, by)


def _insert(tx: Transaction, draft: OrderDraft, by: str | None) -> int:
    what = (draft.worker, draft.slot, draft.verb.value, draft.argument, draft.reason, by)
    return int(tx.only("order_insert", *what, int(draft.verb in STANDING), tx.now)[0])


def _leave_to_others(tx: Transaction, row: Row, opened: OrderDraft) -> None:
    """A cordon of the whole worker stays for its other slots when one is opened."""
    tx.run("order_delete", row["id"])
    for slot in sorted(_slots(tx, opened.worker) - {opened.slot}):
        _insert(tx, OrderDraft(opened.worker, Verb(row["verb"]), slot, None, row["reason"]), row["given_by"])


def _slots(tx: Snapshot, worker: str) -> set[str]:
    return {slot for row in tx.rows("workers_named", worker) for slot in json.loads(row["slots"])}


def _check_place(tx: Snapshot, draft: OrderDraft) -> None:
    if not tx.rows("workers_named", draft.worker):
        known = [row["worker"] for row in tx.rows("workers_known")]
        near = near_names(draft.worker, known) or known[:5]
        found = f"did you mean {', '.join(near)}?" if near else "no worker is known to this queue"
        raise WorkerNotFound(f"cannot {_doing(draft.verb)} {draft.worker}: no such worker; {found}")
    slots = _slots(tx, draft.worker)
    if draft.slot is not None and draft.slot not in slots:
        raise WorkerNotFound(
            f"cannot {_doing(draft.verb)} {draft.worker}/{draft.slot}: it has no such slot;"
            f" {draft.worker} has {', '.join(sorted(slots)) or 'none'}"
        )


def _doing(verb: Verb) -> str:
    return {Verb.LOGS: "fetch logs of", Verb.ASSIGN: "assign to"}.get(verb, verb.value)


def listed(tx: Snapshot, worker: str | None) -> tuple[GivenOrder, ...]:
    """Return orders, oldest first."""
    rows = _rows(tx, "where worker = ?", worker) if worker is not None else _rows(tx, "")
    return tuple(_given(row) for row in rows)


def _rows(tx: Snapshot, condition: str, *values: object) -> Sequence[Row]:
    return tx.select("order_view", f"{condition} order by worker_order.id", *values)


def _given(row: Row) -> GivenOrder:
    order = Order(row["id"], row["verb"], row["slot"], row["argument"], row["reason"])
    done = (row["confirmed"], row["answer"], bool(row["refused"]))
    return GivenOrder(order, row["worker"], row["at"], row["given_by"], *done)


def take_back(tx: Transaction, ids: Sequence[int]) -> int:
    """Forget orders that wait or stand."""
    return sum(tx.row("order_taken_back", number) is not None for number in ids)


def for_sessions(tx: Snapshot, sessions: Sequence[str]) -> dict[str, tuple[Order, ...]]:
    """Return what each session has still to carry out."""
    if not tx.only("order_any")[0]:
        return {}
    condition = f"and {tx.statements.among('session.id')} order by worker_order.id"
    found: dict[str, list[Order]] = {}
    for row in tx.select("orders_for_sessions", condition, tx.array(list(sessions))):
        order = Order(row["id"], row["verb"], row["slot"], row["argument"], row["reason"])
        found.setdefault(row["session"], []).append(order)
    return {session: tuple(orders) for session, orders in found.items()}


def confirm(tx: Transaction, session: str, done: Sequence[OrderDone]) -> None:
    """Write down what a session has carried out or refused. Raises: StaleSession."""
    holder_of(tx, session, AFTER_NO_CLAIM)
    for each in done:
        tx.run("order_heard_insert", each.id, session)
        row = tx.row("order_confirm", tx.now, each.answer, int(each.refused), each.id)
        if row is not None and each.refused:
            where = {"worker": row["worker"], "slot": row["slot"]}
            text = f"{place(row['worker'], row['slot'])} refused to {row['verb']}: {each.answer or 'it said no more'}"
            fleet_events.note(tx, Happened.ORDER_REFUSED, text, **where)


def sweep(tx: Transaction) -> None:
    """Forget what was done, or whose worker never came back."""
    tx.run("orders_past", tx.now - FORGOTTEN_AFTER_S)
    tx.run("order_heard_sweep")
