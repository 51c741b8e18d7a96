"""Why a slot does not take the jobs of a lane now: one answer for both who ask, a job and a worker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from modelrepo_runtime.job_memory import MemoryRoom
from modelrepo_runtime.queue.credits import takes_credits
from modelrepo_runtime.queue.forecast import LaneLoad
from modelrepo_runtime.queue.lanes import Place
from modelrepo_runtime.queue.port import SlotReport
from modelrepo_runtime.queue.reports import CreditReport, FailingVersion


class Kind(IntEnum):
    """What stands in the way; the greater, the nearer is the slot to taking the job."""

    STATE = 1
    STAGE = 2
    CLUSTER = 3
    VERSION = 4
    MEMORY = 5
    CONSTRAINT = 6
    PAUSED = 7
    BREAKER = 8
    CREDIT = 9


@dataclass(frozen=True, slots=True)
class Hindrance:
    """One reason, told in three ways."""

    kind: Kind
    waits_for: str
    """What a job waits for, where this is all that it waits for."""
    for_a_job: str
    for_a_slot: str


@dataclass(frozen=True, slots=True)
class SlotStanding:
    """A live slot and what it does."""

    place: Place
    cluster: str
    report: SlotReport
    job_id: str | None = None


@dataclass(frozen=True, slots=True)
class Rules:
    """What decides beside lane and slot."""

    slots: Sequence[SlotStanding]
    failing: Sequence[FailingVersion] = ()
    credits: Sequence[CreditReport] = ()


def serves(report: SlotReport) -> tuple[str, ...]:
    """Name the versions that a slot serves or loads."""
    incoming = report.incoming.get("version") if report.incoming else None
    return tuple(dict.fromkeys(str(each) for each in (report.version, *report.also, incoming) if each))


def room_of(report: SlotReport) -> MemoryRoom:
    """Return the memory that a slot says it has."""
    return MemoryRoom(report.accelerator_bytes, report.host_bytes)


def hindrance(lane: LaneLoad, slot: SlotStanding, rules: Rules) -> Hindrance | None:
    """Return why a slot of the lane's model does not take its jobs; None where it may."""
    return _of_the_slot(lane, slot) or _of_the_constraint(lane, slot, rules) or _of_the_rules(lane, slot, rules)


def _of_the_slot(lane: LaneLoad, slot: SlotStanding) -> Hindrance | None:
    report = slot.report
    if report.state != "open":
        why = f": {report.reason}" if report.reason else ""
        words = f"it is {report.state}{why}"
        return Hindrance(Kind.STATE, "an open slot", f"{slot.place.key} is {report.state}{why}.", words)
    if lane.on not in report.on:
        return Hindrance(
            Kind.STAGE,
            f"a slot that runs {lane.on} stages",
            f"No live slot of {lane.model} runs {lane.on} stages, as {lane.stage} is: start a worker that does.",
            f"it runs {' and '.join(report.on)} stages only",
        )
    if lane.cluster not in (None, slot.cluster):
        return Hindrance(
            Kind.CLUSTER,
            f"a slot of cluster {lane.cluster}",
            f"What its last stage made lies in cluster {lane.cluster}, where no live slot may take it.",
            f"what the last stage made lies in cluster {lane.cluster}",
        )
    if lane.version is not None and lane.version not in serves(report):
        served = ", ".join(serves(report)) or "nothing yet"
        return Hindrance(
            Kind.VERSION,
            f"version {lane.version}",
            f"It needs version {lane.version}.",
            f"it needs version {lane.version}, and {served} is served here",
        )
    if lane.memory is not None and not lane.memory.met_by(room_of(report)):
        return Hindrance(
            Kind.MEMORY,
            f"a slot with {lane.memory}",
            f"It needs {lane.memory}, and no live slot of {lane.model} has that: start a worker with a larger one.",
            f"they need {lane.memory}, and it has {room_of(report)}",
        )
    return None


def _of_the_constraint(lane: LaneLoad, slot: SlotStanding, rules: Rules) -> Hindrance | None:
    if not slot.place.avoided_by(lane.avoid):
        return None
    others = [other for other in rules.slots if other.report.model == lane.model and other is not slot]
    if not any(_of_the_slot(lane, other) is None and not other.place.avoided_by(lane.avoid) for other in others):
        return None
    words = "these jobs failed here before, and another live slot may take them"
    return Hindrance(Kind.CONSTRAINT, "a slot where it has not failed", "It waits for another slot.", words)


def _of_the_rules(lane: LaneLoad, slot: SlotStanding, rules: Rules) -> Hindrance | None:
    if lane.paused:
        what = f"model {lane.model}, tier {lane.tier}"
        told = f"Jobs of {what} are paused: `modelrepo queue` shows the pause, and what ends it."
        return Hindrance(Kind.PAUSED, "the end of a pause", told, "they are paused")
    version = lane.version or slot.report.version
    failing = next((each for each in rules.failing if (each.model, each.version) == (lane.model, version)), None)
    if failing is not None and slot.cluster in failing.probing:
        counts = f"{failing.failed} of {failing.attempts} attempts on {failing.workers} slots failed"
        told = (
            f"Version {failing.version} is failing ({counts}): every cluster tries it with one job at a time, and does."
            " Roll back, or wait for a try that succeeds."
        )
        return Hindrance(Kind.BREAKER, f"version {failing.version}, which is failing, to work again", told, told)
    return _of_the_credits(lane, slot, version, rules)


def _of_the_credits(lane: LaneLoad, slot: SlotStanding, version: str | None, rules: Rules) -> Hindrance | None:
    feeds = takes_credits(lane.plan) and lane.cluster is None and lane.stage == lane.plan[0].name
    if not feeds or "gpu" in slot.report.on:
        return None
    key = (slot.cluster, lane.model, version)
    known = next((each for each in rules.credits if (each.cluster, each.model, each.version) == key), None)
    if known is None or known.limit is None or known.in_flight < known.limit:
        return None
    told = (
        f"Cluster {slot.cluster} has {known.in_flight} of at most {known.limit} jobs of {lane.model}@{version} prepared"
        " ahead of its accelerators: the next is begun as one of them starts."
    )
    return Hindrance(Kind.CREDIT, "a dispatch credit", told, told)
