"""What the stages of jobs have handed over, and in whose storage it lies."""

from __future__ import annotations

import json
from collections.abc import Sequence

from modelrepo_runtime.jobs import OutputFile
from modelrepo_runtime.queue.relational.rows import LeaseRow
from modelrepo_runtime.queue.relational.transaction import Snapshot, Transaction


def keep(tx: Transaction, row: LeaseRow, files: Sequence[OutputFile], *, bound: bool) -> None:
    """Note what a job's stages have handed over, and in whose storage it lies, for the next stage."""
    if files or bound:
        home = tx.row("cluster_of_session", row.session) if bound else None
        text = json.dumps([file.to_json() for file in files])
        tx.run("handover_put", row.job, home["cluster"] if home else None, text)
    elif row.stage_index:
        tx.run("handover_delete", row.job)


def of_jobs(tx: Snapshot, jobs: Sequence[int]) -> dict[int, tuple[OutputFile, ...]]:
    """Return what the stages of jobs have handed over, where they have."""
    if not jobs:
        return {}
    rows = tx.select("handovers", f"where {tx.statements.among('job')}", tx.array(list(jobs)))
    return {row["job"]: tuple(OutputFile.from_json(file) for file in json.loads(row["files"])) for row in rows}
