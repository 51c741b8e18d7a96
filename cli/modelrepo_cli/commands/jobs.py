"""`modelrepo jobs`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import click

from modelrepo.errors import InvalidInput
from modelrepo_cli import job_text, parameters
from modelrepo_cli.verbs import Call, VerbGroup, verb

STATUSES = ("queued", "running", "succeeded", "failed", "rejected", "cancelled", "expired")


@click.group(cls=VerbGroup)
def command() -> None:
    """List, show, cancel and retry jobs."""


@verb("repo", "queue", "files", "token", name="list")
@click.option("--model", metavar="NAME", help="Only of this model.")
@click.option("--status", type=click.Choice(STATUSES), help="Only in this state.")
@click.option("--tier", metavar="NAME", help="Only of this tier.")
@click.option("--tenant", metavar="NAME", help="Only of this tenant.")
@click.option("--older-than", type=parameters.DURATION, metavar="TIME", help="Only made at least that long ago.")
@click.option("--limit", type=click.IntRange(1), metavar="N", default=100, show_default=True, help="At most so many.")
def list_jobs(
    call: Call,
    model: str | None,
    status: str | None,
    tier: str | None,
    tenant: str | None,
    older_than: float | None,
    limit: int,
) -> None:
    """List jobs, newest first."""
    with call.client() as client:
        jobs = [
            *client.list(status=status, model=model, tier=tier, tenant=tenant, older_than_s=older_than, limit=limit)
        ]
    call.output.show({"jobs": jobs}, job_text.listing(jobs))


@verb("repo", "queue", "files", "token", name="show")
@click.argument("job")
def show(call: Call, job: str) -> None:
    """Show one job, its result and where its outputs lie."""
    with call.client() as client:
        found = client.get(job)
    call.output.show(found, job_text.detail(found))


@verb("repo", "queue", "files", "token", name="logs")
@click.argument("job")
def logs(call: Call, job: str) -> None:
    """Print what the last attempt at a job wrote."""
    with call.client() as client:
        text = client.log(job)
    if call.output.as_json:
        call.output.show({"id": job, "log": text}, "")
    elif text:
        call.output.show(None, text.rstrip("\n"))
    else:
        print(f"job {job} has no log: no attempt has ended yet, or none wrote anything", file=sys.stderr)


@verb("repo", "queue", "files", "token", name="cancel")
@click.argument("jobs", nargs=-1, required=True, metavar="JOB...")
def cancel(call: Call, jobs: tuple[str, ...]) -> None:
    """End jobs; one that runs is told, and ended within 30 seconds."""
    with call.client() as client:
        for job in jobs:
            client.get(job)
        cancelled = [client.cancel(job) for job in jobs]
    text = "\n".join(f"{job['id']} {_cancelled(job)}" for job in cancelled)
    call.output.show({"jobs": cancelled}, text)


@verb("queue", name="retry")
@click.argument("jobs", nargs=-1, metavar="[JOB]...")
@click.option("--where", "conditions", multiple=True, metavar="KEY=VALUE", help="model=, tier= or tenant=; repeat it.")
@click.option("--older-than", type=parameters.DURATION, metavar="TIME", help="Only made at least that long ago.")
@click.option("--limit", type=click.IntRange(1), metavar="N", default=1000, show_default=True, help="At most so many.")
@click.option("--force", is_flag=True, help="Also those that may have ended the workers they ran on.")
@click.option("--dry-run", is_flag=True, help="Say which, and change nothing.")
def retry(
    call: Call,
    jobs: tuple[str, ...],
    conditions: tuple[str, ...],
    older_than: float | None,
    limit: int,
    force: bool,
    dry_run: bool,
) -> None:
    """Send failed jobs back to the queue, by id or by what they have in common."""
    from modelrepo_runtime.jobs import Status
    from modelrepo_runtime.queue.port import JobFilter

    filtered = bool(conditions) or older_than is not None
    if bool(jobs) == filtered:
        raise InvalidInput("cannot tell which jobs to retry: name them, or say --where or --older-than; not both")
    where = _where(conditions)
    which = JobFilter(Status.FAILED, **where, older_than_s=older_than, limit=limit) if filtered else jobs
    with call.job_queue() as queue:
        sent = queue.retry(which, force=force, dry_run=dry_run)
    done = "would go back" if dry_run else "back in the queue"
    text = "\n".join(f"{job} {done}" for job in sent) or "no failed job matches"
    call.output.show({"retried": [] if dry_run else sent, "matching": sent, "dry_run": dry_run}, text)


def _where(conditions: tuple[str, ...]) -> dict[str, Any]:
    where = parameters.assignments(conditions, "--where")
    unknown = set(where) - {"model", "tier", "tenant"}
    if unknown:
        raise InvalidInput(f"cannot filter jobs by {sorted(unknown)[0]!r}: --where takes model=, tier= or tenant=")
    return where


def _cancelled(job: Mapping[str, Any]) -> str:
    if job["status"] == "running":
        return "is being stopped"
    return "is cancelled" if job["status"] == "cancelled" else f"had ended: {job['status']}"


for _verb in (list_jobs, show, logs, cancel, retry):
    command.add_command(_verb)
