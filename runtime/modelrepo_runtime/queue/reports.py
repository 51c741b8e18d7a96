"""What operators see of the queue as a whole, and of one worker's view of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from modelrepo_runtime.job_memory import MemoryNeed
from modelrepo_runtime.jobs import Json
from modelrepo_runtime.queue.order_settings import Pause


@dataclass(frozen=True, slots=True)
class FailingVersion:
    """A version that failed wherever it ran: it gets no jobs but probes, and its failures are given back to jobs."""

    model: str
    version: str
    stage: str
    """At which it failed."""
    since: float
    attempts: int
    """In the five minutes before."""
    failed: int
    workers: int
    probing: tuple[str, ...] = ()
    """Clusters that try it with a job now."""


@dataclass(frozen=True, slots=True)
class LaneReport:
    """The waiting jobs that every poll reading them may claim."""

    model: str
    stage: str
    on: str
    """cpu or gpu."""
    tier: str
    version: str | None
    """The only one that may take them; None: any."""
    cluster: str | None
    over: bool
    """True: jobs of tenants who are far ahead of their share."""
    avoid: tuple[str, ...]
    waiting: int
    delayed: int
    """Of which the next try is not due yet; not among `waiting`."""
    oldest_s: float | None
    """Since when the oldest has waited."""
    share: float | None
    """The part of its tier's longest acceptable wait that the oldest has used."""
    wait_s: float | None
    """How long a job that joins it now is expected to wait; None: unknown."""
    paused: bool
    more_than: int | None = None
    """How many of those that wait were counted, where `waiting` is an estimate; None: it is exact."""
    needs: MemoryNeed | None = None
    """The memory that a slot must have for them; None: all have it, or nothing is known."""


@dataclass(frozen=True, slots=True)
class CreditReport:
    """How many jobs are prepared ahead of a cluster's accelerators, and how many may be."""

    cluster: str
    model: str
    version: str
    in_flight: int
    limit: int | None
    """None: no job that would take one waits."""


@dataclass(frozen=True, slots=True)
class QueueReport:
    """All lanes, and what holds jobs back."""

    at: float
    policy: str
    lanes: tuple[LaneReport, ...]
    """The most urgent first."""
    pauses: tuple[Pause, ...]
    failing: tuple[FailingVersion, ...]
    credits: tuple[CreditReport, ...]


@dataclass(frozen=True, slots=True)
class WorkerExplanation:
    """What a worker's slots could take now, and why not the rest: in words and as facts."""

    worker: str
    lines: tuple[str, ...]
    facts: Mapping[str, Json]


class Reports(Protocol):
    """Part of the JobQueue port."""

    def failing_versions(self) -> tuple[FailingVersion, ...]:
        """Return the versions that the version breaker holds back."""

    def reset_version(self, model: str, version: str) -> bool:
        """Take a failing version for healthy again, as a probe's success would; False where it does not fail."""

    def queue_report(self, model: str | None = None, tier: str | None = None) -> QueueReport:
        """Return every lane that is not empty, of one model or tier if wanted; counts up to 5,000 jobs of each."""

    def explain_worker(self, worker: str) -> WorkerExplanation:
        """Say what each slot of a worker could take now. Raises: WorkerNotFound."""
