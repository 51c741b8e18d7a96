"""What the worker says to a queue that is away, slow or has forgotten it."""

import io
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from modelrepo.errors import StaleFence, StaleSession, Unreachable
from modelrepo_runtime.jobs import Cause, Outcome, StageNeed, Status, Submission
from modelrepo_runtime.queue.memory import MemoryQueue
from modelrepo_runtime.queue.port import Offer, SlotReport, WorkerInfo
from modelrepo_runtime.timing import Timing
from modelrepo_runtime.worker.claiming import Claimer
from modelrepo_runtime.worker.holding import End, Held
from modelrepo_runtime.worker.journal import Journal
from modelrepo_runtime.worker.session import WorkerSession
from modelrepo_runtime.worker.suspend import boottime

TIMING = replace(Timing.embedded().scaled(0.05), queue_poll_s=0.005)
OFFER = Offer("s0", "m", "v1", ("run",))


class Flaky(MemoryQueue):
    """A queue whose calls fail as told: before they take effect, or after (the answer is lost)."""

    def __init__(self) -> None:
        super().__init__("memory://flaky", TIMING)
        self.before: dict[str, list[Exception]] = {}
        self.after: dict[str, list[Exception]] = {}
        self.calls: list[str] = []
        self.away = threading.Event()
        self.cut_off_at: str | None = None
        """The next such call takes effect, its answer is lost, and then nothing answers while `away` is set."""

    def _disturbed(self, name: str, call: Callable[[], Any]) -> Any:
        self.calls.append(name)
        if self.away.is_set():
            raise Unreachable("away")
        if self.cut_off_at == name:
            self.cut_off_at = None
            call()
            self.away.set()
            raise Unreachable("cut")
        if self.before.get(name):
            raise self.before[name].pop(0)
        answer = call()
        if self.after.get(name):
            raise self.after[name].pop(0)
        return answer

    def claim(self, *arguments: Any) -> Any:
        return self._disturbed("claim", lambda: super(Flaky, self).claim(*arguments))

    def finish(self, *arguments: Any, **options: Any) -> Any:
        return self._disturbed("finish", lambda: super(Flaky, self).finish(*arguments, **options))

    def beat(self, *arguments: Any) -> Any:
        return self._disturbed("beat", lambda: super(Flaky, self).beat(*arguments))

    def hello(self, *arguments: Any) -> Any:
        return self._disturbed("hello", lambda: super(Flaky, self).hello(*arguments))

    def waiter(self, *arguments: Any, **options: Any) -> Any:
        if self.before.get("waiter"):
            raise self.before["waiter"].pop(0)
        return super().waiter(*arguments, **options)

    def add(self) -> str:
        return self.submit(Submission("m", {}, (StageNeed("run"),))).id


class Rig:
    def __init__(self) -> None:
        self.queue, self.log = Flaky(), io.StringIO()
        journal = Journal(self.log)
        info = WorkerInfo("w", "box", 1, slots=("s0",))
        self.session = WorkerSession(self.queue, info, TIMING, self.reports, journal)
        self.claimer = Claimer(self.session, journal)
        self.arrived: list[Held] = []
        self.news = threading.Event()

    def reports(self) -> Sequence[SlotReport]:
        return ()

    def deliver(self, taken: Sequence[Held]) -> None:
        self.arrived.extend(taken)
        self.news.set()

    def claimed(self) -> Held:
        """Claim one job through the claimer."""
        self.queue.add()
        self.claimer.post((OFFER,), self.deliver)
        assert self.news.wait(20)
        self.news.clear()
        return self.arrived[-1]


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    rig.claimer.start()
    yield rig
    rig.claimer.stop()
    rig.session.stop()


def test_a_claim_whose_answer_was_lost_is_asked_for_again(rig: Rig) -> None:
    rig.queue.after["claim"] = [Unreachable("cut"), Unreachable("cut")]
    held = rig.claimed()
    assert rig.queue.get(held.claim.job_id).status is Status.RUNNING
    assert rig.queue.calls.count("claim") >= 2
    assert "queue-unreachable error=cut" in rig.log.getvalue()


def test_a_claim_for_an_offer_that_was_withdrawn_goes_back(rig: Rig) -> None:
    job = rig.queue.add()
    rig.queue.cut_off_at = "claim"
    rig.claimer.post((OFFER,), rig.deliver)
    assert rig.queue.away.wait(20)
    rig.claimer.withdraw("s0")
    waiter = rig.queue.waiter(["m"])
    rig.queue.away.clear()
    while rig.queue.get(job).status is not Status.QUEUED:
        waiter.wait(0.01)
    waiter.close()
    assert rig.arrived == []
    assert [(row.cause, row.counted) for row in rig.queue.history(job) if row.event == "attempt"] == [
        ("preempted", False)
    ]


def test_a_fault_of_our_own_silences_no_thread(rig: Rig) -> None:
    rig.queue.before["claim"] = [ZeroDivisionError("ours")]
    rig.queue.before["beat"] = [ZeroDivisionError("ours"), StaleSession("forgotten")]
    held = rig.claimed()
    rig.session.start()
    ended = threading.Event()
    if held.run_with(ended.set) is None:
        assert ended.wait(20)
    assert held.ended is End.LOST
    assert "fault where=claimer" in rig.log.getvalue()
    assert "fault where=beat" in rig.log.getvalue()


