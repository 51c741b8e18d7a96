"""`modelrepo workers`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from modelrepo.errors import Conflict, InvalidInput, WorkerNotFound
from modelrepo_cli import convergence, fleet_facts, fleet_orders, fleet_text, parameters
from modelrepo_cli.verbs import Call, VerbGroup, verb

if TYPE_CHECKING:
    from modelrepo_runtime.queue.orders import GivenOrder, OrderDraft
    from modelrepo_runtime.queue.port import JobQueue

Command = TypeVar("Command", bound=Callable[..., Any])

DEFAULT_WAIT_S = 1800.0
LOGS_WAIT_S = 30.0
WAIT = click.option(
    "--wait",
    "wait_s",
    type=parameters.DURATION,
    metavar="TIME",
    help="Wait until it is done, exit 6 when the time is over [30m on a terminal, else 0s].",
)
REASON = click.option("--reason", metavar="TEXT", help="Why; shown beside the slots.")


def _whom(function: Command) -> Command:
    for option in (
        click.option("--model", metavar="NAME", help="Every slot that serves this model."),
        click.option("--all", "all_of_them", is_flag=True, help="Every live worker."),
        click.argument("places", nargs=-1, metavar="[WORKER[/SLOT]]..."),
    ):
        function = option(function)
    return function


@click.group(cls=VerbGroup)
def command() -> None:
    """Rule workers: look at them, drain, cordon, restart and assign their slots."""


@verb("queue", "token", name="list")
def list_workers(call: Call) -> None:
    """List workers, and the orders that stand."""
    with call.job_queue() as queue:
        workers, orders = convergence.present(queue.fleet()), fleet_orders.standing(queue.orders())
    text = "\n\n".join(
        part for part in (fleet_text.workers(workers), fleet_orders.listing(orders, time.time())) if part
    )
    call.output.show({"workers": _described(workers), "orders": orders}, text)


@verb("queue", "token", name="show")
@click.argument("worker")
def show(call: Call, worker: str) -> None:
    """Show one worker's slots, and its orders of the last day."""
    name = fleet_orders.Place.parse(worker).worker
    with call.job_queue() as queue:
        workers = [each for each in convergence.present(queue.fleet()) if each.info.name == name]
        orders = queue.orders(name)
    if not workers:
        raise WorkerNotFound(f"no worker {name} is known to this queue; `modelrepo workers` lists them")
    text = "\n\n".join(part for part in (fleet_text.slots(workers), fleet_orders.listing(orders, time.time())) if part)
    call.output.show({"workers": _described(workers), "orders": orders}, text)


@verb("queue", "token", name="logs")
@click.argument("worker")
@click.option("--wait", "wait_s", type=parameters.DURATION, metavar="TIME", help="Wait for them at most so long [30s].")
def logs(call: Call, worker: str, wait_s: float | None) -> None:
    """Print the last lines of a worker's journal; its next beat brings them."""
    from modelrepo_runtime.queue.orders import OrderDraft, Verb

    with call.job_queue() as queue:
        given = _give(queue, [OrderDraft(worker, Verb.LOGS)])
        try:
            (done,) = fleet_orders.wait(queue, given, LOGS_WAIT_S if wait_s is None else wait_s)
        finally:
            queue.take_back_orders([each.order.id for each in given])
    lines = (done.answer or "").splitlines()
    call.output.show({"worker": worker, "lines": lines}, "\n".join(lines))


@verb("queue", "token", name="drain")
@_whom
@REASON
@WAIT
def drain(
    call: Call, places: tuple[str, ...], all_of_them: bool, model: str | None, reason: str | None, wait_s: float | None
) -> None:
    """Have slots claim nothing more and finish what runs; they stay so until `uncordon`."""
    _order(call, "drain", places, all_of_them, model, wait_s, reason=reason)


