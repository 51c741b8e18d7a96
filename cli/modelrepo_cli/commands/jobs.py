"""`modelrepo jobs`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import click

from modelrepo_cli import job_filter, job_text
from modelrepo_cli.job_filter import Chosen
from modelrepo_cli.progress import counting
from modelrepo_cli.verbs import Call, VerbGroup, verb

DRY_RUN = click.option("--dry-run", is_flag=True, help="Say which, and change nothing.")
DELETABLE = ("queued", *job_filter.ENDED)


@click.group(cls=VerbGroup)
def command() -> None:
    """List, show, cancel, retry and delete jobs."""


@verb("repo", "queue", "files", "token", name="list")
@click.option("--model", metavar="NAME", help="Only of this model.")
@click.option("--status", type=click.Choice(job_filter.STATUSES), help="Only in this state.")
@click.option("--tier", metavar="NAME", help="Only of this tier.")
@click.option("--tenant", metavar="NAME", help="Only of this tenant.")
@job_filter.filter_options(100)
def list_jobs(
    call: Call,
    model: str | None,
    status: str | None,
    tier: str | None,
    tenant: str | None,
    conditions: tuple[str, ...],
    older_than: float | None,
    limit: int,
) -> None:
    """List jobs, newest first."""
    which = job_filter.meant(conditions, older_than, limit, model=model, status=status, tier=tier, tenant=tenant)
    with call.client() as client:
        jobs = [*client.list(status=which.status, limit=limit, **which.facts())]
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
@job_filter.jobs_to("cancel")
@DRY_RUN
def cancel(call: Call, chosen: Chosen, dry_run: bool) -> None:
    """End jobs, by id or by what they have in common; one that runs is told, and ended within 30 seconds."""
    jobs, which = chosen.jobs, chosen.which
    with call.client() as client, counting("cancelled", as_json=call.output.as_json) as count:
        found = [client.get(job) for job in jobs] if jobs else which.among(client, job_filter.WAITING, "cancel")
        matching = [job["id"] for job in found]
        cancelled = [] if dry_run else [client.cancel(job) for job in count(matching)]
    lines = [f"{job} would be cancelled" for job in matching] if dry_run else [_cancelled(job) for job in cancelled]
    document = {"jobs": cancelled, "matching": matching, "dry_run": dry_run}
    call.output.show(document, "\n".join(lines) or "no job that waits or runs matches")


@verb("queue", "token", name="retry")
@job_filter.jobs_to("retry")
@click.option("--force", is_flag=True, help="Also those that may have ended the workers they ran on.")
@DRY_RUN
def retry(call: Call, chosen: Chosen, force: bool, dry_run: bool) -> None:
    """Send failed jobs back to the queue, by id or by what they have in common."""
    from modelrepo_runtime.jobs import Status
    from modelrepo_runtime.queue.port import JobFilter

    jobs, which = chosen.jobs, chosen.which
    status = Status(which.status) if which.status is not None else Status.FAILED
    where = JobFilter(status, which.model, which.tier, which.tenant, which.older_than_s, which.limit)
    with call.job_queue() as queue:
        sent = queue.retry(jobs or where, force=force, dry_run=dry_run)
    done = "would go back" if dry_run else "back in the queue"
    text = "\n".join(f"{job} {done}" for job in sent) or "no failed job matches"
    call.output.show({"retried": [] if dry_run else sent, "matching": sent, "dry_run": dry_run}, text)


@verb("repo", "queue", "files", "token", name="delete")
@job_filter.jobs_to("delete")
@DRY_RUN
def delete(call: Call, chosen: Chosen, dry_run: bool) -> None:
    """Forget jobs with their inputs and files, at once; those that run are left, and must be cancelled first."""
    jobs, which = chosen.jobs, chosen.which
    with call.client() as client, counting("deleted", as_json=call.output.as_json) as count:
        found = (
            [client.get(job) for job in jobs]
            if jobs
            else which.among(client, DELETABLE if which.status else job_filter.ENDED, "delete")
        )
        matching = [job["id"] for job in found]
        for job in count([] if dry_run else matching):
            client.delete(job)
    text = "\n".join(f"{job} {'would be' if dry_run else 'is'} deleted" for job in matching) or "no job matches"
    call.output.show({"deleted": [] if dry_run else matching, "matching": matching, "dry_run": dry_run}, text)


def _cancelled(job: Mapping[str, Any]) -> str:
    if job["status"] == "running":
        return f"{job['id']} is being stopped"
    ended = "is cancelled" if job["status"] == "cancelled" else f"had ended: {job['status']}"
    return f"{job['id']} {ended}"


for _verb in (list_jobs, show, logs, cancel, retry, delete):
    command.add_command(_verb)
