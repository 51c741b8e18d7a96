"""Rows of waiting jobs: into a lane, out of it, and what time alone moves."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import NamedTuple

from modelrepo_runtime.jobs import JobError, Status
from modelrepo_runtime.queue.lanes import Lane, read_avoid, read_memory, write_constraint
from modelrepo_runtime.queue.memory_needs import NeedKey
from modelrepo_runtime.queue.relational import tenancy
from modelrepo_runtime.queue.relational.crediting import give_back
from modelrepo_runtime.queue.relational.memory import need_of
from modelrepo_runtime.queue.relational.stages import read_stages
from modelrepo_runtime.queue.relational.telling import tell_finished
from modelrepo_runtime.queue.relational.transaction import Row, Snapshot, Transaction
from modelrepo_runtime.queue.steps import EXPIRED, enqueued_after

MOST_MOVED = 200
"""Rows that one transaction moves because their time has come; the rest waits for the next one."""


def rank_time(tx: Snapshot) -> float:
    """Return the moment at which a job enters, and at which waits are compared."""
    row = tx.row("newest_enqueued")
    return enqueued_after(row[0] if row is not None else None, tx.now)


def lane_of(row: Row) -> Lane:
    """Return a row of the registry as a Lane."""
    return Lane(
        row["model"],
        row["stage"],
        row["tier"],
        row["version"] or None,
        read_avoid(row["avoid"]),
        row["cluster"] or None,
        bool(row["over"]),
        read_memory(row["avoid"]),
    )


def lane_number(tx: Transaction, lane: Lane) -> int:
    """Return the lane's id, entering it into the registry where it is not there."""
    constraint = write_constraint(lane.avoid, lane.memory)
    key = (lane.model, lane.stage, lane.tier, lane.version or "", constraint, lane.cluster or "", int(lane.over))
    row = tx.row("lane_id", *key)
    if row is None:
        tx.run("lane_insert", *key)
        row = tx.only("lane_id", *key)
    return int(row[0])


@dataclass(frozen=True, slots=True)
class Entry:
    """A job that is to wait in a lane."""

    job: int
    enqueued: float
    tag: float
    """Its place in the lane: the least goes first."""
    lane: Lane
    stage_index: int = 0
    attempt: int = 1
    new: bool = False
    """True: it has never waited before, so that nothing that came later can have been claimed."""


def enqueue(tx: Transaction, entry: Entry, delay_s: float = 0.0) -> None:
    """Make a job wait in its lane, at once or after a delay."""
    number = lane_number(tx, entry.lane)
    waits = (entry.enqueued, entry.stage_index, entry.attempt)
    if delay_s > 0:
        tx.run("delayed_insert", entry.job, tx.now + delay_s, number, entry.tag, *waits)
    else:
        tx.run("ready_insert" if entry.new else "ready_return", number, entry.tag, entry.job, *waits)
        tx.ready_models.add(entry.lane.model)


def dequeue(tx: Transaction, job: int, model: str, enqueued: float) -> None:
    """Take a waiting job out of whichever lane it is in."""
    row = tx.row("ready_of_job", model, enqueued, job)
    if row is not None:
        tx.run("ready_delete", row["lane"], row["tag"], job, row["enqueued"])
    tx.run("delayed_delete", job)


def move_due(tx: Transaction, longest_delay_s: float) -> None:
    """Make due retries ready, and end waiting jobs whose deadline has passed."""
    for row in tx.rows("delayed_due", tx.now, tx.now + longest_delay_s, MOST_MOVED):
        tx.run("delayed_delete", row["job"])
        waits = (row["enqueued"], row["stage_index"], row["attempt"])
        tx.run("ready_return", row["lane"], row["tag"], row["job"], *waits)
        tx.ready_models.add(row["model"])
    for row in tx.rows("deadlines_passed", tx.now, MOST_MOVED):
        tx.run("deadline_delete", row["at"], row["job"])
        if tx.row("done_of_job", row["job"]) is None:
            give_back(tx, [row["job"]])
            unstage(tx, row["job"])
            dequeue(tx, row["job"], row["model"], row["enqueued"])
            if not row["tried"]:
                tenancy.refund(tx, row)
            end(tx, row["job"], row["name"], Status.EXPIRED, Last(row["version"]), EXPIRED, "expired")


def unstage(tx: Transaction, job: int) -> None:
    """Take a job from the slot that has it staged, if one has; that slot hears of it with its next beat."""
    row = tx.row("staged_of_job", job)
    if row is not None and tx.row("staged_delete", row["fence"]) is not None:
        tx.run("lease_delete", row["fence"])


NOT_TOLD = (None,) * 5


class Last(NamedTuple):
    """The attempt with which a job ended; `outcome` is its outcome as JSON."""

    version: str | None = None
    stage: str | None = None
    attempt: int = 0
    outcome: str = "{}"
    several_stages: bool = False
    webhook: str | None = None
    """Whom to tell, as the job's row has it; of an end without an attempt it is looked up."""
    held: tuple[object, ...] = NOT_TOLD
    """Fence, token, session, slot and moment of the claim, where no row of the history says so."""


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
    what = (job, status.value, tx.now, last.version, last.stage, last.attempt, last.outcome, text)
    tx.later("done_insert", *what, *last.held)
    if status is Status.FAILED:
        tx.later("failed_insert", job)
    if event is not None or last.several_stages:
        tx.later("pinned_delete", job)
        tx.later("handover_delete", job)
    if event is not None:
        tx.later("progress_delete", job)
        drop_states(tx, job)
    webhook = last.webhook
    if event is not None:
        note(tx, job, event, status.value)
        webhook = tx.only("webhook_of_job", job)[0]
    if webhook is not None:
        tell_finished(tx, job, webhook, status, last.version, last.stage, last.attempt, error)
    tx.changed_jobs.add(name)


def drop_states(tx: Transaction, job: int) -> None:
    """Nobody goes on from what a job's stage has saved."""
    tx.later("state_drop", job)
    tx.later("state_delete", job)


def note(tx: Transaction, job: int, event: str, cause: str | None = None, version: str | None = None) -> None:
    """Append to the history what happened without an attempt."""
    tx.run("history_note", job, event, tx.now, cause, version)


def send_back(tx: Transaction, row: Row, event: str, attempt: int = 1) -> None:
    """Make a job that has failed wait for its first stage again, with its clock; `event` says by whose doing."""
    job = row["id"]
    if tx.row("done_withdraw", job) is None:
        return  # somebody else has just sent it back, or deleted it
    for name in ("failed_delete", "pinned_delete", "progress_delete", "cancel_delete"):
        tx.run(name, job)
    if row["deadline"] is not None:
        tx.run("deadline_insert", row["deadline"], job)
    tx.run("hook_again", job)
    note(tx, job, event)
    first = read_stages(row["stages"])[0]
    key = NeedKey(row["model"], first.name, tx.only("size_of_job", job)[0])
    lane = Lane(
        row["model"], first.name, row["tier"], row["wanted"], over=bool(row["over"]), memory=need_of(tx, key, first.on)
    )
    enqueue(tx, Entry(job, row["enqueued"], row["tag"], lane, attempt=attempt))
    tx.changed_jobs.add(row["name"])
