"""Learnt service times, and what is predicted from them."""

from __future__ import annotations

from typing import Any

import pytest

from modelrepo.errors import TooLate
from modelrepo_runtime.jobs import Cause, Eta, Status, Webhook
from modelrepo_runtime.queue.port import JobFilter, SlotReport, WorkerInfo
from modelrepo_runtime.testing.queue_contract.bench import TWO_STAGES, Bench, offer_of


def run_one(bench: Bench, taken_s: float, *, device: str | None = None, **facts: Any) -> None:
    """Let a job of so many seconds succeed, and the queue learn from it."""
    bench.submit(**facts)
    name = f"teacher-{device}"
    session = bench.queue.hello(WorkerInfo(name, name, 1, slots=("0",)))
    bench.queue.beat(session, (), (SlotReport("0", "open", "m", "v1", accelerator=device),))
    claim = bench.claim_one(session)
    bench.clock.advance(taken_s)
    bench.finish(session, claim)
    bench.queue.tend()
    bench.queue.goodbye(session)
    bench.clock.advance(2)


def eta_of(bench: Bench, job_id: str) -> tuple[float | None, float | None]:
    """Return in how many seconds a job is expected to start and to end."""
    eta = bench.queue.get(job_id).eta
    return in_seconds(bench, eta)


def in_seconds(bench: Bench, eta: Eta | None) -> tuple[float | None, float | None]:
    now = bench.clock()
    moments = (eta.start_at, eta.finish_at) if eta is not None else (None, None)
    return tuple(None if at is None else round(at - now, 2) for at in moments)  # type: ignore[return-value]


class LearningContract:
    def test_nothing_is_predicted_before_anything_ran(self, bench: Bench) -> None:
        bench.worker()
        first, second = bench.submit(), bench.submit()
        bench.clock.advance(2)
        assert eta_of(bench, first.id) == (0, None)
        assert bench.queue.get(second.id).eta is None

    def test_nothing_is_predicted_without_a_live_worker(self, bench: Bench) -> None:
        run_one(bench, 10.0)
        assert bench.submit().eta is None

    def test_a_job_knows_when_it_starts_and_ends(self, bench: Bench) -> None:
        run_one(bench, 10.0)
        bench.worker()
        jobs = [bench.submit() for _ in range(5)]
        bench.clock.advance(2)
        assert [eta_of(bench, job.id) for job in jobs] == [(0, 10), (10, 20), (20, 30), (30, 40), (40, 50)]
        (listed, *_) = bench.queue.list(JobFilter(status=Status.QUEUED))
        assert listed.eta == bench.queue.get(listed.id).eta

    def test_the_answer_to_a_submission_says_it_too(self, bench: Bench) -> None:
        run_one(bench, 10.0)
        bench.worker()
        bench.submit()
        bench.submit()
        bench.clock.advance(2)
        bench.queue.list()
        job = bench.submit()
        assert in_seconds(bench, job.eta) == (20, 30)

    def test_a_running_job_ends_by_its_progress_and_what_was_learnt(self, bench: Bench) -> None:
        run_one(bench, 10.0)
        session = bench.worker()
        job = bench.submit()
        claim = bench.claim_one(session)
        bench.clock.advance(4)
        assert eta_of(bench, job.id) == (-4, 6)
        bench.queue.progress(job.id, claim.fence, 0.5, None)
        assert eta_of(bench, job.id) == (-4, 4.5)
        bench.finish(session, claim)
        assert bench.queue.get(job.id).eta is None

    def test_sizes_and_devices_are_learnt_apart(self, bench: Bench) -> None:
        run_one(bench, 10.0, size="small", device="H100")
        run_one(bench, 30.0, size="small", device="A10")
        run_one(bench, 100.0, size="large", device="H100")
        session = bench.queue.hello(WorkerInfo("w", "box", 1, slots=("0",)))
        bench.queue.beat(session, (), (SlotReport("0", "open", "m", "v1", accelerator="A10"),))
        job = bench.submit(size="small")
        bench.claim_one(session)
        bench.clock.advance(2)
        assert eta_of(bench, job.id)[1] == 28
        assert eta_of(bench, bench.submit(size="large").id) == (28, 128)

    def test_failures_teach_nothing(self, bench: Bench) -> None:
        run_one(bench, 10.0)
        session = bench.worker()
        bench.submit()
        claim = bench.claim_one(session)
        bench.clock.advance(500)
        bench.fail(session, claim, Cause.REJECTED)
        bench.queue.tend()
        bench.clock.advance(2)
        bench.queue.beat(session, (), (SlotReport("0", "open", "m", "v1"),))
        assert eta_of(bench, bench.submit().id) == (0, 10)

    def test_looking_twice_teaches_once(self, bench: Bench) -> None:
        run_one(bench, 10.0)
        run_one(bench, 20.0)
        for _ in range(5):
            bench.queue.tend()
        run_one(bench, 30.0)
        bench.worker()
        assert eta_of(bench, bench.submit().id) == (0, 20)

    def test_the_wait_of_a_job_with_stages_ends_at_the_accelerator(self, bench: Bench) -> None:
        bench.submit(stages=TWO_STAGES)
        session = bench.worker()
        for stage, taken_s in (("prepare", 3.0), ("generate", 20.0)):
            claim = bench.claim_one(session, stages=(stage,))
            bench.clock.advance(taken_s)
            bench.queue.beat(session, ((claim.job_id, claim.fence),), (SlotReport("0", "open", "m", "v1"),))
            bench.finish(session, claim)
        bench.queue.tend()
        bench.clock.advance(2)
        job = bench.submit(stages=TWO_STAGES)
        assert eta_of(bench, job.id) == (3, 23)
        bench.claim_one(session, offer_of(stages=("prepare",)))
        bench.clock.advance(2)
        assert eta_of(bench, job.id) == (1, 21)

    def test_an_event_tells_when_its_job_ends(self, bench: Bench) -> None:
        run_one(bench, 10.0)
        session = bench.worker()
        bench.submit(webhook=Webhook("https://hooks.example/x", "whsec_MDEyMzQ1Njc4OWFiY2RlZg=="))
        bench.claim_one(session)
        bench.queue.list()
        (event,) = bench.queue.take_deliveries("gateway", 10)
        assert in_seconds(bench, event.job.eta) == (0, 10)

    def test_a_tier_may_refuse_what_would_start_too_late(self, bench: Bench) -> None:
        run_one(bench, 10.0)
        bench.worker()
        bench.queue.set_tier("api", slo_s=25, refuse_late=True)
        assert next(tier for tier in bench.queue.tiers() if tier.name == "api").refuse_late
        for _ in range(3):
            bench.submit(tier="api")
        bench.clock.advance(2)
        bench.queue.list()
        kept = bench.submit(tier="free", idempotency_key="k")
        with pytest.raises(TooLate, match="about 30 s") as refused:
            bench.submit(tier="api")
        assert refused.value.predicted_s == pytest.approx(30) and refused.value.slo_s == 25
        assert refused.value.retry_after_s == pytest.approx(5)
        assert bench.submit(tier="free", idempotency_key="k").id == kept.id
        bench.queue.set_tier("api", refuse_late=False)
        assert bench.submit(tier="api").status is Status.QUEUED

    def test_a_tier_refuses_nothing_where_nothing_is_known(self, bench: Bench) -> None:
        bench.queue.set_tier("api", refuse_late=True)
        assert [bench.submit(tier="api").status for _ in range(3)] == [Status.QUEUED] * 3
