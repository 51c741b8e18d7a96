"""What a simulated day comes to, in figures."""

from __future__ import annotations

import gc
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from modelrepo_runtime.jobs import Json, Status
from modelrepo_runtime.queue.rank import Policy
from modelrepo_runtime.simulation.day import Day
from modelrepo_runtime.simulation.ledger import NOT_STARTED, Ledger, Sample
from modelrepo_runtime.simulation.run import Run
from modelrepo_runtime.simulation.workload import Workload, draw

SECONDS_STEP = 60
"""`seconds` are rounded up to this, unless asked for exactly: the same seed then gives the same document."""


@dataclass(frozen=True, slots=True)
class TierResult:
    """How the jobs of a tier fared."""

    jobs: int
    slo_met: float
    """Share of them that began within the SLO; those that ended without having begun did not."""
    wait_p50_s: float
    wait_p99_s: float
    wait_max_s: float


@dataclass(frozen=True, slots=True)
class PolicyResult:
    """A day under one policy."""

    policy: Policy
    seconds: float
    """Real time that it took to simulate."""
    tiers: Mapping[str, TierResult]
    ends: Mapping[str, int]
    """Status -> jobs that ended so."""
    unended: int
    """Jobs that nothing could end, such as those of a cluster without slots; 0 on any day that makes sense."""
    last_end_s: float
    most_waiting: int
    most_prepared: Mapping[str, int]
    """Cluster -> the most jobs that held a credit at once."""
    events: Mapping[str, int]
    """What went wrong or was changed, and how often."""
    samples: tuple[Sample, ...]

    def to_json(self, *, exact_seconds: bool = False) -> dict[str, Json]:
        """Return all but the samples."""
        rounded = math.ceil(self.seconds / SECONDS_STEP) * SECONDS_STEP
        return {
            "seconds": round(self.seconds, 3) if exact_seconds else rounded,
            "tiers": {
                name: {
                    "jobs": tier.jobs,
                    "slo_met": round(tier.slo_met, 4),
                    "wait_p50_s": round(tier.wait_p50_s, 3),
                    "wait_p99_s": round(tier.wait_p99_s, 3),
                    "wait_max_s": round(tier.wait_max_s, 3),
                }
                for name, tier in self.tiers.items()
            },
            "ends": dict(sorted(self.ends.items())),
            "unended": self.unended,
            "last_end_s": round(self.last_end_s, 3),
            "most_waiting": self.most_waiting,
            "most_prepared": dict(sorted(self.most_prepared.items())),
            "events": dict(sorted(self.events.items())),
        }


@dataclass(frozen=True, slots=True)
class Report:
    """A day under several policies."""

    day: Day
    seed: int
    jobs: int
    results: tuple[PolicyResult, ...]

    def to_json(self, *, exact_seconds: bool = False) -> dict[str, Json]:
        """Return all figures; the same day, seed and policies give the same, but for `seconds`."""
        policies = {result.policy.value: result.to_json(exact_seconds=exact_seconds) for result in self.results}
        return {"seed": self.seed, "day": self.day.name, "jobs": self.jobs, "policies": policies}


def simulate(
    day: Day,
    policies: Iterable[Policy] = tuple(Policy),
    seed: int | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Report:
    """Play a day under each policy, with the same jobs. `tell` hears a line before each."""
    chosen = day.seed if seed is None else seed
    work = draw(day, chosen)
    results: list[PolicyResult] = []
    for policy in policies:
        tell(f"{day.name}: {len(work.at_s):,} jobs under {policy.value} ..")
        began = time.perf_counter()
        with _no_collection():
            ledger = Run(day, work, policy).play()
        results.append(_result(day, work, policy, ledger, time.perf_counter() - began))
    return Report(day, chosen, len(work.at_s), tuple(results))


@contextmanager
def _no_collection() -> Iterator[None]:
    """Leave millions of tuples in peace: a run makes no cycles, and looking for some takes a fifth of its time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _result(day: Day, work: Workload, policy: Policy, ledger: Ledger, seconds: float) -> PolicyResult:
    waits: list[list[float]] = [[] for _ in day.tiers]
    for tier, wait_s in zip(work.tier, ledger.wait_s, strict=True):
        waits[tier].append(wait_s)
    return PolicyResult(
        policy,
        seconds,
        {tier.name: _tier(found, tier.slo_s) for tier, found in zip(day.tiers, waits, strict=True)},
        Counter(status.value for status in ledger.status if status is not None),
        ledger.status.count(None),
        ledger.ended_s,
        max(sum(sample.backlog) for sample in ledger.samples),
        ledger.most_prepared,
        ledger.events,
        tuple(ledger.samples),
    )


def _tier(all_waits: Sequence[float], slo_s: float) -> TierResult:
    waits = sorted(wait_s for wait_s in all_waits if wait_s != NOT_STARTED)
    met = sum(1 for wait_s in waits if wait_s <= slo_s) / len(all_waits) if all_waits else 1.0
    return TierResult(len(all_waits), met, _quantile(waits, 0.5), _quantile(waits, 0.99), waits[-1] if waits else 0.0)


def _quantile(ordered: Sequence[float], share: float) -> float:
    """Nearest rank."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0


def failed(result: PolicyResult) -> int:
    """Return how many jobs of a day did not succeed."""
    return sum(count for status, count in result.ends.items() if status != Status.SUCCEEDED.value) + result.unended
