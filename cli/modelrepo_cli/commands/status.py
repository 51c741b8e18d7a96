"""`modelrepo status`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from modelrepo_cli import fleet_text
from modelrepo_cli.convergence import is_live
from modelrepo_cli.output import plain
from modelrepo_cli.verbs import Call, verb

if TYPE_CHECKING:
    from modelrepo.promotion import ActiveState


@verb("repo", "queue")
@click.argument("model", required=False)
def command(call: Call, model: str | None) -> None:
    """Show what every worker serves, and why.

    Below the slots: what is active in the repository, where there is one, and what is odd about it.
    """
    with call.job_queue() as queue:
        workers = queue.fleet()
    states = _states(call, model)
    workers = fleet_text.only(workers, model)
    text = "\n\n".join(part for part in (fleet_text.slots(workers), fleet_text.models(states)) if part)
    document = [{"live": is_live(worker), **plain(worker)} for worker in workers]
    call.output.show({"workers": document, "models": states}, text)


def _states(call: Call, model: str | None) -> list[ActiveState]:
    from modelrepo.errors import InvalidInput

    try:
        repository = call.repository()
    except InvalidInput:
        return []  # a queue alone is enough to see the slots
    return [repository.promotions.state(name) for name in ([model] if model else repository.models())]
