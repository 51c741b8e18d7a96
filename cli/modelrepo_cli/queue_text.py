"""The queue as people read it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from modelrepo_cli.output import counted, plain, span, table
from modelrepo_runtime.jobs import timestamp

if TYPE_CHECKING:
    from modelrepo_runtime.queue.reports import LaneReport, QueueReport


def report(shown: QueueReport) -> str:
    """Return a line a lane, and below it all that holds jobs back."""
    parts = [_lanes(shown), _notes(shown), _credits(shown)]
    return "\n\n".join(part for part in parts if part)


def document(shown: QueueReport) -> dict[str, Any]:
    """Return the report for programs, its moments as timestamps."""
    whole: dict[str, Any] = plain(shown)
    whole["at"] = timestamp(shown.at)
    for pause in whole["pauses"]:
        pause["at"] = timestamp(pause["at"])
    for version in whole["failing"]:
        version["since"] = timestamp(version["since"])
    return whole


def _lanes(shown: QueueReport) -> str:
    if not shown.lanes:
        return f"no job waits (policy {shown.policy})"
    waiting, delayed = (sum(map(_at_least, shown.lanes)), sum(lane.delayed for lane in shown.lanes))
    more = "more than " if any(lane.more_than is not None for lane in shown.lanes) else ""
    later = f", {delayed:,} delayed after a failed try" if delayed else ""
    headings = ("MODEL", "STAGE", "TIER", "FOR", "WAITING", "OLDEST", "OF SLO", "NEW ONES WAIT")
    rows = [_row(lane) for lane in shown.lanes]
    return f"{more}{counted(waiting, 'job')} waiting{later}; policy {shown.policy}\n" + table(headings, rows)


def _row(lane: LaneReport) -> tuple[object, ...]:
    oldest = "-" if lane.oldest_s is None else span(lane.oldest_s)
    share = "-" if lane.share is None else f"{lane.share:.0%}"
    wait = "paused" if lane.paused else "unknown" if lane.wait_s is None else f"about {span(round(lane.wait_s))}"
    number = waiting_of(lane) + (f" + {lane.delayed:,} delayed" if lane.delayed else "")
    return lane.model, f"{lane.stage} ({lane.on})", lane.tier, _whom(lane), number, oldest, share, wait


def waiting_of(lane: LaneReport) -> str:
    """Return how many jobs of a lane wait; of a long one how many were counted, and what is made of it."""
    if lane.more_than is None:
        return f"{lane.waiting:,}"
    return f"more than {lane.more_than:,}, about {lane.waiting:,}"


def _at_least(lane: LaneReport) -> int:
    return lane.waiting if lane.more_than is None else lane.more_than


def _whom(lane: LaneReport) -> str:
    parts = [
        lane.version or "any version",
        f"in {lane.cluster}" if lane.cluster else "",
        "tenants far ahead" if lane.over else "",
        f"not {', '.join(place.partition(':')[2] for place in lane.avoid)}" if lane.avoid else "",
        f"slots with {lane.needs}" if lane.needs is not None else "",
    ]
    return ", ".join(part for part in parts if part)


def _notes(shown: QueueReport) -> str:
    lines = [
        f"paused since {span(max(0.0, shown.at - pause.at))}: model {pause.model or 'any'}, tier {pause.tier or 'any'};"
        f" `{pause.ended_by}` ends it"
        for pause in shown.pauses
    ]
    for version in shown.failing:
        tried = f"tried in {', '.join(version.probing)} now" if version.probing else "no job tries it now"
        lines.append(
            f"failing since {span(max(0.0, shown.at - version.since))}: {version.model}@{version.version} at stage"
            f" {version.stage}, {version.failed} of {version.attempts} attempts on {version.workers} slots; {tried}"
        )
    return "\n".join(lines)


def _credits(shown: QueueReport) -> str:
    if not shown.credits:
        return ""
    rows = [
        (each.cluster, f"{each.model}@{each.version}", each.in_flight, "-" if each.limit is None else each.limit)
        for each in shown.credits
    ]
    return table(("CLUSTER", "PREPARED AHEAD FOR", "JOBS", "AT MOST"), rows)
