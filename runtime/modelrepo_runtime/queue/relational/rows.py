"""Rows of the hot path, in the order of their columns."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from modelrepo_runtime.jobs import Fence, StageNeed
from modelrepo_runtime.queue.relational.stages import read_stages
from modelrepo_runtime.queue.relational.transaction import Snapshot

SAVED = 2


class ReadyRow(NamedTuple):
    """A job that waits in a lane."""

    lane: int
    tag: float
    job: int
    enqueued: float
    stage_index: int
    attempt: int


class JobRow(NamedTuple):
    """What a claim carries of its job."""

    id: int
    name: str
    model: str
    tier: str
    wanted: str | None
    created: float
    enqueued: float
    stages: str
    inputs: str
    files: str
    size: str | None
    webhook: str | None
    saved: int
    """1: an attempt has saved a state."""


class LeaseRow(NamedTuple):
    """A lease, and what its end depends on of its job."""

    fence: int
    token: str
    job: int
    session: str
    slot: str
    box: str
    stage: str
    stage_index: int
    own_plan: str | None
    """Set where the job follows another plan than it was submitted with."""
    attempt: int
    version: str
    claimed: float
    name: str
    model: str
    tier: str
    wanted: str | None
    enqueued: float
    deadline: float | None
    job_stages: str
    tag: float
    cancelled: int
    progressed: int
    """0: nothing is shown of its progress; SAVED: states were saved, so it does not fall."""
    webhook: str | None
    failing_since: float | None
    """Since when its version fails; None: it does not."""
    size: str | None
    tenant: str
    over: int
    estimate_s: float

    @property
    def plan(self) -> tuple[StageNeed, ...]:
        return read_stages(self.own_plan or self.job_stages)

    @property
    def held(self) -> tuple[str, Fence]:
        """Job and fence, as its holder names them."""
        return self.name, Fence(self.fence, self.token)


_lease_row = partial(tuple.__new__, LeaseRow)
_job_row = partial(tuple.__new__, JobRow)
"""As `_make`, in a third of the time."""


def jobs_to_claim(tx: Snapshot, numbers: Sequence[int]) -> dict[int, JobRow]:
    """Return what claims carry of these jobs, by their numbers."""
    found = map(_job_row, tx.statements.tuples("jobs_to_claim", (tx.array(numbers),)))
    return {row.id: row for row in found}


_OLDEST_FIRST = "order by lease.fence + 0"
"""Sorted once found: no database is to read its leases in this order and look for those that are asked for."""


def leases(tx: Snapshot, condition: str, *values: object) -> list[LeaseRow]:
    """Return leases under a condition, the oldest fence first."""
    tail = f"where {condition} {_OLDEST_FIRST}"
    return list(map(_lease_row, tx.statements.tuples("lease_view", values, tail)))


def leases_to_end(tx: Snapshot, condition: str, *values: object) -> list[LeaseRow]:
    """Return leases that nobody else can end before this transaction does, the oldest fence first."""
    tail = f"where {condition} {_OLDEST_FIRST} {tx.statements.held('lease')}"
    return list(map(_lease_row, tx.statements.tuples("lease_view", values, tail)))


def leases_of_session(tx: Snapshot, session: str) -> list[LeaseRow]:
    """Return all that a session holds."""
    return leases(tx, "lease.session = ?", session)
