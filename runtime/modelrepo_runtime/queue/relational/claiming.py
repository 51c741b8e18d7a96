"""Leasing the most urgent jobs."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

from modelrepo.errors import StaleSession
from modelrepo_runtime.jobs import Claim, Fence, StageNeed
from modelrepo_runtime.queue.lanes import Lane, LiveSlot, Place, admits, fits, stage_taken
from modelrepo_runtime.queue.port import ClaimCall, Offer
from modelrepo_runtime.queue.rank import Head, choose
from modelrepo_runtime.queue.relational import crediting
from modelrepo_runtime.queue.relational.breaking import Probing, probing
from modelrepo_runtime.queue.relational.crediting import Grants, needs_one
from modelrepo_runtime.queue.relational.rows import JobRow, LeaseRow, ReadyRow, leases
from modelrepo_runtime.queue.relational.stages import read_stages
from modelrepo_runtime.queue.relational.telling import tell_started
from modelrepo_runtime.queue.relational.transaction import Snapshot, Transaction
from modelrepo_runtime.queue.relational.waiting import lane_of, move_due, rank_time
from modelrepo_runtime.queue.steps import write_stages
from modelrepo_runtime.timing import Timing

TOKEN_BYTES = 8


@dataclass(frozen=True, slots=True)
class Holder:
    """Who takes leases, and with which call."""

    session: str
    seq: int
    worker: str
    host: str
    cluster: str
    after_fence: int | None = None

    def place(self, offer: Offer) -> Place:
        return Place(self.worker, offer.slot, self.host)


def ended(session: str) -> StaleSession:
    """Return the error for a session that is not known any more."""
    return StaleSession(f"session {session} has ended; begin a new one")


def holder_of(tx: Snapshot, session: str, seq: int, after_fence: int | None = None) -> Holder:
    """Return the session as a holder. Raises: StaleSession."""
    row = tx.row("session_get", session)
    if row is None:
        raise ended(session)
    return Holder(session, seq, row["worker"], row["host"], row["cluster"], after_fence)


def answers_where_nothing_waits(
    tx: Snapshot, calls: Sequence[ClaimCall], timing: Timing
) -> tuple[tuple[Claim, ...] | StaleSession, ...] | None:
    """Answer claims that need no write; None where jobs wait, something is due, or leases are to be told again."""
    models = tx.array(sorted({offer.model for call in calls for offer in call.offers}))
    if tx.only("work_waiting", models, tx.now, tx.now + timing.longest_delay_s)[0]:
        return None
    if any(tx.only("leased_by_call", call.session.id, call.seq)[0] for call in calls):
        return None
    known = [tx.row("session_get", call.session.id) is not None for call in calls]
    return tuple(() if here else ended(call.session.id) for here, call in zip(known, calls, strict=True))


def claim_all(
    tx: Transaction, calls: Sequence[ClaimCall], timing: Timing
) -> tuple[tuple[Claim, ...] | StaleSession, ...]:
    """Answer claims one after the other: what is most urgent goes to the first whose offers can run it."""
    move_due(tx, timing.longest_delay_s)
    moment = rank_time(tx)
    live, known = cache(lambda: slots_live(tx, timing)), cache(lambda: probing(tx))
    around = Around(moment, live, known, Grants(tx, timing))
    answers: list[tuple[Claim, ...] | StaleSession] = []
    for call in calls:
        try:
            answers.append(_claim_one(tx, call, around))
        except StaleSession as error:
            answers.append(error)
    return tuple(answers)


@dataclass(frozen=True, slots=True)
class Around:
    """What claims go by, read at most once for all that are answered together."""

    moment: float
    live: Callable[[], Sequence[LiveSlot]]
    probing: Callable[[], Probing]
    grants: Grants


def _claim_one(tx: Transaction, call: ClaimCall, around: Around) -> tuple[Claim, ...]:
    """Lease up to `limit` jobs for each offer, or tell the leases of the same call again."""
    holder = holder_of(tx, call.session.id, call.seq)
    condition = "lease.session = ? and lease.seq = ? and lease.after_fence is null"
    again = leases(tx, condition, call.session.id, call.seq)
    if again:
        return tuple(claim_again(tx, row) for row in again)
    found: list[Claim] = []
    served: set[str] = set()
    for offer in call.offers:
        # Several offers of one slot are ways to use it: the first that brings something uses it up.
        if offer.slot not in served and (claims := _claim_for(tx, holder, offer, around)):
            found += claims
            served.add(offer.slot)
    return tuple(found)


def _claim_for(tx: Transaction, holder: Holder, offer: Offer, around: Around) -> list[Claim]:
    heads: list[Head] = []
    lanes: dict[int, Lane] = {}
    place, known, grants = holder.place(offer), around.probing, around.grants
    for row in tx.rows("lane_heads", offer.model):
        if row["head"] is None:
            continue
        lane = lane_of(row)
        if not fits(lane, offer) or (lane.avoid and not admits(lane, place, around.live())):
            continue
        if lane.cluster not in (None, holder.cluster):
            continue
        if lane.cluster is None and needs_one(lane, offer) and not grants.free(holder.cluster, offer):
            continue
        lanes[row["id"]] = lane
        if known().allowed(offer, holder.cluster, stage_taken(lane, offer)):
            heads.append(Head(row["id"], row["head"], row["slo_s"]))
    if not heads:
        return []
    chosen = choose(heads, around.moment, known().limit(offer), lambda lane, skip, count: _rows(tx, lane, skip, count))
    rows, granted = grants.admit(holder.cluster, offer, [(lanes[lane], row) for lane, row in chosen])
    tx.run_many("ready_delete", [row[:3] for row in rows])
    claims = lease(tx, holder, offer, rows)
    grants.take(holder.cluster, offer, granted)
    known().claimed(tx, holder.cluster, claims)
    return claims


def _rows(tx: Snapshot, lane: int, skip: int, count: int) -> list[ReadyRow]:
    return [ReadyRow._make(row) for row in tx.rows("ready_rows", lane, count, skip)]


def lease(tx: Transaction, holder: Holder, offer: Offer, rows: Sequence[ReadyRow]) -> list[Claim]:
    """Write leases for jobs that were taken out of `ready`."""
    if not rows:
        return []
    number = tx.only("fences_take", len(rows))[0] - len(rows)
    tokens = secrets.token_hex(TOKEN_BYTES * len(rows))
    place = holder.place(offer).key
    jobs = _jobs(tx, [row.job for row in rows])
    claims: list[Claim] = []
    taken: list[tuple[object, ...]] = []
    begun: list[tuple[int, Sequence[StageNeed], int]] = []
    for row in rows:
        number += 1
        token, tokens = tokens[: 2 * TOKEN_BYTES], tokens[2 * TOKEN_BYTES :]
        job = jobs[row.job]
        stages, own_plan, previous = _plan(tx, job, row, offer)
        held = (number, token, row.job, holder.session, holder.seq, holder.after_fence, place, holder.host)
        stage = stages[row.stage_index].name
        taken.append((*held, stage, row.stage_index, own_plan, row.attempt, offer.version, tx.now))
        claim = _claim(job, Fence(number, token), offer.version, stages, row, previous, offer.slot)
        claims.append(_with_handover(tx, claim, row.job))
        begun.append((row.job, stages, row.stage_index))
        tx.changed_jobs.add(job.name)
        tell_started(tx, row.job, job.webhook, stage, row.attempt, offer.version)
    tx.run_many("lease_insert", taken)
    crediting.started(tx, begun)
    return claims


def _jobs(tx: Snapshot, numbers: Sequence[int]) -> dict[int, JobRow]:
    rows = tx.rows("jobs_to_claim", tx.array(numbers))
    return {row[0]: JobRow._make(row) for row in rows}


def _plan(tx: Snapshot, job: JobRow, row: ReadyRow, offer: Offer) -> tuple[tuple[StageNeed, ...], str | None, object]:
    """Return the stages to follow, as text where they are not the job's own, and what the stage before returned."""
    stages = read_stages(job.stages)
    if row.stage_index:
        pinned = tx.only("pinned_get", row.job)
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
        size=job.size,
    )


def _with_handover(tx: Snapshot, claim: Claim, job: int) -> Claim:
    files = crediting.handed_over(tx, job) if claim.stage_index else ()
    return replace(claim, handover=files) if files else claim


def claim_again(tx: Snapshot, row: LeaseRow) -> Claim:
    """Return the claim of a lease that is held already."""
    job = _jobs(tx, [row.job])[row.job]
    previous = None
    if row.stage_index:
        previous = json.loads(tx.only("pinned_get", row.job)["previous"])
    ready = ReadyRow(0, 0.0, row.job, row.enqueued, row.stage_index, row.attempt)
    slot = row.slot.rpartition("/")[2]
    claim = _claim(job, Fence(row.fence, row.token), row.version, row.plan, ready, previous, slot)
    return _with_handover(tx, claim, row.job)


def slots_live(tx: Snapshot, timing: Timing) -> tuple[LiveSlot, ...]:
    """Return the slots of every session that has beaten within a lease."""
    rows = tx.rows("slots_live", tx.now - timing.lease_s, tx.now + timing.lease_s)
    return tuple(
        LiveSlot(
            Place(row["worker"], row["slot"], row["host"]), row["state"], row["model"], row["version"], row["incoming"]
        )
        for row in rows
    )
