"""What jobs were seen to take of memory, what slots have of it, and what that makes of a job that is to wait."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence

from modelrepo_runtime.job_memory import JobMemory, MemoryNeed, MemoryRoom
from modelrepo_runtime.queue.memory_needs import Admission, LearntMemory, NeedKey, RoomOfSlots, rooms_by_model
from modelrepo_runtime.queue.relational.transaction import Row, Snapshot, Transaction

FRESH_S = 1.0
"""How old an admission may be that new jobs are judged by."""


class Admissions:
    """Keeps the newest Admission of a queue, so that jobs which come by the thousand read it once a second.

    May be asked by any thread: at worst two of them read at once.
    """

    def __init__(self) -> None:
        self._known = Admission()
        self._read_at = float("-inf")

    def at(self, tx: Snapshot) -> Admission:
        """Return what is learnt and which slots there are, as of now or a moment ago."""
        known = self._known
        if time.monotonic() - self._read_at < FRESH_S and abs(tx.now - known.at) < FRESH_S:
            return known
        known = Admission(tx.now, learnt(tx), rooms_by_model(_rooms(tx.rows("rooms_of_all"))))
        self._known, self._read_at = known, time.monotonic()
        return known


def learn(tx: Transaction, rows: Sequence[Row]) -> None:
    """Take in what attempts took, oldest first."""
    changed: dict[NeedKey, LearntMemory] = {}
    for row in rows:
        key = NeedKey(row["model"], row["stage"], row["size"])
        known = changed[key] if key in changed else _of(tx, key) or LearntMemory()
        changed[key] = known.after(row["at"], JobMemory.from_json(json.loads(row["memory"])))
    tx.run_many("memory_put", [(*_columns(key), known.to_text()) for key, known in changed.items()])


def learnt(tx: Snapshot) -> dict[NeedKey, LearntMemory]:
    """Return all that has been learnt."""
    return {
        NeedKey(row["model"], row["stage"], row["size"] or None): LearntMemory.from_text(row["seen"])
        for row in tx.rows("memory_of_all")
    }


def admission_of(tx: Snapshot, key: NeedKey) -> Admission:
    """Return as much of it as one job needs, as of now."""
    known = _of(tx, key)
    rooms = rooms_by_model(_rooms(tx.rows("rooms_of_model", key.model)))
    return Admission(tx.now, {} if known is None else {key: known}, rooms)


def need_of(tx: Snapshot, key: NeedKey, on: str) -> MemoryNeed | None:
    """Return what a slot must have for a job that is to wait for a stage, as of now; see `Admission.constraint`."""
    return admission_of(tx, key).constraint(key, on)


def _of(tx: Snapshot, key: NeedKey) -> LearntMemory | None:
    row = tx.row("memory_of", *_columns(key))
    return None if row is None else LearntMemory.from_text(row["seen"])


def _columns(key: NeedKey) -> tuple[str, str, str]:
    return key.model, key.stage, key.size or ""


def _rooms(rows: Iterable[Row]) -> list[tuple[str, RoomOfSlots]]:
    found: list[tuple[str, RoomOfSlots]] = []
    for row in rows:
        on = tuple(kind for kind in ("cpu", "gpu") if row[kind])
        found.append((row["model"], RoomOfSlots(MemoryRoom(row["accelerator_bytes"], row["host_bytes"]), on)))
    return found