def test_a_claimer_that_cannot_listen_looks_all_the_same_later(rig: Rig) -> None:
    rig.queue.before["waiter"] = [OSError("too many open files")]
    assert rig.claimed().claim.model == "m"
    assert "too many open files" in rig.log.getvalue()


def test_a_session_that_cannot_begin_anew_yet_does_so_later(rig: Rig) -> None:
    held = rig.claimed()
    rig.queue.before["beat"] = [StaleSession("forgotten"), StaleSession("forgotten")]
    rig.queue.before["hello"] = [Unreachable("away")]
    held.requested_at = boottime() - TIMING.lease_s
    assert not rig.session.renew_if_late(held)
    assert held.ended is End.LOST
    assert "queue-unreachable error=away" in rig.log.getvalue()
    rig.session.drop(held)
    rig.session.start()
    assert rig.claimed().ended is None


def test_a_finish_is_repeated_until_it_is_answered(rig: Rig) -> None:
    held = rig.claimed()
    rig.queue.before["finish"] = [Unreachable("away")] * 3
    rig.queue.after["finish"] = [Unreachable("cut")]
    reply = rig.session.finish(held, Outcome(Cause.SUCCEEDED, "result"))
    assert reply is not None
    assert reply.status is Status.SUCCEEDED
    assert rig.queue.get(held.claim.job_id).result == "result"


def test_a_stale_finish_is_dropped(rig: Rig) -> None:
    held = rig.claimed()
    rig.queue.before["finish"] = [StaleFence("not yours")]
    assert rig.session.finish(held, Outcome(Cause.SUCCEEDED)) is None
    assert "finish-refused" in rig.log.getvalue()


def test_a_worker_that_leaves_does_not_wait_for_ever(rig: Rig) -> None:
    held = rig.claimed()
    rig.queue.before["finish"] = [Unreachable("away")] * 10_000
    rig.session.hurry(0.05)
    assert rig.session.finish(held, Outcome(Cause.SUCCEEDED)) is None
    assert "attempt-unsettled" in rig.log.getvalue()


def test_a_session_that_the_queue_forgot_begins_anew(rig: Rig) -> None:
    held = rig.claimed()
    before = rig.session.session
    rig.queue.before["beat"] = [StaleSession("forgotten")]
    ended = threading.Event()
    assert held.run_with(ended.set) is None
    rig.session.start()
    assert ended.wait(20)
    assert held.ended is End.LOST
    assert rig.session.session != before
    rig.session.drop(held)
    assert rig.claimed().claim.job_id


def test_late_work_renews_its_lease_first(rig: Rig) -> None:
    held = rig.claimed()
    held.requested_at = boottime() - TIMING.lease_s
    assert rig.session.renew_if_late(held)
    assert rig.queue.calls.count("beat") == 1
    assert boottime() - held.requested_at < TIMING.lease_s
    assert rig.session.renew_if_late(held)
    assert rig.queue.calls.count("beat") == 1


def test_late_work_whose_lease_is_gone_is_dropped(rig: Rig) -> None:
    held = rig.claimed()
    session, beat = next(iter(rig.queue.beats().items()))
    assert rig.queue.expire_session(session, beat)
    held.requested_at = boottime() - TIMING.lease_s
    assert not rig.session.renew_if_late(held)
    assert "attempt-dropped" in rig.log.getvalue()


def test_a_beat_tells_progress_and_hears_of_cancellation(rig: Rig) -> None:
    held = rig.claimed()
    stopped = threading.Event()
    held.run_with(stopped.set)
    held.progressed(0.5, "half")
    rig.queue.cancel(held.claim.job_id)
    rig.session.start()
    rig.session.tell_soon()
    assert stopped.wait(20)
    assert held.ended is End.CANCELLED
    assert rig.queue.get(held.claim.job_id).progress == 0.5


def test_turns_are_taken_renewed_and_given_back(rig: Rig) -> None:
    assert rig.session.take_turn("m", "s0", 2, "1")
    assert not rig.queue.take_turn("m", "other/s0", 2, "1", 10.0)
    assert rig.session.has_turn("m", "s0")
    rig.session.end_turn("m", "s0")
    rig.session.end_turn("m", "s0")
    assert rig.queue.take_turn("m", "other/s0", 2, "1", 10.0)
    assert not rig.session.has_turn("m", "s0")


def test_only_the_first_reason_ends_an_attempt_but_a_lost_lease_stays_lost(rig: Rig) -> None:
    held, stops = rig.claimed(), []
    held.run_with(lambda: stops.append(1))
    reasons = []
    for why in (End.CANCELLED, End.PREEMPTED, End.LOST, End.CANCELLED):
        held.end(why)
        reasons.append(held.ended)
    assert reasons == [End.CANCELLED, End.CANCELLED, End.LOST, End.LOST]
    assert stops == [1]
