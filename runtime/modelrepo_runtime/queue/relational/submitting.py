"""Writing new jobs."""

from __future__ import annotations

import json

from modelrepo.errors import Conflict, NeedsLargerSlot
from modelrepo_runtime.job_memory import MemoryNeed
from modelrepo_runtime.jobs import Submission, new_id, stored_keys
from modelrepo_runtime.queue.forecast import Forecaster
from modelrepo_runtime.queue.lanes import Lane
from modelrepo_runtime.queue.memory_needs import Admission, NeedKey
from modelrepo_runtime.queue.relational import tenancy
from modelrepo_runtime.queue.relational.forecasting import refuse_late, tier_of
from modelrepo_runtime.queue.relational.memory import Admissions
from modelrepo_runtime.queue.relational.telling import write_webhook
from modelrepo_runtime.queue.relational.transaction import Transaction
from modelrepo_runtime.queue.relational.waiting import Entry, enqueue, rank_time
from modelrepo_runtime.queue.steps import body_digest, key_reused, write_files, write_stages
from modelrepo_runtime.queue.tiers import unknown


def submit(
    tx: Transaction, submission: Submission, key: str | None, predictions: Forecaster, admissions: Admissions
) -> str:
    """Add a job, or find the one that the key made before; return its name.

    Raises: NeedsLargerSlot for more memory than any slot has; TooLate where its tier wants it.
    """
    if key is not None:
        held = tx.statements.held("idempotency")  # so that its job is not deleted before we have read it
        known = tx.select("idempotency_get", held, submission.tenant, key)
        if known:
            if known[0]["body"] != body_digest(submission):
                raise key_reused(key)
            return str(known[0]["name"])
    tiers = {row["name"]: tier_of(row) for row in tx.rows("tiers")}
    tier = (
        submission.tier if submission.tier is not None else next(each.name for each in tiers.values() if each.default)
    )
    if tier not in tiers:
        raise unknown(tier, list(tiers))
    need = admit(submission, admissions.at(tx))
    if tiers[tier].refuse_late:
        refuse_late(submission, tiers[tier], predictions)
    name = submission.job_id or new_id("job", tx.now)
    if submission.job_id is not None and tx.row("job_row", name) is not None:
        raise Conflict(f"cannot submit {name}: the queue has a job of this id; leave the id to the queue")
    stages, metadata = write_stages(submission.stages), json.dumps(dict(submission.metadata))
    enqueued = rank_time(tx)
    place, estimate_s = tenancy.take_place(tx, submission, tier, enqueued)
    whose = (name, submission.model, tier, submission.tenant, submission.version)
    hook = write_webhook(submission.webhook)
    facts = (tx.now, enqueued, submission.deadline, stages, metadata, place.tag, submission.size, hook)
    job = tx.only("job_insert", *whose, *facts, int(place.over), estimate_s)[0]
    files = write_files(submission.files, submission.adapters)
    tx.run("payload_insert", job, json.dumps(dict(submission.inputs)), files)
    for stored in stored_keys(submission.files, submission.adapters):
        tx.run("input_file_insert", stored, job)
    if submission.deadline is not None:
        tx.run("deadline_insert", submission.deadline, job)
    if key is not None:
        tx.run("idempotency_insert", submission.tenant, key, body_digest(submission), job)
    first = submission.stages[0].name
    lane = Lane(submission.model, first, tier, submission.version, over=place.over, memory=need)
    enqueue(tx, Entry(job, enqueued, place.tag, lane, new=True))
    return name


def admit(submission: Submission, known: Admission) -> MemoryNeed | None:
    """Return what the slot of its first stage must have.

    Raises: NeedsLargerSlot where one of its stages fits no slot.
    """
    keys = [(NeedKey(submission.model, stage.name, submission.size), stage.on) for stage in submission.stages]
    for key, on in keys:
        refused = known.refusal(key, on)
        if refused is not None:
            size = f" of size {submission.size}" if submission.size is not None else ""
            raise NeedsLargerSlot(
                f"cannot submit a job{size} for {submission.model}: {refused}; serve the model on a larger slot, or"
                " submit a smaller job",
                needed_bytes=refused.need_bytes,
                largest_bytes=refused.largest_bytes,
            )
    return known.constraint(*keys[0])
