"""What a slot says of itself with each beat."""

from __future__ import annotations

from collections.abc import Sequence

from modelrepo_runtime.job_memory import ANY_ROOM, MemoryRoom
from modelrepo_runtime.jobs import Json
from modelrepo_runtime.queue.port import SlotReport
from modelrepo_runtime.worker.breaker import Breaker
from modelrepo_runtime.worker.refusal import Refusal
from modelrepo_runtime.worker.serving import Serving
from modelrepo_runtime.worker.slot_states import SlotState, slot_state
from modelrepo_runtime.worker.swap_plan import SwapPlan
from modelrepo_runtime.worker.target import Target


def report_of(
    slot: str,
    device: str,
    *,
    model: str,
    serving: Serving | None,
    incoming: tuple[Target, str] | None,
    starting: str | None,
    breaker: Breaker,
    refusal: Refusal | None,
    plan: SwapPlan | None,
    job_id: str | None,
    notes: Sequence[str],
    on: tuple[str, ...],
    accelerator: str | None,
    also: tuple[str, ...],
    monotonic: float,
    wall: float,
    ordered: str | None = None,
    pinned: str | None = None,
    withheld: str | None = None,
    tight: str | None = None,
    room: MemoryRoom = ANY_ROOM,
) -> SlotReport:
    """Describe a slot; `starting` is the state of a child that loads, `monotonic` and `wall` are now on both clocks.

    `ordered` is why an operator lets it take no jobs, `withheld` why its device does not, `tight` why the box's memory
    does not; `pinned` is the version that it serves whatever is active.
    """
    state = SlotState.CORDONED if ordered or withheld or tight else slot_state(breaker, refusal)
    reason, deadline, next_action = _why(state, breaker, refusal, monotonic, wall)
    if ordered:
        reason, deadline, next_action = ordered, None, "`modelrepo workers uncordon` lets it take jobs again"
    elif withheld:
        reason, deadline = withheld, None
        next_action = "see which process holds the device, and end it; the slot takes jobs again once that is free"
    elif tight:
        reason, deadline = tight, None
        next_action = "see what takes the memory of the box; jobs are taken again once it is free"
    version = serving.prepared.version if serving else None
    extra: dict[str, Json] = {}
    if serving is not None:
        extra["pid"] = serving.child.pid
        extra["memory_group"] = serving.child.has_memory_group
        if serving.prepared.chosen.ranks > 1:
            extra["ranks"] = serving.prepared.chosen.ranks
    if pinned:
        extra["pinned"] = pinned
    if serving is not None and serving.prepared.pooled.problem:
        notes = (*notes, serving.prepared.pooled.problem)
    if notes:
        extra["notes"] = list(notes)
    return SlotReport(
        slot=slot,
        state=state.value,
        model=model,
        version=version.version if version else None,
        digest=version.digest if version else None,
        generation=serving.target.generation if serving else None,
        incoming={"version": incoming[0].version, "phase": str(starting or incoming[1])} if incoming else None,
        reason=reason,
        deadline=deadline,
        next_action=next_action,
        job_id=job_id,
        device=device,
        plan=str(plan) if plan else None,
        phases=serving.phases if serving else None,
        on=on,
        accelerator=accelerator,
        also=also,
        accelerator_bytes=room.accelerator_bytes,
        host_bytes=room.host_bytes,
        extra=extra,
    )


def _why(
    state: SlotState, breaker: Breaker, refusal: Refusal | None, monotonic: float, wall: float
) -> tuple[str | None, float | None, str | None]:
    if state is SlotState.CORDONED:
        rest_s = (breaker.cordoned_until or monotonic) - monotonic
        return (
            breaker.reason,
            wall + max(0.0, rest_s),
            "one probe job decides; see the jobs' logs, or promote another version",
        )
    if refusal is not None:
        return refusal.reason, wall + max(0.0, refusal.retry_at - monotonic), refusal.next_action
    return None, None, None
