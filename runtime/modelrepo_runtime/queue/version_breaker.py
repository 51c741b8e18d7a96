"""The version breaker: a version that fails wherever it runs is taken back to one probe a cluster until one succeeds.

What its failures did to jobs is given back, so a bad version leaves no dead letter. Slots that serve another version
never notice. The rules are functions over counts; `VersionRecord` keeps the counts where there is no database.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from modelrepo_runtime.jobs import Cause

WINDOW_S = 300.0
WINDOW_REPORTS = 256
"""The newest reports of the window that are looked at: what a failing finish costs does not grow with the fleet."""
LEAST_ATTEMPTS = 10
LEAST_WORKERS = 3
FAILED_SHARE = 0.5

FAILED = frozenset(
    {Cause.EXCEPTION, Cause.RETRY, Cause.OUT_OF_MEMORY, Cause.CRASH, Cause.HANG, Cause.LOAD_FAILED},
)
FINE = frozenset({Cause.SUCCEEDED, Cause.REJECTED})
"""A rejection shows that the model works. Neither fine nor failed: what says nothing of the version (a preemption, a
cancellation, a lost box)."""


class VersionState(StrEnum):
    """How a version stands with the queue."""

    HEALTHY = "healthy"
    FAILING = "failing"
    PROBING = "probing"


VERSION_TRANSITIONS: Mapping[VersionState, frozenset[VersionState]] = {
    VersionState.HEALTHY: frozenset({VersionState.FAILING}),
    VersionState.FAILING: frozenset({VersionState.PROBING, VersionState.HEALTHY}),
    VersionState.PROBING: frozenset({VersionState.FAILING, VersionState.HEALTHY}),
}


@dataclass(frozen=True, slots=True)
class Report:
    """How attempts at one stage of one version ended in one slot."""

    worker: str
    """`<worker>/<slot>`."""
    at: float
    attempts: int
    failed: int


@dataclass(frozen=True, slots=True)
class Tally:
    """What a window of reports comes to."""

    attempts: int
    failed: int
    workers: int

    @property
    def trips(self) -> bool:
        """True if so much failed in so many places that the version must be at fault."""
        enough = self.attempts >= LEAST_ATTEMPTS and self.workers >= LEAST_WORKERS
        return enough and self.failed >= FAILED_SHARE * self.attempts


def verdict(cause: Cause) -> bool | None:
    """Tell whether an attempt that ended so speaks for its version (True), against it (False) or neither (None)."""
    return True if cause in FINE else False if cause in FAILED else None


def tally(reports: Iterable[Report]) -> Tally:
    """Add reports up."""
    attempts = failed = 0
    workers: set[str] = set()
    for report in reports:
        attempts += report.attempts
        failed += report.failed
        workers.add(report.worker)
    return Tally(attempts, failed, len(workers))


def window_start(now: float, closed_at: float | None) -> float:
    """Return the moment after which reports count; those from before the breaker last closed are spent."""
    return now - WINDOW_S if closed_at is None else max(now - WINDOW_S, closed_at)


def closes(cause: Cause, *, probe: bool, at_failing_stage: bool, last_stage: bool) -> bool:
    """Tell whether an attempt's end shows that a failing version works again.

    Only a probe shows it: what was claimed before the version failed may be the luckier half. A stage before the one
    that fails proves nothing.
    """
    return cause in FINE and probe and (at_failing_stage or last_stage)


def probes_allowed(limit: int, probes_leased: int) -> int:
    """Return how many jobs a slot of a failing version may lease, given the leases its cluster has at that stage."""
    return min(limit, 1) if probes_leased == 0 else 0


def state_of(*, failing: bool, probes_leased: int) -> VersionState:
    """Return a version's state."""
    if not failing:
        return VersionState.HEALTHY
    return VersionState.PROBING if probes_leased else VersionState.FAILING


@dataclass(slots=True)
class VersionRecord:
    """One stage of one version, remembered in memory. Times are seconds of the caller's clock."""

    since: float | None = None
    """Since when it fails; None: it does not."""
    _closed_at: float | None = None
    _reports: deque[Report] = field(default_factory=lambda: deque(maxlen=WINDOW_REPORTS))
    _probes: dict[str, int] = field(default_factory=dict)
    """Cluster -> leases of the failing version."""

    @property
    def state(self) -> VersionState:
        return state_of(failing=self.since is not None, probes_leased=sum(self._probes.values()))

    def allowed(self, cluster: str, limit: int) -> int:
        """Return how many jobs a slot of `cluster` may lease now."""
        return limit if self.since is None else probes_allowed(limit, self._probes.get(cluster, 0))

    def claimed(self, cluster: str, count: int = 1) -> None:
        """Record leases; those of a healthy version need no record."""
        if self.since is not None and count:
            self._probes[cluster] = self._probes.get(cluster, 0) + count

    def ended(self, worker: str, cluster: str, cause: Cause, *, claimed_at: float, now: float) -> bool:
        """Record an attempt's end; return False where it is not to be held against its job."""
        if self.since is not None:
            return self._ended_while_failing(cluster, cause, self.since, claimed_at, now)
        fine = verdict(cause)
        if fine is not None:
            self._reports.append(Report(worker, now, 1, 0 if fine else 1))
        after = window_start(now, self._closed_at)
        if fine is False and tally(report for report in self._reports if report.at > after).trips:
            self.since = now
            self._probes.clear()
            return False
        return True

    def _ended_while_failing(self, cluster: str, cause: Cause, since: float, claimed_at: float, now: float) -> bool:
        probe = claimed_at >= since and self._probes.get(cluster, 0) > 0
        if probe:
            self._probes[cluster] -= 1
        if closes(cause, probe=probe, at_failing_stage=True, last_stage=False):
            self.close(now)
        return cause not in FAILED

    def close(self, now: float) -> None:
        """Take the version for healthy: a probe succeeded, or an operator says so."""
        self.since, self._closed_at = None, now
        self._probes.clear()
