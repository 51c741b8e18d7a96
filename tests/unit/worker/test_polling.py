"""The claimer before a queue that is far away: one request waits, and is ended when something changes."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator, Sequence

import pytest

from modelrepo.errors import Unreachable
from modelrepo_runtime.jobs import Claim, StageNeed, Submission
from modelrepo_runtime.queue.memory import MemoryQueue
from modelrepo_runtime.queue.port import Offer, Session, WorkerInfo
from modelrepo_runtime.remote.connection import Interrupt
from modelrepo_runtime.timing import Timing
from modelrepo_runtime.worker.claiming import Claimer
from modelrepo_runtime.worker.holding import Held
from modelrepo_runtime.worker.journal import Journal
from modelrepo_runtime.worker.session import WorkerSession

PATIENCE_S = 30.0


class FarQueue(MemoryQueue):
    """Waits for a job or an interruption, as a gateway would. `away`: so many polls get no answer."""

    def __init__(self) -> None:
        super().__init__("memory://far")
        self.polls: list[tuple[int, tuple[str, ...]]] = []
        self.polling = threading.Semaphore(0)
        self.away = 0

    def poll(
        self, session: Session, seq: int, offers: Sequence[Offer], timeout_s: float, interrupt: Interrupt
    ) -> tuple[Claim, ...]:
        self.polls.append((seq, tuple(offer.slot for offer in offers)))
        waiter = self.waiter([offers[0].model])
        self.polling.release()
        if self.away:
            self.away -= 1
            raise Unreachable("away")
        while not interrupt.is_set:
            if claims := self.claim(session, seq, offers):
                return claims
            waiter.wait(0.005)
        return self.claim(session, seq, ())


@pytest.fixture
def queue() -> FarQueue:
    return FarQueue()


@pytest.fixture
def claimer(queue: FarQueue) -> Iterator[Claimer]:
    journal = Journal(io.StringIO())
    session = WorkerSession(queue, WorkerInfo("w", "box", 1, slots=("0", "1")), Timing.embedded(), lambda: (), journal)
    claimer = Claimer(session, journal)
    claimer.start()
    yield claimer
    claimer.stop(PATIENCE_S)


def offer(slot: str = "0") -> Offer:
    return Offer(slot, "m", "v1", ("run",))


def test_an_offer_that_comes_later_joins_the_one_that_waits(queue: FarQueue, claimer: Claimer) -> None:
    claimer.post([offer("0")], lambda _: None)
    assert queue.polling.acquire(timeout=PATIENCE_S)
    claimer.post([offer("1")], lambda _: None)
    assert queue.polling.acquire(timeout=PATIENCE_S)
    assert queue.polls == [(0, ("0",)), (1, ("0", "1"))]


def test_an_offer_is_withdrawn_at_once_and_offered_no_more(queue: FarQueue, claimer: Claimer) -> None:
    delivered: list[Held] = []
    claimer.post([offer("0")], delivered.extend)
    assert queue.polling.acquire(timeout=PATIENCE_S)
    claimer.withdraw("0")
    queue.submit(Submission("m", {}, (StageNeed("run"),)))
    assert not queue.polling.acquire(timeout=0.05)
    assert delivered == [] and len(queue.polls) == 1


def test_a_job_comes_to_a_poll_that_waits_and_after_answers_that_were_lost(queue: FarQueue, claimer: Claimer) -> None:
    came = threading.Event()
    queue.away = 1
    queue.submit(Submission("m", {}, (StageNeed("run"),)))
    claimer.post([offer("0")], lambda _: came.set())
    assert came.wait(PATIENCE_S)
    came.clear()
    claimer.post([offer("0")], lambda _: came.set())
    queue.submit(Submission("m", {}, (StageNeed("run"),)))
    assert came.wait(PATIENCE_S)
