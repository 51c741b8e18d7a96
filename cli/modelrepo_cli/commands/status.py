"""`modelrepo status`."""

from __future__ import annotations

import time

import click

from modelrepo.errors import InvalidInput, Unreachable
from modelrepo_cli import convergence, fleet_facts, fleet_orders, fleet_text
from modelrepo_cli.commands import events
from modelrepo_cli.standing import Standing, standing
from modelrepo_cli.verbs import Call, verb

RECENT_S = 3600.0
MOST_TROUBLES = 8
TROUBLES = frozenset(
    {
        "session_lost", "slot_cordoned", "slot_refused", "breaker_tripped", "paused", "credits_corrected",
        "order_refused", "webhook_given_up",
    }
)  # fmt: skip


@verb("repo", "queue", "token")
@click.argument("model", required=False)
def command(call: Call, model: str | None) -> None:
    """Show what every worker serves, and why.

    Below the slots: what is active in the repository, where there is one, and what is odd about it; the orders that
    stand; and what went wrong in the last hour.
    """
    with call.job_queue() as queue:
        workers = fleet_facts.only(convergence.present(queue.fleet()), fleet_facts.Which(model))
        jobs = fleet_facts.running(queue, workers)
        orders = fleet_orders.standing(queue.orders()) if model is None else ()
        troubles = [event for event in queue.fleet_events(since_s=RECENT_S, model=model) if event.kind in TROUBLES]
    slots = fleet_text.slots(workers, jobs)
    try:
        models = _models(call, model)
    except Unreachable:
        call.output.note(slots)  # what workers say of themselves counts all the more when the store is away
        raise
    recent = "\n".join(events.line(event) for event in troubles[-MOST_TROUBLES:])
    shown = (slots, fleet_text.models(models), fleet_orders.listing(orders, time.time()), recent)
    call.output.show(
        {"workers": fleet_facts.document(workers, jobs), "models": models, "orders": orders, "events": troubles},
        "\n\n".join(part for part in shown if part),
    )


def _models(call: Call, model: str | None) -> list[Standing]:
    try:
        repository = call.repository()
    except InvalidInput:
        return []  # none is named: a queue alone is enough to see the slots
    return [standing(repository, name) for name in ([model] if model else repository.models())]
