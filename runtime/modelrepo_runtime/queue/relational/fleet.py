"""Sessions: their beats, what they hold, and what is taken back from them."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from modelrepo.errors import StaleSession
from modelrepo_runtime.jobs import Fence, Status
from modelrepo_runtime.queue.credits import LOADING_PHASES
from modelrepo_runtime.queue.fleet_events import Happened
from modelrepo_runtime.queue.port import BeatCall, BeatReply, Reaped, SlotReport, WorkerInfo, WorkerReport
from modelrepo_runtime.queue.relational import crediting, fleet_events, orders
from modelrepo_runtime.queue.relational.claiming import ended
from modelrepo_runtime.queue.relational.finishing import close, held, requeue
from modelrepo_runtime.queue.relational.rows import LeaseRow, leases, leases_of_session
from modelrepo_runtime.queue.relational.transaction import Snapshot, Transaction
from modelrepo_runtime.queue.steps import BEATS_LEFT_OUT, NO_ANSWER, lost_outcome, outcome_text
from modelrepo_runtime.timing import Timing


def hello(tx: Transaction, info: WorkerInfo, timing: Timing) -> str:
    """Begin a session, and forget earlier ones of the same worker that hold nothing."""
    within = (tx.now - timing.lease_s, tx.now + timing.lease_s)
    for row in tx.rows("sessions_replaced", info.name, info.host, *within):
        _forget(tx, row["id"])
    session = secrets.token_hex(8)
    slots = json.dumps(info.slots)
    tx.run("session_insert", session, info.name, info.host, info.pid, info.cluster, slots, tx.now)
    tx.run("beat_insert", session, tx.now)
    number = "1 slot" if len(info.slots) == 1 else f"{len(info.slots)} slots"
    text = f"{info.name} began on {info.host} in cluster {info.cluster} with {number}"
    fleet_events.note(tx, Happened.SESSION_BEGAN, text, worker=info.name)
    return session


def goodbye(tx: Transaction, session: str, timing: Timing) -> None:
    """End a session and give back what it holds."""
    for row in leases_of_session(tx, session):
        _give_back(tx, row, timing, "attempt")
    known = tx.row("session_get", session)
    if known is not None:
        fleet_events.note(tx, Happened.SESSION_ENDED, f"{known['worker']} left", worker=known["worker"])
    _forget(tx, session)


def _forget(tx: Transaction, session: str) -> None:
    for name in ("session_delete", "beat_delete", "slots_delete"):
        tx.run(name, session)


def _give_back(tx: Transaction, row: LeaseRow, timing: Timing, event: str) -> None:
    step = close(tx, row, NO_ANSWER, outcome_text(NO_ANSWER), timing, event)
    if step.status is Status.QUEUED:
        requeue(tx, row, step)


@dataclass(slots=True)
class _Known:
    """What the database has of the sessions that beat, read for all of them at once."""

    alive: frozenset[str]
    leases: Mapping[str, Sequence[LeaseRow]]
    reports: Mapping[str, Mapping[str, str]]
    some_left_out: bool


def beat_all(tx: Transaction, calls: Sequence[BeatCall], timing: Timing) -> tuple[BeatReply | StaleSession, ...]:
    """Answer beats one after the other, from what is read for all of them at once."""
    sessions = sorted({call.session.id for call in calls})
    if not sessions:
        return ()
    known = _look_up(tx, sessions)
    _keep_reports(tx, calls, known)
    answers = tuple(_beat(tx, call.session.id, call.held, known, timing) for call in calls)
    wanted, versions = orders.for_sessions(tx, sessions), _versions(tx, calls, known, timing)
    if not wanted and not versions:
        return answers
    return tuple(
        answer
        if isinstance(answer, StaleSession)
        else replace(answer, orders=wanted.get(call.session.id, ()), versions=versions.get(call.session.id, {}))
        for call, answer in zip(calls, answers, strict=True)
    )


def _look_up(tx: Transaction, sessions: Sequence[str]) -> _Known:
    """Move the beats of sessions, and read what they hold and what their slots said last."""
    named = tx.array(sessions)
    alive = frozenset(row[0] for row in tx.rows("beats_move", tx.now, named))
    holding: dict[str, list[LeaseRow]] = {}
    for row in leases(tx, tx.statements.among("lease.session"), named):
        holding.setdefault(row.session, []).append(row)
    reports: dict[str, dict[str, str]] = {}
    for slot in tx.select("slots_of_sessions", f"where {tx.statements.among('session')}", named):
        reports.setdefault(slot["session"], {})[slot["slot"]] = slot["report"]
    return _Known(alive, holding, reports, bool(tx.only("left_out_any")[0]))


def _beat(
    tx: Transaction,
    session: str,
    holding: Sequence[tuple[str, Fence]],
    known: _Known,
    timing: Timing,
) -> BeatReply | StaleSession:
    """Compare what a session holds with its leases."""
    if session not in known.alive:
        return ended(session)
    own = known.leases.get(session, ())
    leased = {row.held for row in own}
    told = set(holding)
    for row in own:
        if row.held in told:
            if known.some_left_out:
                tx.run("left_out_delete", row.fence)
            continue
        beats = tx.only("left_out_add", row.fence)[0]
        known.some_left_out = True
        if beats >= BEATS_LEFT_OUT and not 0 <= tx.now - row.claimed <= timing.unanswered_claim_s:
            tx.run("left_out_delete", row.fence)
            if held(tx, *row.held) is not None:  # it may just be finishing
                _give_back(tx, row, timing, "unanswered")
    cancelled = frozenset(row.name for row in own if row.cancelled and row.held in told)
    return BeatReply(cancelled, frozenset(told - leased))


def _versions(
    tx: Snapshot, calls: Sequence[BeatCall], known: _Known, timing: Timing
) -> Mapping[str, Mapping[str, tuple[str, ...]]]:
    """Tell sessions whose slots run on the CPU alone which versions to prepare for; others do not ask.

    What a cluster serves is read once for all of its sessions: there may be thousands of slots.
    """
    asking: dict[str, set[str]] = {}
    for call in calls:
        models = {slot.model for slot in call.slots if slot.on == ("cpu",) and slot.model is not None}
        if models and call.session.id in known.alive:
            asking[call.session.id] = models
    if not asking:
        return {}
    named = tx.select("clusters_of_sessions", f"where {tx.statements.among('id')}", tx.array(sorted(asking)))
    clusters: dict[str, list[str]] = {}
    for row in named:
        clusters.setdefault(row["cluster"], []).append(row["id"])
    told: dict[str, Mapping[str, tuple[str, ...]]] = {}
    for cluster, sessions in clusters.items():
        models = set().union(*(asking[session] for session in sessions))
        found = crediting.versions_wanted(tx, cluster, sorted(models), timing)
        for session in sessions:
            told[session] = {model: found[model] for model in sorted(asking[session] & found.keys())}
    return told


def _keep_reports(tx: Transaction, calls: Sequence[BeatCall], known: _Known) -> None:
    """Keep what slots say now, and note what has changed; nothing is written where nothing has."""
    changed: dict[str, Sequence[SlotReport]] = {}
    for call in calls:
        rows = {slot.slot: _report_text(slot) for slot in call.slots}
        if call.session.id in known.alive and rows != known.reports.get(call.session.id, {}):
            changed[call.session.id] = call.slots
    if not changed:
        return
    named = tx.select("workers_of_sessions", f"where {tx.statements.among('id')}", tx.array(list(changed)))
    workers = {row["id"]: row["worker"] for row in named}
    for session, slots in changed.items():
        before = known.reports.get(session, {})
        fleet_events.note_changes(
            tx, workers[session], {slot: json.loads(text) for slot, text in before.items()}, slots
        )
    tx.run_many("slots_delete", [(session,) for session in changed if session in known.reports])
    tx.run_many("slot_insert", [_slot_row(session, slot) for session, slots in changed.items() for slot in slots])


def _slot_row(session: str, report: SlotReport) -> tuple[Any, ...]:
    incoming = report.incoming.get("version") if report.incoming else None
    loads = incoming if report.incoming and report.incoming.get("phase") in LOADING_PHASES else None
    kinds = (int("cpu" in report.on), int("gpu" in report.on), loads, "\n".join(report.also))
    room = (report.accelerator_bytes, report.host_bytes)
    return (
        session,
        report.slot,
        report.state,
        report.model,
        report.version,
        incoming,
        *kinds,
        *room,
        _report_text(report),
    )


def _report_text(report: SlotReport) -> str:
    return json.dumps(asdict(report))


def read_report(text: str) -> SlotReport:
    """Read a slot's report; fields of a newer modelrepo are dropped."""
    body = json.loads(text)
    known = {field.name: body[field.name] for field in fields(SlotReport) if field.name in body}
    return SlotReport(**{**known, "on": tuple(known.get("on", ("cpu", "gpu"))), "also": tuple(known.get("also", ()))})


