"""Say in words where a job is and what it waits for, and what a worker's slots could take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from modelrepo_runtime.job_memory import MemoryNeed, MemoryRoom
from modelrepo_runtime.jobs import Job, Json, Status, timestamp
from modelrepo_runtime.queue.forecast import LaneLoad
from modelrepo_runtime.queue.hindrance import Hindrance, Rules, SlotStanding, hindrance, room_of, serves
from modelrepo_runtime.queue.port import Explanation, HistoryRow

COUNTED_TO = 1000
"""Jobs of one lane that a position need count; from there on it may be more."""
SLOTS_NAMED = 5


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What an explanation rests on, read at one moment."""

    now: float
    slo_s: float
    lane: LaneLoad | None
    """Where it waits, `depth` unread; None unless queued."""
    rank: tuple[int, int] | None
    """Which of how many lanes of its model and kind its lane is; None: not known."""
    due: float | None
    """When its delay ends, if it is delayed."""
    holder: str | None
    """`<worker>/<slot>` that runs it."""
    rules: Rules
    history: Sequence[HistoryRow]
    restarts: int
    restarts_allowed: int


def explain(job: Job, around: Surroundings) -> Explanation:
    """Return lines for people and facts for programs."""
    lines = [_headline(job)]
    facts: dict[str, Json] = {"model": job.model, "tier": job.tier, "stage": job.stage, "slo_s": around.slo_s}
    if job.eta is not None:
        facts["eta"] = job.eta.to_json()
    if job.status is Status.QUEUED and around.lane is not None:
        lines += _waiting(job, around.lane, around, facts)
    elif job.status is Status.QUEUED and around.holder is not None:
        facts.update(staged_on=around.holder, waits_for="the job that its slot still runs")
        told = f"Its inputs are fetched on {around.holder}, which begins it when the job that it still runs has ended"
        lines.append(f"{told}; a slot that is free before that takes it.")
    elif job.status is Status.RUNNING:
        lines += _running(job, around, facts)
    elif job.error is not None:
        lines.append(f"It ended with {job.error.code}: {job.error.message}.")
    tries = [row for row in around.history if row.event == "attempt" and row.cause != "succeeded"]
    facts["failed_attempts"] = [
        {"cause": row.cause, "slot": row.slot, "version": row.version, "counted": row.counted} for row in tries
    ]
    for row in tries[-3:]:
        kept = "" if row.counted else ", not counted"
        lines.append(f"An attempt on {row.slot} as version {row.version} ended by {row.cause}{kept}.")
    return Explanation(job.id, job.status, tuple(lines), facts)


def _headline(job: Job) -> str:
    since = timestamp(job.finished_at if job.status.ended else job.enqueued)
    word = "since" if job.status.ended else "entered"
    return f"{job.id} is {job.status.value}: model {job.model}, tier {job.tier}, {word} {since}."


def _running(job: Job, around: Surroundings, facts: dict[str, Json]) -> list[str]:
    facts["slot"] = around.holder
    lines = [f"Runs stage {job.stage} as version {job.version} on {around.holder}, try {job.attempt}."]
    if job.progress is not None:
        lines.append(f"Progress {job.progress:.0%}" + (f": {job.message}." if job.message else "."))
    if job.cancel_requested:
        lines.append("Its cancellation was asked for; it ends when its worker has stopped it.")
    elif job.eta is not None and job.eta.finish_at is not None:
        lines.append(f"It is expected to end at {timestamp(job.eta.finish_at)}.")
    return lines


def _waiting(job: Job, lane: LaneLoad, around: Surroundings, facts: dict[str, Json]) -> list[str]:
    share = (around.now - job.enqueued) / around.slo_s
    facts.update(
        lane=lane_facts(lane),
        rank=None if around.rank is None else {"lane": around.rank[0], "of": around.rank[1]},
        slo_share=round(share, 4),
        position=job.position,
        delayed_until=timestamp(around.due),
    )
    lines = [
        f"It waits in the lane of {lane_words(lane)},"
        f" and has used {share:.0%} of the {around.slo_s:g} s that its tier may wait."
    ]
    if around.rank is not None and around.rank[1] > 1:
        lines.append(f"Its lane is number {around.rank[0]} of {around.rank[1]} by how urgent their oldest jobs are.")
    if around.due is not None:
        lines.append(f"It is delayed until {timestamp(around.due)}, after an attempt that failed.")
    elif job.position is not None:
        count = f"At least {job.position}" if job.position >= COUNTED_TO else str(job.position)
        jobs = "1 job" if job.position == 1 else f"{count} jobs"
        lines.append(f"{jobs} of its model would be taken before it.")
    lines += _expected(job, around.now)
    if lane.over:
        lines.append(f"Tenant {job.tenant} is far ahead of its share: its jobs get spare capacity and one pick in ten.")
    if lane.memory is not None:
        lines.append(_what_it_needs(lane, lane.memory, around.rules, facts))
    lines.append(_who_may_take_it(lane, around.rules, facts))
    if around.due is not None and "waits_for" not in facts:
        facts["waits_for"] = "the end of its delay"
    if lane.over and "waits_for" not in facts:
        facts["waits_for"] = f"spare capacity, as tenant {job.tenant} is ahead of its share"
    if lane.avoid:
        lines.append(f"It keeps away from {', '.join(sorted(lane.avoid))} while another live slot may take it.")
    if around.restarts:
        lines.append(
            f"It began again {around.restarts} of at most {around.restarts_allowed} times, as its version was served"
            " nowhere."
        )
    return lines


