"""Tenants' accounts: the place of each job among those of its flow, and what was charged for it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from modelrepo_runtime.jobs import Outcome, StageNeed, Submission
from modelrepo_runtime.queue.fair import (
    NOT_TOLD_APART,
    UNKNOWN_ESTIMATE_S,
    Account,
    FlowClock,
    Place,
    Share,
    corrected,
    difference_s,
    enter,
)
from modelrepo_runtime.queue.order_settings import Tenant, checked_tenant
from modelrepo_runtime.queue.relational.rows import LeaseRow
from modelrepo_runtime.queue.relational.transaction import Row, Snapshot, Transaction

CORRECTIONS_KEPT = 100_000
"""Older ones are forgotten: their tenants have not submitted anything for a long time."""
TENANTS_SHOWN = 1000


def charged_stage(stages: Sequence[StageNeed]) -> int:
    """Return the index of the stage whose time tenants share: the first on an accelerator, else the first."""
    if len(stages) == 1:
        return 0
    return next((index for index, stage in enumerate(stages) if stage.on == "gpu"), 0)


def take_place(tx: Transaction, submission: Submission, tier: str, moment: float) -> tuple[Place, float]:
    """Enter a job into its tenant's account; return its place and the estimate that was charged, 0 where none is known.

    `moment` is what waits are counted from.
    """
    flow = (submission.model, tier)
    key = (*flow, submission.tenant)
    tx.row("tenant_lock", *key)
    stage = submission.stages[charged_stage(submission.stages)].name
    standing = tx.only("tenant_standing", *key, stage, submission.size or "")
    tenant = _tenant(submission.tenant, standing if standing["known"] else None)
    share = Share(tenant.weight, math.inf if tenant.burst_jobs is None else tenant.burst_jobs)
    account, seq = Account(), 0
    if standing["seq"] is not None:
        account, seq = Account(standing["f"], standing["tag"], _or_none_yet(standing["over_tag"])), standing["seq"]
    if standing["corrections"] is not None:
        account = corrected(account, share, standing["corrections"])
        tx.run("corrections_delete", *key)
    estimate_s = float(standing["mean_s"] or 0.0)
    clock = FlowClock(standing["v"] or 0.0, _or_none_yet(standing["over_v"]))
    place = enter(clock, account, share, _charged(estimate_s), moment)
    after = place.account
    over_tag = None if after.over_tag == -math.inf else after.over_tag
    tx.run("account_insert", *key, seq + 1, after.f, after.tag, over_tag)
    if seq:
        tx.later("account_delete", *key, seq)
    return place, estimate_s


def _or_none_yet(tag: float | None) -> float:
    return -math.inf if tag is None else tag


def note_claimed(
    tx: Transaction, model: str, tags: Iterable[tuple[str, bool, float]], waiting: set[str], moment: float
) -> None:
    """Move the clocks of flows by the (tier, over, tag) of rows that were claimed.

    `waiting` are the tiers of which rows that do not stand back waited; see `fair.claimed`.
    """
    largest: dict[tuple[str, int], float] = {}
    for tier, over, tag in tags:
        if over:
            largest[tier, 1] = max(tag, largest.get((tier, 1), tag))
        if (ahead := tag - moment) > 0 and (not over or tier not in waiting):
            largest[tier, 0] = max(ahead, largest.get((tier, 0), ahead))
    tx.run_many("flow_clock_insert", [(model, tier, over, tag) for (tier, over), tag in sorted(largest.items())])


def settle(tx: Transaction, row: LeaseRow, outcome: Outcome, *, ended: bool) -> None:
    """Charge a tenant for an attempt by what it needed; `ended`: the job will not be tried again.

    What was charged blindly stays as it is: all jobs of which nothing was known count the same.
    """
    index = charged_stage(row.plan)
    if row.stage_index == index and not row.estimate_s:
        return
    account = (row.model, row.tier, row.tenant)
    if row.stage_index < index:
        _correct(tx, account, -_charged(row.estimate_s) if ended else 0.0)
    elif row.stage_index == index:
        used_s = outcome.runtime_s or max(0.0, tx.now - row.claimed)
        _correct(tx, account, difference_s(row.attempt, row.estimate_s, used_s, counted=outcome.counted))


def refund(tx: Transaction, row: Row) -> None:
    """Give back what was charged for a job that ends without having run."""
    _correct(tx, (row["model"], row["tier"], row["tenant"]), -_charged(row["estimate_s"]))


def _charged(estimate_s: float) -> float:
    return estimate_s or UNKNOWN_ESTIMATE_S


def _correct(tx: Transaction, key: tuple[str, str, str], seconds: float) -> None:
    if seconds:
        tx.later_sum("correction_insert", key, seconds)


def tenants(tx: Snapshot) -> tuple[Tenant, ...]:
    """Return the tenants that were set, and those that submitted lately, by name."""
    known = {row["name"]: _tenant(row["name"], row) for row in tx.rows("tenants")}
    for row in tx.rows("tenants_seen", TENANTS_SHOWN):
        known.setdefault(row[0], _tenant(row[0], None))
    return tuple(known[name] for name in sorted(known))


def set_tenant(tx: Transaction, name: str, weight: float | None, burst_jobs: float | None) -> Tenant:
    """Set a tenant's share. Raises: InvalidInput."""
    before = next((_tenant(name, row) for row in tx.rows("tenants") if row["name"] == name), _tenant(name, None))
    tenant = checked_tenant(before, weight, burst_jobs)
    tx.run("tenant_put", tenant.name, tenant.weight, tenant.burst_jobs)
    return tenant


def _tenant(name: str, row: Row | None) -> Tenant:
    if row is not None:
        return Tenant(name, row["weight"], row["burst_jobs"])
    return Tenant(name, burst_jobs=None) if name == NOT_TOLD_APART else Tenant(name)


def sweep(tx: Transaction) -> None:
    """Forget what newer rows have replaced."""
    tx.run("flow_clock_sweep")
    tx.run("corrections_sweep", CORRECTIONS_KEPT)
