"""Ending attempts: by their worker, by the reaper, or because nobody got the claim's answer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

from modelrepo.errors import StaleFence
from modelrepo_runtime.attempts import Attempt
from modelrepo_runtime.job_memory import NO_NEED, MemoryNeed, shown_need
from modelrepo_runtime.jobs import Cause, Claim, Fence, Outcome, StageNeed, Status
from modelrepo_runtime.queue.lanes import Lane, admits, fits
from modelrepo_runtime.queue.memory_needs import Admission, NeedKey
from modelrepo_runtime.queue.order_settings import is_paused
from modelrepo_runtime.queue.port import FinishReply, Offer
from modelrepo_runtime.queue.relational import crediting, handovers, staging, tenancy
from modelrepo_runtime.queue.relational.breaking import Verdicts, probing
from modelrepo_runtime.queue.relational.claiming import claim_again, holder_of, lease, slots_live
from modelrepo_runtime.queue.relational.memory import Admissions, need_of
from modelrepo_runtime.queue.relational.rows import SAVED, LeaseRow, ReadyRow, leases, leases_to_end
from modelrepo_runtime.queue.relational.stages import read_stages
from modelrepo_runtime.queue.relational.transaction import Refused, Transaction
from modelrepo_runtime.queue.relational.waiting import NOT_TOLD, Entry, Last, drop_states, end, enqueue
from modelrepo_runtime.queue.steps import AFTER_NO_CLAIM, Held, Step, digest_of, stale, step_after
from modelrepo_runtime.timing import Timing

DONE = Step(Status.SUCCEEDED)
"""What follows the last stage where it went well."""
PLAIN_END = FinishReply(Status.SUCCEEDED)


class Finish(NamedTuple):
    """One finish as its worker sent it; `text` is the outcome as JSON."""

    session: str
    job_id: str
    fence: Fence
    outcome: Outcome
    text: str
    then: Offer | None = None
    start: tuple[str, Fence] | None = None
    """A staged job that begins where `then` brings nothing."""


def finish(tx: Transaction, call: Finish, timing: Timing, admissions: Admissions) -> FinishReply | Refused[StaleFence]:
    """End an attempt as its holder says, or tell a repeat the first answer again."""
    verdicts = Verdicts(tx)
    answer = _finish(tx, call, held(tx, call.job_id, call.fence), verdicts, timing, admissions)
    verdicts.write()
    return answer


def finish_all(
    tx: Transaction, calls: Sequence[Finish], timing: Timing, admissions: Admissions
) -> tuple[FinishReply | StaleFence, ...]:
    """End many attempts; a refusal is the answer of its own call only."""
    fences = tx.array([call.fence.number for call in calls])
    found = {row.fence: row for row in leases_to_end(tx, tx.statements.among("lease.fence"), fences)}
    answers: list[FinishReply | StaleFence] = []
    verdicts = Verdicts(tx)
    for call in calls:
        row = found.get(call.fence.number)
        if row is not None and (row.name, row.token) == (call.job_id, call.fence.token):
            del found[row.fence]  # a call may be there twice: the second one finds no lease, as a repeat does
        else:
            row = None
        answer = _finish(tx, call, row, verdicts, timing, admissions)
        answers.append(answer.error if isinstance(answer, Refused) else answer)
    verdicts.write()
    return tuple(answers)


def _finish(
    tx: Transaction, call: Finish, row: LeaseRow | None, verdicts: Verdicts, timing: Timing, admissions: Admissions
) -> FinishReply | Refused[StaleFence]:
    if row is None:
        return _repeated(tx, call)
    step = close(tx, row, verdicts.judge(row, call.outcome), call.text, timing)
    if step is DONE and call.start is None:
        return PLAIN_END
    following = None
    if step.status is Status.QUEUED:
        need = _need_after(row, step, call.outcome, admissions.at(tx))
        if call.then is not None:
            following = _claim_next(tx, call.then, call, row, step, timing, need)
        if following is None:
            _enqueue_again(tx, row, step, need)
    return FinishReply(step.status, following, following is None and _starts(tx, call))


def _starts(tx: Transaction, call: Finish) -> bool:
    return call.start is not None and staging.start(tx, call.session, *call.start) is None


def held(tx: Transaction, job_id: str, fence: Fence) -> LeaseRow | None:
    """Return the lease that exactly this fence holds on exactly this job; nobody else ends it before we do."""
    tx.flush()
    found = leases_to_end(tx, "lease.fence = ?", fence.number)
    return found[0] if found and found[0].held == (job_id, fence) else None


def close(tx: Transaction, row: LeaseRow, outcome: Outcome, text: str, timing: Timing, event: str = "attempt") -> Step:
    """Delete a lease and write down how it ended; ends the job where the step says so, but does not queue it again."""
    plan = row.plan
    last_stage = row.stage_index == len(plan) - 1
    if last_stage and outcome.cause is Cause.SUCCEEDED and not row.cancelled:
        step = DONE
    else:
        step = _step_after(tx, row, outcome, last_stage, timing)
    tx.later("lease_delete", row.fence)
    if row.progressed and not (row.progressed == SAVED and _tries_again(row, step)):
        tx.later("progress_delete", row.job)
        if row.progressed == SAVED:
            drop_states(tx, row.job)
    if row.cancelled:
        tx.later("cancel_delete", row.job)
    held = (row.fence, row.token, row.session, row.slot, row.claimed)
    told_by_end = step is DONE and outcome.counted
    if not told_by_end:
        what = (row.job, event, tx.now, outcome.cause.value, int(outcome.counted), row.stage, row.attempt)
        tx.later("history_insert", *what, *held, row.box, row.version, digest_of(text), step.status.value)
    if step.status is not Status.QUEUED:
        by = held if told_by_end else NOT_TOLD
        last = Last(row.version, row.stage, row.attempt, text, len(plan) > 1, row.webhook, by)
        end(tx, row.job, row.name, step.status, last, step.error)
    elif step.stage_index > row.stage_index:
        _pin(tx, row, step, outcome)
    if len(plan) > 1:
        crediting.settled(tx, row, step, outcome.cause)
    tenancy.settle(tx, row, outcome, ended=step.status is not Status.QUEUED)
    tx.changed_jobs.add(row.name)
    return step


def _tries_again(row: LeaseRow, step: Step) -> bool:
    """True where another attempt at the same stage follows, which may go on from what this one has saved."""
    return step.status is Status.QUEUED and step.stage_index == row.stage_index


def _step_after(tx: Transaction, row: LeaseRow, outcome: Outcome, last_stage: bool, timing: Timing) -> Step:
    facts = Held(
        stage_index=row.stage_index,
        last_stage=last_stage,
        attempt=row.attempt,
        version=row.version,
        wanted=row.wanted,
        deadline=row.deadline,
        cancel_requested=bool(row.cancelled),
        slot=row.slot,
        box=row.box,
    )
    earlier = () if outcome.cause is Cause.SUCCEEDED and last_stage else attempts_of(tx, row.job)
    return step_after(facts, outcome, earlier, tx.now, timing)


def attempts_of(tx: Transaction, job: int) -> tuple[Attempt, ...]:
    """Return the ended attempts at a job that did not succeed."""
    tx.flush()
    rows = tx.rows("attempts_of_job", job)
    return tuple(Attempt(Cause(row["cause"]), bool(row["counted"]), row["slot"], row["box"]) for row in rows)


def _pin(tx: Transaction, row: LeaseRow, step: Step, outcome: Outcome) -> None:
    known = tx.row("pinned_get", row.job)
    restarts = known["restarts"] if known is not None else 0
    result = json.dumps(outcome.result)
    tx.run("pinned_put", row.job, row.version, row.own_plan, step.stage_index, result, restarts)
    handovers.keep(tx, row, outcome.handover, bound=outcome.cluster_bound)


def requeue(tx: Transaction, row: LeaseRow, step: Step) -> None:
    """Queue a job whose lease was closed."""
    stage = _stage_after(row, step)
    _enqueue_again(tx, row, step, need_of(tx, NeedKey(row.model, stage.name, row.size), stage.on))


def _stage_after(row: LeaseRow, step: Step) -> StageNeed:
    stages = row.plan if step.stage_index else read_stages(row.job_stages)
    return stages[step.stage_index]


def _need_after(row: LeaseRow, step: Step, outcome: Outcome, known: Admission) -> MemoryNeed | None:
    """Return what the next slot must have: after an end for want of memory more than this one, where one has."""
    stage = _stage_after(row, step)
    least = shown_need(outcome.memory) if step.stage_index == row.stage_index else NO_NEED
    return known.constraint(NeedKey(row.model, stage.name, row.size), stage.on, least)


def _enqueue_again(tx: Transaction, row: LeaseRow, step: Step, need: MemoryNeed | None) -> None:
    home = crediting.home_of(tx, row.job, row.plan, step.stage_index)
    stage = _stage_after(row, step)
    lane = Lane(row.model, stage.name, row.tier, step.version, step.avoid, home, bool(row.over), need)
    enqueue(tx, Entry(row.job, row.enqueued, row.tag, lane, step.stage_index, step.attempt), step.delay_s)


def _claim_next(
    tx: Transaction,
    offer: Offer,
    call: Finish,
    row: LeaseRow,
    step: Step,
    timing: Timing,
    need: MemoryNeed | None,
) -> Claim | None:
    stage = row.plan[step.stage_index].name
    lane = Lane(row.model, stage, row.tier, step.version, step.avoid, memory=need)
    if step.stage_index <= row.stage_index or not fits(lane, offer):
        return None
    holder = holder_of(tx, call.session, AFTER_NO_CLAIM, after_fence=call.fence.number)
    tx.flush()
    place, kind = holder.place(offer), row.plan[step.stage_index].on
    if not admits(lane, place, lambda: slots_live(tx, timing), kind):
        return None
    if is_paused({(pause["model"], pause["tier"]) for pause in tx.rows("pauses")}, row.model, row.tier):
        return None
    known = probing(tx)
    if not known.allowed(offer, holder.cluster, stage):
        return None
    taken = lease(tx, holder, offer, [ReadyRow(0, row.tag, row.job, row.enqueued, step.stage_index, step.attempt)])
    known.claimed(tx, holder.cluster, taken)
    return taken[0]


def _repeated(tx: Transaction, call: Finish) -> FinishReply | Refused[StaleFence]:
    tx.flush()
    job = tx.row("job_row", call.job_id)
    if job is None:
        return Refused(stale(call.job_id, call.fence))
    fence = (call.fence.number, call.fence.token)
    known = tx.row("finish_on_record", job["id"], *fence)
    if known is not None and (known["outcome"] == call.text or known["digest"] == digest_of(call.text)):
        following = leases(tx, "lease.after_fence = ?", call.fence.number)
        begun = call.start is not None and staging.has_begun(tx, call.session, *call.start)
        return FinishReply(Status(known["status"]), claim_again(tx, following[0]) if following else None, begun)
    what = (job["id"], "refused", tx.now, call.outcome.cause.value, 0, None, 0)
    tx.later("history_insert", *what, *fence, call.session, None, None, None, None, None, None)
    return Refused(stale(call.job_id, call.fence))
