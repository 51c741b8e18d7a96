"""The delivery loop on a real queue and real receivers: each event once, in order, until it is taken or given up."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from modelrepo_runtime.gateway.addresses import AddressRules
from modelrepo_runtime.gateway.webhooks import DeliveryLoop, Sender, Sent
from modelrepo_runtime.jobs import Cause, Outcome, StageNeed, Submission, Webhook
from modelrepo_runtime.queue.memory import MemoryQueue
from modelrepo_runtime.queue.outbox import Delivery
from modelrepo_runtime.queue.port import Offer, Session, WorkerInfo
from modelrepo_runtime.testing.clock import FakeClock
from modelrepo_runtime.testing.webhook_receiver import Received, Receiver, receiving, says
from modelrepo_runtime.timing import Timing

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ALLOWED = AddressRules(frozenset({"127.0.0.1"}))
LIMIT_S = 20.0


class Story:
    """A queue on a clock of its own, a worker, and what gateways told of their tries."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.queue = MemoryQueue("memory://webhooks", Timing.embedded(), self.clock)
        self.session: Session = self.queue.hello(WorkerInfo("w", "box", 1, slots=("0",)))
        self.sent: list[Sent] = []
        self._seq = 0
        self._changed = asyncio.Event()

    def run_job(self, url: str) -> str:
        """Submit a job, claim it and finish it: two events."""
        job = self.queue.submit(Submission("m", {}, (StageNeed("run"),), webhook=Webhook(url, SECRET)))
        self._seq += 1
        (claim,) = self.queue.claim(self.session, self._seq, [Offer("0", "m", "v1", ("run",))])
        self.queue.finish(self.session, claim.job_id, claim.fence, Outcome(Cause.SUCCEEDED, {"n": 1}))
        return job.id

    @asynccontextmanager
    async def gateway(self, **options: Any) -> AsyncIterator[DeliveryLoop]:
        def told(_: Delivery, sent: Sent) -> None:
            self.sent.append(sent)
            self._changed.set()

        loop = DeliveryLoop(self.queue, Sender(ALLOWED, total_s=0.3), poll_s=0.01, told=told, **options)
        task = asyncio.create_task(loop.run())
        try:
            yield loop
        finally:
            await loop.stop()
            await task

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait until something holds; it is looked at after each try."""
        async with asyncio.timeout(LIMIT_S):
            while not true():
                self._changed.clear()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), 0.05)


def kinds(receiver: Receiver) -> list[str]:
    return [json.loads(request.body)["type"] for request in receiver.received]


def test_two_gateways_deliver_each_event_once_and_in_order() -> None:
    async def story() -> None:
        told = Story()
        async with receiving() as receiver:
            jobs = [told.run_job(receiver.url) for _ in range(10)]
            async with told.gateway(), told.gateway():
                await told.until(lambda: told.queue.outbox().waiting == 0)
            by_job: dict[str, list[str]] = {job: [] for job in jobs}
            for request in receiver.received:
                document = json.loads(request.body)
                by_job[document["data"]["id"]].append(document["type"])
            assert all(events == ["job.started", "job.finished"] for events in by_job.values())
            assert len({request.headers["webhook-id"] for request in receiver.received}) == 20

    asyncio.run(story())


def test_an_event_that_was_refused_is_tried_again_later_with_its_id() -> None:
    answers = [b"HTTP/1.1 500 Oops\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"]

    async def reply(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(answers.pop(0) if len(answers) > 1 else answers[0])

    async def story() -> None:
        told = Story()
        async with receiving(reply) as receiver, told.gateway() as loop:
            told.run_job(receiver.url)
            loop.kick()
            await told.until(lambda: len(told.sent) == 1)
            await told.until(lambda: bool(told.queue.undelivered()))
            (waits,) = told.queue.undelivered()
            assert waits.error == "answered 500" and waits.due is not None and 4 < waits.due - told.clock() < 6
            assert kinds(receiver) == ["job.started"], "the end waits for the start"
            told.clock.advance(6)
            await told.until(lambda: told.queue.outbox().waiting == 0)
            assert kinds(receiver) == ["job.started", "job.started", "job.finished"]
            first, again, _ = receiver.received
            assert first.headers["webhook-id"] == again.headers["webhook-id"] and first.body == again.body

    asyncio.run(story())


def test_an_event_is_given_up_after_ten_tries_and_the_next_one_goes_out() -> None:
    async def reply(request: Received, writer: asyncio.StreamWriter) -> None:
        started = json.loads(request.body)["type"] == "job.started"
        writer.write(b"HTTP/1.1 500 No\r\n\r\n" if started else b"HTTP/1.1 204 Yes\r\n\r\n")

    async def story() -> None:
        told = Story()
        async with receiving(reply) as receiver, told.gateway():
            told.run_job(receiver.url)
            for tries in range(1, 11):
                await told.until(lambda tries=tries: len(told.sent) >= tries)  # type: ignore[misc]
                await told.until(lambda: all(each.tries for each in told.queue.undelivered()))
                told.clock.advance(43_000)
            await told.until(lambda: told.queue.outbox().waiting == 0)
            assert kinds(receiver) == ["job.started"] * 10 + ["job.finished"]
            (lost,) = told.queue.undelivered()
            assert (lost.tries, lost.due, lost.error) == (10, None, "answered 500")

    asyncio.run(story())


def test_a_receiver_that_hangs_does_not_keep_the_others_waiting() -> None:
    async def silent(_: Received, writer: asyncio.StreamWriter) -> None:
        await asyncio.get_running_loop().create_future()

    async def story() -> None:
        told = Story()
        async with receiving(silent) as hung, receiving() as good:
            for _ in range(20):
                told.run_job(hung.url)
            jobs = {told.run_job(good.url) for _ in range(5)}
            async with told.gateway():
                await told.until(lambda: len(good.received) == 10)
            assert {json.loads(request.body)["data"]["id"] for request in good.received} == jobs
            assert len(hung.received) <= 4

    asyncio.run(story())


def test_a_receiver_that_is_gone_is_told_nothing_more() -> None:
    async def story() -> None:
        told = Story()
        async with receiving(says(b"HTTP/1.1 410 Gone\r\n\r\n")) as receiver, told.gateway():
            told.run_job(receiver.url)
            await told.until(lambda: told.queue.outbox().waiting == 0)
            assert kinds(receiver) == ["job.started"] and told.queue.outbox().given_up == 2

    asyncio.run(story())


def test_what_a_gateway_took_and_did_not_settle_is_sent_by_another() -> None:
    async def story() -> None:
        told = Story()
        async with receiving() as receiver:
            told.run_job(receiver.url)
            assert len(told.queue.take_deliveries("a gateway that was killed", 10)) == 1
            async with told.gateway() as loop:
                told.clock.advance(61)
                loop.kick()
                await told.until(lambda: told.queue.outbox().waiting == 0)
            assert kinds(receiver) == ["job.started", "job.finished"]

    asyncio.run(story())
