"""How many jobs wait for a model and how many slots serve it: looked up once for all boxes that ask."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence

from modelrepo_runtime.jobs import Status
from modelrepo_runtime.queue.demand import LaneDemand, lane_demands
from modelrepo_runtime.queue.http.calls import ModelStanding
from modelrepo_runtime.queue.port import JobFilter, JobQueue
from modelrepo_runtime.timing import Timing

FRESH_S = 1.0
DEMAND_FRESH_S = 5.0
MOST_WAITING = 1000
"""Beyond, the exact number changes nothing for whoever chooses a model for a slot."""


class Standing:
    """May be shared by threads."""

    def __init__(self, queue: JobQueue, timing: Timing) -> None:
        self._queue, self._timing = queue, timing
        self._lock = threading.Lock()
        self._slots: Counter[str] = Counter()
        self._slots_at = float("-inf")
        self._waiting: dict[str, tuple[int, float]] = {}
        self._demands: dict[str, tuple[tuple[LaneDemand, ...], float]] = {}

    def of(self, models: Sequence[str]) -> Mapping[str, ModelStanding]:
        """Return what is known of models; at most a second old."""
        with self._lock:
            now = time.monotonic()
            if now - self._slots_at > FRESH_S:
                self._slots, self._slots_at = self._count_slots(), now
            return {model: ModelStanding(self._count_waiting(model, now), self._slots[model]) for model in models}

    def demand(self, models: Sequence[str]) -> Mapping[str, tuple[LaneDemand, ...]]:
        """Return what waits for models, lane by lane; at most five seconds old."""
        with self._lock:
            now = time.monotonic()
            return {model: self._demand(model, now) for model in models}

    def _demand(self, model: str, now: float) -> tuple[LaneDemand, ...]:
        lanes, at = self._demands.get(model, ((), float("-inf")))
        if now - at > DEMAND_FRESH_S:
            lanes = lane_demands(self._queue.queue_report(model))
            self._demands[model] = (lanes, now)
        return lanes

    def _count_slots(self) -> Counter[str]:
        live = [worker for worker in self._queue.fleet() if worker.last_beat_age_s <= self._timing.lease_s]
        slots = (slot for worker in live for slot in worker.slots if slot.on != ("cpu",))
        return Counter(slot.model for slot in slots if slot.model is not None)

    def _count_waiting(self, model: str, now: float) -> int:
        count, at = self._waiting.get(model, (0, float("-inf")))
        if now - at > FRESH_S:
            where = JobFilter(status=Status.QUEUED, model=model, limit=MOST_WAITING)
            count = len(self._queue.list(where))
            self._waiting[model] = (count, now)
        return count
