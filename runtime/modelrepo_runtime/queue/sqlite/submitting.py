"""Writing new jobs."""

from __future__ import annotations

import json

from modelrepo.errors import Conflict
from modelrepo_runtime.jobs import Submission, new_id
from modelrepo_runtime.queue.lanes import Lane
from modelrepo_runtime.queue.sqlite.statements import sql
from modelrepo_runtime.queue.sqlite.waiting import enqueue, rank_time
from modelrepo_runtime.queue.sqlite.writer import Transaction
from modelrepo_runtime.queue.steps import body_digest, key_reused, write_stages
from modelrepo_runtime.queue.tiers import unknown

TIERS, JOB_INSERT, PAYLOAD_INSERT = sql("tiers"), sql("job_insert"), sql("payload_insert")
IDEMPOTENCY_GET, IDEMPOTENCY_INSERT = sql("idempotency_get"), sql("idempotency_insert")


def submit(tx: Transaction, submission: Submission, key: str | None) -> str:
    """Add a job, or find the one that the key made before; return its name."""
    connection = tx.connection
    if key is not None:
        known = connection.execute(IDEMPOTENCY_GET, (submission.tenant, key)).fetchone()
        if known is not None:
            if known["body"] != body_digest(submission):
                raise key_reused(key)
            return str(known["name"])
    tiers = {row["name"]: bool(row["is_default"]) for row in connection.execute(TIERS)}
    tier = submission.tier if submission.tier is not None else next(name for name, chosen in tiers.items() if chosen)
    if tier not in tiers:
        raise unknown(tier, list(tiers))
    name = submission.job_id or new_id("job", tx.now)
    if submission.job_id is not None and connection.execute(sql("job_row"), (name,)).fetchone() is not None:
        raise Conflict(f"cannot submit {name}: the queue has a job of this id; leave the id to the queue")
    stages, metadata = write_stages(submission.stages), json.dumps(dict(submission.metadata))
    enqueued = rank_time(connection, tx.now)
    cursor = connection.execute(
        JOB_INSERT,
        (
            name,
            submission.model,
            tier,
            submission.tenant,
            submission.version,
            tx.now,
            enqueued,
            submission.deadline,
            stages,
            metadata,
        ),
    )
    job = cursor.lastrowid
    assert job is not None
    connection.execute(PAYLOAD_INSERT, (job, json.dumps(dict(submission.inputs)), json.dumps(dict(submission.files))))
    for stored in submission.files.values():
        connection.execute(sql("input_file_insert"), (stored, job))
    if submission.deadline is not None:
        connection.execute(sql("deadline_insert"), (submission.deadline, job))
    if key is not None:
        connection.execute(IDEMPOTENCY_INSERT, (submission.tenant, key, body_digest(submission), job))
    enqueue(tx, job, enqueued, Lane(submission.model, submission.stages[0].name, tier, submission.version), 0, 1)
    return name
