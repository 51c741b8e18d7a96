"""Rows of waiting jobs: into a lane, out of it, and what time alone moves."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass

from modelrepo_runtime.jobs import JobError, Status
from modelrepo_runtime.queue.lanes import Lane, read_avoid, write_avoid
from modelrepo_runtime.queue.sqlite.statements import sql
from modelrepo_runtime.queue.sqlite.writer import Transaction
from modelrepo_runtime.queue.steps import EXPIRED, enqueued_after

LANE_INSERT, LANE_ID, LANE_BY_ID = sql("lane_insert"), sql("lane_id"), sql("lane_by_id")
READY_INSERT, READY_DELETE, READY_OF_JOB = sql("ready_insert"), sql("ready_delete"), sql("ready_of_job")
DELAYED_INSERT, DELAYED_DELETE, DELAYED_DUE = sql("delayed_insert"), sql("delayed_delete"), sql("delayed_due")
DELAYED_OF_JOB, NEWEST_ENQUEUED, PINNED_DELETE = sql("delayed_of_job"), sql("newest_enqueued"), sql("pinned_delete")
DEADLINES_PASSED, DEADLINE_DELETE = sql("deadlines_passed"), sql("deadline_delete")
DONE_INSERT, FAILED_INSERT, HISTORY_NOTE = sql("done_insert"), sql("failed_insert"), sql("history_note")
MOST_MOVED = 200
"""Rows that one transaction moves because their time has come; the rest waits for the next one."""


def rank_time(connection: sqlite3.Connection, now: float) -> float:
    """Return the moment at which a job enters, and at which waits are compared."""
    row = connection.execute(NEWEST_ENQUEUED).fetchone()
    return enqueued_after(row[0] if row is not None else None, now)


def lane_of(row: sqlite3.Row) -> Lane:
    """Return a row of the registry as a Lane."""
    return Lane(row["model"], row["stage"], row["tier"], row["version"] or None, read_avoid(row["avoid"]))


def lane_number(connection: sqlite3.Connection, lane: Lane) -> int:
    """Return the lane's id, entering it into the registry where it is not there."""
    key = (lane.model, lane.stage, lane.tier, lane.version or "", write_avoid(lane.avoid))
    row = connection.execute(LANE_ID, key).fetchone()
    if row is None:
        connection.execute(LANE_INSERT, key)
        row = connection.execute(LANE_ID, key).fetchone()
    return int(row[0])


def enqueue(
    tx: Transaction, job: int, enqueued: float, lane: Lane, stage_index: int, attempt: int, delay_s: float = 0.0
) -> None:
    """Make a job wait in a lane, at once or after a delay."""
    number = lane_number(tx.connection, lane)
    if delay_s > 0:
        tx.connection.execute(DELAYED_INSERT, (job, tx.now + delay_s, number, enqueued, stage_index, attempt))
    else:
        tx.connection.execute(READY_INSERT, (number, enqueued, job, stage_index, attempt))
        tx.ready_models.add(lane.model)


def dequeue(connection: sqlite3.Connection, job: int, model: str, enqueued: float) -> None:
    """Take a waiting job out of whichever lane it is in."""
    row = connection.execute(READY_OF_JOB, (model, enqueued, job)).fetchone()
    if row is not None:
        connection.execute(READY_DELETE, (row["lane"], row["enqueued"], job))
    connection.execute(DELAYED_DELETE, (job,))


def move_due(tx: Transaction, longest_delay_s: float) -> None:
    """Make due retries ready, and end waiting jobs whose deadline has passed."""
    connection = tx.connection
    for row in connection.execute(DELAYED_DUE, (tx.now, tx.now + longest_delay_s, MOST_MOVED)).fetchall():
        connection.execute(DELAYED_DELETE, (row["job"],))
        ready = (row["lane"], row["enqueued"], row["job"], row["stage_index"], row["attempt"])
        connection.execute(READY_INSERT, ready)
        tx.ready_models.add(row["model"])
    for row in connection.execute(DEADLINES_PASSED, (tx.now, MOST_MOVED)).fetchall():
        connection.execute(DEADLINE_DELETE, (row["at"], row["job"]))
        if connection.execute(sql("done_of_job"), (row["job"],)).fetchone() is None:
            dequeue(connection, row["job"], row["model"], row["enqueued"])
            end(tx, row["job"], row["name"], Status.EXPIRED, Last(row["version"]), EXPIRED, "expired")


@dataclass(frozen=True, slots=True)
class Last:
    """The attempt with which a job ended; `outcome` is its outcome as JSON."""

    version: str | None = None
    stage: str | None = None
    attempt: int = 0
    outcome: str = "{}"
    several_stages: bool = False


def end(
    tx: Transaction,
    job: int,
    name: str,
    status: Status,
    last: Last,
    error: JobError | None = None,
    event: str | None = None,
) -> None:
    """Write down that a job has ended; `event` where no attempt's row of the history says so."""
    text = json.dumps(error.to_json()) if error is not None else None
    tx.later(DONE_INSERT, (job, status.value, tx.now, last.version, last.stage, last.attempt, last.outcome, text))
    if status is Status.FAILED:
        tx.later(FAILED_INSERT, (job,))
    if event is not None or last.several_stages:
        tx.later(PINNED_DELETE, (job,))
    if event is not None:
        note(tx, job, event, status.value)
    tx.changed_jobs.add(name)


def note(tx: Transaction, job: int, event: str, cause: str | None = None, version: str | None = None) -> None:
    """Append to the history what happened without an attempt."""
    tx.connection.execute(HISTORY_NOTE, (job, event, tx.now, cause, version))
