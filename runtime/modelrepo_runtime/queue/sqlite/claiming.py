"""Leasing the most urgent jobs."""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache

from modelrepo.errors import StaleSession
from modelrepo_runtime.jobs import Claim, Fence, StageNeed
from modelrepo_runtime.queue.lanes import LiveSlot, Place, admits, fits
from modelrepo_runtime.queue.port import Offer
from modelrepo_runtime.queue.rank import Head, choose
from modelrepo_runtime.queue.sqlite.rows import JobRow, LeaseRow, ReadyRow, leases
from modelrepo_runtime.queue.sqlite.stages import read_stages
from modelrepo_runtime.queue.sqlite.statements import sql
from modelrepo_runtime.queue.sqlite.waiting import READY_DELETE, lane_of, move_due, rank_time
from modelrepo_runtime.queue.sqlite.writer import Transaction
from modelrepo_runtime.queue.steps import write_stages
from modelrepo_runtime.timing import Timing

LANE_HEADS, READY_ROWS, FENCES_TAKE = sql("lane_heads"), sql("ready_rows"), sql("fences_take")
JOBS_TO_CLAIM, LEASE_INSERT = sql("jobs_to_claim"), sql("lease_insert")
PINNED_GET, SESSION_GET = sql("pinned_get"), sql("session_get")
TOKEN_BYTES = 8


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


def claim(tx: Transaction, session: str, seq: int, offers: Sequence[Offer], timing: Timing) -> tuple[Claim, ...]:
    """Lease up to `limit` jobs for each offer, or tell the leases of the same call again."""
    holder = holder_of(tx.connection, session, seq)
    again = leases(tx.connection, "lease.session = ? and lease.seq = ? and lease.after_fence is null", (session, seq))
    if again:
        return tuple(claim_again(tx.connection, row) for row in again)
    move_due(tx, timing.longest_delay_s)
    moment = rank_time(tx.connection, tx.now)
    live = cache(lambda: slots_live(tx.connection, tx.now, timing))
    return tuple(found for offer in offers for found in _claim_for(tx, holder, offer, moment, live))


def _claim_for(
    tx: Transaction, holder: Holder, offer: Offer, moment: float, live: Callable[[], Sequence[LiveSlot]]
) -> list[Claim]:
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
    chosen = choose(heads, moment, offer.limit, lambda lane, skip, count: _rows(connection, lane, skip, count))
    connection.executemany(READY_DELETE, [row[:3] for _, row in chosen])
    return lease(tx, holder, offer, [row for _, row in chosen])


def _rows(connection: sqlite3.Connection, lane: int, skip: int, count: int) -> list[ReadyRow]:
    return [ReadyRow._make(row) for row in connection.execute(READY_ROWS, (lane, count, skip))]


def lease(tx: Transaction, holder: Holder, offer: Offer, rows: Sequence[ReadyRow]) -> list[Claim]:
    """Write leases for jobs that were taken out of `ready`."""
    connection = tx.connection
    number = connection.execute(FENCES_TAKE, (len(rows),)).fetchone()[0] - len(rows)
    tokens = secrets.token_hex(TOKEN_BYTES * len(rows))
    place = holder.place(offer).key
    jobs = _jobs(connection, [row.job for row in rows])
    claims: list[Claim] = []
    taken: list[tuple[object, ...]] = []
    for row in rows:
        number += 1
        token, tokens = tokens[: 2 * TOKEN_BYTES], tokens[2 * TOKEN_BYTES :]
        job = jobs[row.job]
        stages, own_plan, previous = _plan(connection, job, row, offer)
        held = (number, token, row.job, holder.session, holder.seq, holder.after_fence, place, holder.host)
        stage = stages[row.stage_index].name
        taken.append((*held, stage, row.stage_index, own_plan, row.attempt, offer.version, tx.now))
        claims.append(_claim(job, Fence(number, token), offer.version, stages, row, previous, offer.slot))
        tx.changed_jobs.add(job.name)
    connection.executemany(LEASE_INSERT, taken)
    return claims


def _jobs(connection: sqlite3.Connection, numbers: Sequence[int]) -> dict[int, JobRow]:
    rows = connection.execute(JOBS_TO_CLAIM, (json.dumps(numbers),)).fetchall()
    return {row[0]: JobRow._make(row) for row in rows}


def _plan(
    connection: sqlite3.Connection, job: JobRow, row: ReadyRow, offer: Offer
) -> tuple[tuple[StageNeed, ...], str | None, object]:
    """Return the stages to follow, as text where they are not the job's own, and what the stage before returned."""
    stages = read_stages(job.stages)
    if row.stage_index:
        pinned = connection.execute(PINNED_GET, (row.job,)).fetchone()
        own_plan = pinned["stages"]
        return read_stages(own_plan) if own_plan else stages, own_plan, json.loads(pinned["previous"])
    if offer.plan and job.wanted is None and offer.plan != stages:
        return offer.plan, write_stages(offer.plan), None
    return stages, None, None


def _claim(
    job: JobRow, fence: Fence, version: str, stages: Sequence[StageNeed], row: ReadyRow, previous: object, slot: str
) -> Claim:
    index = row.stage_index
    return Claim(
        job.name,
        fence,
        job.model,
        version,
        stages[index].name,
        index,
        index == len(stages) - 1,
        row.attempt,
        json.loads(job.inputs),
        previous,
        job.tier,
        job.enqueued,
        stages[index].timeout_s,
        job.created,
        json.loads(job.files) if job.files != "{}" else {},
        slot,
    )


def claim_again(connection: sqlite3.Connection, row: LeaseRow) -> Claim:
    """Return the claim of a lease that is held already."""
    job = _jobs(connection, [row.job])[row.job]
    previous = None
    if row.stage_index:
        previous = json.loads(connection.execute(PINNED_GET, (row.job,)).fetchone()["previous"])
    ready = ReadyRow(0, row.enqueued, row.job, row.stage_index, row.attempt)
    slot = row.slot.rpartition("/")[2]
    return _claim(job, Fence(row.fence, row.token), row.version, row.plan, ready, previous, slot)


def slots_live(connection: sqlite3.Connection, now: float, timing: Timing) -> tuple[LiveSlot, ...]:
    """Return the slots of every session that has beaten within a lease."""
    within = (now - timing.lease_s, now + timing.lease_s)
    rows: Iterable[sqlite3.Row] = connection.execute(sql("slots_live"), within).fetchall()
    return tuple(
        LiveSlot(
            Place(row["worker"], row["slot"], row["host"]), row["state"], row["model"], row["version"], row["incoming"]
        )
        for row in rows
    )
