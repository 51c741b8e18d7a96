"""The thread that does what operators order: cordons, restarts by turns, assignments, the last lines of the journal."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from modelrepo.errors import Forbidden, InvalidInput, ModelRepoError, NotFound, StaleSession, VersionDeleted
from modelrepo.names import parse_reference
from modelrepo_runtime.queue.orders import Order, OrderDone, Verb
from modelrepo_runtime.worker.journal import Journal
from modelrepo_runtime.worker.serving import SlotChild
from modelrepo_runtime.worker.session import WorkerSession
from modelrepo_runtime.worker.slot import Slot

# Of the journal's last lines, some may hold a long trace.
LONGEST_ANSWER = 64 * 1024


class Ruled(Protocol):
    """The worker, as its orders see it."""

    def slot_names(self) -> Sequence[str]: ...

    def slot_of(self, name: str) -> Slot | None:
        """Return a slot that has a model."""

    def assign_slot(self, name: str, model: str, version: str | None) -> bool:
        """Bring a slot closer to serving a model, or one version of it; True once it does. Called until then.

        Raises: InvalidInput or NotFound where this worker never will.
        """

    def slots_total(self, model: str) -> int:
        """Count the slots of the fleet that serve a model."""


class OrderKeeper:
    """Hears orders with each beat until it has confirmed them; one that it heard before is gone on with, not begun.

    `forget_faults` takes a slot's devices for well: somebody has seen to them.
    """

    def __init__(
        self, worker: Ruled, session: WorkerSession, journal: Journal, forget_faults: Callable[[str], None]
    ) -> None:
        self._worker, self._session, self._journal, self._forget_faults = worker, session, journal, forget_faults
        self._cordons: dict[str, str] = {}
        self._begun: set[int] = set()
        self._restarts: dict[tuple[int, str], SlotChild] = {}
        """Restarts that have their turn, and the child that is to go."""
        self._restarted: set[tuple[int, str]] = set()
        self._news = threading.Condition()
        self._heard: Sequence[Order] | None = None
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="orders", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, limit_s: float | None = None) -> None:
        """Do no more; twice is legal."""
        with self._news:
            self._stopped = True
            self._news.notify_all()
        if self._thread.is_alive():
            self._thread.join(limit_s)

    def hear(self, orders: Sequence[Order]) -> None:
        """Take note of what a beat brought; returns at once."""
        if not orders and not self._restarts:
            return
        with self._news:
            self._heard = tuple(orders)
            self._news.notify_all()

    def catch_up(self) -> None:
        """Do what was heard so far, in this thread: before the first slot takes a job."""
        with self._news:
            orders, self._heard = self._heard or (), None
        self._obey_or_say(orders)

    def cordon(self, slot: str) -> str | None:
        """Say why an operator lets a slot take no jobs."""
        return self._cordons.get(slot)

    def obey(self, orders: Sequence[Order]) -> None:
        """Begin what is new, go on with the rest, and confirm what is done. Raises: Unreachable."""
        self._forget_restarts({order.id for order in orders})
        done = [told for order in sorted(orders, key=lambda order: order.id) if (told := self._follow(order))]
        if done:
            self._session.queue.confirm_orders(self._session.session, done)

    def _follow(self, order: Order) -> OrderDone | None:
        if order.id not in self._begun:
            self._journal.say(
                "ordered", order=order.id, verb=order.verb, slot=order.slot, argument=order.argument, why=order.reason
            )
        try:
            finished, answer = self._carry_out(order)
        except (InvalidInput, NotFound, VersionDeleted, Forbidden) as error:
            return OrderDone(order.id, str(error), refused=True)
        self._begun.add(order.id)
        return OrderDone(order.id, answer) if finished else None

    def _carry_out(self, order: Order) -> tuple[bool, str | None]:
        names = self._names(order)
        match order.verb:
            case Verb.CORDON | Verb.DRAIN:
                self._close(order, names)
                return order.verb == Verb.CORDON or not any(self._busy(name) for name in names), None
            case Verb.UNCORDON:
                self._open(order, names)
                return True, None
            case Verb.RESTART:
                done = [self._restart(order, name) for name in names]  # each as its turn comes, none before another
                return all(done), None
            case Verb.ASSIGN:
                wanted = parse_reference(order.argument or "")
                return self._worker.assign_slot(names[0], wanted.model, wanted.version), None
            case Verb.LOGS:
                return True, "\n".join(self._journal.tail())[-LONGEST_ANSWER:]
        raise InvalidInput(f"this worker does not know the order {order.verb!r}; upgrade it")

    def _names(self, order: Order) -> Sequence[str]:
        known = self._worker.slot_names()
        if order.slot is None:
            return known
        if order.slot not in known:
            raise InvalidInput(f"this worker has no slot {order.slot}; it has {', '.join(known) or 'none'}")
        return (order.slot,)

    def _close(self, order: Order, names: Sequence[str]) -> None:
        if order.id in self._begun:
            return
        done = "drained" if order.verb == Verb.DRAIN else "cordoned"
        why = f"{done} by an operator" + (f": {order.reason}" if order.reason else "")
        self._cordons.update(dict.fromkeys(names, why))
        self._tell(names)

    def _open(self, order: Order, names: Sequence[str]) -> None:
        if order.id in self._begun:
            return
        for name in names:
            self._cordons.pop(name, None)
            self._forget_faults(name)
            slot = self._worker.slot_of(name)
            if slot is not None:
                slot.probe_now()
        self._tell(names)

    def _tell(self, names: Sequence[str]) -> None:
        for name in names:
            slot = self._worker.slot_of(name)
            if slot is not None:
                slot.look_again()
        self._session.tell_soon()

    def _busy(self, name: str) -> bool:
        slot = self._worker.slot_of(name)
        if slot is None:
            return False
        with slot.changed:
            return slot.held is not None

    def _restart(self, order: Order, name: str) -> bool:
        """Restart one slot's child once its turn has come; True when another child serves."""
        key, slot = (order.id, name), self._worker.slot_of(name)
        if slot is None or key in self._restarted:
            return True
        turn = f"{name} restart"  # beside the turn that a swap of the same slot may hold
        if key not in self._restarts:
            share = order.argument or "100%"
            total = self._worker.slots_total(slot.model)
            if not self._session.take_turn(slot.model, turn, total, share):
                return False
            child = slot.restart()
            if child is not None:
                self._restarts[key] = child
                return False
        elif not self._has_new_child(slot, self._restarts[key]):
            return False
        self._restarts.pop(key, None)
        self._restarted.add(key)
        self._session.end_turn(slot.model, turn)
        return True

    def _forget_restarts(self, wanted: set[int]) -> None:
        """Give back the turns of restarts that were taken back meanwhile."""
        for order, name in [key for key in self._restarts if key[0] not in wanted]:
            del self._restarts[order, name]
            slot = self._worker.slot_of(name)
            if slot is not None:
                self._session.end_turn(slot.model, f"{name} restart")

    def _has_new_child(self, slot: Slot, old: SlotChild) -> bool:
        with slot.changed:
            return slot.serving is not None and slot.serving.child is not old and not slot.restart_wanted

    def _run(self) -> None:
        while True:
            with self._news:
                self._news.wait_for(lambda: self._heard is not None or self._stopped)
                if self._stopped:
                    return
                orders, self._heard = self._heard or (), None
            self._obey_or_say(orders)

    def _obey_or_say(self, orders: Sequence[Order]) -> None:
        try:
            self.obey(orders)
        except StaleSession:
            pass  # the next beat begins a new session, which is given them again
        except ModelRepoError as error:
            self._journal.say_once("orders", "orders-wait", error=error)
        except Exception as error:  # noqa: BLE001 - a worker that follows no orders would be out of hand
            self._journal.confess("orders", error)
