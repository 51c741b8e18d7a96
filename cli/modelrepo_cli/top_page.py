"""The page of `modelrepo top`: one look at queue and fleet, as text and as a document."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from modelrepo_cli import convergence, fleet_facts, fleet_text, queue_text, slot_text
from modelrepo_cli.fleet_facts import Attention, Which
from modelrepo_cli.output import plain, span, table

if TYPE_CHECKING:
    from modelrepo_runtime.jobs import Job
    from modelrepo_runtime.queue.port import JobQueue, WorkerReport
    from modelrepo_runtime.queue.reports import LaneReport, QueueReport

MOST_LANES, MOST_JOBS = 15, 15


@dataclass(frozen=True, slots=True)
class View:
    """What was seen at `at`, epoch seconds of this box."""

    at: float
    report: QueueReport
    workers: tuple[WorkerReport, ...]
    """What wants to be looked at first, first."""
    jobs: Mapping[str, Job]
    """Those that slots say they run."""
    running: tuple[Job, ...]
    """The newest."""


def look(queue: JobQueue, which: Which) -> View:
    """Look at queue and fleet once. Raises: Unreachable, and what the queue refuses."""
    from modelrepo_runtime.jobs import Status
    from modelrepo_runtime.queue.port import JobFilter

    workers = fleet_facts.only(convergence.present(queue.fleet()), which)
    ordered = tuple(fleet_facts.by_attention(workers))
    jobs = fleet_facts.running(queue, ordered)
    if which.worker is None and which.cluster is None:
        newest = queue.list(JobFilter(Status.RUNNING, which.model, limit=MOST_JOBS))
    else:
        newest = tuple(sorted(jobs.values(), key=lambda job: -(job.started_at or 0.0))[:MOST_JOBS])
    return View(time.time(), queue.queue_report(which.model), ordered, jobs, newest)


def document(view: View) -> dict[str, Any]:
    """Return a view for programs."""
    return {
        "queue": queue_text.document(view.report),
        "workers": fleet_facts.document(view.workers, view.jobs),
        "running": [plain(job) for job in view.running],
    }


def page(view: View) -> str:
    """Return a view as text: a line that sums up, the most urgent lanes, the slots, the newest jobs."""
    report = view.report
    waiting = sum(lane.waiting for lane in report.lanes)
    about = "about " if any(lane.more_than is not None for lane in report.lanes) else ""
    slots = [(worker, slot) for worker, slot in fleet_facts.slots_of(view.workers)]
    live = [(worker, slot) for worker, slot in slots if convergence.is_live(worker)]
    busy = sum(slot.job_id is not None for _, slot in live)
    wanting = sum(fleet_facts.attention(worker, slot) > Attention.SWAPS for worker, slot in slots)
    head = (
        f"{about}{waiting:,} waiting in {len(report.lanes)} lanes, policy {report.policy}; "
        f"{busy} of {len(live)} slots run" + (f", {wanting} not ready" if wanting else "")
    )
    lanes = table(
        ("MODEL", "STAGE", "TIER", "VERSION", "WAITING", "OLDEST", "SLO USED", "EXPECTED WAIT", ""),
        [_lane(lane) for lane in report.lanes[:MOST_LANES]],
    )
    jobs = table(
        ("JOB", "MODEL", "TIER", "TENANT", "STAGE", "PROGRESS", "FOR"),
        [_job(each, report.at) for each in view.running],
    )
    fleet = fleet_text.slots(view.workers, view.jobs, view.at)
    parts = [head, lanes if report.lanes else "", fleet, jobs if view.running else ""]
    return "\n\n".join(part for part in parts if part)


def live_page(view: View, away: str | None, since: float | None) -> str:
    """Return what a terminal shows: the view, below a line that says since when the queue has been away, if it is."""
    keys = "q leaves"
    head = f"{slot_text.clock(view.at)}  {keys}"
    if away is not None and since is not None:
        head = (
            f"QUEUE AWAY since {slot_text.clock(since)}: {away}\n"
            f"this is how it was at {slot_text.clock(view.at)}; asking again  {keys}"
        )
    return f"{head}\n{page(view)}"


def _waiting(lane: LaneReport) -> str:
    return f"{'' if lane.more_than is None else 'about '}{lane.waiting:,}"


def _lane(lane: LaneReport) -> tuple[object, ...]:
    return (
        lane.model,
        lane.stage,
        lane.tier + (" (over)" if lane.over else ""),
        lane.version or "any",
        _waiting(lane) + (f" +{lane.delayed:,} delayed" if lane.delayed else ""),
        "-" if lane.oldest_s is None else span(lane.oldest_s),
        "-" if lane.share is None else f"{lane.share:.0%}",
        "?" if lane.wait_s is None else span(lane.wait_s),
        "paused" if lane.paused else "",
    )


def _job(job: Job, now: float) -> tuple[object, ...]:
    progress = "" if job.progress is None else f"{job.progress:.0%} {job.message or ''}".rstrip()
    since = "" if job.started_at is None else span(max(0.0, now - job.started_at))
    return job.id, f"{job.model}@{job.version}", job.tier, job.tenant, job.stage, progress, since
