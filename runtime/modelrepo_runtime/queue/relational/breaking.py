"""The version breaker's rows: what attempts say of versions, which of them fail, who probes them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from modelrepo_runtime.job_memory import JobMemory
from modelrepo_runtime.jobs import Cause, Claim, Outcome
from modelrepo_runtime.queue.fleet_events import Happened
from modelrepo_runtime.queue.memory_needs import greater
from modelrepo_runtime.queue.port import Offer
from modelrepo_runtime.queue.relational import fleet_events
from modelrepo_runtime.queue.relational.rows import LeaseRow
from modelrepo_runtime.queue.relational.transaction import Snapshot, Transaction
from modelrepo_runtime.queue.relational.waiting import send_back
from modelrepo_runtime.queue.reports import FailingVersion
from modelrepo_runtime.queue.version_breaker import (
    WINDOW_REPORTS,
    WINDOW_S,
    Report,
    Tally,
    closes,
    probes_allowed,
    tally,
    verdict,
    window_start,
)

MOST_SWEPT = 2000
"""Rows past the window that one `tend` deletes."""


@dataclass(slots=True)
class _Fine:
    """Attempts of one slot that went well."""

    fence: int
    attempts: int = 0
    taken_s: float = 0.0
    memory: JobMemory | None = None
    """Of the one that took most."""


@dataclass(slots=True)
class Verdicts:
    """What the ends of one call say of the versions that ran; `write` after the last of them."""

    tx: Transaction
    _fine: dict[tuple[str, str, str, str, str | None, bool], _Fine] = field(default_factory=dict)
    """By model, version, stage, slot, size, and whether it came to a result."""

    def judge(self, row: LeaseRow, outcome: Outcome) -> Outcome:
        """Take in how an attempt ended; returned uncounted where its version is at fault rather than its job."""
        fine = verdict(outcome.cause)
        if fine is None or row.cancelled:
            return outcome
        if row.failing_since is not None:
            self.tx.ready_models.add(row.model)  # the next probe may begin
            if fine:
                _close_by(self.tx, row, outcome)
            return outcome if fine else replace(outcome, counted=False)
        if fine:
            key = (row.model, row.version, row.stage, row.slot, row.size, outcome.cause is Cause.SUCCEEDED)
            found = self._fine.setdefault(key, _Fine(row.fence))
            found.attempts += 1
            found.taken_s += self.tx.now - row.claimed
            found.memory = greater(found.memory, outcome.memory)
            return outcome
        self.write()
        return replace(outcome, counted=False) if _fails(self.tx, row, outcome.memory) else outcome

    def write(self) -> None:
        """Append what went well: a row for each slot and size."""
        for (model, version, stage, slot, size, result), fine in self._fine.items():
            what = (model, version, stage, self.tx.now, slot, size, fine.attempts, 0, fine.taken_s if result else None)
            self.tx.later("verdict_insert", *what, None, fine.fence, _text(fine.memory))
        self._fine.clear()


def _text(memory: JobMemory | None) -> str | None:
    return json.dumps(memory.to_json(), separators=(",", ":")) if memory else None


def _fails(tx: Transaction, row: LeaseRow, memory: JobMemory | None) -> bool:
    """Count a failure; True if its version is failing now."""
    tx.flush()
    known = tx.row("breaker_get", row.model, row.version)
    if known is not None and known["since"] is not None:
        return True  # since an earlier end in this transaction
    what = (row.model, row.version, row.stage)
    tx.run("verdict_insert", *what, tx.now, row.slot, row.size, 1, 1, None, row.job, row.fence, _text(memory))
    after = window_start(tx.now, known["closed"] if known is not None else None)
    rows = tx.rows("verdicts_newest", *what, after, WINDOW_REPORTS)
    found = tally(Report(each["slot"], each["at"], each["attempts"], each["failed"]) for each in rows)
    if found.trips:
        _trip(tx, row, found, after)
    return found.trips


def _trip(tx: Transaction, row: LeaseRow, found: Tally, after: float) -> None:
    """Take a version for failing, and give back what the failures of the window did to jobs."""
    counts = (found.attempts, found.failed, found.workers)
    tx.run("breaker_trip", row.model, row.version, row.stage, tx.now, *counts)
    text = (
        f"{row.model}@{row.version} fails at stage {row.stage}: {found.failed} of {found.attempts} attempts on"
        f" {found.workers} slots; it gets one job a cluster until one succeeds"
    )
    fleet_events.note(tx, Happened.BREAKER_TRIPPED, text, model=row.model, version=row.version)
    failures = tx.rows("verdicts_failed", row.model, row.version, after)
    tx.run_many("attempt_refund", [(each["job"], each["fence"]) for each in failures])
    jobs = tx.array(sorted({each["job"] for each in failures}))
    condition = f"and {tx.statements.among('job.id')} order by job.id"
    for dead in tx.select("dead_letters_of_version", condition, row.version, after, jobs):
        send_back(tx, dead, "refunded", dead["attempt"] + 1)


def _close_by(tx: Transaction, row: LeaseRow, outcome: Outcome) -> None:
    found = tx.row("probe_of_lease", row.model, row.version, row.fence)
    if found is None:
        return  # claimed before its version failed
    at_failing_stage, last_stage = row.stage == found["failing_stage"], row.stage_index == len(row.plan) - 1
    if closes(outcome.cause, probe=True, at_failing_stage=at_failing_stage, last_stage=last_stage):
        close(tx, row.model, row.version)


def close(tx: Transaction, model: str, version: str) -> bool:
    """Take a version for healthy; False if it was."""
    if tx.row("breaker_close", tx.now, model, version) is None:
        return False
    tx.run("probes_delete", model, version)
    text = f"{model}@{version} gets jobs again"
    fleet_events.note(tx, Happened.BREAKER_CLOSED, text, model=model, version=version)
    tx.ready_models.add(model)
    return True


def failing(tx: Snapshot) -> tuple[FailingVersion, ...]:
    """Return the versions that fail."""
    rows = tx.rows("versions_failing")
    probes = tx.rows("probes_leased") if rows else ()
    found: list[FailingVersion] = []
    for row in rows:
        name = (row["model"], row["version"])
        clusters = {probe["cluster"] for probe in probes if (probe["model"], probe["version"]) == name}
        counts = (row["attempts"], row["failed"], row["workers"])
        found.append(FailingVersion(*name, row["stage"], row["since"], *counts, tuple(sorted(clusters))))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Probing:
    """What claims must know of versions that fail."""

    failing: frozenset[tuple[str, str]]
    leased: dict[tuple[str, str, str], set[str]]
    """(model, version, cluster) -> stages that are leased as probes."""

    def allowed(self, offer: Offer, cluster: str, stage: str) -> int:
        """Return how many jobs of a stage an offer may take."""
        if (offer.model, offer.version) not in self.failing:
            return offer.limit
        return probes_allowed(offer.limit, int(stage in self.leased.get((offer.model, offer.version, cluster), ())))

    def limit(self, offer: Offer) -> int:
        """Return how many jobs an offer may take at all."""
        return probes_allowed(offer.limit, 0) if (offer.model, offer.version) in self.failing else offer.limit

    def claimed(self, tx: Transaction, cluster: str, claims: Sequence[Claim]) -> None:
        """Write down which of these leases are probes."""
        for claim in claims:
            if claim.version is not None and (claim.model, claim.version) in self.failing:
                tx.run("probe_put", claim.model, claim.version, cluster, claim.stage, claim.fence.number)
                self.leased.setdefault((claim.model, claim.version, cluster), set()).add(claim.stage)


NONE_FAILING = Probing(frozenset(), {})


def probing(tx: Snapshot) -> Probing:
    """Read which versions fail, mostly none, and who probes them."""
    names = frozenset((row["model"], row["version"]) for row in tx.rows("versions_failing"))
    leased: dict[tuple[str, str, str], set[str]] = {}
    for row in tx.rows("probes_leased") if names else ():
        leased.setdefault((row["model"], row["version"], row["cluster"]), set()).add(row["stage"])
    return Probing(names, leased)


def sweep(tx: Transaction) -> None:
    """Forget what is out of the window."""
    tx.run("verdicts_sweep", MOST_SWEPT, tx.now - WINDOW_S)
    tx.run("breakers_past", tx.now - WINDOW_S)
