"""Staged leases: a slot fetches a job's inputs while it still runs another, and begins it by `start` alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from modelrepo.errors import StaleFence
from modelrepo_runtime.attempts import Attempt, kept_away_from
from modelrepo_runtime.jobs import Cause, Fence, Status
from modelrepo_runtime.queue.lanes import Lane, Place, fits
from modelrepo_runtime.queue.memory_needs import NeedKey
from modelrepo_runtime.queue.port import ClaimCall, Offer
from modelrepo_runtime.queue.rank import slo_share
from modelrepo_runtime.queue.relational import crediting
from modelrepo_runtime.queue.relational.memory import need_of
from modelrepo_runtime.queue.relational.rows import LeaseRow, leases, leases_to_end
from modelrepo_runtime.queue.relational.stages import read_stages
from modelrepo_runtime.queue.relational.telling import tell_started
from modelrepo_runtime.queue.relational.transaction import Refused, Row, Snapshot, Transaction
from modelrepo_runtime.queue.relational.waiting import Entry, Last, end, enqueue, lane_of
from modelrepo_runtime.queue.steps import EXPIRED, stale

STAGED_BELOW_SHARE = 0.8
"""From this part of its SLO on a job waits for whichever slot is free first."""
MOST_LOOKED_AT = 100
"""Staged jobs of a model, those staged first, that a claim may put back: there may be one for each slot of a fleet."""


def may_be_staged(enqueued: float, now: float, slo_s: float) -> bool:
    """True while a job has time to wait for the slot that fetches its inputs."""
    return slo_share(enqueued, now, slo_s) < STAGED_BELOW_SHARE


def any_of(tx: Snapshot, models: Sequence[str]) -> bool:
    """True where a job of these models is staged, so that a slot without work may take it."""
    return bool(tx.select("staged_models", f"where {tx.statements.among('model')} limit 1", tx.array(models)))


def start(tx: Transaction, session: str, job_id: str, fence: Fence) -> Refused[StaleFence] | None:
    """Begin a staged job; again for one that has begun is no fault."""
    tx.flush()
    found = leases_to_end(tx, "lease.fence = ?", fence.number)
    row = found[0] if found and found[0].held == (job_id, fence) and found[0].session == session else None
    if row is None:
        return Refused(stale(job_id, fence))
    if tx.row("staged_delete", row.fence) is None:
        return None
    if row.deadline is not None and row.deadline <= tx.now:
        _expire(tx, row)
        return Refused(stale(job_id, fence))
    tx.run("lease_begin", tx.now, row.fence)
    crediting.started(tx, [(row.job, row.plan, row.stage_index)])
    tell_started(tx, row.job, row.webhook, row.stage, row.attempt, row.version)
    tx.changed_jobs.add(row.name)
    return None


def has_begun(tx: Snapshot, session: str, job_id: str, fence: Fence) -> bool:
    """True where the session runs the job under this fence."""
    found = leases(tx, "lease.fence = ?", fence.number)
    mine = bool(found) and found[0].held == (job_id, fence) and found[0].session == session
    return mine and tx.row("staged_lease", fence.number) is None


def _expire(tx: Transaction, row: LeaseRow) -> None:
    tx.run("lease_delete", row.fence)
    crediting.give_back(tx, [row.job])
    end(tx, row.job, row.name, Status.EXPIRED, Last(row.version), EXPIRED, "expired")


@dataclass(frozen=True, slots=True)
class _Free:
    """An offer of a slot that has nothing to do, and where the slot is."""

    offer: Offer
    place: Place
    cluster: str


def take_back(tx: Transaction, calls: Sequence[ClaimCall], moment: float) -> None:
    """Put staged jobs back into their lanes that outrank all else that a slot without work could take now.

    They are ranked among the rest then, by the same claim.
    """
    free = [found for call in calls for found in _free(tx, call)]
    models = sorted({one.offer.model for one in free})
    slos = {row["name"]: row["slo_s"] for row in tx.rows("tiers")}
    for model in models:
        fences = [row["fence"] for row in tx.rows("staged_of_model", model, MOST_LOOKED_AT)]
        among = tx.statements.among("lease.fence")
        rows = leases(tx, among, tx.array(fences)) if fences else []
        heads = [(lane_of(row), row) for row in tx.rows("lane_heads", model, moment) if row["head"] is not None]
        rows.sort(key=lambda row: -slo_share(row.enqueued, moment, slos[row.tier]))
        left = [one for one in free if one.offer.model == model]
        for row in rows if left else ():
            taker = next((one for one in left if _outranks(tx, row, one, heads, moment, slos[row.tier])), None)
            # The lease first, as whoever starts the job does: in the other order the two would wait for each other.
            if taker is None or not leases_to_end(tx, "lease.fence = ?", row.fence):
                continue
            if tx.row("staged_delete", row.fence) is not None:
                left.remove(taker)
                tx.run("lease_delete", row.fence)
                _put_back(tx, row)


def _free(tx: Snapshot, call: ClaimCall) -> list[_Free]:
    row = tx.row("session_get", call.session.id)
    if row is None:
        return []
    where = (row["worker"], row["host"])
    return [
        _Free(offer, Place(where[0], offer.slot, where[1]), row["cluster"]) for offer in call.offers if not offer.staged
    ]


def _outranks(
    tx: Snapshot, row: LeaseRow, free: _Free, heads: Sequence[tuple[Lane, Row]], moment: float, slo_s: float
) -> bool:
    bound = row.version if row.stage_index else row.wanted
    if row.stage not in free.offer.stages or bound not in (None, free.offer.version) or row.cancelled:
        return False
    fitting = [head for lane, head in heads if fits(lane, free.offer) and lane.cluster in (None, free.cluster)]
    best = max((slo_share(head["head"], moment, head["slo_s"]) for head in fitting), default=-1.0)
    if slo_share(row.enqueued, moment, slo_s) <= best or free.place.avoided_by(_avoid(tx, row.job)):
        return False
    if crediting.home_of(tx, row.job, row.plan, row.stage_index) not in (None, free.cluster):
        return False
    need = need_of(tx, NeedKey(row.model, row.stage, row.size), row.plan[row.stage_index].on)
    return need is None or need.met_by(free.offer.room)


def _put_back(tx: Transaction, row: LeaseRow) -> None:
    """Make a staged job wait in its lane as if no slot had had it."""
    at = row.stage_index
    stage = row.plan[at] if at else read_stages(row.job_stages)[0]
    home = crediting.home_of(tx, row.job, row.plan, at)
    version = row.version if at else row.wanted
    need = need_of(tx, NeedKey(row.model, stage.name, row.size), stage.on)
    lane = Lane(row.model, stage.name, row.tier, version, _avoid(tx, row.job), home, bool(row.over), need)
    enqueue(tx, Entry(row.job, row.enqueued, row.tag, lane, at, row.attempt))


def _avoid(tx: Snapshot, job: int) -> frozenset[str]:
    rows = tx.rows("attempts_of_job", job)
    return kept_away_from(
        Attempt(Cause(each["cause"]), bool(each["counted"]), each["slot"], each["box"]) for each in rows
    )
