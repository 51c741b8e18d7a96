"""What stages have saved of themselves, for a later attempt: rows that go with the stage."""

from __future__ import annotations

from collections.abc import Sequence

from modelrepo.errors import InvalidInput, StaleFence
from modelrepo_runtime.jobs import Fence, KeptState
from modelrepo_runtime.queue.relational.finishing import held
from modelrepo_runtime.queue.relational.rows import SAVED
from modelrepo_runtime.queue.relational.transaction import Refused, Snapshot, Transaction
from modelrepo_runtime.queue.states import KEPT
from modelrepo_runtime.queue.steps import stale


def save(tx: Transaction, job_id: str, fence: Fence, state: KeptState) -> Refused[StaleFence] | None:
    """Add a state and drop the ones before the two newest. What comes too late is dropped itself."""
    row = held(tx, job_id, fence)
    if row is None:
        return _too_late(tx, job_id, fence, state)
    tx.run("state_insert", row.job, row.fence, state.number, row.stage, *_facts(state))
    if row.progressed != SAVED:
        tx.run("progress_saved", row.job)
    for old in tx.rows("states_of_job", row.job)[KEPT:]:
        tx.run("state_dropped_insert", old["store_key"])
        tx.run("state_forget", row.job, old["fence"], old["number"])
    return None


def _facts(state: KeptState) -> tuple[str, str, int, str]:
    return state.digest, state.key, state.size_bytes, state.sha256


def _too_late(tx: Transaction, job_id: str, fence: Fence, state: KeptState) -> Refused[StaleFence] | None:
    job = tx.row("job_row", job_id)
    known = tx.row("state_get", job["id"], fence.number, state.number) if job is not None else None
    if known is not None and known["sha256"] == state.sha256:
        return None  # the answer to the first call was lost
    tx.run("state_dropped_insert", state.key)
    return Refused(stale(job_id, fence))


def check_key(job_id: str, fence: Fence, state: KeptState) -> None:
    """Raises: InvalidInput for a key that another attempt, or anything else, may be kept under."""
    parts = state.key.split("/")
    if len(parts) != 5 or parts[0] != "jobs" or parts[2:] != [job_id, str(fence), f"state-{state.number}"]:
        raise InvalidInput(f"cannot keep state {state.number} of {job_id} as {state.key}: the key is not the attempt's")
    if state.number < 1 or state.fence != fence.number:
        raise InvalidInput(f"cannot keep state {state.number} of {job_id}: it is not of fence {fence.number}")


def wanted(tx: Snapshot, job_ids: Sequence[str]) -> tuple[str, ...]:
    """Return those of the jobs that have not ended."""
    among = f"and {tx.statements.among('job.name')} order by job.name"
    return tuple(row["name"] for row in tx.select("job_names_open", among, tx.array(list(job_ids))))


def dropped(tx: Snapshot, limit: int) -> tuple[str, ...]:
    """Return keys of files that are to be deleted."""
    return tuple(row["store_key"] for row in tx.rows("states_dropped", limit))
