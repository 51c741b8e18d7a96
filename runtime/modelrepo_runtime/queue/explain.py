"""Say in words where a job is and what it waits for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from modelrepo_runtime.jobs import Job, Json, Status, timestamp
from modelrepo_runtime.queue.lanes import Lane, LiveSlot
from modelrepo_runtime.queue.port import Explanation, HistoryRow

COUNTED_TO = 1000
"""Jobs of one lane that a position need count; from there on it may be more."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What an explanation rests on, read at one moment."""

    now: float
    slo_s: float
    lane: Lane | None
    """Where it waits; None unless queued."""
    due: float | None
    """When its delay ends, if it is delayed."""
    holder: str | None
    """`<worker>/<slot>` that runs it."""
    live: Sequence[LiveSlot]
    history: Sequence[HistoryRow]
    restarts: int
    restarts_allowed: int


def explain(job: Job, around: Surroundings) -> Explanation:
    """Return lines for people and facts for programs."""
    lines = [_headline(job)]
    facts: dict[str, Json] = {"model": job.model, "tier": job.tier, "stage": job.stage, "slo_s": around.slo_s}
    if job.status is Status.QUEUED and around.lane is not None:
        lines += _waiting(job, around.lane, around, facts)
    elif job.status is Status.RUNNING:
        facts["slot"] = around.holder
        lines.append(f"Runs stage {job.stage} as version {job.version} on {around.holder}, try {job.attempt}.")
        if job.progress is not None:
            lines.append(f"Progress {job.progress:.0%}" + (f": {job.message}." if job.message else "."))
        if job.cancel_requested:
            lines.append("Its cancellation was asked for; it ends when its worker has stopped it.")
    elif job.error is not None:
        lines.append(f"It ended with {job.error.code}: {job.error.message}.")
    tries = [row for row in around.history if row.event == "attempt" and row.cause != "succeeded"]
    facts["failed_attempts"] = [{"cause": row.cause, "slot": row.slot, "version": row.version} for row in tries]
    for row in tries[-3:]:
        kept = "" if row.counted else ", not counted"
        lines.append(f"An attempt on {row.slot} as version {row.version} ended by {row.cause}{kept}.")
    return Explanation(job.id, job.status, tuple(lines), facts)


def _headline(job: Job) -> str:
    since = timestamp(job.finished_at if job.status.ended else job.enqueued)
    word = "since" if job.status.ended else "entered"
    return f"{job.id} is {job.status.value}: model {job.model}, tier {job.tier}, {word} {since}."


def _waiting(job: Job, lane: Lane, around: Surroundings, facts: dict[str, Json]) -> list[str]:
    share = (around.now - job.enqueued) / around.slo_s
    facts.update(
        lane={"stage": lane.stage, "tier": lane.tier, "version": lane.version, "avoid": sorted(lane.avoid)},
        slo_share=round(share, 4),
        position=job.position,
        delayed_until=timestamp(around.due),
    )
    lines = [
        f"It waits in the lane of stage {lane.stage}, tier {lane.tier}, {_version_words(lane)},"
        f" and has used {share:.0%} of the {around.slo_s:g} s that its tier may wait."
    ]
    if around.due is not None:
        lines.append(f"It is delayed until {timestamp(around.due)}, after an attempt that failed.")
    elif job.position is not None:
        count = f"At least {job.position}" if job.position >= COUNTED_TO else str(job.position)
        lines.append(f"{count} jobs of its model would be taken before it.")
    lines.append(_who_may_take_it(lane, around, facts))
    if lane.avoid:
        lines.append(f"It keeps away from {', '.join(sorted(lane.avoid))} while another live slot may take it.")
    if around.restarts:
        lines.append(
            f"It began again {around.restarts} of at most {around.restarts_allowed} times, as its version was served"
            " nowhere."
        )
    return lines


def _who_may_take_it(lane: Lane, around: Surroundings, facts: dict[str, Json]) -> str:
    slots = [slot for slot in around.live if slot.model == lane.model]
    able = [
        slot for slot in slots if slot.state == "open" and lane.version in (None, slot.version, slot.incoming_version)
    ]
    facts["slots"] = [slot.place.key for slot in able]
    if able:
        return f"{len(able)} live slots may take it: {', '.join(slot.place.key for slot in able[:5])}."
    if not slots:
        facts["waits_for"] = "a live worker that serves the model"
        return f"No live worker serves {lane.model}: start one with `modelrepo worker`."
    closed = [slot for slot in slots if slot.state != "open"]
    if len(closed) == len(slots):
        facts["waits_for"] = "an open slot"
        states = " or ".join(sorted({slot.state for slot in closed}))
        return f"All {len(slots)} live slots of {lane.model} are {states}; see `modelrepo status`."
    facts["waits_for"] = f"version {lane.version}"
    served = sorted({slot.version for slot in slots if slot.version})
    return (
        f"It needs version {lane.version}, which no live slot serves or loads; served:"
        f" {', '.join(served) or 'none yet'}. Promote {lane.version}, or submit the job again without a version."
    )


def _version_words(lane: Lane) -> str:
    return "any version" if lane.version is None else f"version {lane.version} only"
