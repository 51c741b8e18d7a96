"""What operators want of workers: rows that ride on the replies to beats, since workers are only ever called back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from modelrepo.errors import InvalidInput
from modelrepo_runtime.jobs import Json, timestamp
from modelrepo_runtime.queue.turns import check_share

JOURNAL_LINES = 200
"""How many of a worker's last lines `logs` brings."""
FORGOTTEN_AFTER_S = 86_400.0
"""An order that is done once is forgotten after a day, as is one whose worker never came back."""


class Verb(StrEnum):
    """What may be ordered."""

    CORDON = "cordon"
    """Claim nothing, until it is taken back."""
    DRAIN = "drain"
    """Cordon, and be done when what runs has ended."""
    UNCORDON = "uncordon"
    """Claim again; a slot that its own breaker keeps from it may try one job at once."""
    RESTART = "restart"
    """Start the child anew between two jobs."""
    ASSIGN = "assign"
    """Serve another model, or one version of it whatever is active."""
    LOGS = "logs"
    """Bring the worker's last lines."""


STANDING = frozenset({Verb.CORDON, Verb.DRAIN, Verb.ASSIGN})
"""These hold until another order takes their place: a worker that starts again is given them again."""
REPLACES: dict[Verb, frozenset[Verb]] = {
    Verb.CORDON: frozenset({Verb.CORDON, Verb.DRAIN, Verb.UNCORDON}),
    Verb.DRAIN: frozenset({Verb.CORDON, Verb.DRAIN, Verb.UNCORDON}),
    Verb.UNCORDON: frozenset({Verb.CORDON, Verb.DRAIN, Verb.UNCORDON}),
    Verb.RESTART: frozenset({Verb.RESTART}),
    Verb.ASSIGN: frozenset({Verb.ASSIGN}),
    Verb.LOGS: frozenset({Verb.LOGS}),
}
"""Of two orders that contradict each other the later one counts."""


@dataclass(frozen=True, slots=True)
class Order:
    """What an operator wants of a worker; repeated with every beat until it is confirmed or taken back."""

    id: int
    verb: str
    """drain, cordon, uncordon, restart, assign or logs."""
    slot: str | None = None
    """None: all of them."""
    argument: str | None = None
    """The model of `assign`, or `model@version`; for `restart`, how much of a model may be away at once."""
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class OrderDraft:
    """An order to be given."""

    worker: str
    verb: Verb
    slot: str | None = None
    argument: str | None = None
    reason: str | None = None

    def __str__(self) -> str:
        return f"{self.verb} {place(self.worker, self.slot)}" + (f" {self.argument}" if self.argument else "")


@dataclass(frozen=True, slots=True)
class OrderDone:
    """A worker's word that an order is carried out, or why it will not be."""

    id: int
    answer: str | None = None
    """What `logs` brings, or why it was refused."""
    refused: bool = False


@dataclass(frozen=True, slots=True)
class GivenOrder:
    """An order and what became of it."""

    order: Order
    worker: str
    at: float
    by: str | None = None
    confirmed_at: float | None = None
    """None: not carried out yet."""
    answer: str | None = None
    refused: bool = False

    @property
    def place(self) -> str:
        return place(self.worker, self.order.slot)

    def to_json(self) -> dict[str, Json]:
        """Return it as commands show it."""
        return {
            "id": self.order.id,
            "verb": self.order.verb,
            "worker": self.worker,
            "slot": self.order.slot,
            "argument": self.order.argument,
            "reason": self.order.reason,
            "by": self.by,
            "at": timestamp(self.at),
            "confirmed_at": timestamp(self.confirmed_at),
            "answer": self.answer,
            "refused": self.refused,
        }


class Orders(Protocol):
    """The part of a JobQueue by which operators rule workers."""

    def give_orders(self, drafts: Sequence[OrderDraft], *, by: str | None = None) -> tuple[GivenOrder, ...]:
        """Write orders, all or none; each takes the place of what it contradicts.

        Raises: InvalidInput for one that cannot be read; WorkerNotFound for a worker or slot that no session reports.
        """

    def orders(self, worker: str | None = None) -> tuple[GivenOrder, ...]:
        """Return what stands or waits, and what was carried out in the last day, oldest first."""

    def take_back_orders(self, ids: Sequence[int]) -> int:
        """Forget orders that were not carried out yet or stand; return how many there were.

        A cordon that a worker has heard of is ended by `uncordon`, an assignment by another one.
        """


def place(worker: str, slot: str | None) -> str:
    """Name a worker or one of its slots as operators do."""
    return worker if slot is None else f"{worker}/{slot}"


def check_draft(draft: OrderDraft) -> None:
    """Raises: InvalidInput for an order that no worker could follow."""
    match draft.verb:
        case Verb.ASSIGN:
            if draft.slot is None or not draft.argument:
                raise InvalidInput(f"cannot assign to {draft.worker}: say WORKER/SLOT MODEL[@VERSION]")
            from modelrepo.names import parse_reference

            parse_reference(draft.argument)
        case Verb.RESTART:
            check_share(draft.argument or "100%")
        case Verb.LOGS if draft.slot is not None:
            raise InvalidInput(f"cannot bring the lines of one slot: say `logs {draft.worker}`")
        case _ if draft.argument is not None:
            raise InvalidInput(f"cannot {draft.verb} with {draft.argument!r}: it takes a worker or WORKER/SLOT alone")
        case _:
            pass
