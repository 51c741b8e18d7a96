"""Credits as rows: a job's own, and how many of a key are out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from modelrepo_runtime.jobs import Cause, StageNeed, Status
from modelrepo_runtime.queue import credits as rules
from modelrepo_runtime.queue.credits import CreditKey
from modelrepo_runtime.queue.fleet_events import Happened
from modelrepo_runtime.queue.lanes import Lane, stage_taken
from modelrepo_runtime.queue.port import Offer
from modelrepo_runtime.queue.relational import fleet_events
from modelrepo_runtime.queue.relational.rows import LeaseRow
from modelrepo_runtime.queue.relational.transaction import Snapshot, Transaction
from modelrepo_runtime.queue.steps import Step
from modelrepo_runtime.timing import Timing

AUDITED_EVERY_S = 3600.0
"""How often the count of a key is held against its rows."""


def needs_one(lane: Lane, offer: Offer) -> bool:
    """True where a job of the lane would take a credit with this offer.

    A slot that runs the accelerator stage too brings nothing into the cluster that it could not take itself.
    """
    plan = offer.plan
    if not rules.takes_credits(plan) or stage_taken(lane, offer) != plan[0].name:
        return False
    return not any(stage.on == "gpu" and stage.name in offer.stages for stage in plan)


Picked = TypeVar("Picked", bound="Chosen")


class Chosen(Protocol):
    """A row of `ready`, as far as credits are concerned."""

    @property
    def job(self) -> int: ...


@dataclass(slots=True)
class Grants:
    """What a claim may take: the credits that are free, read once for each key."""

    tx: Transaction
    timing: Timing
    _free: dict[CreditKey, int] = field(default_factory=dict)

    def free(self, cluster: str, offer: Offer) -> int:
        """Return how many jobs may still be brought into the cluster for this version."""
        key = CreditKey(cluster, offer.model, offer.version)
        if key not in self._free:
            # Read without the key's lock: only claims of this model grant, one after the other. What others give back
            # meanwhile is free for the next claim, and what comes back from an accelerator takes one in any case.
            out = count(self.tx, key) + self.tx.moves.get((key.cluster, key.model, key.version), 0)
            self._free[key] = rules.grants(limit(self.tx, key, offer.plan, self.timing), out)
        return self._free[key]

    def admit(self, cluster: str, offer: Offer, rows: Sequence[tuple[Lane, Picked]]) -> tuple[list[Picked], list[int]]:
        """Return the rows that may go, and the jobs among them that take a credit: those that hold none of the key."""
        needing = {row.job for lane, row in rows if needs_one(lane, offer)}
        holding = {row.job for lane, row in rows if row.job in needing and lane.cluster is not None}
        if holding:
            condition = f"where {self.tx.statements.among('job')} and model = ? and version = ?"
            values = (self.tx.array(sorted(holding)), offer.model, offer.version)
            needing -= {row["job"] for row in self.tx.select("credits_of_jobs", condition, *values)}
        left = self.free(cluster, offer) if needing else 0
        granted = [row.job for _, row in rows if row.job in needing][:left]
        refused = needing - set(granted)
        return [row for _, row in rows if row.job not in refused], granted

    def take(self, cluster: str, offer: Offer, jobs: Sequence[int]) -> None:
        """Write down that these jobs take one each; those that hold one already, of whatever key, give that back."""
        if jobs:
            key = CreditKey(cluster, offer.model, offer.version)
            self._free[key] = self.free(cluster, offer) - len(jobs)
            give_back(self.tx, jobs)
            take(self.tx, key, jobs)


def limit(tx: Snapshot, key: CreditKey, plan: Sequence[StageNeed], timing: Timing) -> int:
    """Return how many credits of a key may be out."""
    within = (tx.now - timing.lease_s, tx.now + timing.lease_s)
    there, uncordoned = tx.only("slots_feeding", key.cluster, key.model, key.version, *within)
    slots = max(uncordoned, 1 if there else 0)
    return rules.limit(slots, _ratio(tx, key.model, plan)) if slots else 0


def _ratio(tx: Snapshot, model: str, plan: Sequence[StageNeed]) -> float:
    means = {row["stage"]: float(row["mean_s"]) for row in tx.rows("stage_means", model)}
    first = next(n for n, stage in enumerate(plan) if stage.on == "gpu")
    ahead = [means.get(stage.name) for stage in plan[:first]]
    known = [mean for mean in ahead if mean is not None]
    return rules.ratio(sum(known) if known else None, means.get(plan[first].name))


def count(tx: Snapshot, key: CreditKey) -> int:
    """Return how many credits of a key are out."""
    row = tx.row("credit_count", key.cluster, key.model, key.version)
    return int(row["held"]) if row is not None else 0


def take(tx: Transaction, key: CreditKey, jobs: Sequence[int]) -> None:
    """Let jobs that hold none have one each, whatever the limit."""
    tx.run_many("credit_insert", [(job, key.cluster, key.model, key.version, tx.now) for job in jobs])
    _move(tx, key, len(jobs))


def give_back(tx: Transaction, jobs: Sequence[int]) -> None:
    """Take the credits of these jobs, where they hold any, off their keys."""
    if not jobs:
        return
    condition = f"where {tx.statements.among('job')} returning cluster, model, version"
    gone = Counter(CreditKey(*row) for row in tx.select("credit_take_back", condition, tx.array(list(jobs))))
    for key, number in gone.items():
        _move(tx, key, -number)
        tx.ready_models.add(key.model)  # whoever prepares may go on


def started(tx: Transaction, taken: Iterable[tuple[int, Sequence[StageNeed], int]]) -> None:
    """Give back what jobs hold whose accelerator stage begins: (job, plan, stage index)."""
    give_back(tx, [job for job, plan, at in taken if rules.takes_credits(plan) and rules.gives_back(plan, at)])


def enter_again(tx: Transaction, job: int, session: str, model: str, version: str) -> None:
    """Give a job that comes back from an accelerator a credit of that cluster, whatever the limit."""
    row = tx.row("cluster_of_session", session)
    if row is not None:
        give_back(tx, [job])
        take(tx, CreditKey(row["cluster"], model, version), [job])


def settled(tx: Transaction, row: LeaseRow, step: Step, cause: Cause) -> None:
    """Do to a job's credit what the end of an attempt does: it stays where only the worker was lost."""
    plan = row.plan
    if not rules.takes_credits(plan):
        return
    if step.status is not Status.QUEUED:
        if rules.is_ahead(plan, row.stage_index):
            give_back(tx, [row.job])
    elif step.stage_index == row.stage_index and rules.enters_again(plan, step.stage_index):
        enter_again(tx, row.job, row.session, row.model, row.version)
    elif step.stage_index == 0 and cause not in (Cause.WORKER_LOST, Cause.PREEMPTED):
        give_back(tx, [row.job])


