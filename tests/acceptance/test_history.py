"""Short jobs under faults; an oracle judges the history. None lost, none finished twice, none passed over."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from modelrepo_runtime.jobs import StageNeed, Submission
from modelrepo_runtime.queue.opening import open_queue
from modelrepo_runtime.queue.port import JobFilter, JobQueue
from modelrepo_runtime.queue.reaper import Reaper
from modelrepo_runtime.timing import Timing
from tests.acceptance.history.light_worker import Plan
from tests.acceptance.history.oracle import Evidence, Submitted, judge
from tests.acceptance.history.processes import Crew, crew

FULL = os.environ.get("MODELREPO_ACCEPTANCE") == "full"
JOBS = 100_000 if FULL else 1_500
WORKERS = 8 if FULL else 4
SCALE = 0.1
TIMING = Timing().scaled(SCALE)
FAULTS = 4
LIMIT_S = 1500.0 if FULL else 90.0
ONE_STAGE = (StageNeed("run", "cpu"),)


@dataclass
class Story:
    """A queue, its crew, and what is done to both while the jobs come in."""

    queue: JobQueue
    crew: Crew
    random: Random
    submitted: list[Submitted]

    def submit(self, count: int) -> None:
        """Add jobs; each has a tenant of its own, so that no twin lane takes part in the order."""
        tiers = self.queue.tiers()
        for _ in range(count):
            number = len(self.submitted)
            tier = self.random.choice(tiers).name
            job = self.queue.submit(
                Submission("m", {"n": number}, ONE_STAGE, tier, f"t{number}"), idempotency_key=f"k{number}"
            )
            self.submitted.append(Submitted(job.id, tier, job.enqueued))

    def kill_one(self) -> None:
        self.crew.kill(self.random.choice(list(self.crew.running)))

    def stop_one_past_its_lease(self) -> None:
        name = self.random.choice(list(self.crew.running))
        self.crew.stop(name)
        self.watch(TIMING.lease_s * 1.5)
        self.crew.go_on(name)

    def watch(self, seconds: float) -> None:
        """Let time pass with a reaper at work."""
        reaper = Reaper(self.queue, TIMING)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            reaper.look()
            time.sleep(TIMING.beat_s / 2)

    def finish(self) -> None:
        """Wait until nothing waits or runs any more."""
        reaper = Reaper(self.queue, TIMING)
        until = time.monotonic() + LIMIT_S
        while self.queue.list(JobFilter(ended=False, limit=1)):
            assert time.monotonic() < until, self.queue.list(JobFilter(ended=False, limit=3))
            reaper.look()
            time.sleep(TIMING.beat_s / 2)

    def evidence(self) -> Evidence:
        said, strange = self.crew.said()
        assert not strange, strange[:3]
        jobs = self.queue.list(JobFilter(limit=len(self.submitted) + 1))
        return Evidence(
            self.submitted,
            {job.id: job.status.value for job in jobs},
            self.queue.history(),
            said,
            {tier.name: tier.slo_s for tier in self.queue.tiers()},
        )


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'queue.db'}"


@pytest.fixture
def story(tmp_path: Path, sqlite_url: str) -> Iterator[Story]:
    with closing(open_queue(sqlite_url, TIMING)) as queue, crew(tmp_path / "crew") as made:
        for number in range(WORKERS):
            made.start(
                Plan(
                    f"w{number}",
                    sqlite_url,
                    "",
                    time_scale=SCALE,
                    skew_s=(0.0, 3600.0, -3600.0, 0.0)[number % 4],
                    twice=number % 4 == 3,
                )
            )
        yield Story(queue, made, Random(7), [])


def faults(story: Story, each: Callable[[], None], times: int) -> None:
    for _ in range(times):
        story.submit(JOBS // FAULTS)
        each()


def test_no_job_is_lost_or_done_twice_or_passed_over(story: Story) -> None:
    faults(story, story.kill_one, FAULTS)
    story.finish()
    assert set(story.crew.leave()) <= {0, -signal.SIGTERM}  # the latter before its handler stood
    violations = judge(story.evidence())
    assert not violations, (len(violations), violations[:5], violations[-5:])
