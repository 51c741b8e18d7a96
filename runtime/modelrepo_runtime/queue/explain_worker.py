"""Say what a worker's slots could take now, and why not the rest."""

from __future__ import annotations

from collections.abc import Sequence

from modelrepo_runtime.jobs import Json
from modelrepo_runtime.queue.explain import lane_facts, lane_words
from modelrepo_runtime.queue.forecast import LaneLoad
from modelrepo_runtime.queue.hindrance import Rules, SlotStanding, hindrance, serves
from modelrepo_runtime.queue.reports import WorkerExplanation

LANES_NAMED = 10


def explain_worker(worker: str, lanes: Sequence[LaneLoad], rules: Rules, now: float) -> WorkerExplanation:
    """Return lines for people and facts for programs; `lanes` with the most urgent first."""
    lines: list[str] = []
    facts: list[Json] = []
    for slot in (each for each in rules.slots if each.place.worker == worker):
        said, known = _explain_slot(slot, lanes, rules, now)
        lines += said
        facts.append(known)
    return WorkerExplanation(worker, tuple(lines), {"slots": facts})


def _explain_slot(
    slot: SlotStanding, lanes: Sequence[LaneLoad], rules: Rules, now: float
) -> tuple[list[str], dict[str, Json]]:
    report = slot.report
    does = f"runs {slot.job_id}" if slot.job_id else "is idle"
    versions = ", ".join(serves(report)) or "no version yet"
    what = f"serves {report.model} ({versions})" if report.model else "serves nothing"
    lines = [f"{slot.place.key} is {report.state}, {what}, {' and '.join(report.on)} stages, and {does}."]
    if report.reason and report.state != "open":
        then = f" Next: {report.next_action}." if report.next_action else ""
        lines.append(f"  {report.reason.rstrip('.')}.{then}")
    own = [lane for lane in lanes if lane.model == report.model]
    judged = [(lane, hindrance(lane, slot, rules)) for lane in own if lane.depth]
    able = [lane for lane, found in judged if found is None]
    refused = [(lane, found) for lane, found in judged if found is not None]
    if able:
        lines.append(f"  It could take {sum(lane.depth for lane in able)} jobs, first of all:")
        lines += [f"    {_counted(lane, now)}" for lane in able[:LANES_NAMED]]
    elif not own:
        lines.append("  No job of its model waits.")
    else:
        lines.append("  It could take none of the jobs that wait.")
    for lane, found in refused[:LANES_NAMED]:
        lines.append(f"  Not {_counted(lane, now)}: {found.for_a_slot.rstrip('.')}.")
    delayed = sum(lane.delayed for lane in own)
    if delayed:
        lines.append(f"  {delayed} jobs of its model are delayed after a try that failed.")
    return lines, {
        "slot": slot.place.slot,
        "state": report.state,
        "model": report.model,
        "versions": list(serves(report)),
        "on": list(report.on),
        "cluster": slot.cluster,
        "job": slot.job_id,
        "reason": report.reason,
        "may_take": [{**lane_facts(lane), "waiting": lane.depth} for lane in able],
        "may_not_take": [
            {**lane_facts(lane), "waiting": lane.depth, "hindrance": found.kind.name.lower(), "why": found.for_a_slot}
            for lane, found in refused
        ],
    }


def _counted(lane: LaneLoad, now: float) -> str:
    return f"{lane.depth} of {lane_words(lane)}, the oldest {now - lane.oldest:.0f} s old"
