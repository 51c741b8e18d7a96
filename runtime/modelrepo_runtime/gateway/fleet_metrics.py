"""What a gateway reads of the queue and of the fleet for Prometheus. The names are documented in docs/api.md."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from modelrepo.errors import ModelRepoError
from modelrepo_runtime.queue.port import JobQueue, WorkerReport
from modelrepo_runtime.queue.reports import LaneReport, QueueReport

KEPT_S = 15.0
"""How long a look is shown again: it costs a read of all lanes and of the fleet, and every gateway is asked."""

Values = Mapping[tuple[str, ...], float]


@dataclass(frozen=True, slots=True)
class Figure:
    """A gauge: its name, what it says, and its labels."""

    name: str
    help: str
    labels: tuple[str, ...] = ()

    def family(self, values: Values) -> GaugeMetricFamily:
        """Return it with these values by labels."""
        family = GaugeMetricFamily(self.name, self.help, labels=self.labels)
        for labels, value in sorted(values.items()):
            family.add_metric(labels, value)
        return family


_LANE = ("model", "stage", "tier")
_VERSION = ("cluster", "model", "version")
UP = Figure("modelrepo_queue_up", "1 where the queue answered the last look, else 0, and the rest is missing.")
WAITING = Figure("modelrepo_queue_waiting_jobs", "Jobs that wait for a slot.", _LANE)
DELAYED = Figure("modelrepo_queue_delayed_jobs", "Jobs whose next try is not due yet.", _LANE)
OLDEST = Figure("modelrepo_queue_oldest_seconds", "Since when the oldest waiting job was submitted.", _LANE)
SHARE = Figure("modelrepo_queue_slo_share", "Part of the longest acceptable wait that the oldest has used.", _LANE)
WAIT = Figure("modelrepo_queue_expected_wait_seconds", "How long a job that joins now is expected to wait.", _LANE)
PAUSED = Figure("modelrepo_queue_paused", "1 where an operator holds the jobs back.", _LANE)
FAILING = Figure("modelrepo_version_failing", "1: it fails wherever it runs.", ("model", "version", "stage"))
IN_FLIGHT = Figure("modelrepo_credits_in_flight", "Jobs prepared ahead of a cluster's accelerators.", _VERSION)
LIMIT = Figure("modelrepo_credits_limit", "How many may be.", _VERSION)
SLOTS = Figure("modelrepo_slots", "Slots of live workers: open, cordoned, refused.", (*_VERSION, "state"))
BUSY = Figure("modelrepo_slots_busy", "Of these, those that run a job.", ("cluster", "model"))
SWAPPING = Figure("modelrepo_slots_swapping", "Of these, those that bring up another version.", ("cluster", "model"))
WORKERS = Figure("modelrepo_workers", "Workers: live, or silent for more than a lease.", ("cluster", "state"))
FIGURES = (
    UP, WAITING, DELAYED, OLDEST, SHARE, WAIT, PAUSED, FAILING, IN_FLIGHT, LIMIT, SLOTS, BUSY, SWAPPING, WORKERS,
)  # fmt: skip


@dataclass
class FleetMetrics:
    """Looks at a queue at most once in `KEPT_S`, whoever asks. For any thread; a call takes as long as the queue."""

    queue: JobQueue
    clock: Callable[[], float] = time.monotonic
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _seen: tuple[float, bytes] | None = None

    def text(self) -> bytes:
        """Return the figures in Prometheus' text format; only `modelrepo_queue_up 0` where the queue is away."""
        with self._lock:
            if self._seen is None or self.clock() - self._seen[0] >= KEPT_S:
                self._seen = self.clock(), self._look()
            return self._seen[1]

    def _look(self) -> bytes:
        try:
            seen = figures(self.queue.queue_report(), self.queue.fleet())
        except ModelRepoError:
            seen = {UP: {(): 0.0}}
        registry = CollectorRegistry()
        registry.register(_Seen([figure.family(values) for figure, values in seen.items()]))
        return generate_latest(registry)


class _Seen(Collector):
    def __init__(self, families: Sequence[GaugeMetricFamily]) -> None:
        self._families = families

    def collect(self) -> Iterator[GaugeMetricFamily]:
        yield from self._families


def figures(queue: QueueReport, fleet: Iterable[WorkerReport]) -> dict[Figure, Values]:
    """Sum up lanes by model, stage and tier, and slots by cluster, model and version."""
    return {UP: {(): 1.0}, **_of_lanes(queue.lanes), **_of_versions(queue), **_of_fleet(fleet)}


def _of_lanes(lanes: Iterable[LaneReport]) -> dict[Figure, Values]:
    waiting, delayed = Counter[tuple[str, ...]](), Counter[tuple[str, ...]]()
    largest: dict[Figure, dict[tuple[str, ...], float]] = {OLDEST: {}, SHARE: {}, WAIT: {}, PAUSED: {}}
    for lane in lanes:
        key = (lane.model, lane.stage, lane.tier)
        waiting[key] += lane.waiting
        delayed[key] += lane.delayed
        said = {OLDEST: lane.oldest_s, SHARE: lane.share, WAIT: lane.wait_s, PAUSED: float(lane.paused)}
        for figure, value in said.items():
            if value is not None:
                largest[figure][key] = max(value, largest[figure].get(key, value))
    return {WAITING: waiting, DELAYED: delayed, **largest}


def _of_versions(queue: QueueReport) -> dict[Figure, Values]:
    granted = {(each.cluster, each.model, each.version): each for each in queue.credits}
    return {
        FAILING: {(each.model, each.version, each.stage): 1.0 for each in queue.failing},
        IN_FLIGHT: {key: each.in_flight for key, each in granted.items()},
        LIMIT: {key: each.limit for key, each in granted.items() if each.limit is not None},
    }


def _of_fleet(fleet: Iterable[WorkerReport]) -> dict[Figure, Values]:
    slots, busy, swapping, workers = (Counter[tuple[str, ...]]() for _ in range(4))
    for worker in fleet:
        cluster = worker.info.cluster
        workers[cluster, "live" if worker.live else "silent"] += 1
        for slot in worker.slots if worker.live else ():
            slots[cluster, slot.model or "", slot.version or "", slot.state] += 1
            busy[cluster, slot.model or ""] += slot.job_id is not None
            swapping[cluster, slot.model or ""] += slot.incoming is not None
    return {SLOTS: slots, BUSY: busy, SWAPPING: swapping, WORKERS: workers}
