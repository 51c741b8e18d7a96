"""`modelrepo top`."""

from __future__ import annotations

import shutil
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from modelrepo_cli import convergence, fleet_text, parameters
from modelrepo_cli.output import span, table, write
from modelrepo_cli.verbs import Call, verb

if TYPE_CHECKING:
    from modelrepo_runtime.jobs import Job
    from modelrepo_runtime.queue.port import JobQueue, WorkerReport
    from modelrepo_runtime.queue.reports import LaneReport, QueueReport

MOST_LANES, MOST_JOBS = 15, 15
HOME_AND_CLEAR = "\x1b[H\x1b[J"


@verb("queue", "token")
@click.argument("model", required=False)
@click.option(
    "--every", "every_s", type=parameters.DURATION, metavar="TIME", default="2s", show_default=True, help="How often."
)
def command(call: Call, model: str | None, every_s: float) -> None:
    """Watch lanes, slots and jobs.

    Drawn anew until interrupted on a terminal; elsewhere, and with --json, shown once.
    """
    watched = sys.stdout.isatty() and not call.output.as_json
    with call.job_queue() as queue:
        found = _look(queue, model)
        while True:
            report, workers, running = found
            text = page(report, workers, running)
            if not watched:
                document: dict[str, Any] = {
                    "queue": report,
                    "workers": workers,
                    "running": [each.to_json() for each in running],
                }
                call.output.show(document, text)
                return
            height = shutil.get_terminal_size().lines - 1
            write(HOME_AND_CLEAR + "\n".join(text.splitlines()[:height]))
            try:
                time.sleep(every_s)
                found = call.watching(partial(_look, queue, model))
            except KeyboardInterrupt:
                return


def _look(queue: JobQueue, model: str | None) -> tuple[QueueReport, tuple[WorkerReport, ...], tuple[Job, ...]]:
    from modelrepo_runtime.jobs import Status
    from modelrepo_runtime.queue.port import JobFilter

    workers = fleet_text.only(convergence.present(queue.fleet()), model)
    running = queue.list(JobFilter(Status.RUNNING, model, limit=MOST_JOBS))
    return queue.queue_report(model), workers, running


def page(report: QueueReport, workers: tuple[WorkerReport, ...], running: tuple[Job, ...]) -> str:
    """Return everything as text: one line that sums up, then the most urgent lanes, the slots, the newest jobs."""
    waiting = sum(lane.waiting for lane in report.lanes)
    about = "about " if any(lane.more_than is not None for lane in report.lanes) else ""
    slots = [slot for worker in workers if convergence.is_live(worker) for slot in worker.slots]
    busy = sum(slot.job_id is not None for slot in slots)
    where = f"in {len(report.lanes)} lanes, policy {report.policy}"
    head = f"{about}{waiting:,} waiting {where}; {busy} of {len(slots)} slots run"
    lanes = table(
        ("MODEL", "STAGE", "TIER", "VERSION", "WAITING", "OLDEST", "SLO USED", "EXPECTED WAIT", ""),
        [_lane(lane) for lane in report.lanes[:MOST_LANES]],
    )
    jobs = table(
        ("JOB", "MODEL", "TIER", "TENANT", "STAGE", "PROGRESS", "FOR"),
        [_job(each, report.at) for each in running],
    )
    parts = [head, lanes if report.lanes else "", fleet_text.slots(workers), jobs if running else ""]
    return "\n\n".join(part for part in parts if part)


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
