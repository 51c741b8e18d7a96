from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from modelrepo.errors import ModelRepoError, NoSpace, Unreachable
from modelrepo_runtime.jobs import StageNeed, Status, Submission
from modelrepo_runtime.queue.memory import MemoryQueue
from modelrepo_runtime.queue.port import Offer, SlotReport, WorkerInfo
from modelrepo_runtime.queue.reaper import Reaper
from modelrepo_runtime.testing.clock import FakeClock
from modelrepo_runtime.timing import Timing

TIMING = Timing.embedded()


class FailingQueue(MemoryQueue):
    """Does not answer while `down`."""

    down: ModelRepoError | None = None
    interlude: Callable[[], None] | None = None
    """Called once, within the next call of `paused_in`."""
    paused_in = ""

    def _maybe_pause(self, call: str) -> None:
        if self.interlude is not None and self.paused_in == call:
            interlude, self.interlude = self.interlude, None
            interlude()

    def tend(self) -> None:
        self._maybe_pause("tend")
        super().tend()

    def beats(self) -> Mapping[str, int]:
        if self.down is not None:
            raise self.down
        self._maybe_pause("before beats")
        found = super().beats()
        self._maybe_pause("after beats")
        return found


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


@pytest.mark.parametrize(("fault", "looks"), [(Unreachable("away"), 300), (NoSpace("the disk is full"), 1)])
def test_an_outage_expires_no_one(watch: Watch, fault: ModelRepoError, looks: int) -> None:
    watch.look(5)
    watch.queue.down = fault
    for _ in range(looks):
        with pytest.raises(type(fault)):
            watch.reaper.look()
        watch.own.advance(TIMING.beat_s)
    watch.queue.down = None
    assert watch.look(6) == 0
    assert watch.look(1) == 1


def test_a_suspended_reaper_begins_anew(watch: Watch) -> None:
    watch.look(6)
    watch.own.advance(3600)
    assert watch.look(6) == 0
    assert watch.look(1) == 1


@pytest.mark.parametrize("call", ["tend", "before beats", "after beats"])
def test_a_reaper_that_is_suspended_within_a_call_begins_anew(watch: Watch, call: str) -> None:
    watch.look(4)
    watch.queue.paused_in, watch.queue.interlude = call, lambda: watch.own.advance(3600)
    looks = 7 if call == "tend" else 8
    assert watch.look(looks - 1) == 0
    assert watch.look(1) == 1


def test_a_beat_begins_the_silence_anew(watch: Watch) -> None:
    watch.look(6)
    watch.queue.beat(watch.session, [(watch.job.id, watch.claim.fence)], ())
    assert watch.look(6) == 0
    assert watch.look(1) == 1


def test_a_session_that_the_queue_forgot_is_expired_too(watch: Watch) -> None:
    watch.queue.database.connection.execute("delete from session")
    watch.queue.database.connection.execute("delete from beat")
    assert watch.look(7) == 1


def test_two_reapers_count_a_loss_once(watch: Watch) -> None:
    other = Reaper(watch.queue, TIMING, watch.own)
    for _ in range(8):
        watch.reaper.look()
        other.look()
        watch.own.advance(TIMING.beat_s)
    events: list[Any] = [(row.event, row.cause) for row in watch.queue.history(watch.job.id)]
    assert events == [("attempt", "worker_lost")]
