"""Leasing the most urgent jobs."""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from modelrepo.errors import StaleSession
from modelrepo_runtime.jobs import Claim, Fence, StageNeed
from modelrepo_runtime.queue.lanes import LiveSlot, Place, admits, fits
from modelrepo_runtime.queue.port import Offer
from modelrepo_runtime.queue.rank import Head, choose
from modelrepo_runtime.queue.sqlite.statements import sql
from modelrepo_runtime.queue.sqlite.waiting import READY_DELETE, lane_of, move_due, read_stages
from modelrepo_runtime.queue.sqlite.writer import Transaction
from modelrepo_runtime.queue.steps import write_stages

LANE_HEADS, READY_ROWS, FENCES_TAKE = sql("lane_heads"), sql("ready_rows"), sql("fences_take")
JOB_TO_CLAIM, LEASE_INSERT, LEASES_OF_CLAIM = sql("job_to_claim"), sql("lease_insert"), sql("leases_of_claim")
PINNED_GET, PAYLOAD, SESSION_GET = sql("pinned_get"), sql("job_inputs"), sql("session_get")
AFTER_NO_CLAIM = -1
"""`seq` of leases that a finish gave."""


@dataclass(frozen=True, slots=True)
class ReadyRow:
    """A row of `ready`."""

    lane: int
    enqueued: float
    job: int
    stage_index: int
    attempt: int


@dataclass(frozen=True, slots=True)
class Holder:
    """Who takes leases, and with which call."""

    session: str
    seq: int
    worker: str
    host: str
    after_fence: int | None = None

    def place(self, offer: Offer) -> Place:
        return Place(self.worker, offer.slot, self.host)


def holder_of(connection: sqlite3.Connection, session: str, seq: int, after_fence: int | None = None) -> Holder:
    """Return the session as a holder. Raises: StaleSession."""
    row = connection.execute(SESSION_GET, (session,)).fetchone()
    if row is None:
        raise StaleSession(f"session {session} has ended; begin a new one")
    return Holder(session, seq, row["worker"], row["host"], after_fence)


def claim(tx: Transaction, session: str, seq: int, offers: Sequence[Offer], live_since: float) -> tuple[Claim, ...]:
    """Lease up to `limit` jobs for each offer, or tell the leases of the same call again."""
    holder = holder_of(tx.connection, session, seq)
    again = tx.connection.execute(LEASES_OF_CLAIM, (session, seq)).fetchall()
    if again:
        return tuple(claim_again(tx.connection, row) for row in again)
    move_due(tx)
    live = _Once(lambda: slots_live(tx.connection, live_since))
    return tuple(found for offer in offers for found in _claim_for(tx, holder, offer, live))


def _claim_for(tx: Transaction, holder: Holder, offer: Offer, live: Callable[[], Sequence[LiveSlot]]) -> list[Claim]:
    connection = tx.connection
    heads: list[Head] = []
    place = holder.place(offer)
    for row in connection.execute(LANE_HEADS, (offer.model,)).fetchall():
        if row["head"] is None:
            continue
        lane = lane_of(row)
        if fits(lane, offer) and (not lane.avoid or admits(lane, place, live())):
            heads.append(Head(row["id"], row["head"], row["slo_s"]))
    if not heads:
        return []
    chosen = choose(heads, tx.now, offer.limit, lambda lane, count: _rows(connection, lane, count))
    connection.executemany(READY_DELETE, [(row.lane, row.enqueued, row.job) for _, row in chosen])
    return lease(tx, holder, offer, [row for _, row in chosen])


def _rows(connection: sqlite3.Connection, lane: int, count: int) -> list[ReadyRow]:
    return [ReadyRow(*row) for row in connection.execute(READY_ROWS, (lane, count))]


def lease(tx: Transaction, holder: Holder, offer: Offer, rows: Sequence[ReadyRow]) -> list[Claim]:
    """Write leases for jobs that were taken out of `ready`."""
    connection = tx.connection
    number = connection.execute(FENCES_TAKE, (len(rows),)).fetchone()[0] - len(rows)
    place = holder.place(offer)
    claims: list[Claim] = []
    leases: list[tuple[object, ...]] = []
    for row in rows:
        number += 1
        job = connection.execute(JOB_TO_CLAIM, (row.job,)).fetchone()
        stages, previous, own_plan = read_stages(job["stages"]), None, None
        if row.stage_index:
            pinned = connection.execute(PINNED_GET, (row.job,)).fetchone()
            previous = json.loads(pinned["previous"])
            own_plan = pinned["stages"]
            stages = read_stages(own_plan) if own_plan else stages
        elif offer.plan and job["wanted"] is None and offer.plan != stages:
            stages, own_plan = offer.plan, write_stages(offer.plan)
        stage = stages[row.stage_index]
        fence = Fence(number, secrets.token_hex(8))
        leases.append(
            (
                number,
                fence.token,
                row.job,
                holder.session,
                holder.seq,
                holder.after_fence,
                place.key,
                holder.host,
                stage.name,
                row.stage_index,
                own_plan,
                row.attempt,
                offer.version,
                tx.now,
            )
        )
        claims.append(_claim(job, fence, offer.version, stages, row.stage_index, row.attempt, previous, offer.slot))
        tx.changed_jobs.add(job["name"])
    connection.executemany(LEASE_INSERT, leases)
    return claims


def _claim(
    job: sqlite3.Row,
    fence: Fence,
    version: str,
    stages: Sequence[StageNeed],
    index: int,
    attempt: int,
    previous: object,
    slot: str,
) -> Claim:
    return Claim(
        job["name"],
        fence,
        job["model"],
        version,
        stages[index].name,
        index,
        index == len(stages) - 1,
        attempt,
        json.loads(job["inputs"]),
        previous,
        job["tier"],
        job["enqueued"],
        stages[index].timeout_s,
        job["created"],
        json.loads(job["files"]),
        slot,
    )


def claim_again(connection: sqlite3.Connection, lease_row: sqlite3.Row) -> Claim:
    """Return the claim of a lease that is held already."""
    job = connection.execute(JOB_TO_CLAIM, (lease_row["job"],)).fetchone()
    previous = None
    if lease_row["stage_index"]:
        pinned = connection.execute(PINNED_GET, (lease_row["job"],)).fetchone()
        previous = json.loads(pinned["previous"])
    return _claim(
        job,
        Fence(lease_row["fence"], lease_row["token"]),
        lease_row["version"],
        read_stages(lease_row["stages"] or lease_row["job_stages"]),
        lease_row["stage_index"],
        lease_row["attempt"],
        previous,
        lease_row["slot"].rpartition("/")[2],
    )


def slots_live(connection: sqlite3.Connection, since: float) -> tuple[LiveSlot, ...]:
    """Return the slots of every session that has beaten since then."""
    rows: Iterable[sqlite3.Row] = connection.execute(sql("slots_live"), (since,)).fetchall()
    return tuple(
        LiveSlot(
            Place(row["worker"], row["slot"], row["host"]), row["state"], row["model"], row["version"], row["incoming"]
        )
        for row in rows
    )


class _Once:
    """A value that is looked up at its first use, if ever."""

    def __init__(self, look: Callable[[], tuple[LiveSlot, ...]]) -> None:
        self._look = look
        self._found: tuple[LiveSlot, ...] | None = None

    def __call__(self) -> tuple[LiveSlot, ...]:
        if self._found is None:
            self._found = self._look()
        return self._found
