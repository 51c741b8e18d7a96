"""What predictions rest on, read together and kept for a second: lanes, slots, what they run, learnt times."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from modelrepo.errors import TooLate
from modelrepo_runtime.jobs import StageNeed, Submission
from modelrepo_runtime.queue.forecast import Asked, Forecaster, LaneLoad, Load, Running, SlotLoad
from modelrepo_runtime.queue.port import SlotReport, Tier
from modelrepo_runtime.queue.relational.breaking import failing
from modelrepo_runtime.queue.relational.fleet import read_report
from modelrepo_runtime.queue.relational.learning import estimates
from modelrepo_runtime.queue.relational.stages import read_stages
from modelrepo_runtime.queue.relational.transaction import Database, Row, Snapshot
from modelrepo_runtime.timing import Timing

FRESH_S = 1.0
"""How old a load may be that predictions rest on."""
COSTS_AT_MOST = 0.05
"""Part of one core's time that reading loads may take; a longer reading is kept for longer."""


@dataclass(slots=True)
class Forecasts:
    """Keeps the newest Forecaster of a queue; may be asked by any thread."""

    timing: Timing
    _known: Forecaster | None = None
    _read_at: float = 0.0
    _fresh_s: float = FRESH_S
    _reading: threading.Lock = field(default_factory=threading.Lock)

    def at(self, tx: Snapshot) -> Forecaster:
        """Return predictions as of now, or of a moment ago."""
        known = self._known
        if known is not None and (self._is_fresh() and abs(tx.now - known.load.at) < self._fresh_s):
            return known
        if not self._reading.acquire(blocking=known is None):
            assert known is not None
            return known  # somebody else reads anew
        try:
            began = time.monotonic()
            self._known = Forecaster(load_of(tx, self.timing))
            self._read_at = time.monotonic()
            self._fresh_s = max(FRESH_S, (self._read_at - began) / COSTS_AT_MOST)
            return self._known
        finally:
            self._reading.release()

    def before_write(self, database: Database) -> Forecaster:
        """Return predictions for a call that writes, which must not read so much itself."""
        known = self._known
        return known if known is not None and self._is_fresh() else database.read(self.at)

    def _is_fresh(self) -> bool:
        return time.monotonic() - self._read_at < self._fresh_s


def load_of(tx: Snapshot, timing: Timing) -> Load:
    """Read how full the queue is and what its slots do."""
    tiers = {row["name"]: tier_of(row) for row in tx.rows("tiers")}
    held_back = frozenset((version.model, version.version) for version in failing(tx))
    weights = {name: weight_of(tier) for name, tier in tiers.items()}
    return Load(tx.now, _lanes(tx, weights), _slots(tx, timing, held_back), estimates(tx), weights)


def tier_of(row: Row) -> Tier:
    """Return a row of the tiers."""
    flags = (bool(row["is_default"]), bool(row["refuse_late"]))
    return Tier(row["name"], row["slo_s"], row["allowed_miss"], *flags)


def weight_of(tier: Tier) -> float:
    """Return what a second of wait adds to the rank of a tier's jobs."""
    return 1 / tier.slo_s


def _lanes(tx: Snapshot, weights: Mapping[str, float]) -> tuple[LaneLoad, ...]:
    rows = [row for row in tx.rows("lane_loads") if row["depth"] and row["tier"] in weights]
    heads = tx.array(sorted({row["head"] for row in rows}))
    condition = f"where {tx.statements.among('job.id')}"
    plans = {row["id"]: read_stages(row["stages"]) for row in tx.select("plans_of_jobs", condition, heads)}
    return tuple(
        LaneLoad(
            model=row["model"],
            stage=row["stage"],
            on=kind_of(plans.get(row["head"], ()), row["stage"]),
            tier=row["tier"],
            weight=weights[row["tier"]],
            depth=row["depth"],
            oldest=row["oldest"],
            newest=row["newest"],
            version=row["version"] or None,
            cluster=row["cluster"] or None,
            over=bool(row["over"]),
        )
        for row in rows
    )


def kind_of(plan: Sequence[StageNeed], stage: str) -> str:
    """Return what a stage runs on; an accelerator where its plan does not say."""
    return next((need.on for need in plan if need.name == stage), "gpu")


def _slots(tx: Snapshot, timing: Timing, held_back: frozenset[tuple[str, str]]) -> tuple[SlotLoad, ...]:
    running: dict[str, Running] = {}
    for row in tx.rows("leases_running"):
        running.setdefault(row["slot"], Running(row["stage"], row["claimed"], row["size"], row["fraction"]))
    found: list[SlotLoad] = []
    for row in tx.rows("slots_reporting", tx.now - timing.lease_s, tx.now + timing.lease_s):
        report = read_report(row["report"])
        if report.state == "open" and report.model and (report.model, report.version or "") not in held_back:
            name = f"{row['worker']}/{row['slot']}"
            found.append(_slot(report, row["cluster"], name, running.get(name)))
    return tuple(found)


def _slot(report: SlotReport, cluster: str, name: str, running: Running | None) -> SlotLoad:
    incoming = str(report.incoming["version"]) if report.incoming and "version" in report.incoming else None
    known = (report.on, cluster, report.accelerator, incoming, running, report.also, name)
    return SlotLoad(report.model or "", report.version, *known)


def refuse_late(submission: Submission, tier: Tier, known: Forecaster) -> None:
    """Refuse a job that would start later than its tier may wait; where nothing is known it is taken.

    Raises: TooLate.
    """
    model, at = submission.model, known.load.at
    eta = known.eta(Asked(model, submission.stages, at, tier.name, version=submission.version, size=submission.size))
    wait_s = eta.start_at - at if eta is not None and eta.start_at is not None else 0.0
    if wait_s <= tier.slo_s:
        return
    again_s = max(1.0, wait_s - tier.slo_s)
    raise TooLate(
        f"cannot submit a job for {model} in tier {tier.name}: it would start in about {wait_s:.0f} s, its tier waits"
        f" at most {tier.slo_s:g} s; submit it again in {again_s:.0f} s, or in another tier",
        predicted_s=wait_s,
        slo_s=tier.slo_s,
    )
