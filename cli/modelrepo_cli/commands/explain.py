"""`modelrepo explain`."""

from __future__ import annotations

import click

from modelrepo.errors import InvalidInput
from modelrepo_cli.verbs import Call, verb


@verb("queue", "token")
@click.argument("job", required=False)
@click.option("--worker", metavar="NAME", help="What this worker's slots could take now, and why not the rest.")
def command(call: Call, job: str | None, worker: str | None) -> None:
    """Say why a job is where it is, or what a worker could take."""
    if (job is None) == (worker is None):
        raise InvalidInput("cannot tell what to explain: name a job, or a worker with --worker; not both")
    with call.job_queue() as queue:
        found = queue.explain(job) if job is not None else queue.explain_worker(worker or "")
    call.output.show(found, "\n".join(found.lines))
