"""The calls of a JobQueue that operators, senders of webhooks and whoever watches the fleet make."""

from __future__ import annotations

from collections.abc import Sequence

from modelrepo_runtime.queue.fleet_events import FleetEvent
from modelrepo_runtime.queue.orders import GivenOrder, OrderDone, OrderDraft
from modelrepo_runtime.queue.outbox import LEASE_S, Delivery, OutboxState, Undelivered
from modelrepo_runtime.queue.port import Session
from modelrepo_runtime.queue.relational import fleet_events, orders, outbox
from modelrepo_runtime.queue.relational.forecasting import Forecasts
from modelrepo_runtime.queue.relational.transaction import Database, Transaction


class OperatorCalls:
    """See Outbox, Orders and FleetEvents."""

    _database: Database
    _forecasts: Forecasts

    def take_deliveries(
        self, holder: str, limit: int, *, lease_s: float = LEASE_S, per_host: int = 4, avoid: Sequence[str] = ()
    ) -> tuple[Delivery, ...]:
        """See Outbox. Writes nothing where nothing is due, so that polling is cheap."""
        chosen = self._database.read(lambda tx: outbox.choose(tx, limit, lease_s, per_host, avoid))
        if not chosen:
            return ()
        known = self._forecasts.before_write(self._database)
        work = outbox.take
        return self._database.write(lambda tx: work(tx, holder, chosen, lease_s, lambda _: known), alone=False)

    def settle_delivery(
        self, delivery_id: int, holder: str, error: str | None = None, *, again_in_s: float | None = None
    ) -> bool:
        """See Outbox."""
        return self._database.write(lambda tx: outbox.settle(tx, delivery_id, holder, error, again_in_s), alone=False)

    def drop_deliveries(self, job_id: str, reason: str) -> int:
        """See Outbox."""
        return self._database.write(lambda tx: outbox.drop(tx, job_id, reason), alone=False)

    def outbox(self) -> OutboxState:
        """See Outbox."""
        return self._database.read(outbox.state)

    def undelivered(self, *, limit: int = 100) -> tuple[Undelivered, ...]:
        """See Outbox."""
        return self._database.read(lambda tx: outbox.undelivered(tx, limit))

    def give_orders(self, drafts: Sequence[OrderDraft], *, by: str | None = None) -> tuple[GivenOrder, ...]:
        """See Orders."""
        return self._database.write(lambda tx: orders.give(tx, drafts, by))

    def orders(self, worker: str | None = None) -> tuple[GivenOrder, ...]:
        """See Orders."""
        return self._database.read(lambda tx: orders.listed(tx, worker))

    def take_back_orders(self, ids: Sequence[int]) -> int:
        """See Orders."""
        return self._database.write(lambda tx: orders.take_back(tx, ids))

    def confirm_orders(self, session: Session, done: Sequence[OrderDone]) -> None:
        """See JobQueue."""
        self._database.write(lambda tx: orders.confirm(tx, session.id, done), alone=False)

    def fleet_events(
        self,
        *,
        since_s: float | None = None,
        after: int | None = None,
        model: str | None = None,
        kind: str | None = None,
        limit: int = 1000,
    ) -> tuple[FleetEvent, ...]:
        """See FleetEvents."""
        return self._database.read(lambda tx: fleet_events.events(tx, since_s, after, model, kind, limit))

    def note_event(self, event: FleetEvent) -> None:
        """See FleetEvents."""

        def work(tx: Transaction) -> None:
            where = {"model": event.model, "version": event.version, "worker": event.worker, "slot": event.slot}
            fleet_events.note(tx, event.kind, event.text, job=event.job_id, **where)

        self._database.write(work, alone=False)
