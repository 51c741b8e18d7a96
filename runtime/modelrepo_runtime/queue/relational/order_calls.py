"""The calls of a JobQueue by which operators set the order in which jobs go."""

from __future__ import annotations

import math

from modelrepo_runtime.queue.order_settings import Pause, Tenant
from modelrepo_runtime.queue.rank import Policy
from modelrepo_runtime.queue.relational import reading, tenancy
from modelrepo_runtime.queue.relational.transaction import Database, Snapshot, Transaction
from modelrepo_runtime.queue.tiers import unknown

ALL = ""
"""Stands for all models or tiers in the rows of pauses."""


class OrderCalls:
    """See OrderSettings."""

    _database: Database

    def tenants(self) -> tuple[Tenant, ...]:
        """See OrderSettings."""
        return self._database.read(tenancy.tenants)

    def set_tenant(
        self, name: str, *, weight: float | None = None, burst_jobs: float | None = None, any_burst: bool = False
    ) -> Tenant:
        """See OrderSettings."""
        burst = math.inf if any_burst else burst_jobs
        return self._database.write(lambda tx: tenancy.set_tenant(tx, name, weight, burst))

    def policy(self) -> Policy:
        """See OrderSettings."""
        row = self._database.read(lambda tx: tx.row("setting_get", "policy"))
        return Policy(row[0]) if row is not None else Policy.SLO_SHARE

    def set_policy(self, policy: Policy) -> None:
        """See OrderSettings."""
        self._database.write(lambda tx: tx.run("setting_put", "policy", policy.value))

    def pause(self, model: str | None = None, tier: str | None = None) -> Pause:
        """See OrderSettings."""
        return self._database.write(lambda tx: _pause(tx, model, tier))

    def resume(self, model: str | None = None, tier: str | None = None) -> bool:
        """See OrderSettings."""
        return self._database.write(lambda tx: _resume(tx, model, tier))

    def pauses(self) -> tuple[Pause, ...]:
        """See OrderSettings."""
        return self._database.read(_pauses)


def _pause(tx: Transaction, model: str | None, tier: str | None) -> Pause:
    known = [each.name for each in reading.tiers(tx)]
    if tier is not None and tier not in known:
        raise unknown(tier, known)
    tx.run("pause_insert", model or ALL, tier or ALL, tx.now)
    return next(pause for pause in _pauses(tx) if (pause.model, pause.tier) == (model or None, tier))


def _resume(tx: Transaction, model: str | None, tier: str | None) -> bool:
    if tx.row("pause_delete", model or ALL, tier or ALL) is None:
        return False
    tx.ready_models.update([model] if model else (row[0] for row in tx.rows("models_waiting")))
    return True


def _pauses(tx: Snapshot) -> tuple[Pause, ...]:
    return tuple(Pause(row["model"] or None, row["tier"] or None, row["at"]) for row in tx.rows("pauses"))
