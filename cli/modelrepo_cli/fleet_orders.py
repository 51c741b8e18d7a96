"""Orders to workers: whom they name, waiting until they are carried out, and how people read them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from modelrepo.errors import InvalidInput, NotConverged
from modelrepo_cli.convergence import comes, is_live, present
from modelrepo_cli.output import span, table

if TYPE_CHECKING:
    from modelrepo_runtime.queue.orders import GivenOrder
    from modelrepo_runtime.queue.port import JobQueue, SlotReport, WorkerReport

POLL_S = 0.25


@dataclass(frozen=True, slots=True)
class Place:
    """A worker, or one of its slots."""

    worker: str
    slot: str | None = None

    @classmethod
    def parse(cls, text: str) -> Place:
        """Read WORKER or WORKER/SLOT. Raises: InvalidInput."""
        worker, slash, slot = text.partition("/")
        if not worker or (slash and not slot):
            raise InvalidInput(f"cannot read {text!r}: name WORKER or WORKER/SLOT")
        return cls(worker, slot or None)


def places(
    fleet: Sequence[WorkerReport], named: Sequence[str], *, all_of_them: bool, model: str | None
) -> tuple[Place, ...]:
    """Return whom an order is for: those that are named, or all live ones, or the slots that serve a model.

    Raises: InvalidInput where nobody is meant, or both ways are used.
    """
    if bool(named) == (all_of_them or model is not None):
        raise InvalidInput("cannot tell which workers are meant: name them, or say --all or --model; not both")
    if named:
        return tuple(dict.fromkeys(Place.parse(text) for text in named))
    live = sorted((worker for worker in present(fleet) if is_live(worker)), key=lambda worker: worker.info.name)
    if model is None:
        found = tuple(dict.fromkeys(Place(worker.info.name) for worker in live))
    else:
        found = tuple(
            Place(worker.info.name, slot.slot) for worker in live for slot in worker.slots if slot.model == model
        )
    if not found:
        raise InvalidInput(
            "no live worker " + (f"serves {model}" if model else "is known to this queue") + "; see `modelrepo status`"
        )
    return found


def wait(
    queue: JobQueue,
    given: Sequence[GivenOrder],
    timeout_s: float,
    *,
    changed: Callable[[Sequence[GivenOrder]], None] = lambda _open: None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[GivenOrder, ...]:
    """Wait until orders are carried out or refused, and return them as they are then; `changed` hears who is left.

    Raises:
        NotConverged: the time is over; its message says who is where.
    """
    ids, end = {each.order.id for each in given}, clock() + timeout_s
    last: set[int] | None = None
    while True:
        now = [each for each in queue.orders() if each.order.id in ids]
        left = [each for each in now if each.confirmed_at is None]
        if not left:
            return tuple(now)
        if {each.order.id for each in left} != last:
            last = {each.order.id for each in left}
            changed(left)
        if clock() >= end:
            raise not_done(left, queue.fleet(), timeout_s)
        sleep(POLL_S)


def not_done(left: Sequence[GivenOrder], fleet: Sequence[WorkerReport], timeout_s: float) -> NotConverged:
    """Return the error that says which orders are not carried out yet, and what stands in their way."""
    told = [f"{each.order.verb} {each.place} ({_hindrance(each, fleet)})" for each in left[:3]]
    more = f"; and {len(left) - 3} more" if len(left) > 3 else ""
    return NotConverged(
        f"{'1 order is' if len(left) == 1 else f'{len(left)} orders are'} not carried out after {span(timeout_s)}:"
        f" {'; '.join(told)}{more}; they stay in force, see `modelrepo workers show`"
    )


def _hindrance(order: GivenOrder, fleet: Sequence[WorkerReport]) -> str:
    workers = [worker for worker in fleet if worker.info.name == order.worker]
    if not any(is_live(worker) for worker in workers):
        return "the worker is not heard of"
    slots = [slot for worker in workers for slot in worker.slots if order.order.slot in (None, slot.slot)]
    return "; ".join(dict.fromkeys(_doing(slot) for slot in slots)) or "no slot reports"


def _doing(slot: SlotReport) -> str:
    what = f"runs {slot.job_id}" if slot.job_id else comes(slot) or slot.reason or "is waited for"
    return f"slot {slot.slot} {what}"


def standing(orders: Sequence[GivenOrder]) -> tuple[GivenOrder, ...]:
    """Leave out what was done once: what stands or is waited for is of interest."""
    return tuple(
        each
        for each in orders
        if each.confirmed_at is None or each.refused or each.order.verb in ("cordon", "drain", "assign")
    )


def listing(orders: Sequence[GivenOrder], now: float) -> str:
    """Return orders as a table; empty where there is none."""
    rows = [
        (
            each.order.verb,
            each.place,
            each.order.argument or "",
            state(each),
            span(max(0.0, now - each.at)) + " ago",
            each.by or "",
            each.order.reason or "",
        )
        for each in orders
    ]
    return table(("ORDER", "FOR", "WHAT", "STATE", "GIVEN", "BY", "WHY"), rows) if rows else ""


def state(order: GivenOrder) -> str:
    """Say in a word how far an order is."""
    if order.refused:
        return f"refused: {order.answer}"
    return "waits" if order.confirmed_at is None else "done"
