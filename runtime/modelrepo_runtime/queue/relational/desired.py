"""What gateways have read of active files: a row a change, numbered."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from modelrepo_runtime.jobs import Json
from modelrepo_runtime.queue.fleet_events import Happened
from modelrepo_runtime.queue.port import ActiveSeen
from modelrepo_runtime.queue.relational import fleet_events
from modelrepo_runtime.queue.relational.transaction import Snapshot, Transaction

KEPT_ROWS = 20


def active_seen(tx: Snapshot, models: Sequence[str]) -> tuple[ActiveSeen, ...]:
    """Return the newest row of each of these models that has one."""
    rows = [tx.row("active_seen", model) for model in models]
    return tuple(ActiveSeen(row["model"], row["seq"], json.loads(row["body"])) for row in rows if row is not None)


def see_active(tx: Transaction, model: str, after_seq: int, body: Mapping[str, Json]) -> bool:
    """Append a row where `after_seq` is the newest, and forget the oldest."""
    if tx.row("active_see", model, after_seq + 1, json.dumps(body, sort_keys=True)) is None:
        return False
    tx.run("active_forget", model, after_seq + 1 - KEPT_ROWS)
    version = (body.get("target") or {}).get("version")
    text = f"{model}@{version} is active" if version else f"nothing is active of {model}"
    fleet_events.note(tx, Happened.PROMOTED, text, model=model, version=version)
    return True