@verb("queue", "token", name="cordon")
@_whom
@REASON
@WAIT
def cordon(
    call: Call, places: tuple[str, ...], all_of_them: bool, model: str | None, reason: str | None, wait_s: float | None
) -> None:
    """Have slots claim nothing more, also after a restart of their worker, until `uncordon`."""
    _order(call, "cordon", places, all_of_them, model, wait_s, reason=reason)


@verb("queue", "token", name="uncordon")
@_whom
@WAIT
def uncordon(call: Call, places: tuple[str, ...], all_of_them: bool, model: str | None, wait_s: float | None) -> None:
    """Have slots claim again; one that its own breaker cordoned may try one job at once."""
    _order(call, "uncordon", places, all_of_them, model, wait_s)


@verb("queue", "token", name="restart")
@_whom
@click.option(
    "--max-unavailable",
    default="10%",
    show_default=True,
    metavar="SHARE",
    help="How many slots of a model may be without their child at once: a share or a number.",
)
@REASON
@WAIT
def restart(
    call: Call,
    places: tuple[str, ...],
    all_of_them: bool,
    model: str | None,
    max_unavailable: str,
    reason: str | None,
    wait_s: float | None,
) -> None:
    """Start the children of slots anew between two jobs, by turns."""
    _order(call, "restart", places, all_of_them, model, wait_s, argument=max_unavailable, reason=reason)


@verb("queue", "token", name="assign")
@click.argument("place", metavar="WORKER/SLOT")
@click.argument("reference", metavar="MODEL[@VERSION]")
@REASON
@WAIT
def assign(call: Call, place: str, reference: str, reason: str | None, wait_s: float | None) -> None:
    """Have a slot serve another model, or one version of it whatever is active.

    Without a version it follows the active one again.
    """
    _order(call, "assign", (place,), False, None, wait_s, argument=reference, reason=reason)


def _order(
    call: Call,
    name: str,
    named: Sequence[str],
    all_of_them: bool,
    model: str | None,
    wait_s: float | None,
    *,
    argument: str | None = None,
    reason: str | None = None,
) -> None:
    from modelrepo_runtime.queue.orders import OrderDraft, Verb

    if wait_s is None:
        wait_s = DEFAULT_WAIT_S if sys.stderr.isatty() and not call.output.as_json else 0.0
    with call.job_queue() as queue:
        fleet = queue.fleet() if not named else ()
        places = fleet_orders.places(fleet, named, all_of_them=all_of_them, model=model)
        drafts = [OrderDraft(each.worker, Verb(name), each.slot, argument, reason) for each in places]
        given = _give(queue, drafts)
        if wait_s > 0:
            given = fleet_orders.wait(queue, given, wait_s, changed=lambda left: _waiting(call, left))
    refused = [each for each in given if each.refused]
    if refused:
        told = "; ".join(f"{each.place}: {each.answer}" for each in refused)
        raise Conflict(f"{len(refused)} of {len(given)} refused to {name}: {told}")
    call.output.show(
        {"orders": given, "converged": all(each.confirmed_at is not None for each in given) if wait_s > 0 else None},
        "\n".join(f"{each.order.verb} {each.place}: {_outcome(each)}" for each in given),
    )


def _give(queue: JobQueue, drafts: Sequence[OrderDraft]) -> tuple[GivenOrder, ...]:
    from modelrepo.identity import whoami

    if not drafts:
        raise InvalidInput("no worker is meant")
    return queue.give_orders(drafts, by=whoami())


def _waiting(call: Call, left: Sequence[GivenOrder]) -> None:
    named = ", ".join(each.place for each in left[:5]) + (f" and {len(left) - 5} more" if len(left) > 5 else "")
    call.output.note(f"waiting for {named}")


def _outcome(order: GivenOrder) -> str:
    return "ordered; the worker's next beat brings it" if order.confirmed_at is None else "done"


def _described(workers: Sequence[Any]) -> list[dict[str, Any]]:
    return fleet_facts.document(workers, {})


for _verb in (list_workers, show, logs, drain, cordon, uncordon, restart, assign):
    command.add_command(_verb)
