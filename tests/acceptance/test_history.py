"""Short jobs under faults; an oracle judges the history. None lost, none finished twice, none passed over."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import TypeVar

import pytest

from modelrepo.errors import Unreachable
from modelrepo.repository import Repository
from modelrepo.testing.proxy import Hang, Proxy, Swallow
from modelrepo.testing.small_versions import small_version
from modelrepo_runtime.jobs import StageNeed, Submission
from modelrepo_runtime.queue.opening import open_queue
from modelrepo_runtime.queue.port import JobFilter, JobQueue
from modelrepo_runtime.queue.reaper import Reaper
from modelrepo_runtime.testing.gateway_process import GatewayProcess
from modelrepo_runtime.testing.postgres_server import PostgresServer
from modelrepo_runtime.timing import Timing
from tests.acceptance.history.light_worker import Plan
from tests.acceptance.history.oracle import Evidence, Submitted, judge
from tests.acceptance.history.processes import Crew, crew

FULL = os.environ.get("MODELREPO_ACCEPTANCE") == "full"
JOBS = 100_000 if FULL else 320
WORKERS = 8 if FULL else 4
ROUNDS = 10 if FULL else 1
SUBMITTERS = 8
SCALE = 0.1 if FULL else 0.05
TIMING = Timing().scaled(SCALE)
LIMIT_S = 1500.0 if FULL else 120.0
AWAY_S = 180.0 if FULL else 3 * TIMING.lease_s
Answer = TypeVar("Answer")
ONE_STAGE = (StageNeed("run", "cpu"),)


def asked(call: Callable[[], Answer]) -> Answer:
    """Repeat a call that is safe to repeat until the queue answers."""
    until = time.monotonic() + LIMIT_S
    while True:
        try:
            return call()
        except Unreachable:
            assert time.monotonic() < until
            time.sleep(TIMING.beat_s / 5)


@dataclass
class Story:
    """A queue, its crew, and what is done to both while the jobs come in."""

    queue: JobQueue
    crew: Crew
    random: Random = field(default_factory=lambda: Random(7))
    submitted: list[Submitted] = field(default_factory=list)

    def submit(self, count: int) -> None:
        """Add jobs; each has a tenant of its own, so that no twin lane takes part in the order."""
        tiers = asked(self.queue.tiers)
        first = len(self.submitted)
        chosen = [(number, self.random.choice(tiers).name) for number in range(first, first + count)]
        with ThreadPoolExecutor(SUBMITTERS) as submitters:
            self.submitted.extend(submitters.map(self._submit, chosen))

    def _submit(self, chosen: tuple[int, str]) -> Submitted:
        number, tier = chosen
        wish = Submission("m", {"n": number}, ONE_STAGE, tier, f"t{number}")
        job = asked(partial(self.queue.submit, wish, idempotency_key=f"k{number}"))
        return Submitted(job.id, tier, job.enqueued)

    def kill_worker(self) -> None:
        self.crew.kill(self.random.choice(list(self.crew.running)))

    def stop_worker_past_its_lease(self) -> None:
        name = self.random.choice(list(self.crew.running))
        self.crew.stop(name)
        self.watch(TIMING.lease_s * 1.5)
        self.crew.go_on(name)

    def watch(self, seconds: float) -> None:
        """Let time pass with a reaper at work."""
        reaper = Reaper(self.queue, TIMING)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            with suppress(Unreachable):
                reaper.look()
            time.sleep(TIMING.beat_s / 2)

    def finish(self) -> None:
        """Wait until nothing waits or runs any more."""
        reaper = Reaper(self.queue, TIMING)
        until = time.monotonic() + LIMIT_S
        while asked(lambda: self.queue.list(JobFilter(ended=False, limit=1))):
            assert time.monotonic() < until, self.queue.list(JobFilter(ended=False, limit=3))
            with suppress(Unreachable):
                reaper.look()
            time.sleep(TIMING.beat_s / 2)

    def judge(self) -> None:
        """End the crew and hold what there is against every rule."""
        assert set(self.crew.leave()) <= {0, -signal.SIGTERM}  # the latter before its handler stood
        said, strange = self.crew.said()
        assert not strange, strange[:3]
        jobs = self.queue.list(JobFilter(limit=len(self.submitted) + 1))
        violations = judge(
            Evidence(
                self.submitted,
                {job.id: job.status.value for job in jobs},
                self.queue.history(),
                said,
                {tier.name: tier.slo_s for tier in self.queue.tiers()},
            )
        )
        assert not violations, (len(violations), violations[:5], violations[-5:])

    def lost(self, since: float, until: float) -> int:
        """Count the attempts that were taken from workers within a time of the queue's clock."""
        return sum(row.cause == "worker_lost" and since <= row.at <= until for row in self.queue.history())


