"""What predictions rest on, read together and kept for a second: lanes, slots, what they run, learnt times."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from modelrepo.errors import TooLate
from modelrepo_runtime.jobs import StageNeed, Submission
from modelrepo_runtime.queue.forecast import Asked, Forecaster, LaneLoad, Load, Running, SlotLoad
from modelrepo_runtime.queue.lanes import read_avoid, read_memory
from modelrepo_runtime.queue.order_settings import is_paused
from modelrepo_runtime.queue.port import Tier
from modelrepo_runtime.queue.rank import Policy, lwdf_weight
from modelrepo_runtime.queue.relational.breaking import failing
from modelrepo_runtime.queue.relational.learning import estimates
from modelrepo_runtime.queue.relational.stages import read_stages
from modelrepo_runtime.queue.relational.transaction import Database, Row, Snapshot
from modelrepo_runtime.timing import Timing

KINDS = ("cpu", "gpu")
FRESH_S = 1.0
"""How old a load may be that predictions rest on."""
COUNTED_TO = 5000
"""Jobs of a lane that are counted one by one: how long it takes must not grow with the queue."""
FAR_MORE = 1e6
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
    weights = weights_of(policy_of(tx), tuple(tiers.values()))
    return Load(tx.now, lanes_of(tx, tiers, weights), _slots(tx, timing, held_back), estimates(tx), weights)


def tier_of(row: Row) -> Tier:
    """Return a row of the tiers."""
    flags = (bool(row["is_default"]), bool(row["refuse_late"]))
    return Tier(row["name"], row["slo_s"], row["allowed_miss"], *flags, row["keep_files_s"], row["keep_jobs_s"])


def policy_of(tx: Snapshot) -> Policy:
    """Return how lanes are compared."""
    row = tx.row("setting_get", "policy")
    return Policy(row["value"]) if row is not None else Policy.SLO_SHARE


def weights_of(policy: Policy, tiers: Sequence[Tier]) -> dict[str, float]:
    """Return by tier what a second of wait adds to rank; under `strict`, a stricter tier outweighs any wait."""
    strictest_last = sorted(tiers, key=lambda tier: -tier.slo_s)
    match policy:
        case Policy.FIFO:
            return {tier.name: 1.0 for tier in tiers}
        case Policy.STRICT:
            return {tier.name: FAR_MORE**place for place, tier in enumerate(strictest_last)}
        case Policy.LWDF_LATE:
            return {tier.name: lwdf_weight(tier.slo_s, tier.allowed_miss) for tier in tiers}
        case Policy.SLO_SHARE:
            return {tier.name: 1 / tier.slo_s for tier in tiers}


def lanes_of(tx: Snapshot, tiers: Mapping[str, Tier], weights: Mapping[str, float]) -> tuple[LaneLoad, ...]:
    """Read how full every lane is that is not empty."""
    rows = [
        row for row in tx.rows("lane_loads", COUNTED_TO) if (row["depth"] or row["delayed"]) and row["tier"] in tiers
    ]
    heads = tx.array(sorted({row["head"] for row in rows if row["head"] is not None}))
    condition = f"where {tx.statements.among('job.id')}"
    plans = {row["id"]: read_stages(row["stages"]) for row in tx.select("plans_of_jobs", condition, heads)}
    paused = {(row["model"], row["tier"]) for row in tx.rows("pauses")}
    return tuple(
        LaneLoad(
            model=row["model"],
            stage=row["stage"],
            on=kind_of(plans.get(row["head"], ()), row["stage"]),
            tier=row["tier"],
            weight=weights[row["tier"]],
            depth=_depth(row),
            more_than=None if row["beyond"] is None else row["depth"],
            oldest=row["oldest"] or 0.0,
            newest=row["newest"] or 0.0,
            version=row["version"] or None,
            cluster=row["cluster"] or None,
            over=bool(row["over"]),
            paused=is_paused(paused, row["model"], row["tier"]),
            avoid=read_avoid(row["avoid"]),
            memory=read_memory(row["avoid"]),
            delayed=row["delayed"],
            slo_s=tiers[row["tier"]].slo_s,
            plan=plans.get(row["head"], ()),
            number=row["id"],
        )
        for row in rows
    )


def _depth(row: Row) -> int:
    """Return how many jobs wait in a lane: of one that is longer than is counted, what an even coming makes of it."""
    counted: int = row["depth"]
    if row["beyond"] is None:
        return counted
    known_s = row["beyond"] - row["oldest"]
    return max(counted + 1, round(counted * (row["newest"] - row["oldest"]) / known_s) if known_s > 0 else 0)


def kind_of(plan: Sequence[StageNeed], stage: str) -> str:
    """Return what a stage runs on; an accelerator where its plan does not say."""
    return next((need.on for need in plan if need.name == stage), "gpu")


def _slots(tx: Snapshot, timing: Timing, held_back: frozenset[tuple[str, str]]) -> tuple[SlotLoad, ...]:
    running: dict[str, Running] = {}
    for row in tx.rows("leases_running"):
        running.setdefault(row["slot"], Running(row["stage"], row["claimed"], row["size"], row["fraction"]))
    found: list[SlotLoad] = []
    for row in tx.rows("slots_open", tx.now - timing.lease_s, tx.now + timing.lease_s):
        if (row["model"], row["version"] or "") not in held_back:
            name = f"{row['worker']}/{row['slot']}"
            more = json.loads(row["report"])  # not as a SlotReport: there may be thousands
            known = (tuple(more.get("on", KINDS)), row["cluster"], more.get("accelerator"), row["incoming"])
            found.append(
                SlotLoad(row["model"], row["version"], *known, running.get(name), tuple(more.get("also", ())), name)
            )
    return tuple(found)


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