def _expected(job: Job, now: float) -> list[str]:
    if job.eta is None or job.eta.start_at is None:
        return []
    end = f", its end at {timestamp(job.eta.finish_at)}" if job.eta.finish_at is not None else ""
    return [f"Its start is expected in {max(0.0, job.eta.start_at - now):.0f} s{end}."]


def _what_it_needs(lane: LaneLoad, need: MemoryNeed, rules: Rules, facts: dict[str, Json]) -> str:
    """Name the need, what the slots have that do not meet it, and how many meet it, whatever they do now."""
    slots = [slot for slot in rules.slots if slot.report.model == lane.model and lane.on in slot.report.on]
    small = [slot for slot in slots if not need.met_by(room_of(slot.report))]
    large = len(slots) - len(small)
    facts["slots_too_small"] = [slot.place.key for slot in small]
    has = " or ".join(dict.fromkeys(_what_it_has(slot, need) for slot in small))
    too_small = f"; {_slots(len(small))} too small, with {has}" if small else ""
    waits = f"it waits for one of {_slots(large)} that have it" if large != 1 else "it waits for the 1 slot that has it"
    return f"It needs {need}, by what jobs of its size class took{too_small}: {waits}."


def _slots(count: int) -> str:
    return "1 slot" if count == 1 else f"{count} slots"


def _what_it_has(slot: SlotStanding, need: MemoryNeed) -> str:
    """Tell what a slot has of the kinds that are needed."""
    room = room_of(slot.report)
    of_kind = MemoryRoom(
        room.accelerator_bytes if need.accelerator_bytes else None, room.host_bytes if need.host_bytes else None
    )
    return str(of_kind)


def _who_may_take_it(lane: LaneLoad, rules: Rules, facts: dict[str, Json]) -> str:
    slots = [slot for slot in rules.slots if slot.report.model == lane.model]
    hindered = [(slot, hindrance(lane, slot, rules)) for slot in slots]
    able = [slot.place.key for slot, found in hindered if found is None]
    facts["slots"] = able
    if able:
        count = "1 live slot" if len(able) == 1 else f"{len(able)} live slots"
        return f"{count} may take it: {', '.join(able[:SLOTS_NAMED])}."
    if not slots:
        facts["waits_for"] = "a live worker that serves the model"
        return f"No live worker serves {lane.model}: start one with `modelrepo worker`."
    nearest = max((found for _, found in hindered if found is not None), key=lambda found: found.kind)
    facts.update(waits_for=nearest.waits_for, hindrance=nearest.kind.name.lower())
    return _words_for_all(lane, nearest, slots)


def _words_for_all(lane: LaneLoad, nearest: Hindrance, slots: Sequence[SlotStanding]) -> str:
    if nearest.kind is nearest.kind.STATE:
        states = " or ".join(sorted({slot.report.state for slot in slots}))
        who = "The only live slot" if len(slots) == 1 else f"All {len(slots)} live slots"
        return f"{who} of {lane.model} {'is' if len(slots) == 1 else 'are'} {states}; see `modelrepo status`."
    if nearest.kind is nearest.kind.VERSION:
        served = sorted({version for slot in slots for version in serves(slot.report)})
        return (
            f"It needs version {lane.version}, which no live slot serves or loads; served:"
            f" {', '.join(served) or 'none yet'}. Promote {lane.version}, or submit the job again without a version."
        )
    return nearest.for_a_job


def lane_words(lane: LaneLoad) -> str:
    """Name a lane as people read it."""
    version = "any version" if lane.version is None else f"version {lane.version} only"
    cluster = f", cluster {lane.cluster} only" if lane.cluster is not None else ""
    needs = f", slots with {lane.memory} only" if lane.memory is not None else ""
    return f"stage {lane.stage}, tier {lane.tier}, {version}{cluster}{needs}"


def lane_facts(lane: LaneLoad) -> dict[str, Json]:
    """Name a lane as programs read it."""
    return {
        "stage": lane.stage,
        "on": lane.on,
        "tier": lane.tier,
        "version": lane.version,
        "cluster": lane.cluster,
        "over": lane.over,
        "avoid": sorted(lane.avoid),
        "needs": asdict(lane.memory) if lane.memory is not None else None,
    }