def test_embedded_no_job_is_lost_or_done_twice_or_passed_over(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'queue.db'}"
    with closing(open_queue(url, TIMING)) as queue, crew(tmp_path / "crew") as workers:
        story = Story(queue, workers)
        for number in range(WORKERS):
            workers.start(Plan(f"w{number}", url, "", time_scale=SCALE, twice=number % 2 == 1))
        for _ in range(4 * ROUNDS):
            story.submit(JOBS // 4 // ROUNDS)
            story.kill_worker()
        story.finish()
        story.judge()


@dataclass
class Fleet(Story):
    """The same with a database, two gateways, and a bad network before one of them."""

    server: PostgresServer = field(kw_only=True)
    gates: tuple[GatewayProcess, ...] = field(kw_only=True)
    proxy: Proxy = field(kw_only=True)
    away_s: list[float] = field(default_factory=lambda: [3 * TIMING.lease_s] * (ROUNDS - 1) + [AWAY_S])
    """How long the database is away each time, the last one first."""

    def kill_gateway(self) -> None:
        gate = self.random.choice(self.gates)
        gate.kill()
        gate.start()

    def stop_gateway_past_a_lease(self) -> None:
        gate = self.random.choice(self.gates)
        os.kill(gate.pid, signal.SIGSTOP)
        self.watch(TIMING.lease_s * 1.5)
        os.kill(gate.pid, signal.SIGCONT)

    def lose_answers(self) -> None:
        """Commit, but never reply: to finishes and to claims."""
        self.proxy.on(Swallow(), "POST", "finish", times=5)
        self.proxy.on(Swallow(), "POST", "claim", times=5)

    def half_open(self) -> None:
        self.proxy.on(Hang(), "POST", "claim", times=2)
        self.proxy.on(Hang(), "POST", "finish", times=1)

    def restart_database(self) -> None:
        self.server.halt(signal.SIGQUIT)
        self.server.resume()

    def database_away(self) -> None:
        """Nobody is taken for lost because the database did not answer."""
        self.watch(2 * TIMING.lease_s)  # whoever was lost before, is lost by now
        since = time.time()
        self.server.halt()
        self.watch(self.away_s.pop())
        self.server.resume()
        self.watch(TIMING.lease_s)
        assert self.lost(since, time.time()) == 0


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    from modelrepo_runtime.queue.postgres.migrating import migrate

    with ExitStack() as held:
        server = held.enter_context(PostgresServer.start())
        url = server.create_database()
        migrate(url)
        queue = held.enter_context(closing(open_queue(url, TIMING)))
        small_version(Repository.init(f"file://{tmp_path}/repository").store, model="m")
        gates: list[GatewayProcess] = []
        for number in range(2):
            (tmp_path / f"gate{number}").mkdir()
            repo, files = f"file://{tmp_path}/repository", f"file://{tmp_path}/files"
            gate = GatewayProcess(tmp_path / f"gate{number}", repo=repo, queue=url, files=files, timing=TIMING)
            gates.append(held.enter_context(gate))
        proxy = held.enter_context(Proxy("127.0.0.1", gates[0].port))
        workers = held.enter_context(crew(tmp_path / "crew"))
        routes = (proxy.endpoint, gates[1].url)
        for number in range(WORKERS):
            skew_s = (0.0, 3600.0, -3600.0)[number % 3]
            plan = Plan(f"w{number}", routes[number % 2], "", time_scale=SCALE, skew_s=skew_s, twice=number % 4 == 3)
            workers.start(plan)
        yield Fleet(queue, workers, server=server, gates=tuple(gates), proxy=proxy)


def test_a_fleet_loses_no_job_does_none_twice_and_passes_none_over(fleet: Fleet) -> None:
    acts = (
        fleet.kill_worker,
        fleet.lose_answers,
        fleet.kill_gateway,
        fleet.half_open,
        fleet.stop_worker_past_its_lease,
        fleet.restart_database,
        fleet.stop_gateway_past_a_lease,
        fleet.database_away,
    )
    for _ in range(ROUNDS):
        for act in acts:
            fleet.submit(JOBS // ROUNDS // len(acts))
            act()
    fleet.finish()
    fleet.judge()
