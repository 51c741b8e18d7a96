from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from modelrepo.errors import Unreachable
from modelrepo_runtime.jobs import StageNeed, Status, Submission
from modelrepo_runtime.queue.memory import MemoryQueue
from modelrepo_runtime.queue.port import Offer, SlotReport, WorkerInfo
from modelrepo_runtime.queue.reaper import Reaper
from modelrepo_runtime.testing.clock import FakeClock
from modelrepo_runtime.timing import Timing

TIMING = Timing.embedded()


class FailingQueue(MemoryQueue):
    """Does not answer while `down`."""

    down = False

    def beats(self) -> Mapping[str, int]:
        if self.down:
            raise Unreachable("the database is away")
        return super().beats()


class Watch:
    """One silent worker that holds one job, and a reaper with a clock of its own."""

    def __init__(self) -> None:
        self.clock, self.own = FakeClock(), FakeClock(5.0)
        self.queue = FailingQueue("memory://r", TIMING, self.clock)
        self.job = self.queue.submit(Submission("m", {}, (StageNeed("run"),)))
        self.session = self.queue.hello(WorkerInfo("w", "box", 1))
        self.queue.beat(self.session, (), (SlotReport("0", "open", "m", "v1"),))
        (self.claim,) = self.queue.claim(self.session, 1, [Offer("0", "m", "v1", ("run",))])
        self.reaper = Reaper(self.queue, TIMING, self.own)

    def look(self, times: int, every_s: float = TIMING.beat_s) -> int:
        found = 0
        for _ in range(times):
            found += len(self.reaper.look())
            self.own.advance(every_s)
        return found

    @property
    def status(self) -> Status:
        return self.queue.get(self.job.id).status


@pytest.fixture
def watch() -> Watch:
    return Watch()


def test_silence_of_one_lease_is_death(watch: Watch) -> None:
    assert watch.look(6) == 0
    assert watch.look(1) == 1
    assert watch.status is Status.QUEUED


def test_only_the_reapers_own_clock_counts(watch: Watch) -> None:
    watch.reaper.look()
    watch.clock.advance(10 * TIMING.lease_s)
    assert watch.look(3) == 0
    assert watch.status is Status.RUNNING


def test_an_outage_expires_no_one(watch: Watch) -> None:
    watch.look(5)
    watch.queue.down = True
    for _ in range(300):
        with pytest.raises(Unreachable):
            watch.reaper.look()
        watch.own.advance(TIMING.beat_s)
    watch.queue.down = False
    assert watch.look(6) == 0
    assert watch.look(1) == 1


def test_a_suspended_reaper_begins_anew(watch: Watch) -> None:
    watch.look(6)
    watch.own.advance(3600)
    assert watch.look(6) == 0
    assert watch.look(1) == 1


def test_a_beat_begins_the_silence_anew(watch: Watch) -> None:
    watch.look(6)
    watch.queue.beat(watch.session, [(watch.job.id, watch.claim.fence)], ())
    assert watch.look(6) == 0
    assert watch.look(1) == 1


def test_a_session_that_the_queue_forgot_is_expired_too(watch: Watch) -> None:
    watch.queue._state.lives.clear()
    assert watch.look(7) == 1


def test_two_reapers_count_a_loss_once(watch: Watch) -> None:
    other = Reaper(watch.queue, TIMING, watch.own)
    for _ in range(8):
        watch.reaper.look()
        other.look()
        watch.own.advance(TIMING.beat_s)
    events: list[Any] = [(row.event, row.cause) for row in watch.queue.history(watch.job.id)]
    assert events == [("attempt", "worker_lost")]
