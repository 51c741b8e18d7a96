"""What is simulated: who asks for what and when, what there is to run it on, and what goes wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from modelrepo_runtime.jobs import StageNeed
from modelrepo_runtime.queue.port import Tier

MODEL = "video-gen"
"""The model of all jobs of a day."""
FIRST_VERSION = "v1"


@dataclass(frozen=True, slots=True)
class Arrivals:
    """How many jobs come when: `per_hour`, or a rate that is `load` times what the accelerators can do."""

    per_hour: tuple[int, ...] = ()
    load: float | None = None
    hours: float = 0.0


@dataclass(frozen=True, slots=True)
class Mix:
    """Somebody's or something's share of all jobs, 0..1."""

    name: str
    share: float


@dataclass(frozen=True, slots=True)
class Customers:
    """`number` tenants that are alike and together bring `share` of all jobs."""

    name: str
    share: float
    weight: float = 1.0
    number: int = 1

    def names(self) -> tuple[str, ...]:
        """Return the names of its tenants."""
        return (self.name,) if self.number == 1 else tuple(f"{self.name}-{n + 1}" for n in range(self.number))


@dataclass(frozen=True, slots=True)
class Flood:
    """Jobs that one tenant sends beside all others."""

    at_s: float
    tenant: str
    tier: str
    jobs: int
    over_s: float


@dataclass(frozen=True, slots=True)
class Size:
    """A size class: the mean seconds of each stage, and how far a job's are from it."""

    name: str
    share: float
    stages_s: tuple[float, ...]
    spread: float = 0.0
    """Standard deviation over mean; one factor for all stages of a job, log-normal."""


@dataclass(frozen=True, slots=True)
class Step:
    """From `at_s` on a pool has `slots`."""

    at_s: float
    slots: int


@dataclass(frozen=True, slots=True)
class Cluster:
    """Boxes that share accelerators and storage."""

    name: str
    gpus: tuple[Step, ...]
    cpus: tuple[Step, ...]
    warm_up_s: float = 0.0
    """From a slot's coming until it takes jobs; those that are there at 0 are warm."""
    gpus_per_box: int = 8
    bound: bool = False
    """True: what is prepared here lies in the cluster's own storage and is taken up nowhere else."""

    def most(self, steps: Sequence[Step]) -> int:
        """Return the largest size that a pool reaches."""
        return max((step.slots for step in steps), default=0)


@dataclass(frozen=True, slots=True)
class Failures:
    """Shares of the attempts at the accelerator stage that end badly, and boxes that are lost."""

    exception: float = 0.0
    crash: float = 0.0
    out_of_memory: float = 0.0
    hang: float = 0.0
    poison: float = 0.0
    """Share of jobs that crash whoever runs them, at every try."""
    boxes_lost_per_hour: float = 0.0
    box_away_s: float = 900.0


@dataclass(frozen=True, slots=True)
class Rollout:
    """A promotion, and perhaps the way back."""

    at_s: float
    version: str
    max_unavailable: str = "10%"
    swap_s: float = 60.0
    """How long a slot is away for its swap."""
    failing: float = 0.0
    """Share of its attempts that raise."""
    rollback_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Day:
    """All of it. Moments are seconds after the day's beginning."""

    name: str
    seed: int
    arrivals: Arrivals
    tiers: tuple[Tier, ...]
    tier_mix: tuple[Mix, ...]
    stages: tuple[StageNeed, ...]
    sizes: tuple[Size, ...]
    clusters: tuple[Cluster, ...]
    tenants: tuple[Customers, ...] = (Customers("default", 1.0),)
    floods: tuple[Flood, ...] = ()
    failures: Failures = field(default_factory=Failures)
    rollouts: tuple[Rollout, ...] = ()

    @property
    def gpu_stage(self) -> int:
        """Return the index of the accelerator stage, or of the first where there is none: waits end as it starts."""
        return next((n for n, stage in enumerate(self.stages) if stage.on == "gpu"), 0)

    def mean_s(self, stage: int) -> float:
        """Return the mean service time of a stage over all sizes."""
        return sum(size.share * size.stages_s[stage] for size in self.sizes)

    def arrivals_per_hour(self) -> tuple[int, ...]:
        """Return how many jobs come in each hour, floods aside."""
        if self.arrivals.load is None:
            return self.arrivals.per_hour
        slots = sum(next((s.slots for s in cluster.gpus if s.at_s == 0), 0) for cluster in self.clusters)
        hourly = self.arrivals.load * slots * 3600 / self.mean_s(self.gpu_stage)
        whole = int(self.arrivals.hours)
        last = self.arrivals.hours - whole
        return tuple(round(hourly) for _ in range(whole)) + ((round(hourly * last),) if last else ())
