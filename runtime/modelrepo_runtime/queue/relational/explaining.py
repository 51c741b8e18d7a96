"""Reading what explanations and reports of the queue rest on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from modelrepo.errors import WorkerNotFound
from modelrepo_runtime.jobs import StageNeed, Status
from modelrepo_runtime.queue.credits import CreditKey, takes_credits
from modelrepo_runtime.queue.explain import Surroundings, explain
from modelrepo_runtime.queue.explain_worker import explain_worker
from modelrepo_runtime.queue.forecast import Forecaster, LaneLoad, Load
from modelrepo_runtime.queue.hindrance import Rules, SlotStanding, serves
from modelrepo_runtime.queue.lanes import Place, read_avoid, read_memory
from modelrepo_runtime.queue.order_settings import Pause, is_paused
from modelrepo_runtime.queue.port import Explanation
from modelrepo_runtime.queue.relational import crediting, reading
from modelrepo_runtime.queue.relational.breaking import failing
from modelrepo_runtime.queue.relational.fleet import read_report
from modelrepo_runtime.queue.relational.forecasting import kind_of, load_of, policy_of
from modelrepo_runtime.queue.relational.stages import read_stages
from modelrepo_runtime.queue.relational.transaction import Row, Snapshot
from modelrepo_runtime.queue.reports import CreditReport, LaneReport, QueueReport, WorkerExplanation
from modelrepo_runtime.queue.steps import MOST_RESTARTS
from modelrepo_runtime.timing import Timing


def explain_job(tx: Snapshot, job_id: str, timing: Timing, predictions: reading.Predictions) -> Explanation:
    """Say where a job is and what it waits for. Raises: JobNotFound."""
    job = reading.get(tx, job_id, predictions)
    row = reading.view(tx, job_id)
    waits = tx.row("waits_of_job", row["id"], row["model"], row["enqueued"]) if job.status is Status.QUEUED else None
    holder, pinned = tx.row("lease_of_job", row["id"]), tx.row("pinned_get", row["id"])
    lane = _lane_of_job(tx, row, waits) if waits is not None else None
    around = Surroundings(
        now=tx.now,
        slo_s=row["slo_s"],
        lane=lane,
        rank=_rank(predictions(tx).load, lane) if lane is not None else None,
        due=waits["due"] if waits is not None else None,
        holder=holder["slot"] if holder is not None else None,
        rules=_rules(tx, timing, {row["model"]: lane.plan} if lane is not None else {}, row["model"]),
        history=reading.history(tx, job_id),
        restarts=pinned["restarts"] if pinned is not None else 0,
        restarts_allowed=MOST_RESTARTS,
    )
    return explain(job, around)


def _lane_of_job(tx: Snapshot, row: Row, waits: Row) -> LaneLoad:
    plan = read_stages(row["pinned_stages"] or row["stages"])
    pauses = {(pause["model"], pause["tier"]) for pause in tx.rows("pauses")}
    return LaneLoad(
        model=waits["model"],
        stage=waits["stage"],
        on=kind_of(plan, waits["stage"]),
        tier=waits["tier"],
        weight=1.0,
        depth=1,
        oldest=row["enqueued"],
        newest=row["enqueued"],
        version=waits["version"] or None,
        cluster=waits["cluster"] or None,
        over=bool(waits["over"]),
        paused=is_paused(pauses, waits["model"], waits["tier"]),
        avoid=read_avoid(waits["avoid"]),
        memory=read_memory(waits["avoid"]),
        plan=plan,
    )


def _rank(load: Load, lane: LaneLoad) -> tuple[int, int] | None:
    """Return which of how many lanes of its model and kind a lane is; None where it was not there a moment ago."""
    alike = [other for other in load.lanes if (other.model, other.on) == (lane.model, lane.on)]
    rivals = by_urgency((other for other in alike if other.depth and not other.paused), load.at)
    own, names = _name(lane), [_name(each) for each in rivals]
    return (names.index(own) + 1, len(names)) if own in names else None


def _name(lane: LaneLoad) -> tuple[object, ...]:
    return (lane.stage, lane.tier, lane.version, lane.cluster, lane.over, lane.avoid, lane.memory)


def by_urgency(lanes: Iterable[LaneLoad], now: float) -> list[LaneLoad]:
    """Sort lanes as claims compare them: tenants far ahead last, then by the wait of the oldest."""
    return sorted(lanes, key=lambda lane: (lane.depth == 0, lane.over, -(now - lane.oldest) * lane.weight))


def explain_worker_now(tx: Snapshot, worker: str, timing: Timing) -> WorkerExplanation:
    """Say what a worker's slots could take now. Raises: WorkerNotFound."""
    load = load_of(tx, timing)
    lanes = by_urgency(load.lanes, tx.now)
    rules = _rules(tx, timing, _plans(lanes))
    if not any(slot.place.worker == worker for slot in rules.slots):
        names = sorted({slot.place.worker for slot in rules.slots})
        raise WorkerNotFound(
            f"no live worker {worker}; live are {', '.join(names[:10]) or 'none'}: `modelrepo status` shows them"
        )
    return explain_worker(worker, lanes, rules, tx.now)


