"""What became of every job of a run, counted from the queue's own records."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from modelrepo_runtime.jobs import Job, Status
from modelrepo_runtime.queue.port import HistoryRow, Tier

SUCCEEDED = "succeeded"


@dataclass(frozen=True, slots=True)
class TierWaits:
    """How long the jobs of one tier waited for their accelerator stage, as shares of the tier's SLO."""

    tier: str
    slo_s: float
    jobs: int
    median_s: float
    worst_s: float

    @property
    def worst_share(self) -> float:
        return self.worst_s / self.slo_s


@dataclass(frozen=True, slots=True)
class Accounts:
    """The sums of a run."""

    jobs: int
    lost: int
    duplicates_accepted: int
    stale_refused: int
    retried: int
    swaps: int
    swap_gap_s: float | None
    """The longest time that a waiting job found a slot between two versions; None without a swap."""
    by_version: Mapping[str, int]
    waits: tuple[TierWaits, ...]


def count(
    submitted: Sequence[str],
    jobs: Mapping[str, Job],
    history: Iterable[HistoryRow],
    tiers: Iterable[Tier],
    stages: Sequence[str],
    waited_for: str,
) -> Accounts:
    """Count a run: `submitted` are the ids that submitters were given, `waited_for` the stage whose start ends a wait.

    A job is lost unless the queue has it as succeeded.
    """
    ours = set(submitted)
    rows = [row for row in history if row.job_id in ours]
    attempts = [row for row in rows if row.event == "attempt"]
    accepted = Counter(row.job_id for row in attempts if row.stage == stages[-1] and row.cause == SUCCEEDED)
    gaps = swap_gaps(attempts, jobs, stages[0])
    return Accounts(
        jobs=len(submitted),
        lost=sum(job not in jobs or jobs[job].status is not Status.SUCCEEDED for job in submitted),
        duplicates_accepted=sum(times - 1 for times in accepted.values()),
        stale_refused=sum(row.event == "refused" for row in rows),
        retried=sum(row.cause != SUCCEEDED for row in attempts),
        swaps=len(gaps),
        swap_gap_s=max(gaps, default=None),
        by_version=Counter(jobs[job].version or "-" for job in submitted if job in jobs),
        waits=_waits(attempts, jobs, tiers, waited_for),
    )


def swap_gaps(attempts: Iterable[HistoryRow], jobs: Mapping[str, Job], first_stage: str) -> tuple[float, ...]:
    """Return, for each change of version on a slot, how long it kept a waiting job: from the old version's last finish
    (or the job's submission, where that came later) to the new version's first claim.
    """
    by_slot: defaultdict[str | None, list[HistoryRow]] = defaultdict(list)
    for row in attempts:
        if row.claimed_at is not None:
            by_slot[row.slot].append(row)
    gaps = []
    for rows in by_slot.values():
        rows.sort(key=lambda row: row.claimed_at or 0.0)
        for before, after in pairwise(rows):
            if before.version == after.version or after.claimed_at is None:
                continue
            ready = before.at
            if after.stage == first_stage and after.attempt <= 1 and after.job_id in jobs:
                ready = max(ready, jobs[after.job_id].enqueued)
            gaps.append(max(0.0, after.claimed_at - ready))
    return tuple(gaps)


def _waits(
    attempts: Iterable[HistoryRow], jobs: Mapping[str, Job], tiers: Iterable[Tier], stage: str
) -> tuple[TierWaits, ...]:
    started: dict[str, float] = {}
    for row in attempts:
        if row.stage == stage and row.claimed_at is not None and row.job_id in jobs:
            started[row.job_id] = min(row.claimed_at, started.get(row.job_id, row.claimed_at))
    waits: defaultdict[str, list[float]] = defaultdict(list)
    for job, at in started.items():
        waits[jobs[job].tier].append(max(0.0, at - jobs[job].enqueued))
    return tuple(
        TierWaits(tier.name, tier.slo_s, len(waits[tier.name]), median(waits[tier.name]), max(waits[tier.name]))
        for tier in sorted(tiers, key=lambda tier: tier.slo_s)
        if waits[tier.name]
    )
