"""What a slot says of itself with each beat: its facts, and the report made of them.

A report is written only where it differs from the one before, so nothing in it moves by itself: moments instead of
lengths of time, whole seconds, and figures that are told anew once they matter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from modelrepo_runtime.job_memory import ANY_ROOM, MemoryRoom
from modelrepo_runtime.jobs import Json
from modelrepo_runtime.queue.port import SlotReport
from modelrepo_runtime.worker.breaker import Breaker
from modelrepo_runtime.worker.holding import Held
from modelrepo_runtime.worker.refusal import Refusal
from modelrepo_runtime.worker.report_size import (
    MOST_NOTES,
    MOST_SHORT,
    NEXT_BYTES,
    NOTE_BYTES,
    PLAN_BYTES,
    REASON_BYTES,
    SHORT_BYTES,
    clip,
    clip_all,
    clip_or_none,
)
from modelrepo_runtime.worker.serving import Serving
from modelrepo_runtime.worker.slot_states import SlotState, Withheld, slot_state
from modelrepo_runtime.worker.swap_plan import SwapPlan
from modelrepo_runtime.worker.swap_record import LastSwap, SwapRecord
from modelrepo_runtime.worker.target import Target

FETCH_STEPS = 20
"""A fetch is told in so many steps."""


@dataclass(frozen=True, slots=True)
class Moment:
    """Now, on both clocks."""

    monotonic: float
    wall: float

    def at(self, monotonic: float) -> float:
        """Return the epoch second at which the monotonic clock shows so much; whole, so that two looks agree."""
        return float(round(self.wall + monotonic - self.monotonic))


@dataclass(frozen=True, slots=True)
class Identity:
    """Which slot it is, and what it runs."""

    slot: str
    device: str
    model: str
    on: tuple[str, ...]
    accelerator: str | None = None
    room: MemoryRoom = ANY_ROOM


@dataclass(frozen=True, slots=True)
class Standing:
    """What lets a slot take jobs, or does not."""

    breaker: Breaker
    refusal: Refusal | None = None
    ordered: str | None = None
    """Why an operator lets it take none, or the health of its devices."""
    withheld: Withheld | None = None
    tight: str | None = None
    """Why nothing should be brought into the box's memory now."""

    @property
    def state(self) -> SlotState:
        """Return the state; what others decided hides what the slot itself would be."""
        return (
            SlotState.CORDONED
            if self.ordered or self.withheld or self.tight
            else slot_state(self.breaker, self.refusal)
        )

    def why(self, now: Moment) -> tuple[str | None, float | None, str | None]:
        """Return the reason, when it is tried again (epoch seconds), and the next action."""
        if self.ordered:
            return self.ordered, None, "`modelrepo workers uncordon` lets it take jobs again"
        if self.withheld is not None:
            action = "see which process holds the device, and end it; the slot takes jobs again once that is free"
            return self.withheld.reason, None, action
        if self.tight:
            return self.tight, None, "see what takes the memory of the box; jobs are taken again once it is free"
        if self.breaker.cordoned:
            action = "one probe job decides; see the jobs' logs, or promote another version"
            return self.breaker.reason, now.at(self.breaker.cordoned_until or now.monotonic), action
        if self.refusal is not None:
            return self.refusal.reason, now.at(self.refusal.retry_at), self.refusal.next_action
        return None, None, None


@dataclass(frozen=True, slots=True)
class Coming:
    """What a slot brings up, and what came of what it brought up last."""

    incoming: tuple[Target, str] | None = None
    starting: str | None = None
    """The state of the child that loads for it."""
    starts_until: float | None = None
    """When that child is given up, on the monotonic clock."""
    plan: SwapPlan | None = None
    record: SwapRecord = field(default_factory=SwapRecord)


@dataclass(frozen=True, slots=True)
class SlotFacts:
    """All that a report is made of."""

    identity: Identity
    standing: Standing
    target: Target | None = None
    serving: Serving | None = None
    coming: Coming = field(default_factory=Coming)
    held: Held | None = None
    batch: int = 0
    """How many jobs run together; 0 where none runs."""
    also: tuple[str, ...] = ()
    memory: Mapping[str, Json] = field(default_factory=dict)


