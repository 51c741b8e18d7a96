"""`modelrepo status`."""

from __future__ import annotations

from typing import Any

import click

from modelrepo.errors import InvalidInput, Unreachable
from modelrepo_cli import convergence, fleet_text
from modelrepo_cli.convergence import is_live
from modelrepo_cli.output import plain
from modelrepo_cli.standing import Standing, standing
from modelrepo_cli.verbs import Call, verb


@verb("repo", "queue")
@click.argument("model", required=False)
def command(call: Call, model: str | None) -> None:
    """Show what every worker serves, and why.

    Below the slots: what is active in the repository, where there is one, and what is odd about it.
    """
    with call.job_queue() as queue:
        workers = fleet_text.only(convergence.present(queue.fleet()), model)
    slots = fleet_text.slots(workers)
    try:
        models = _models(call, model)
    except Unreachable:
        call.output.note(slots)  # what workers say of themselves counts all the more when the store is away
        raise
    document: list[dict[str, Any]] = [{"live": is_live(worker), **plain(worker)} for worker in workers]
    text = "\n\n".join(part for part in (slots, fleet_text.models(models)) if part)
    call.output.show({"workers": document, "models": models}, text)


def _models(call: Call, model: str | None) -> list[Standing]:
    try:
        repository = call.repository()
    except InvalidInput:
        return []  # none is named: a queue alone is enough to see the slots
    return [standing(repository, name) for name in ([model] if model else repository.models())]
