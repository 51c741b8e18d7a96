"""`modelrepo explain`."""

from __future__ import annotations

import click

from modelrepo_cli.verbs import Call, verb


@verb("queue")
@click.argument("job")
def command(call: Call, job: str) -> None:
    """Say why a job is where it is."""
    with call.job_queue() as queue:
        explanation = queue.explain(job)
    call.output.show(explanation, "\n".join(explanation.lines))