def expire_session(tx: Transaction, session: str, number: int, timing: Timing) -> tuple[Reaped, ...]:
    """Take back the leases of a session whose beat has not moved."""
    row = tx.row("beat_number", session)
    if (row["number"] if row is not None else -1) != number:
        return ()
    reaped: list[Reaped] = []
    for leased in leases_of_session(tx, session):
        begun = tx.row("staged_lease", leased.fence) is None
        outcome = lost_outcome(leased.slot) if begun else NO_ANSWER
        step = close(tx, leased, outcome, outcome_text(outcome), timing)
        if step.status is Status.QUEUED:
            requeue(tx, leased, step)
        reaped.append(Reaped(leased.name, session, step.status))
    if reaped:
        _note_lost(tx, session, f"is not heard of any more; {len(reaped)} of its jobs were taken back")
    return tuple(reaped)


def _note_lost(tx: Transaction, session: str, text: str) -> None:
    known = tx.row("session_get", session)
    worker = known["worker"] if known is not None else None
    fleet_events.note(tx, Happened.SESSION_LOST, f"{worker or session} {text}", worker=worker)


def fleet(tx: Snapshot, timing: Timing) -> tuple[WorkerReport, ...]:
    """Return every session with what its slots last said."""
    told: dict[str, list[SlotReport]] = {}
    for slot in tx.rows("slots_of_all"):
        told.setdefault(slot["session"], []).append(read_report(slot["report"]))
    reports: list[WorkerReport] = []
    for row in tx.rows("fleet"):
        info = WorkerInfo(row["worker"], row["host"], row["pid"], row["cluster"], tuple(json.loads(row["slots"])))
        slots = tuple(told.get(row["id"], ()))
        reports.append(WorkerReport(info, row["id"], abs(tx.now - row["at"]), slots, timing.lease_s))
    return tuple(reports)


def slots_serving(tx: Snapshot, model: str, timing: Timing) -> int:
    """Count live slots of a model that run stages on accelerators."""
    return int(tx.only("slots_serving", model, tx.now - timing.lease_s, tx.now + timing.lease_s)[0])


def forget_silent(tx: Transaction, before: float) -> None:
    """Drop sessions that hold nothing and have been silent since `before`."""
    for row in tx.rows("sessions_forgotten", before):
        _note_lost(tx, row["id"], "was silent for too long, and is forgotten")
        _forget(tx, row["id"])