def home_of(tx: Snapshot, job: int, plan: Sequence[StageNeed], stage_index: int) -> str | None:
    """Return the only cluster whose workers may take a job: where its credit is, or what it was handed over."""
    if stage_index == 0:
        return cluster_of(tx, job) if rules.takes_credits(plan) else None
    row = tx.row("handover_get", job)
    return None if row is None else row["cluster"]


def cluster_of(tx: Snapshot, job: int) -> str | None:
    """Return the cluster of a job's credit; None where it holds none."""
    row = tx.row("credit_of_job", job)
    return None if row is None else str(row["cluster"])


def audit(tx: Transaction) -> None:
    """Hold counts that were not looked at for an hour against their rows; a key without any is forgotten."""
    for row in tx.rows("credits_counted", tx.now - AUDITED_EVERY_S):
        key = CreditKey(row["cluster"], row["model"], row["version"])
        _lock(tx, key)
        newest = tx.row("credit_count", key.cluster, key.model, key.version)
        if newest is None:
            continue
        out = tx.only("credits_out", key.cluster, key.model, key.version)[0]
        if out != newest["held"]:
            what = f"credits of {key.model}@{key.version} in {key.cluster}"
            text = f"{what}: {newest['held']} were counted, {out} are out"
            fleet_events.note(tx, Happened.CREDITS_CORRECTED, text, model=key.model, version=key.version)
        _write(tx, key, newest["seq"] + 1, out, tx.now)


def versions_wanted(tx: Snapshot, cluster: str, models: Iterable[str], timing: Timing) -> dict[str, tuple[str, ...]]:
    """Return what the CPU slots of a cluster prepare for: versions that its accelerator slots serve or load.

    And versions that jobs past their first stage wait for: somebody has to finish them.
    """
    found: dict[str, set[str]] = {}
    for row in tx.rows("versions_of_cluster", cluster, tx.now - timing.lease_s, tx.now + timing.lease_s):
        found.setdefault(row["model"], set()).update({row["version"], row["incoming"]} - {None})
    for model in models:
        waited = {row["version"] for row in tx.rows("versions_waited_for", model, cluster)}
        found.setdefault(model, set()).update(waited)
    return {model: tuple(sorted(versions)) for model, versions in found.items() if versions}


def _lock(tx: Transaction, key: CreditKey) -> None:
    tx.rows("credit_lock", key.cluster, key.model, key.version)


def _move(tx: Transaction, key: CreditKey, by: int) -> None:
    tx.move_last(_move_all, (key.cluster, key.model, key.version), by)


def _move_all(tx: Transaction, moves: Mapping[tuple[str, ...], int]) -> None:
    """Move counts, each under its lock. All take these locks in one order, so that none waits for one who waits."""
    for names, by in sorted(moves.items()):
        key = CreditKey(*names)
        _lock(tx, key)
        row = tx.row("credit_count", *names)
        seq, held = (row["seq"], row["held"]) if row is not None else (0, 0)
        audited = tx.now if row is None else None
        _write(tx, key, seq + 1, max(0, held + by), audited)


def _write(tx: Transaction, key: CreditKey, seq: int, held: int, audited: float | None) -> None:
    whose = (key.cluster, key.model, key.version)
    if audited is None:
        audited = tx.only("credit_count", *whose)["audited"]
    if held or audited != tx.now:
        tx.run("credit_count_insert", *whose, seq, held, audited)
    tx.run("credit_count_older", *whose, seq)