def queue_report(tx: Snapshot, timing: Timing, model: str | None, tier: str | None) -> QueueReport:
    """Return every lane that is not empty, and what holds jobs back."""
    load = load_of(tx, timing)
    known = Forecaster(load)
    lanes = by_urgency(load.lanes, tx.now)
    wanted = [lane for lane in lanes if model in (None, lane.model) and tier in (None, lane.tier)]
    rules = _rules(tx, timing, _plans(lanes), model)
    return QueueReport(
        at=tx.now,
        policy=policy_of(tx).value,
        lanes=tuple(_lane_report(lane, known) for lane in wanted),
        pauses=tuple(Pause(row["model"] or None, row["tier"] or None, row["at"]) for row in tx.rows("pauses")),
        failing=tuple(each for each in rules.failing if model in (None, each.model)),
        credits=tuple(rules.credits),
    )


def _lane_report(lane: LaneLoad, known: Forecaster) -> LaneReport:
    waited = max(0.0, known.load.at - lane.oldest) if lane.depth else None
    wait_s = known.wait_s(lane)
    return LaneReport(
        model=lane.model,
        stage=lane.stage,
        on=lane.on,
        tier=lane.tier,
        version=lane.version,
        cluster=lane.cluster,
        over=lane.over,
        avoid=tuple(sorted(lane.avoid)),
        needs=lane.memory,
        waiting=lane.depth,
        more_than=lane.more_than,
        delayed=lane.delayed,
        oldest_s=None if waited is None else round(waited, 3),
        share=None if waited is None else round(waited / lane.slo_s, 4),
        wait_s=None if wait_s is None else round(wait_s, 3),
        paused=lane.paused,
    )


Plans = Mapping[str, tuple[StageNeed, ...]]
"""By model."""


def _plans(lanes: Iterable[LaneLoad]) -> Plans:
    return {lane.model: lane.plan for lane in lanes if takes_credits(lane.plan)}


def _rules(tx: Snapshot, timing: Timing, plans: Plans, model: str | None = None) -> Rules:
    running = {row["slot"]: row["name"] for row in reversed(tx.rows("leases_running"))}
    condition, values = ("and slot.model = ?", (model,)) if model is not None else ("", ())
    within = (tx.now - timing.lease_s, tx.now + timing.lease_s)
    reporting = tx.select("slots_reporting", f"{condition} order by session.worker, slot.slot", *within, *values)
    slots = tuple(
        SlotStanding(
            Place(row["worker"], row["slot"], row["host"]),
            row["cluster"],
            read_report(row["report"]),
            running.get(f"{row['worker']}/{row['slot']}"),
        )
        for row in reporting
    )
    out = _credits(tx, timing, plans, slots)
    return Rules(slots, failing(tx), tuple(each for each in out if model in (None, each.model)))


def _credits(tx: Snapshot, timing: Timing, plans: Plans, slots: Sequence[SlotStanding]) -> list[CreditReport]:
    """Return how many credits are out, of every key that slots may take one of or that some are out of."""
    keys = {CreditKey(row["cluster"], row["model"], row["version"]) for row in tx.rows("credits_shown")}
    for slot in slots:
        if slot.report.model and takes_credits(plans.get(slot.report.model, ())) and "gpu" not in slot.report.on:
            keys |= {CreditKey(slot.cluster, slot.report.model, version) for version in serves(slot.report)}
    found: list[CreditReport] = []
    for key in sorted(keys, key=lambda key: (key.model, key.version, key.cluster)):
        plan, out = plans.get(key.model, ()), crediting.count(tx, key)
        if takes_credits(plan):
            most = crediting.limit(tx, key, plan, timing)
            found.append(CreditReport(key.cluster, key.model, key.version, out, most))
        elif out:
            found.append(CreditReport(key.cluster, key.model, key.version, out, None))
    return found
