"""What webhooks are told: events are written with the change, taken once, kept in order, and given up at last."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import pytest

from modelrepo.errors import InvalidInput
from modelrepo_runtime.jobs import Cause, Job, Status, Webhook
from modelrepo_runtime.queue.fleet_events import Happened
from modelrepo_runtime.queue.outbox import Delivery
from modelrepo_runtime.testing.queue_contract.bench import TWO_STAGES, Bench, offer_of

HOOK = Webhook("https://a.example/hook", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")


def hooked(bench: Bench, url: str = HOOK.url, **facts: Any) -> Job:
    return bench.submit(webhook=Webhook(url, HOOK.secret), **facts)


def take(bench: Bench, holder: str = "g1", limit: int = 100, **facts: Any) -> list[Delivery]:
    return list(bench.queue.take_deliveries(holder, limit, **facts))


def deliver(bench: Bench) -> list[str]:
    """Deliver all that is due; return what it was."""
    told: list[str] = []
    while taken := take(bench):
        for each in taken:
            assert bench.queue.settle_delivery(each.id, "g1")
            told.append(each.kind)
    return told


class OutboxContract:
    def test_a_job_with_a_webhook_is_told_of_its_start_and_its_end(self, bench: Bench) -> None:
        job, session = hooked(bench), bench.worker()
        assert take(bench) == []
        claim = bench.claim_one(session)
        (started,) = take(bench)
        assert (started.kind, started.job.id, started.job.status) == ("job.started", job.id, Status.RUNNING)
        assert started.webhook == HOOK and started.tries == 0 and started.message.startswith("msg_")
        assert bench.queue.settle_delivery(started.id, "g1")
        bench.finish(session, claim)
        (finished,) = take(bench)
        assert (finished.kind, finished.job.status, finished.job.result) == (
            "job.finished",
            Status.SUCCEEDED,
            {"answer": 42},
        )

    def test_a_job_without_a_webhook_writes_nothing(self, bench: Bench) -> None:
        bench.submit()
        session = bench.worker()
        claim = bench.claim_one(session)
        bench.queue.progress(claim.job_id, claim.fence, 0.5, None)
        bench.finish(session, claim)
        assert take(bench) == [] and bench.queue.outbox().waiting == 0

    def test_an_event_tells_of_the_job_as_it_was_then(self, bench: Bench) -> None:
        hooked(bench)
        session = bench.worker()
        claim = bench.claim_one(session)
        bench.clock.advance(3)
        bench.finish(session, claim)
        (started,) = take(bench)
        assert started.job.status is Status.RUNNING and started.job.result is None
        assert started.job.finished_at is None and started.job.started_at == started.at

    def test_every_end_is_told(self, bench: Bench) -> None:
        session = bench.worker()
        cancelled = hooked(bench)
        bench.queue.cancel(cancelled.id)
        assert [(each.job.status, each.job.id) for each in take(bench)] == [(Status.CANCELLED, cancelled.id)]
        rejected = hooked(bench)
        bench.fail(session, bench.claim_one(session), Cause.REJECTED)
        expired = hooked(bench, deadline=bench.clock() + 5)
        bench.clock.advance(10)
        bench.queue.tend()
        kinds = {each.job.id: [each.kind] for each in take(bench)}
        assert kinds == {rejected.id: ["job.started"], expired.id: ["job.finished"]}

    def test_a_start_is_told_once_through_stages_and_tries_and_again_after_a_retry_by_hand(self, bench: Bench) -> None:
        job, session = hooked(bench, stages=TWO_STAGES), bench.worker()
        offer = offer_of(stages=("prepare", "generate"))
        bench.finish(session, bench.claim_one(session, offer))
        claim = bench.claim_one(session, offer)
        assert deliver(bench) == ["job.started"]
        bench.fail(session, claim, Cause.REJECTED)
        assert deliver(bench) == ["job.finished"]
        failed = hooked(bench)
        for _ in range(2):
            bench.fail(session, bench.claim_one(session), Cause.EXCEPTION)
            bench.clock.advance(100)
            bench.queue.tend()
        assert deliver(bench) == ["job.started", "job.finished"]
        assert bench.queue.retry([failed.id]) == (failed.id,) and job.id != failed.id
        bench.claim_one(session)
        assert deliver(bench) == ["job.started"]

    def test_of_two_senders_each_event_goes_to_one_until_its_lease_is_over(self, bench: Bench) -> None:
        for _ in range(3):
            hooked(bench)
        session = bench.worker()
        bench.claim(session, limit=3)
        first = take(bench, "g1", 2)
        second = take(bench, "g2")
        assert len(first) == 2 and len(second) == 1
        assert not {each.id for each in first} & {each.id for each in second}
        assert take(bench, "g3") == []
        bench.clock.advance(61)
        again = take(bench, "g3")
        assert len(again) == 3
        assert not bench.queue.settle_delivery(first[0].id, "g1"), "it is another's by now"
        assert bench.queue.settle_delivery(again[0].id, "g3")

    def test_many_senders_at_once_never_get_the_same_event(self, bench: Bench) -> None:
        for _ in range(24):
            hooked(bench)
        bench.claim(bench.worker(), limit=24)
        start = threading.Barrier(4)

        def send(holder: str) -> list[int]:
            start.wait(20)
            return [each.id for _ in range(3) for each in take(bench, holder, 4, per_host=100)]

        with ThreadPoolExecutor(4) as pool:
            taken = [number for found in pool.map(send, "abcd") for number in found]
        assert len(taken) == len(set(taken)) and 0 < len(taken) <= 24
        assert len(taken) + len(take(bench, "e", 100, per_host=100)) == 24

    def test_events_of_one_job_keep_their_order(self, bench: Bench) -> None:
        hooked(bench)
        session = bench.worker()
        bench.finish(session, bench.claim_one(session))
        (started,) = take(bench)
        assert started.kind == "job.started" and take(bench) == []
        assert bench.queue.settle_delivery(started.id, "g1", "answered 500", again_in_s=30)
        bench.clock.advance(29)
        assert take(bench) == []
        bench.clock.advance(1)
        (again,) = take(bench)
        assert (again.message, again.tries) == (started.message, 1)
        assert bench.queue.settle_delivery(again.id, "g1")
        assert deliver(bench) == ["job.finished"]

    def test_the_end_is_not_held_up_by_the_wait_of_an_earlier_event(self, bench: Bench) -> None:
        hooked(bench)
        session = bench.worker()
        claim = bench.claim_one(session)
        (started,) = take(bench)
        bench.queue.settle_delivery(started.id, "g1", "no answer", again_in_s=3600)
        bench.finish(session, claim)
        assert deliver(bench) == ["job.started", "job.finished"]

    def test_progress_is_told_at_most_once_a_second_and_the_newest_of_it(self, bench: Bench) -> None:
        hooked(bench)
        session = bench.worker()
        claim = bench.claim_one(session)
        assert deliver(bench) == ["job.started"]
        told, moments = [], []
        for step in range(1, 31):
            bench.queue.progress(claim.job_id, claim.fence, step / 100, f"step {step}")
            for each in take(bench):
                told.append((each.job.progress, each.job.message))
                moments.append(bench.clock())
                bench.queue.settle_delivery(each.id, "g1")
            bench.clock.advance(0.1)
        assert len(told) == 3 and told[0] == (0.01, "step 1")
        assert all(after - before > 0.99 for before, after in pairwise(moments))
        bench.clock.advance(1)
        (last,) = take(bench)
        assert (last.kind, last.job.progress, last.job.message) == ("job.progress", 0.3, "step 30")

    def test_progress_that_waits_is_dropped_at_the_end(self, bench: Bench) -> None:
        hooked(bench)
        session = bench.worker()
        claim = bench.claim_one(session)
        bench.queue.progress(claim.job_id, claim.fence, 0.5, None)
        bench.finish(session, claim)
        assert deliver(bench) == ["job.started", "job.finished"]

    def test_one_host_gets_few_at_once_and_a_host_may_be_avoided(self, bench: Bench) -> None:
        for _ in range(5):
            hooked(bench, "https://slow.example/")
        other = hooked(bench, "https://other.example/")
        bench.claim(bench.worker(), limit=6)
        first = take(bench, per_host=2)
        assert sorted(each.webhook.url for each in first) == ["https://other.example/"] + ["https://slow.example/"] * 2
        assert take(bench, per_host=2) == []
        for each in first:
            bench.queue.settle_delivery(each.id, "g1")
        assert other.id in {each.job.id for each in first}
        assert take(bench, avoid=("slow.example:443",)) == []
        assert len(take(bench)) == 3

    def test_what_is_given_up_is_shown_and_blocks_nothing(self, bench: Bench) -> None:
        job, session = hooked(bench), bench.worker()
        bench.finish(session, bench.claim_one(session))
        (started,) = take(bench)
        bench.queue.settle_delivery(started.id, "g1", "answered 500", again_in_s=5)
        (waits,) = bench.queue.undelivered()
        assert (waits.message, waits.tries, waits.error) == (started.message, 1, "answered 500")
        assert waits.due is not None
        bench.clock.advance(5)
        (again,) = take(bench)
        assert bench.queue.settle_delivery(again.id, "g1", "answered 502")
        (lost,) = bench.queue.undelivered()
        assert (lost.job_id, lost.kind, lost.tries, lost.due) == (job.id, "job.started", 2, None)
        state = bench.queue.outbox()
        assert (state.waiting, state.given_up) == (1, 1) and state.oldest_age_s is not None
        (event,) = bench.queue.fleet_events(kind=Happened.WEBHOOK_GIVEN_UP)
        assert event.job_id == job.id and "a.example" in event.text and "answered 502" in event.text
        assert deliver(bench) == ["job.finished"]

    def test_a_receiver_that_is_gone_hears_no_more(self, bench: Bench) -> None:
        job, session = hooked(bench), bench.worker()
        claim = bench.claim_one(session)
        assert bench.queue.drop_deliveries(job.id, "answered 410") == 1
        bench.finish(session, claim)
        assert deliver(bench) == [] and bench.queue.outbox().waiting == 0

    def test_a_deleted_job_takes_its_events_along(self, bench: Bench) -> None:
        job, session = hooked(bench), bench.worker()
        bench.finish(session, bench.claim_one(session))
        bench.queue.delete(job.id)
        assert deliver(bench) == [] and bench.queue.outbox().waiting == 0

    def test_a_webhook_that_could_never_be_told_is_refused_at_once(self, bench: Bench) -> None:
        for url, secret in (("ftp://a.example/", HOOK.secret), (HOOK.url, "not a secret")):
            with pytest.raises(InvalidInput):
                bench.submit(webhook=Webhook(url, secret))
