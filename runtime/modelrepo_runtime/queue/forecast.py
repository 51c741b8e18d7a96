"""Predicted start and finish: work ahead of a job in its lanes, live slots, learnt times, progress.

What is ahead are the jobs that are there now; later arrivals of stricter tiers are not guessed. Unknown is None: no
live slot, a paused lane, or a stage that has never run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from modelrepo_runtime.job_memory import MemoryNeed
from modelrepo_runtime.jobs import Eta, StageNeed
from modelrepo_runtime.queue.drain import Drain, Rivals
from modelrepo_runtime.queue.estimates import Estimates, ServiceTime

FAR_MORE = 4
PROGRESS_TRUSTED = 0.05
"""Progress from which a rest may be told from it alone."""


@dataclass(frozen=True, slots=True)
class LaneLoad:
    """A lane and how full it is."""

    model: str
    stage: str
    on: str
    """cpu or gpu."""
    tier: str
    weight: float
    """What a second of wait adds to the rank of its jobs: 1 / SLO for `slo-share`."""
    depth: int
    oldest: float
    newest: float
    version: str | None = None
    cluster: str | None = None
    over: bool = False
    paused: bool = False
    avoid: frozenset[str] = frozenset()
    memory: MemoryNeed | None = None
    """What a slot must have; None: whatever."""
    delayed: int = 0
    """Jobs of it whose next try is not due yet; not in `depth`."""
    slo_s: float = 0.0
    plan: tuple[StageNeed, ...] = ()
    """The stages that its oldest job follows."""
    number: int = 0
    more_than: int | None = None
    """How many were counted, where `depth` is guessed from them; None: it was counted whole."""

    def has_before(self, moment: float, count: int) -> bool:
        """True if, coming evenly, far more of its jobs than `count` came before a moment."""
        if moment <= self.oldest or self.depth < FAR_MORE * count:
            return False
        part = 1.0 if moment >= self.newest else (moment - self.oldest) / (self.newest - self.oldest)
        return self.depth * part >= FAR_MORE * count


@dataclass(frozen=True, slots=True)
class Running:
    """What a slot does now."""

    stage: str
    started: float
    size: str | None = None
    progress: float | None = None


@dataclass(frozen=True, slots=True)
class SlotLoad:
    """An open live slot that may take jobs now."""

    model: str
    version: str | None
    on: tuple[str, ...] = ("cpu", "gpu")
    cluster: str = "local"
    accelerator: str | None = None
    incoming: str | None = None
    running: Running | None = None
    also: tuple[str, ...] = ()
    """Further versions that it serves."""
    name: str = ""
    """`<worker>/<slot>`."""

    def takes(self, on: str, version: str | None, cluster: str | None) -> bool:
        """True if it may take jobs of this kind, version and cluster."""
        versions = (None, self.version, self.incoming, *self.also)
        return on in self.on and version in versions and cluster in (None, self.cluster)


@dataclass(frozen=True, slots=True)
class Load:
    """The queue and its slots at one moment."""

    at: float
    lanes: Sequence[LaneLoad]
    slots: Sequence[SlotLoad]
    estimates: Estimates
    weights: Mapping[str, float] = field(default_factory=dict)
    """By tier: what a second of wait adds to the rank of its jobs."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A job whose times are wanted."""

    model: str
    stages: tuple[StageNeed, ...]
    enqueued: float
    tier: str
    stage_index: int = 0
    version: str | None = None
    cluster: str | None = None
    size: str | None = None
    over: bool = False
    due: float | None = None
    """When its delay ends."""
    started_at: float | None = None
    """When its wait ended, if it has."""
    running: Running | None = None
    slot: str | None = None
    """`<worker>/<slot>` that runs it."""


def rest_s(time: ServiceTime | None, elapsed_s: float, progress: float | None) -> float | None:
    """Return how much longer an attempt takes; progress counts for more the farther it is."""
    part = progress or 0.0
    if time is None:
        return elapsed_s * (1 - part) / part if part >= PROGRESS_TRUSTED else None
    if part > 0:
        return (1 - part) * (elapsed_s + (1 - part) * time.mean_s)
    return time.rest_s(elapsed_s)


