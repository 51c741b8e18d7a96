"""Rows of the hot path, in the order of their columns."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from modelrepo_runtime.jobs import Fence, StageNeed
from modelrepo_runtime.queue.sqlite.stages import read_stages
from modelrepo_runtime.queue.sqlite.statements import sql

LEASE_VIEW = sql("lease_view")


class ReadyRow(NamedTuple):
    """A job that waits in a lane."""

    lane: int
    enqueued: float
    job: int
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
    cancelled: int
    progressed: int

    @property
    def plan(self) -> tuple[StageNeed, ...]:
        return read_stages(self.own_plan or self.job_stages)

    @property
    def held(self) -> tuple[str, Fence]:
        """Job and fence, as its holder names them."""
        return self.name, Fence(self.fence, self.token)


def leases(connection: sqlite3.Connection, condition: str, values: Sequence[object]) -> list[LeaseRow]:
    """Return leases under a condition, the oldest fence first."""
    rows = connection.execute(f"{LEASE_VIEW} where {condition} order by lease.fence", values)
    return [LeaseRow._make(row) for row in rows.fetchall()]


def leases_of_session(connection: sqlite3.Connection, session: str) -> list[LeaseRow]:
    """Return all that a session holds."""
    return leases(connection, "lease.session = ?", (session,))
