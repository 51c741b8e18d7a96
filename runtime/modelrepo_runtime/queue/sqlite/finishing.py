"""Ending attempts: by their worker, by the reaper, or because nobody got the claim's answer."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, replace

from modelrepo.errors import StaleFence
from modelrepo_runtime.attempts import Attempt
from modelrepo_runtime.jobs import Cause, Claim, Fence, Outcome, Status
from modelrepo_runtime.queue.lanes import Lane
from modelrepo_runtime.queue.port import FinishReply, Offer
from modelrepo_runtime.queue.sqlite.claiming import AFTER_NO_CLAIM, ReadyRow, claim_again, holder_of, lease
from modelrepo_runtime.queue.sqlite.statements import sql
from modelrepo_runtime.queue.sqlite.waiting import end, enqueue, note, read_stages
from modelrepo_runtime.queue.sqlite.writer import Refused, Transaction
from modelrepo_runtime.queue.steps import Held, Step, digest_of, step_after
from modelrepo_runtime.timing import Timing

LEASE_BY_FENCE, LEASE_DELETE, LEASE_AFTER = sql("lease_by_fence"), sql("lease_delete"), sql("lease_after")
ATTEMPTS_OF_JOB, FINISH_ON_RECORD = sql("attempts_of_job"), sql("finish_on_record")
CANCEL_OF_JOB, CANCEL_DELETE, PROGRESS_DELETE = sql("cancel_of_job"), sql("cancel_delete"), sql("progress_delete")
PINNED_GET, PINNED_PUT = sql("pinned_get"), sql("pinned_put")


@dataclass(frozen=True, slots=True)
class Finish:
    """One finish as its worker sent it; `text` is the outcome as JSON."""

    session: str
    job_id: str
    fence: Fence
    outcome: Outcome
    text: str
    then: Offer | None = None


def finish(tx: Transaction, call: Finish, timing: Timing) -> FinishReply | Refused[StaleFence]:
    """End an attempt as its holder says, or tell a repeat the first answer again."""
    row = held(tx.connection, call.job_id, call.fence)
    if row is None:
        return _repeated(tx, call)
    step = close(tx, row, call.outcome, call.text, timing)
    following = None
    if call.then is not None and step.status is Status.QUEUED and step.delay_s == 0 and not step.avoid:
        following = _claim_next(tx, call, row, step)
    if step.status is Status.QUEUED and following is None:
        requeue(tx, row, step)
    return FinishReply(step.status, following)


def finish_all(tx: Transaction, calls: Sequence[Finish], timing: Timing) -> tuple[FinishReply | StaleFence, ...]:
    """End many attempts; a refusal is the answer of its own call only."""
    answers = [finish(tx, call, timing) for call in calls]
    return tuple(answer.error if isinstance(answer, Refused) else answer for answer in answers)


def held(connection: sqlite3.Connection, job_id: str, fence: Fence) -> sqlite3.Row | None:
    """Return the lease that exactly this fence holds on exactly this job."""
    row: sqlite3.Row | None = connection.execute(LEASE_BY_FENCE, (fence.number,)).fetchone()
    return row if row is not None and row["token"] == fence.token and row["name"] == job_id else None


def close(
    tx: Transaction, row: sqlite3.Row, outcome: Outcome, text: str, timing: Timing, event: str = "attempt"
) -> Step:
    """Delete a lease and write down how it ended; ends the job where the step says so, but does not queue it again."""
    connection, job = tx.connection, row["job"]
    stages = read_stages(row["stages"] or row["job_stages"])
    cancelled = connection.execute(CANCEL_OF_JOB, (job,)).fetchone() is not None
    facts = Held(
        stage_index=row["stage_index"],
        last_stage=row["stage_index"] == len(stages) - 1,
        attempt=row["attempt"],
        version=row["version"],
        wanted=row["wanted"],
        deadline=row["deadline"],
        cancel_requested=cancelled,
        slot=row["slot"],
        box=row["box"],
    )
    earlier: tuple[Attempt, ...] = ()
    if outcome.cause is not Cause.SUCCEEDED:
        rows = connection.execute(ATTEMPTS_OF_JOB, (job,)).fetchall()
        earlier = tuple(Attempt(Cause(r["cause"]), bool(r["counted"]), r["slot"], r["box"]) for r in rows)
    step = step_after(facts, outcome, earlier, tx.now, timing)
    connection.execute(LEASE_DELETE, (row["fence"],))
    connection.execute(PROGRESS_DELETE, (job,))
    if cancelled:
        connection.execute(CANCEL_DELETE, (job,))
    note(
        tx,
        job,
        event,
        cause=outcome.cause.value,
        counted=int(outcome.counted),
        stage=row["stage"],
        attempt=row["attempt"],
        fence=row["fence"],
        token=row["token"],
        session=row["session"],
        slot=row["slot"],
        box=row["box"],
        version=row["version"],
        claimed=row["claimed"],
        digest=digest_of(text),
        status=step.status.value,
    )
    if step.status is not Status.QUEUED:
        end(
            tx,
            job,
            row["name"],
            step.status,
            version=row["version"],
            stage=row["stage"],
            attempt=row["attempt"],
            outcome=text,
            error=step.error,
        )
    elif step.stage_index > row["stage_index"]:
        _pin(connection, row, step, outcome)
    tx.changed_jobs.add(row["name"])
    return step


def _pin(connection: sqlite3.Connection, row: sqlite3.Row, step: Step, outcome: Outcome) -> None:
    known = connection.execute(PINNED_GET, (row["job"],)).fetchone()
    restarts = known["restarts"] if known is not None else 0
    result = json.dumps(outcome.result)
    connection.execute(PINNED_PUT, (row["job"], row["version"], row["stages"], step.stage_index, result, restarts))


def requeue(tx: Transaction, row: sqlite3.Row, step: Step) -> None:
    """Queue a job whose lease was closed."""
    stages = read_stages((row["stages"] if step.stage_index else None) or row["job_stages"])
    lane = Lane(row["model"], stages[step.stage_index].name, row["tier"], step.version, step.avoid)
    enqueue(tx, row["job"], row["enqueued"], lane, step.stage_index, step.attempt, step.delay_s)


def _claim_next(tx: Transaction, call: Finish, row: sqlite3.Row, step: Step) -> Claim | None:
    offer = call.then
    stages = read_stages(row["stages"] or row["job_stages"])
    assert offer is not None
    if offer.model != row["model"] or stages[step.stage_index].name not in offer.stages:
        return None
    if step.version is not None and step.version != offer.version:
        return None
    if step.stage_index <= row["stage_index"]:
        return None
    holder = holder_of(tx.connection, call.session, AFTER_NO_CLAIM, after_fence=call.fence.number)
    ready = ReadyRow(0, row["enqueued"], row["job"], step.stage_index, step.attempt)
    return lease(tx, holder, replace(offer, limit=1), [ready])[0]


def _repeated(tx: Transaction, call: Finish) -> FinishReply | Refused[StaleFence]:
    connection = tx.connection
    job = connection.execute(sql("job_row"), (call.job_id,)).fetchone()
    if job is None:
        return Refused(stale(call.job_id, call.fence))
    known = connection.execute(FINISH_ON_RECORD, (job["id"], call.fence.number, call.fence.token)).fetchone()
    if known is not None and known["digest"] == digest_of(call.text):
        following = connection.execute(LEASE_AFTER, (call.fence.number,)).fetchone()
        return FinishReply(Status(known["status"]), claim_again(connection, following) if following else None)
    note(
        tx,
        job["id"],
        "refused",
        cause=call.outcome.cause.value,
        counted=0,
        fence=call.fence.number,
        token=call.fence.token,
        session=call.session,
    )
    return Refused(stale(call.job_id, call.fence))


def stale(job_id: str, fence: Fence) -> StaleFence:
    """Return the error for a write by somebody who does not hold the lease."""
    return StaleFence(f"cannot write to {job_id} with fence {fence}: the attempt is not leased to it; drop its work")