def report_of(facts: SlotFacts, now: Moment) -> SlotReport:
    """Describe a slot, in at most `report_size.MOST_REPORT_BYTES` of JSON."""
    identity, serving, coming = facts.identity, facts.serving, facts.coming
    reason, deadline, next_action = facts.standing.why(now)
    if reason is None and next_action is None:
        deadline, next_action = _comes_next(facts, now)
    version = serving.prepared.version if serving else None
    return SlotReport(
        slot=identity.slot,
        state=facts.standing.state.value,
        model=identity.model,
        version=version.version if version else None,
        digest=version.digest if version else None,
        generation=serving.target.generation if serving else None,
        incoming=_incoming(coming),
        reason=clip_or_none(reason, REASON_BYTES),
        deadline=deadline,
        next_action=clip_or_none(next_action, NEXT_BYTES),
        job_id=facts.held.claim.job_id if facts.held else None,
        device=identity.device,
        plan=clip(str(coming.plan), PLAN_BYTES) if coming.plan else None,
        phases=serving.phases if serving else None,
        on=identity.on,
        accelerator=identity.accelerator,
        also=facts.also,
        accelerator_bytes=identity.room.accelerator_bytes,
        host_bytes=identity.room.host_bytes,
        extra=_extra(facts),
    )


def _comes_next(facts: SlotFacts, now: Moment) -> tuple[float | None, str | None]:
    """Say of a slot that nothing speaks against what it waits for, where it serves nothing; and until when."""
    coming = facts.coming
    if coming.incoming is not None:
        version, phase = coming.incoming[0].version, coming.starting or coming.incoming[1]
        until = None if coming.starts_until is None else now.at(coming.starts_until)
        limit = "; it is refused where that has not ended by then" if until is not None else ""
        return until, f"it serves {version} once that has come up ({phase}){limit}"
    if facts.serving is not None:
        return None, None
    if facts.target is None:
        return None, f"promote a version of {facts.identity.model}; nothing that is active is known here"
    return None, f"it is about to bring up {facts.target.version}"


def _incoming(coming: Coming) -> dict[str, Json] | None:
    if coming.incoming is None:
        return None
    target, phase = coming.incoming
    told: dict[str, Json] = {"version": target.version, "phase": clip(str(coming.starting or phase), SHORT_BYTES)}
    now = coming.record.now
    if now is not None and now.target == target:
        told |= {"since": round(now.since, 3), "phase_since": round(now.phase_since, 3)}
        if now.total_bytes:
            steps = min(FETCH_STEPS, now.done_bytes * FETCH_STEPS // now.total_bytes)
            told |= {"done_bytes": steps * now.total_bytes // FETCH_STEPS, "total_bytes": now.total_bytes}
    return told


def _extra(facts: SlotFacts) -> dict[str, Json]:
    extra: dict[str, Json] = {}
    serving, notes = facts.serving, list(facts.target.notes if facts.target else ())
    if serving is not None:
        extra["pid"] = serving.child.pid
        extra["memory_group"] = serving.child.has_memory_group
        if serving.prepared.chosen.ranks > 1:
            extra["ranks"] = serving.prepared.chosen.ranks
        if serving.prepared.pooled.problem:
            notes.append(serving.prepared.pooled.problem)
    if facts.target is not None and facts.target.pinned:
        extra["pinned"] = facts.target.version
    if notes:
        extra["notes"] = list(clip_all(notes, NOTE_BYTES, MOST_NOTES))
    if facts.held is not None:
        extra["job"] = _job(facts.held, facts.batch)
    if facts.memory:
        extra["memory"] = dict(facts.memory)
    if facts.coming.record.last is not None:
        extra["last_swap"] = _last_swap(facts.coming.record.last)
    return extra


def _job(held: Held, batch: int) -> dict[str, Json]:
    claim = held.claim
    told: dict[str, Json] = {"stage": claim.stage, "attempt": claim.attempt, "since": round(held.began_at, 3)}
    if batch > 1:
        told["batch"] = batch
    return told


def _last_swap(last: LastSwap) -> dict[str, Json]:
    reasons: Sequence[str] = clip_all(last.reasons, SHORT_BYTES, MOST_SHORT)
    return {
        "old": last.old,
        "new": last.new,
        "mode": last.mode,
        "reasons": list(reasons),
        "result": last.result,
        "why": clip_or_none(last.why, NOTE_BYTES),
        "ended_at": round(last.ended_at, 3),
        "took_s": round(last.took_s, 3),
        "phases": {clip(name, SHORT_BYTES): round(seconds, 3) for name, seconds in last.phases.items()},
    }


def with_box(reports: Sequence[SlotReport], box: Mapping[str, Json]) -> tuple[SlotReport, ...]:
    """Send the facts of the box along with the report of its first slot: there is no other word from a worker."""
    if not reports or not box:
        return tuple(reports)
    first = replace(reports[0], extra={**reports[0].extra, "box": dict(box)})
    return (first, *reports[1:])
