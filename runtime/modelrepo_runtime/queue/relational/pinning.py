"""Jobs that are bound to the version of their first stage, where nobody serves that any more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from modelrepo_runtime.attempts import kept_away_from
from modelrepo_runtime.queue.lanes import Lane, LiveSlot
from modelrepo_runtime.queue.memory_needs import NeedKey
from modelrepo_runtime.queue.orders import OrderDraft, Verb
from modelrepo_runtime.queue.relational import orders
from modelrepo_runtime.queue.relational.claiming import slots_live
from modelrepo_runtime.queue.relational.crediting import give_back
from modelrepo_runtime.queue.relational.finishing import attempts_of
from modelrepo_runtime.queue.relational.memory import need_of
from modelrepo_runtime.queue.relational.stages import read_stages
from modelrepo_runtime.queue.relational.transaction import Snapshot, Transaction
from modelrepo_runtime.queue.relational.waiting import MOST_MOVED, Entry, dequeue, enqueue, lane_of, note
from modelrepo_runtime.queue.steps import MOST_RESTARTS
from modelrepo_runtime.timing import Timing

ANY_RESTARTS = 2**30
BY_THE_QUEUE = "the queue"
"""Whose orders these are."""


def waiting(tx: Snapshot, timing: Timing) -> tuple[tuple[str, str], ...]:
    """Return (model, version) that jobs past their first stage wait for and no live slot that could serves or loads."""
    lanes = _lanes(tx)
    live = slots_live(tx, timing) if lanes else ()
    unserved = {(lane.model, lane.version) for lane, kind in lanes.values() if not _served(lane, kind, live)}
    if not unserved:
        return ()
    pairs = {(row["model"], row["version"]) for row in tx.rows("pinned_pairs", ANY_RESTARTS)}  # looks at every job
    return tuple(sorted(pairs & unserved))


def restart(tx: Transaction, model: str, version: str, timing: Timing) -> int:
    """Send jobs that wait for a version that is served nowhere back to their first stage; return how many.

    Where none may begin again, one slot is asked to serve the version.
    """
    live = slots_live(tx, timing)
    lanes = _lanes(tx)
    stuck = {
        number: (lane, kind)
        for number, (lane, kind) in lanes.items()
        if (lane.model, lane.version) == (model, version) and not _served(lane, kind, live)
    }
    rows = [row for number in stuck for row in tx.rows("pinned_in_lane", number, version, MOST_RESTARTS, MOST_MOVED)]
    for row in rows[:MOST_MOVED]:
        dequeue(tx, row["job"], model, row["enqueued"])
        give_back(tx, [row["job"]])
        for name in ("handover_delete", "progress_delete", "state_drop", "state_delete"):
            tx.run(name, row["job"])
        tx.run("pinned_put", row["job"], None, None, 0, None, row["restarts"] + 1)
        note(tx, row["job"], "restarted", version=version)
        first = read_stages(row["stages"])[0]
        avoid = kept_away_from(attempts_of(tx, row["job"]))
        key = NeedKey(model, first.name, tx.only("size_of_job", row["job"])[0])
        need = need_of(tx, key, first.on)
        lane = Lane(model, first.name, row["tier"], avoid=avoid, over=bool(row["over"]), memory=need)
        enqueue(tx, Entry(row["job"], row["enqueued"], row["tag"], lane))
        tx.changed_jobs.add(row["name"])
    if not rows:
        for lane, kind in stuck.values():
            _ask_for_a_slot(tx, lane, kind, live)
    return len(rows[:MOST_MOVED])


def reroute(tx: Transaction, timing: Timing) -> None:
    """Let jobs that hold a credit of a cluster without a live slot on the CPU go elsewhere, without it."""
    rows = tx.rows("lanes_homed")
    live = slots_live(tx, timing) if rows else ()
    for row in rows:
        lane = lane_of(row)
        if any(slot.model == lane.model and slot.cluster == lane.cluster and "cpu" in slot.on for slot in live):
            continue
        for job in tx.rows("rows_homed", row["id"], MOST_MOVED):
            tx.run("ready_delete", row["id"], job["tag"], job["job"], job["enqueued"])
            give_back(tx, [job["job"]])
            entry = Entry(job["job"], job["enqueued"], job["tag"], replace(lane, cluster=None), 0, job["attempt"])
            enqueue(tx, entry)


def release_slots(tx: Transaction) -> None:
    """Let slots that were asked to serve a version go back to the active one once no job waits for it."""
    for row in tx.rows("slots_assigned", BY_THE_QUEUE):
        model, _, version = row["argument"].partition("@")
        if version and not tx.only("version_is_waited_for", model, version)[0]:
            reason = f"no job waits for {model}@{version} any more"
            orders.give_one(tx, OrderDraft(row["worker"], Verb.ASSIGN, row["slot"], model, reason), BY_THE_QUEUE)


def _ask_for_a_slot(tx: Transaction, lane: Lane, kind: str | None, live: Sequence[LiveSlot]) -> None:
    wanted = f"{lane.model}@{lane.version}"
    if any(row["argument"] == wanted for row in tx.rows("slots_assigned", BY_THE_QUEUE)):
        return
    refused = {(row["worker"], row["slot"]) for row in tx.rows("slots_that_refused", wanted)}
    could = [
        slot
        for slot in live
        if slot.model == lane.model
        and lane.cluster in (None, slot.cluster)
        and (kind is None or kind in slot.on)
        and (slot.place.worker, slot.place.slot) not in refused
    ]
    for slot in sorted(could, key=lambda slot: (slot.state != "open", slot.place.key))[:1]:
        reason = f"jobs that began with {lane.version} wait for it, and may not begin again"
        draft = OrderDraft(slot.place.worker, Verb.ASSIGN, slot.place.slot, wanted, reason)
        orders.give_one(tx, draft, BY_THE_QUEUE)


def _lanes(tx: Snapshot) -> dict[int, tuple[Lane, str | None]]:
    """Return the lanes of such jobs, and what their stage runs on."""
    found: dict[int, tuple[Lane, str | None]] = {}
    for row in tx.rows("lanes_pinned"):
        if row["stages"] is not None:
            kind = next((stage.on for stage in read_stages(row["stages"]) if stage.name == row["stage"]), None)
            found[row["id"]] = (lane_of(row), kind)
    return found


def _served(lane: Lane, kind: str | None, live: Sequence[LiveSlot]) -> bool:
    return any(slot.serves(lane, kind) for slot in live)
