"""`modelrepo events`."""

from __future__ import annotations

import time
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

import click

from modelrepo_cli import parameters
from modelrepo_cli.verbs import Call, verb

if TYPE_CHECKING:
    from modelrepo_runtime.queue.fleet_events import FleetEvent

POLL_S = 1.0


@verb("queue", "token")
@click.option(
    "--since",
    "since_s",
    type=parameters.DURATION,
    metavar="TIME",
    default="1h",
    show_default=True,
    help="How far back.",
)
@click.option("--model", metavar="NAME", help="Only of this model.")
@click.option("--kind", metavar="KIND", help="Only of this kind, such as slot_cordoned.")
@click.option(
    "--limit", type=click.IntRange(1), metavar="N", default=1000, show_default=True, help="The newest so many."
)
@click.option("--follow", is_flag=True, help="Go on with what happens, until interrupted.")
def command(call: Call, since_s: float, model: str | None, kind: str | None, limit: int, follow: bool) -> None:
    """Tell what happened to the fleet: workers, slots, breakers, promotions, policies, orders.

    A line an event, with --json a JSON document a line.
    """
    with call.job_queue() as queue:
        events = queue.fleet_events(since_s=since_s, model=model, kind=kind, limit=limit)
        last = 0
        while True:
            for event in events:
                last = event.id
                call.output.line(event, line(event))
            if not follow:
                break
            time.sleep(POLL_S)
            since = since_s if last == 0 else None
            events = call.watching(partial(queue.fleet_events, after=last, since_s=since, model=model, kind=kind))
    if last == 0:
        call.output.note("nothing happened")


def line(event: FleetEvent) -> str:
    """Write an event for people."""
    at = datetime.fromtimestamp(event.at).astimezone()
    where = [
        place for place in (event.model and f"{event.model}{f'@{event.version}' if event.version else ''}",) if place
    ]
    return " ".join([f"{at:%Y-%m-%d %H:%M:%S}", event.kind, *where, "·", event.text])
