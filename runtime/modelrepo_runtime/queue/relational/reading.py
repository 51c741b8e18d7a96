"""Looking at jobs without changing them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from modelrepo.errors import InvalidInput, JobNotFound
from modelrepo_runtime.jobs import Fence, Job, JobError, OutputFile, Status
from modelrepo_runtime.queue.explain import COUNTED_TO
from modelrepo_runtime.queue.forecast import Asked, Forecaster, LaneLoad, Running
from modelrepo_runtime.queue.port import HistoryRow, JobFilter, Tier
from modelrepo_runtime.queue.rank import slo_share, wait_ended
from modelrepo_runtime.queue.relational.forecasting import tier_of
from modelrepo_runtime.queue.relational.stages import read_stages
from modelrepo_runtime.queue.relational.transaction import Row, Snapshot
from modelrepo_runtime.queue.relational.waiting import rank_time
from modelrepo_runtime.queue.steps import read_files

Predictions = Callable[[Snapshot], Forecaster]
"""Where predictions come from; asked only for jobs that have not ended."""


def get(tx: Snapshot, job_id: str, predictions: Predictions | None = None) -> Job:
    """Return one job with its inputs and its place in the queue. Raises: JobNotFound."""
    row = view(tx, job_id)
    payload = tx.only("job_inputs", row["id"])
    files, adapters = read_files(payload["files"])
    extra: dict[str, Any] = {"inputs": json.loads(payload["inputs"]), "files": files, "adapters": adapters}
    waits: Row | None = None
    if _status(row) is Status.QUEUED:
        extra["position"] = position(tx, row, predictions(tx).load.lanes if predictions is not None else ())
        waits = tx.row("waits_of_job", row["id"], row["model"], row["enqueued"])
    if predictions is not None and not _status(row).ended:
        extra["eta"] = predictions(tx).eta(asked(row, waits))
    return job_of(row, tx.now, **extra)


def view(tx: Snapshot, job_id: str) -> Row:
    """Return everything about a job in one row. Raises: JobNotFound."""
    name = job_id.encode("utf-8", "replace").decode()
    found = tx.select("job_view", "where job.name = ?", name)
    if not found:
        raise JobNotFound(f"no job {job_id} in this queue; `modelrepo jobs list` shows what there is")
    return found[0]


def list_jobs(tx: Snapshot, where: JobFilter, predictions: Predictions | None = None) -> tuple[Job, ...]:
    """Return matching jobs, newest first."""
    clauses: list[str] = []
    values: list[object] = []
    for column, value in (("job.model", where.model), ("job.tier", where.tier), ("job.tenant", where.tenant)):
        if value is not None:
            clauses.append(f"{column} = ?")
            values.append(value)
    if where.older_than_s is not None:
        clauses.append("job.created <= ?")
        values.append(tx.now - where.older_than_s)
    if where.before is not None:
        last = tx.row("job_row", where.before)
        if last is None:
            raise InvalidInput(f"cannot list jobs after {where.before}: it has been deleted; begin with the first page")
        clauses.append("job.id < ?")
        values.append(last["id"])
    if where.ids is not None:
        clauses.append(tx.statements.among("job.name"))
        values.append(tx.array(where.ids))
    if where.ended is not None:
        clauses.append(f"done.job is {'not ' if where.ended else ''}null")
    if where.status is Status.QUEUED:
        clauses.append("done.job is null and lease.job is null")
    elif where.status is Status.RUNNING:
        clauses.append("lease.job is not null")
    elif where.status is not None:
        clauses.append("done.status = ?")
        values.append(where.status.value)
    condition = f"where {' and '.join(clauses)} " if clauses else ""
    rows = tx.select("job_view", f"{condition}order by job.id desc limit ?", *values, where.limit)
    if predictions is None or all(_status(row).ended for row in rows):
        return tuple(job_of(row, tx.now) for row in rows)
    known = predictions(tx)
    return tuple(job_of(row, tx.now, eta=None if _status(row).ended else known.eta(asked(row, None))) for row in rows)


def asked(row: Row, waits: Row | None) -> Asked:
    """Return what a prediction depends on; `waits` is where a queued job waits, if that is known."""
    stages = read_stages(row["lease_stages"] or row["pinned_stages"] or row["stages"])
    index, running, started_at = row["next_index"] or 0, None, None
    version = row["pinned_version"] if index else row["wanted"]
    starts: list[tuple[str, float]] = [(stage, float(at)) for stage, at in json.loads(row["starts"])]
    if row["claimed"] is not None:
        index = next((n for n, stage in enumerate(stages) if stage.name == row["lease_stage"]), 0)
        version = row["lease_version"]
        running = Running(row["lease_stage"], row["claimed"], row["size"], row["fraction"])
        started_at = wait_ended(stages, [*starts, (row["lease_stage"], row["claimed"])])
    elif index:
        started_at = wait_ended(stages, starts)
    return Asked(
        model=row["model"],
        stages=stages,
        enqueued=row["enqueued"],
        tier=row["tier"],
        stage_index=index,
        version=version,
        cluster=(waits["cluster"] or None) if waits is not None else None,
        size=row["size"],
        over=bool(waits["over"]) if waits is not None else False,
        due=waits["due"] if waits is not None else None,
        started_at=started_at,
        running=running,
        slot=row["lease_slot"],
    )


def _status(row: Row) -> Status:
    if row["status"] is not None:
        return Status(row["status"])
    return Status.QUEUED if row["fence"] is None else Status.RUNNING


def job_of(row: Row, now: float, **extra: Any) -> Job:
    """Return a row of the view as a Job."""
    status = _status(row)
    outcome = json.loads(row["outcome"]) if row["outcome"] else {}
    succeeded = status is Status.SUCCEEDED
    stages = read_stages(row["lease_stages"] or row["pinned_stages"] or row["stages"])
    starts: list[tuple[str, float]] = [(stage, float(at)) for stage, at in json.loads(row["starts"])]
    if row["claimed"] is not None:
        starts.append((row["lease_stage"], row["claimed"]))
    if row["done_claimed"] is not None:
        starts.append((row["done_stage"], row["done_claimed"]))
    waited_until = wait_ended(stages, starts) if status is Status.RUNNING else None
    waits_at = stages[row["next_index"] or 0].name
    version = row["done_version"] or row["lease_version"] or row["pinned_version"] or row["wanted"]
    return Job(
        id=row["name"],
        model=row["model"],
        tier=row["tier"],
        tenant=row["tenant"],
        status=status,
        created_at=row["created"],
        enqueued=row["enqueued"],
        version=version,
        stage=row["done_stage"] if status.ended else row["lease_stage"] or waits_at,
        attempt=row["done_attempt"] or row["lease_attempt"] or 0,
        progress=1.0 if succeeded else row["fraction"],
        message=row["message"],
        started_at=min((at for _, at in starts), default=None),
        finished_at=row["finished"],
        slo_share=None if status.ended else slo_share(row["enqueued"], waited_until or now, row["slo_s"]),
        result=outcome.get("result") if succeeded else None,
        outputs=tuple(OutputFile.from_json(value) for value in outcome.get("outputs", ())) if succeeded else (),
        error=JobError.from_json(json.loads(row["error"])) if row["error"] else None,
        metadata=json.loads(row["metadata"]),
        deadline=row["deadline"],
        log_key=outcome.get("log_key"),
        cancel_requested=row["cancel_at"] is not None,
        size=row["size"],
        **extra,
    )


def position(tx: Snapshot, row: Row, known: Sequence[LaneLoad] = ()) -> int | None:
    """Return how many jobs of the model would be taken before a ready one, lane by lane; None for a delayed one.

    Of lanes that are known to be long, a moment ago, nothing is counted.
    """
    waits = tx.row("ready_of_job", row["model"], row["enqueued"], row["id"])
    if waits is None:
        return None
    now = rank_time(tx)
    share = slo_share(row["enqueued"], now, row["slo_s"])
    ahead, loads = 0, {lane.number: lane for lane in known}
    for lane in tx.rows("lanes_of_model", row["model"]):
        if lane["id"] == waits["lane"]:
            ahead += tx.only("ready_before_tag", lane["id"], waits["tag"], row["id"], COUNTED_TO)[0]
        elif lane["over"] <= row["over"]:  # what stands back goes after what does not, but for one pick in ten
            before = row["enqueued"] if lane["tier"] == row["tier"] else now - share * lane["slo_s"]
            before = before if lane["over"] == row["over"] else now + 1.0
            load = loads.get(lane["id"])
            if load is not None and load.has_before(before, COUNTED_TO):
                ahead += COUNTED_TO
                continue
            ahead += tx.only("ready_before", lane["id"], before, COUNTED_TO)[0]
    return ahead


def tiers(tx: Snapshot) -> tuple[Tier, ...]:
    """Return all tiers, the strictest first."""
    rows = tx.rows("tiers")
    return tuple(tier_of(row) for row in rows)


def history(tx: Snapshot, job_id: str | None) -> tuple[HistoryRow, ...]:
    """Return what happened, oldest first."""
    order = "order by place, ended, fence"
    if job_id is None:
        rows = tx.select("history_view", order)
    else:
        rows = tx.select("history_view", f"where job = ? {order}", view(tx, job_id)["id"])
    return tuple(_history_row(row) for row in rows)


def _history_row(row: Row) -> HistoryRow:
    return HistoryRow(
        job_id=row["name"],
        event=row["event"],
        at=row["at"],
        cause=row["cause"],
        counted=bool(row["counted"]),
        stage=row["stage"],
        attempt=row["attempt"],
        fence=Fence(row["fence"], row["token"]) if row["fence"] is not None else None,
        session=row["session"],
        slot=row["slot"],
        version=row["version"],
        claimed_at=row["claimed"],
    )
