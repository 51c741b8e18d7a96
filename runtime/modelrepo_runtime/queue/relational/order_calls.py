"""The calls of a JobQueue by which operators set the order in which jobs go."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

from modelrepo.errors import ModelNotFound
from modelrepo.names import near_names
from modelrepo_runtime.queue.fleet_events import Happened
from modelrepo_runtime.queue.order_settings import Pause, Tenant
from modelrepo_runtime.queue.rank import Policy
from modelrepo_runtime.queue.relational import reading, tenancy
from modelrepo_runtime.queue.relational.fleet_events import note
from modelrepo_runtime.queue.relational.transaction import Database, Snapshot, Transaction
from modelrepo_runtime.queue.tiers import unknown

POLICY = "policy"
ACCOUNTS_AT_ONCE = 500
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
        return self._database.write(lambda tx: _set_tenant(tx, name, weight, burst))

    def forget_accounts(self) -> int:
        """See OrderSettings. Read by pages beside all others; who submits meanwhile begins with a new row."""
        after: Sequence[object] | None = ("", "", "", 0)
        forgotten = 0
        while after is not None:
            after, gone = self._database.read(partial(_vanished, after=after))
            if gone:
                self._database.write(partial(_forget_accounts, keys=gone), alone=False)
            forgotten += len(gone)
        return forgotten

    def policy(self) -> Policy:
        """See OrderSettings."""
        row = self._database.read(lambda tx: tx.row("setting_get", POLICY))
        return Policy(row[0]) if row is not None else Policy.SLO_SHARE

    def set_policy(self, policy: Policy) -> None:
        """See OrderSettings."""
        self._database.write(lambda tx: _set_policy(tx, policy))

    def pause(self, model: str | None = None, tier: str | None = None) -> Pause:
        """See OrderSettings."""
        return self._database.write(lambda tx: _pause(tx, model, tier))

    def resume(self, model: str | None = None, tier: str | None = None) -> bool:
        """See OrderSettings."""
        return self._database.write(lambda tx: _resume(tx, model, tier))

    def pauses(self) -> tuple[Pause, ...]:
        """See OrderSettings."""
        return self._database.read(_pauses)


Keys = Sequence[Sequence[object]]
"""Model, tier, tenant and number of accounts' rows."""


def _vanished(tx: Snapshot, after: Sequence[object]) -> tuple[Sequence[object] | None, Keys]:
    """Return where the next page of accounts begins, None after the last, and those whose tenant has no job left."""
    rows = tx.rows("accounts_after", *after, ACCOUNTS_AT_ONCE)
    keys = [tuple(row)[:4] for row in rows]
    gone = [key for key, row in zip(keys, rows, strict=True) if not row["alive"]]
    return (keys[-1] if len(keys) == ACCOUNTS_AT_ONCE else None), gone


def _forget_accounts(tx: Transaction, keys: Keys) -> None:
    tx.run_many("account_delete", keys)


def _set_tenant(tx: Transaction, name: str, weight: float | None, burst_jobs: float | None) -> Tenant:
    tenant = tenancy.set_tenant(tx, name, weight, burst_jobs)
    burst = "any burst" if tenant.burst_jobs is None else f"a burst of {tenant.burst_jobs:g} jobs"
    note(tx, Happened.TENANT_SET, f"tenant {name} has weight {tenant.weight:g} and {burst}")
    return tenant


def _set_policy(tx: Transaction, policy: Policy) -> None:
    tx.run("setting_put", POLICY, policy.value)
    note(tx, Happened.POLICY_SET, f"lanes are compared by {policy.value}")


def _what(model: str | None, tier: str | None) -> str:
    return " of ".join([f"tier {tier}"] * (tier is not None) + [model or ("every model" if tier else "everything")])


def _pause(tx: Transaction, model: str | None, tier: str | None) -> Pause:
    known = [each.name for each in reading.tiers(tx)]
    if tier is not None and tier not in known:
        raise unknown(tier, known)
    if model is not None and not tx.only("model_is_known", model)[0]:
        models = [row[0] for row in tx.rows("models_known")]
        near = near_names(model, models) or models[:5]
        found = f"did you mean {', '.join(near)}?" if near else "no model has had jobs or slots here yet"
        raise ModelNotFound(f"cannot pause {model}: this queue has seen no job and no slot of such a model; {found}")
    what = (model or ALL, tier or ALL)
    if what not in {(row["model"], row["tier"]) for row in tx.rows("pauses")}:
        tx.run("pause_insert", *what, tx.now)
        note(tx, Happened.PAUSED, f"{_what(model, tier)} is paused", model=model)
    return next(pause for pause in _pauses(tx) if (pause.model or ALL, pause.tier or ALL) == what)


def _resume(tx: Transaction, model: str | None, tier: str | None) -> bool:
    if tx.row("pause_delete", model or ALL, tier or ALL) is None:
        return False
    note(tx, Happened.RESUMED, f"{_what(model, tier)} is resumed", model=model)
    tx.ready_models.update([model] if model else (row[0] for row in tx.rows("models_waiting")))
    return True


def _pauses(tx: Snapshot) -> tuple[Pause, ...]:
    return tuple(Pause(row["model"] or None, row["tier"] or None, row["at"]) for row in tx.rows("pauses"))
