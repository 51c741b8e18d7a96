"""Writing down and reading what happens to the fleet. Any part of the queue may `note`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from modelrepo.errors import InvalidInput
from modelrepo.names import near_names
from modelrepo_runtime.queue.fleet_events import KEPT_S, FleetEvent, Happened
from modelrepo_runtime.queue.port import SlotReport
from modelrepo_runtime.queue.relational.transaction import Row, Snapshot, Transaction


def note(
    tx: Transaction,
    kind: Happened | str,
    text: str,
    *,
    model: str | None = None,
    version: str | None = None,
    worker: str | None = None,
    slot: str | None = None,
    job: str | None = None,
) -> None:
    """Append an event, in the transaction of what it tells of."""
    tx.later("fleet_event_insert", tx.now, str(kind), text, model, version, worker, slot, job)


def events(
    tx: Snapshot, since_s: float | None, after: int | None, model: str | None, kind: str | None, limit: int
) -> tuple[FleetEvent, ...]:
    """Return the newest events, oldest first. Raises: InvalidInput for a kind that there is not."""
    kinds = [each.value for each in Happened]
    if kind is not None and kind not in kinds:
        near = near_names(kind, kinds)
        meant = f"did you mean {', '.join(near)}?" if near else f"there are {', '.join(kinds)}"
        raise InvalidInput(f"no event is of kind {kind!r}; {meant}")
    since = 0.0 if since_s is None else tx.now - since_s
    rows = tx.rows("fleet_events", since, after or 0, model, kind, limit)
    return tuple(_event(row) for row in reversed(rows))


def _event(row: Row) -> FleetEvent:
    where = (row["model"], row["version"], row["worker"], row["slot"], row["job"])
    return FleetEvent(row["kind"], row["text"], *where, id=row["id"], at=row["at"])


def note_changes(
    tx: Transaction, worker: str, before: Mapping[str, Mapping[str, Any]], slots: Sequence[SlotReport]
) -> None:
    """Note what a beat says that the one before did not; `before` is each slot's report by its name."""
    for slot in slots:
        was = before.get(slot.slot, {})
        for kind, text in changes(worker, was, slot):
            note(tx, kind, text, model=slot.model, version=slot.version, worker=worker, slot=slot.slot)


def changes(worker: str, was: Mapping[str, Any], now: SlotReport) -> list[tuple[Happened, str]]:
    """Say in words what has changed of a slot; `was` is empty for one that had not reported."""
    found: list[tuple[Happened, str]] = []
    where = f"{worker}/{now.slot}"
    if now.state != was.get("state", "open"):
        why = f": {now.reason}" if now.reason else ""
        match now.state:
            case "cordoned":
                found.append((Happened.SLOT_CORDONED, f"{where} takes no jobs{why}"))
            case "refused":
                found.append((Happened.SLOT_REFUSED, f"{where} refuses what it should serve{why}"))
            case _:
                found.append((Happened.SLOT_OPENED, f"{where} takes jobs"))
    served, serves = (was.get("model"), was.get("version")), (now.model, now.version)
    if now.version is not None and served != serves:
        old = f", {served[0]}@{served[1]} before" if served[1] is not None else ""
        found.append((Happened.SLOT_SWAPPED, f"{where} serves {now.model}@{now.version}{old}"))
    return found


def sweep(tx: Transaction) -> None:
    """Forget what happened long ago."""
    tx.run("fleet_events_sweep", tx.now - KEPT_S)
