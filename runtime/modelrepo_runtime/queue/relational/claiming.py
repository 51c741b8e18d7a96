"""Leasing the most urgent jobs."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache

from modelrepo.errors import StaleSession
from modelrepo_runtime.job_memory import MemoryRoom
from modelrepo_runtime.jobs import Claim, Fence, KeptState, StageNeed
from modelrepo_runtime.queue.lanes import LiveSlot, Place, admits, fits, kind_taken, stage_taken
from modelrepo_runtime.queue.picking import UNLIMITED, Quota
from modelrepo_runtime.queue.port import ClaimCall, Offer
from modelrepo_runtime.queue.relational import crediting, handovers, staging
from modelrepo_runtime.queue.relational.breaking import NONE_FAILING, Probing, probing
from modelrepo_runtime.queue.relational.crediting import Grants, needs_one
from modelrepo_runtime.queue.relational.ranking import Picked, Ranking
from modelrepo_runtime.queue.relational.rows import JobRow, LeaseRow, ReadyRow, jobs_to_claim, leases
from modelrepo_runtime.queue.relational.stages import read_stages
from modelrepo_runtime.queue.relational.telling import tell_started
from modelrepo_runtime.queue.relational.transaction import Snapshot, Transaction
from modelrepo_runtime.queue.relational.waiting import lane_of, move_due
from modelrepo_runtime.queue.steps import enqueued_after, read_files, write_stages
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
    names = sorted({offer.model for call in calls for offer in call.offers})
    if tx.only("work_waiting", tx.array(names), tx.now, tx.now + timing.longest_delay_s)[0]:
        return None
    if staging.any_of(tx, names):
        return None
    if any(tx.only("leased_by_call", call.session.id, call.seq)[0] for call in calls):
        return None
    known = [tx.row("session_get", call.session.id) is not None for call in calls]
    return tuple(() if here else ended(call.session.id) for here, call in zip(known, calls, strict=True))


def claim_all(
    tx: Transaction, calls: Sequence[ClaimCall], timing: Timing, *, due: bool = True
) -> tuple[tuple[Claim, ...] | StaleSession, ...]:
    """Answer claims one after the other: what is most urgent goes to the first whose offers can run it.

    Not `due`: what time alone moves has been moved before.
    """
    if due:
        move_due(tx, timing.longest_delay_s)
    newest, any_staged = tx.only("claim_moment")
    moment = enqueued_after(newest, tx.now)
    offers = [offer for call in calls for offer in call.offers]
    models, wanted = sorted({offer.model for offer in offers}), sum(offer.limit for offer in offers)
    if any_staged and staging.any_of(tx, models):
        staging.take_back(tx, calls, moment)
    ranking = Ranking(tx, models, moment, wanted, lane_of)
    live = cache(lambda: slots_live(tx, timing))
    known = cache(lambda: probing(tx) if ranking.any_failing else NONE_FAILING)
    around = Around(ranking, live, known, Grants(tx, timing))
    answers: list[tuple[Claim, ...] | StaleSession] = []
    known_sessions = tx.statements.each("claimant", [(call.session.id, call.seq) for call in calls]) if calls else ()
    for call, rows in zip(calls, known_sessions, strict=True):
        if rows:
            worker, host, cluster, leased = rows[0]
            holder = Holder(call.session.id, call.seq, worker, host, cluster)
            answers.append(_claim_one(tx, call, holder, around, leased=bool(leased)))
        else:
            answers.append(ended(call.session.id))
    around.ranking.write()
    return tuple(answers)


@dataclass(frozen=True, slots=True)
class Around:
    """What claims go by, read at most once for all that are answered together."""

    ranking: Ranking
    live: Callable[[], Sequence[LiveSlot]]
    probing: Callable[[], Probing]
    grants: Grants


def _claim_one(tx: Transaction, call: ClaimCall, holder: Holder, around: Around, *, leased: bool) -> tuple[Claim, ...]:
    """Lease up to `limit` jobs for each offer, or tell the leases of the same call again."""
    if leased:
        condition = "lease.session = ? and lease.seq = ? and lease.after_fence is null"
        return tuple(claim_again(tx, row) for row in leases(tx, condition, call.session.id, call.seq))
    slots: dict[str, list[Offer]] = {}
    for offer in call.offers:
        slots.setdefault(offer.slot, []).append(offer)
    return tuple(found for offers in slots.values() for found in _claim_for_slot(tx, holder, offers, around))


def _claim_for_slot(tx: Transaction, holder: Holder, offers: Sequence[Offer], around: Around) -> list[Claim]:
    """Claim for one slot. Its offers are ways to use it: the one that the most urgent job fits uses it up."""
    ways: dict[int, Offer] = {}
    for offer in sorted(offers, key=lambda offer: not offer.warm):
        for number in _open_to(holder, offer, around):
            ways.setdefault(number, offer)
    shard = "/".join(sorted({f"{offer.model}:{','.join(offer.stages)}" for offer in offers}))
    picked: list[Picked] = []
    chosen = offers[0]
    if len(offers) > 1:
        picked = around.ranking.pick(shard, {number: offer.warm for number, offer in ways.items()}, 1)
        ways = {number: offer for number, offer in ways.items() if picked and offer is ways[picked[0].number]}
        chosen = next(iter(ways.values()), chosen)
    if ways:
        lanes = dict.fromkeys(ways, chosen.warm)
        limit = around.probing().limit(chosen) - len(picked)
        picked += around.ranking.pick(shard, lanes, limit, _credits_left(holder, chosen, picked, lanes, around))
    return _take(tx, holder, chosen, picked, around)


def _credits_left(
    holder: Holder, offer: Offer, picked: Sequence[Picked], lanes: Iterable[int], around: Around
) -> Quota:
    """Return of which lanes jobs take a credit, and how many may."""
    known = around.ranking.lanes
    needing = frozenset(number for number in lanes if known[number].cluster is None and needs_one(known[number], offer))
    if not needing:
        return UNLIMITED
    return Quota(needing, around.grants.free(holder.cluster, offer) - sum(each.number in needing for each in picked))


def _open_to(holder: Holder, offer: Offer, around: Around) -> list[int]:
    """Return the lanes of which this offer may take jobs now."""
    place, grants = holder.place(offer), around.grants
    found: list[int] = []
    for number, lane in around.ranking.lanes.items():
        if not fits(lane, offer) or (lane.avoid and not admits(lane, place, around.live, kind_taken(lane, offer))):
            continue
        if lane.cluster not in (None, holder.cluster):
            continue
        if lane.cluster is None and needs_one(lane, offer) and not grants.free(holder.cluster, offer):
            continue
        if around.probing().allowed(offer, holder.cluster, stage_taken(lane, offer)):
            found.append(number)
    return found


def _take(tx: Transaction, holder: Holder, offer: Offer, picked: Sequence[Picked], around: Around) -> list[Claim]:
    if offer.staged:
        slos = {row["name"]: row["slo_s"] for row in tx.rows("tiers")}
        picked = [each for each in picked if staging.may_be_staged(each.row.enqueued, tx.now, slos[each.lane.tier])]
    rows, granted = around.grants.admit(holder.cluster, offer, [(each.lane, each.row) for each in picked])
    tx.run_many("ready_delete", [row[:4] for row in rows])
    claims = lease(tx, holder, offer, rows)
    around.grants.take(holder.cluster, offer, granted)
    around.probing().claimed(tx, holder.cluster, claims)
    return claims


def lease(tx: Transaction, holder: Holder, offer: Offer, rows: Sequence[ReadyRow]) -> list[Claim]:
    """Write leases for jobs that were taken out of `ready`."""
    if not rows:
        return []
    number = tx.only("fences_take", len(rows))[0] - len(rows)
    tokens, at = secrets.token_hex(TOKEN_BYTES * len(rows)), 0
    place = holder.place(offer).key
    jobs = jobs_to_claim(tx, [row.job for row in rows])
    handed = handovers.of_jobs(tx, [row.job for row in rows if row.stage_index])
    claims: list[Claim] = []
    taken: list[tuple[object, ...]] = []
    begun: list[tuple[int, Sequence[StageNeed], int]] = []
    for row in (row for row in rows if row.job in jobs):  # a row that has outlived its job goes with it
        number += 1
        token = tokens[at : at + 2 * TOKEN_BYTES]
        at += 2 * TOKEN_BYTES
        job = jobs[row.job]
        stages, own_plan, previous = _plan(tx, job, row, offer)
        held = (number, token, row.job, holder.session, holder.seq, holder.after_fence, place, holder.host)
        stage = stages[row.stage_index].name
        taken.append((*held, stage, row.stage_index, own_plan, row.attempt, offer.version, tx.now))
        claim = _claim(job, Fence(number, token), offer.version, stages, row, previous, offer.slot)
        if row.job in handed:
            claim = replace(claim, handover=handed[row.job])
        claims.append(replace(claim, states=kept_states(tx, row.job)) if job.saved else claim)
        if len(stages) > 1:
            begun.append((row.job, stages, row.stage_index))
        tx.changed_jobs.add(job.name)
        if job.webhook is not None and not offer.staged:
            tell_started(tx, row.job, job.webhook, stage, row.attempt, offer.version)
    tx.run_many("lease_insert", taken)
    if offer.staged:
        tx.run_many("staged_insert", [(claim.fence.number, claim.model) for claim in claims])
        return [replace(claim, staged=True) for claim in claims]
    crediting.started(tx, begun)
    return claims


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
    files, adapters = read_files(job.files)
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
        files,
        slot,
        size=job.size,
        adapters=adapters,
    )


def claim_again(tx: Snapshot, row: LeaseRow) -> Claim:
    """Return the claim of a lease that is held already."""
    job = jobs_to_claim(tx, [row.job])[row.job]
    previous = None
    if row.stage_index:
        previous = json.loads(tx.only("pinned_get", row.job)["previous"])
    ready = ReadyRow(0, 0.0, row.job, row.enqueued, row.stage_index, row.attempt)
    slot = row.slot.rpartition("/")[2]
    claim = _claim(job, Fence(row.fence, row.token), row.version, row.plan, ready, previous, slot)
    claim = replace(claim, staged=tx.row("staged_lease", row.fence) is not None)
    handed = handovers.of_jobs(tx, [row.job] if row.stage_index else [])
    return replace(claim, handover=handed.get(row.job, ()), states=kept_states(tx, row.job) if job.saved else ())


def kept_states(tx: Snapshot, job: int) -> tuple[KeptState, ...]:
    """Return what a job's stage has saved, the newest first."""
    rows = tx.rows("states_of_job", job)
    return tuple(
        KeptState(row["number"], row["fence"], row["digest"], row["store_key"], row["size_bytes"], row["sha256"])
        for row in rows
    )


def slots_live(tx: Snapshot, timing: Timing) -> tuple[LiveSlot, ...]:
    """Return the slots of every session that has beaten within a lease."""
    rows = tx.rows("slots_live", tx.now - timing.lease_s, tx.now + timing.lease_s)
    return tuple(
        LiveSlot(
            Place(row["worker"], row["slot"], row["host"]),
            row["state"],
            row["model"],
            row["version"],
            row["incoming"],
            row["cluster"],
            tuple(kind for kind in ("cpu", "gpu") if row[kind]),
            tuple(row["also"].split("\n")) if row["also"] else (),
            MemoryRoom(row["accelerator_bytes"], row["host_bytes"]),
        )
        for row in rows
    )