@dataclass(slots=True)
class Forecaster:
    """Answers for one Load; what many answers share is worked out once."""

    load: Load
    _lanes: dict[tuple[str, str], list[LaneLoad]] = field(default_factory=dict)
    _drains: dict[tuple[str, str, str | None, str | None], Drain] = field(default_factory=dict)
    _devices: dict[str, str | None] = field(default_factory=dict)
    _paused: set[tuple[str, str]] = field(default_factory=set)
    """Models and tiers of which no job is given out."""

    def __post_init__(self) -> None:
        for lane in self.load.lanes:
            if lane.paused:
                self._paused.add((lane.model, lane.tier))
            elif lane.depth > 0:
                self._lanes.setdefault((lane.model, lane.on), []).append(lane)
        self._devices.update((slot.name, slot.accelerator) for slot in self.load.slots)

    def eta(self, job: Asked) -> Eta | None:
        """Return when a job starts and ends; None where neither is known."""
        moment: float | None = self.load.at if job.due is None else max(self.load.at, job.due)
        start_at, index = job.started_at, job.stage_index
        if job.running is not None:
            moment = self._end_of_running(job, job.running)
            index += 1
        waits_for = next((stage.name for stage in job.stages if stage.on == "gpu"), job.stages[0].name)
        for stage in job.stages[index:]:
            moment = None if moment is None else self._start(job, stage, moment)
            if stage.name == waits_for and start_at is None:
                start_at = moment
            time = self.load.estimates.of(job.model, stage.name, job.size)
            moment = None if moment is None or time is None else moment + time.mean_s
        return None if start_at is None and moment is None else Eta(start_at, moment)

    def wait_s(self, lane: LaneLoad) -> float | None:
        """Return how long a job waits that joins a lane now."""
        asked = Asked(lane.model, (), self.load.at, lane.tier, 0, lane.version, lane.cluster, None, lane.over)
        if lane.paused:
            return None
        start = self._start(asked, StageNeed(lane.stage, lane.on), self.load.at)
        return None if start is None else start - self.load.at

    def _end_of_running(self, job: Asked, running: Running) -> float | None:
        time = self.load.estimates.of(job.model, running.stage, running.size, self._devices.get(job.slot or ""))
        rest = rest_s(time, max(0.0, self.load.at - running.started), running.progress)
        return None if rest is None else self.load.at + rest

    def _start(self, job: Asked, stage: StageNeed, earliest: float) -> float | None:
        """Return when a slot takes the job at this stage, `earliest` or later."""
        if (job.model, job.tier) in self._paused:
            return None
        start = self._drain(job, stage.on).start(job.enqueued, self.load.weights[job.tier], over=job.over)
        return None if start is None else max(earliest, start)

    def _drain(self, job: Asked, on: str) -> Drain:
        key = (job.model, on, job.version, job.cluster)
        if key not in self._drains:
            rivals: dict[tuple[str, float, bool], Rivals] = {}
            for lane in self._lanes.get((job.model, on), ()):
                time = self.load.estimates.of(job.model, lane.stage)
                mean_s = time.mean_s if time is not None else None
                own = Rivals(lane.weight, lane.over, lane.depth, lane.oldest, lane.newest, mean_s)
                alike = (lane.stage, lane.weight, lane.over)
                rivals[alike] = rivals[alike].joined(own) if alike in rivals else own
            self._drains[key] = Drain(rivals.values(), self._free_in_s(*key), self.load.at)
        return self._drains[key]

    def _free_in_s(self, model: str, on: str, version: str | None, cluster: str | None) -> list[float]:
        """Return in how many seconds each slot that may take such jobs is free."""
        slots = [slot for slot in self.load.slots if slot.model == model and slot.takes(on, version, cluster)]
        return [self._rest_of(slot) for slot in slots]

    def _rest_of(self, slot: SlotLoad) -> float:
        if slot.running is None:
            return 0.0
        running = slot.running
        time = self.load.estimates.of(slot.model, running.stage, running.size, slot.accelerator)
        return rest_s(time, max(0.0, self.load.at - running.started), running.progress) or 0.0
