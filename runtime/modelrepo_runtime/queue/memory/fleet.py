"""Sessions on the queue in memory: their beats, what is taken back from them, and turns."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from modelrepo_runtime.jobs import Fence
from modelrepo_runtime.queue.memory import leasing
from modelrepo_runtime.queue.memory.records import Life, Record
from modelrepo_runtime.queue.memory.state import State
from modelrepo_runtime.queue.port import BeatReply, Reaped, SlotReport, WorkerInfo, WorkerReport
from modelrepo_runtime.queue.steps import BEATS_LEFT_OUT, NO_ANSWER, SILENT_FORGOTTEN_S, lost_outcome


def hello(state: State, info: WorkerInfo) -> str:
    """Begin a session, and forget earlier ones of the same worker that hold nothing."""
    for session, life in list(state.lives.items()):
        same = (life.info.name, life.info.host) == (info.name, info.host)
        if same and not state.beats(life) and not state.held_by(session):
            del state.lives[session]
    session = secrets.token_hex(8)
    state.lives[session] = Life(info, 0, state.clock())
    return session


def goodbye(state: State, session: str) -> None:
    """End a session and give back what it holds."""
    for record in state.held_by(session):
        leasing.close(state, record, NO_ANSWER)
    state.lives.pop(session, None)


def beat(state: State, session: str, holding: Sequence[tuple[str, Fence]], slots: Sequence[SlotReport]) -> BeatReply:
    """Move a session's beat, keep its slots' reports, and compare what it holds with its leases."""
    life = state.life(session)
    life.number, life.at, life.slots = life.number + 1, state.clock(), tuple(slots)
    told = set(holding)
    records = state.held_by(session)
    leased = {(record.id, record.held.fence) for record in records}
    cancelled = {r.id for r in records if r.cancel_requested and (r.id, r.held.fence) in told}
    for record in records:
        _note_beat(state, record, told=(record.id, record.held.fence) in told)
    return BeatReply(frozenset(cancelled), frozenset(told - leased))


def _note_beat(state: State, record: Record, *, told: bool) -> None:
    left_out, number = state.left_out, record.held.fence.number
    if told:
        left_out.pop(number, None)
        return
    left_out[number] = left_out.get(number, 0) + 1
    age_s = state.clock() - record.held.claimed
    if left_out[number] >= BEATS_LEFT_OUT and not 0 <= age_s <= state.timing.unanswered_claim_s:
        leasing.close(state, record, NO_ANSWER, "unanswered")


def expire_session(state: State, session: str, number: int) -> tuple[Reaped, ...]:
    """Take back the leases of a session whose beat has not moved."""
    life = state.lives.get(session)
    if (life.number if life is not None else -1) != number:
        return ()
    return tuple(
        Reaped(record.id, session, leasing.close(state, record, lost_outcome(record.held.place.key)))
        for record in state.held_by(session)
    )


def fleet(state: State) -> tuple[WorkerReport, ...]:
    """Return every session with what its slots last said."""
    now = state.clock()
    return tuple(
        WorkerReport(life.info, session, abs(now - life.at), tuple(sorted(life.slots, key=lambda slot: slot.slot)))
        for session, life in sorted(state.lives.items(), key=lambda item: (-item[1].at, item[0]))
    )


def forget_silent(state: State) -> None:
    """Drop sessions that hold nothing and have been silent for long."""
    before = state.clock() - SILENT_FORGOTTEN_S
    for session, life in list(state.lives.items()):
        if life.at < before and not state.held_by(session):
            del state.lives[session]


def take_turn(state: State, model: str, slot: str, allowed: int, ttl_s: float) -> bool:
    """Take or keep a turn where fewer than the allowed number of others have one."""
    turns = state.turns_of(model, ttl_s)
    if len(turns.keys() - {slot}) >= allowed:
        return False
    turns[slot] = state.clock() + ttl_s
    return True


def renew_turn(state: State, model: str, slot: str, ttl_s: float) -> bool:
    """Prolong a turn that has not run out."""
    turns = state.turns_of(model, ttl_s)
    if slot not in turns:
        return False
    turns[slot] = state.clock() + ttl_s
    return True
