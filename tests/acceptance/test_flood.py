"""One tenant sends far more than its share: nobody else waits for it. Time is a clock of the test's own."""

from __future__ import annotations

import heapq
import os
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from modelrepo_runtime.jobs import Cause, Fence, Outcome, StageNeed, Submission
from modelrepo_runtime.queue.memory import MemoryQueue
from modelrepo_runtime.queue.port import JobQueue, Offer, SlotReport, WorkerInfo
from modelrepo_runtime.queue.postgres.queue import PostgresQueue
from modelrepo_runtime.queue.sqlite.queue import SqliteQueue
from modelrepo_runtime.testing.clock import FakeClock
from modelrepo_runtime.timing import Timing

FULL = os.environ.get("MODELREPO_ACCEPTANCE") == "full"
FLOOD = 50_000 if FULL else 2_000
LASTS_S = 900.0 if FULL else 60.0
SLOTS = 20
SERVICE_S = 10.0
OTHERS_PER_S = 1.4
"""Of the 2 jobs a second that the slots can do."""
FLOODED_TIER = "light"
STAGES = (StageNeed("run"),)


@dataclass(frozen=True)
class Arrival:
    """A job of somebody else than the flooding tenant."""

    at_s: float
    tier: str
    tenant: str


@dataclass
class Played:
    """Slots that run every job for the same time, and when each job of somebody else was started."""

    queue: JobQueue
    clock: FakeClock
    began: float = field(init=False)
    running: list[tuple[float, str, str, Fence]] = field(default_factory=list)
    idle: list[str] = field(default_factory=lambda: [str(n) for n in range(SLOTS)])
    ours: dict[str, tuple[int, float]] = field(default_factory=dict)
    waits_s: dict[int, float] = field(default_factory=dict)
    floods_served: int = 0
    seq: int = 0

    def __post_init__(self) -> None:
        self.began = self.clock()
        self.session = self.queue.hello(WorkerInfo("w", "box", 1, slots=tuple(self.idle)))
        self.queue.beat(self.session, (), [SlotReport(slot, "open", "m", "v1") for slot in self.idle])

    def run(self, arrivals: list[Arrival]) -> None:
        coming = list(enumerate(arrivals))[::-1]
        while coming or len(self.waits_s) < len(arrivals):
            next_end = self.running[0][0] if self.running else float("inf")
            next_arrival = self.began + coming[-1][1].at_s if coming else float("inf")
            self.clock.advance(max(0.0, min(next_end, next_arrival) - self.clock()))
            while self.running and self.running[0][0] <= self.clock():
                self.finish(heapq.heappop(self.running))
            while coming and self.began + coming[-1][1].at_s <= self.clock():
                self.submit(*coming.pop())
            self.claim()

    def submit(self, number: int, arrival: Arrival) -> None:
        job = self.queue.submit(Submission("m", {}, STAGES, tier=arrival.tier, tenant=arrival.tenant))
        self.ours[job.id] = (number, self.clock())

    def claim(self) -> None:
        if not self.idle:
            return
        self.seq += 1
        offers = [Offer(slot, "m", "v1", ("run",)) for slot in self.idle]
        for claim in self.queue.claim(self.session, self.seq, offers):
            self.idle.remove(claim.slot)
            heapq.heappush(self.running, (self.clock() + SERVICE_S, claim.slot, claim.job_id, claim.fence))
            if claim.job_id in self.ours:
                number, submitted = self.ours[claim.job_id]
                self.waits_s[number] = self.clock() - submitted
            else:
                self.floods_served += 1

    def finish(self, ended: tuple[float, str, str, Fence]) -> None:
        _, slot, job_id, fence = ended
        self.queue.finish(self.session, job_id, fence, Outcome(Cause.SUCCEEDED, runtime_s=SERVICE_S))
        self.idle.append(slot)


def others() -> list[Arrival]:
    """Some thirty tenants of all tiers, each sending now and then."""
    rng, at_s, arrivals = random.Random(7), 0.0, []
    tiers = ["api", "enterprise", "unlimited", "light", "free"]
    while (at_s := at_s + rng.expovariate(OTHERS_PER_S)) < LASTS_S:
        tenant = rng.randrange(30)
        arrivals.append(Arrival(at_s, tiers[tenant % len(tiers)], f"tenant {tenant}"))
    return arrivals


@pytest.fixture(params=["sqlite", "postgresql"])
def queue(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[JobQueue, FakeClock]]:
    clock = FakeClock()
    if request.param == "sqlite":
        with closing(SqliteQueue(tmp_path / "queue.db", Timing.embedded(), clock)) as opened:
            yield opened, clock
    else:
        with closing(PostgresQueue(request.getfixturevalue("postgres_url"), Timing.embedded(), clock)) as opened:
            yield opened, clock


def test_a_flood_of_one_tenant_delays_nobody_else(queue: tuple[JobQueue, FakeClock]) -> None:
    arrivals = others()
    clock = FakeClock()
    calm = Played(MemoryQueue("memory://calm", Timing.embedded(), clock), clock)
    calm.run(arrivals)

    flooded = Played(*queue)
    one = Submission("m", {}, STAGES, tier=FLOODED_TIER, tenant="flood")
    with ThreadPoolExecutor(8) as pool:
        assert len(list(pool.map(flooded.queue.submit, [one] * FLOOD))) == FLOOD
    flooded.run(arrivals)

    slos_s = {tier.name: tier.slo_s for tier in flooded.queue.tiers()}
    for number, arrival in enumerate(arrivals):
        assert arrival.tier == FLOODED_TIER or flooded.waits_s[number] <= slos_s[arrival.tier], arrival
    firsts = {arrival.tenant: number for number, arrival in reversed(list(enumerate(arrivals)))}
    later_s = {tenant: flooded.waits_s[number] - calm.waits_s[number] for tenant, number in firsts.items()}
    assert max(later_s.values()) <= SERVICE_S, later_s
    assert flooded.floods_served > len(arrivals) / 10  # what is spare, and one pick in ten
