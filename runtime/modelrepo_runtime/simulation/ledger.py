"""What became of every job of a simulated day, and how the day went."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from modelrepo_runtime.jobs import Status
from modelrepo_runtime.simulation.day import Day
from modelrepo_runtime.simulation.workload import Workload

NOT_STARTED = -1.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One moment of the day, for plots."""

    at_s: float
    backlog: tuple[int, ...]
    """Jobs of each tier whose wait goes on."""
    shares: tuple[float, ...]
    """Share of its SLO that the oldest waiting job of each tier has used."""
    gpus: int
    busy: int


@dataclass(slots=True)
class Ledger:
    """Written while the day runs."""

    day: Day
    work: Workload
    enqueued: list[float] = field(init=False)
    wait_s: list[float] = field(init=False)
    """Until the accelerator stage first started; NOT_STARTED before."""
    status: list[Status | None] = field(init=False)
    """How a job ended; None while it goes on."""
    unended: int = field(init=False)
    waiting: list[int] = field(init=False)
    samples: list[Sample] = field(default_factory=list)
    events: Counter[str] = field(default_factory=Counter)
    most_prepared: dict[str, int] = field(default_factory=dict)
    """Cluster -> the largest number of credits taken at once."""
    overshoot: int = 0
    """The most by which a grant found the limit reached; stays 0."""
    ended_s: float = 0.0
    _of_tier: list[list[int]] = field(init=False)
    _oldest: list[int] = field(init=False)

    def __post_init__(self) -> None:
        jobs, tiers = len(self.work.at_s), len(self.day.tiers)
        self.enqueued = [0.0] * jobs
        self.wait_s = [NOT_STARTED] * jobs
        self.status = [None] * jobs
        self.unended = jobs
        self.waiting = [0] * tiers
        self._of_tier = [[] for _ in range(tiers)]
        self._oldest = [0] * tiers

    def arrived(self, job: int, enqueued: float) -> None:
        """Begin a job's wait."""
        tier = self.work.tier[job]
        self.enqueued[job] = enqueued
        self._of_tier[tier].append(job)
        self.waiting[tier] += 1

    def started(self, job: int, now: float) -> None:
        """End a job's wait, unless it started once before."""
        if self.wait_s[job] == NOT_STARTED:
            self.wait_s[job] = now - self.enqueued[job]
            self.waiting[self.work.tier[job]] -= 1

    def ended(self, job: int, status: Status, now: float) -> None:
        """End a job. Raises: ValueError if it has ended already."""
        if self.status[job] is not None:
            raise ValueError(f"job {job} ended twice: {self.status[job]}, {status}")
        self.status[job] = status
        self.unended -= 1
        self.ended_s = now
        if self.wait_s[job] == NOT_STARTED:
            self.waiting[self.work.tier[job]] -= 1

    def came_back(self, job: int) -> None:
        """Take back that a job ended: its failures were its version's."""
        self.status[job] = None
        self.unended += 1

    def sample(self, now: float, gpus: int, busy: int) -> None:
        """Look at the day as it stands."""
        shares = []
        for n, tier in enumerate(self.day.tiers):
            jobs, at = self._of_tier[n], self._oldest[n]
            while at < len(jobs) and (self.wait_s[jobs[at]] != NOT_STARTED or self.status[jobs[at]] is not None):
                at += 1
            self._oldest[n] = at
            shares.append((now - self.enqueued[jobs[at]]) / tier.slo_s if at < len(jobs) else 0.0)
        self.samples.append(Sample(now, tuple(self.waiting), tuple(shares), gpus, busy))
