"""`modelrepo queue`."""

from __future__ import annotations

import click

from modelrepo.errors import InvalidInput
from modelrepo_cli.verbs import Call, VerbGroup, verb


@click.group(cls=VerbGroup)
def command() -> None:
    """Look after the queue."""


@verb("queue", name="migrate")
@click.option(
    "--post", is_flag=True, help="Also what only follows once no gateway or worker of the version before is left."
)
def migrate(call: Call, post: bool) -> None:
    """Bring a queue on PostgreSQL up to date, or make a new one.

    First this, then the gateways, then the workers, then --post: so nothing has to be stopped. A queue in a file brings
    itself up to date.
    """
    from modelrepo_runtime.queue.opening import default_queue_url

    url = default_queue_url(call.queue)
    if not url.startswith(("postgresql://", "postgres://")):
        raise InvalidInput(f"queue {url} is not on PostgreSQL; it is brought up to date by whoever opens it")
    from modelrepo_runtime.queue.postgres.migrating import migrate as run

    ran = run(url, post=post)
    call.output.show({"ran": ran}, "\n".join(f"ran {name}" for name in ran) or "up to date")


command.add_command(migrate)
