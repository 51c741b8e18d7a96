"""Looking at many jobs at once for whoever waits for one of them to change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from modelrepo_runtime.queue.relational.transaction import Snapshot


def faces(tx: Snapshot, job_ids: Sequence[str]) -> Mapping[str, tuple[object, ...]]:
    """Return what differs whenever a job looks different to its user; jobs that are gone are left out."""
    rows = tx.select("job_faces", f"where {tx.statements.among('job.name')}", tx.array(job_ids))
    return {row[0]: tuple(row)[1:] for row in rows}
