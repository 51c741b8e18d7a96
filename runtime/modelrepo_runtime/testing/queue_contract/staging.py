"""Staged jobs: their inputs come while another runs, and they begin by `start` alone."""

from __future__ import annotations

import pytest

from modelrepo.errors import StaleFence
from modelrepo_runtime.jobs import Cause, Claim, Status
from modelrepo_runtime.queue.port import Session
from modelrepo_runtime.testing.queue_contract.bench import SUCCEEDED, Bench, Rows, offer_of
from modelrepo_runtime.testing.queue_contract.credits import CPU, GPU, a_box, generates, prepared, waiting


def busy(bench: Bench) -> tuple[Session, Claim, Claim]:
    """A slot that runs one job and has another staged."""
    session = bench.worker()
    bench.submit()
    running = bench.claim_one(session)
    bench.submit()
    return session, running, bench.claim_one(session, staged=True)


class StagingContract:
    def test_a_staged_job_waits_until_it_is_started(self, bench: Bench) -> None:
        session, running, staged = busy(bench)
        assert staged.staged and not running.staged
        shown = bench.queue.get(staged.job_id)
        assert (shown.status, shown.started_at) == (Status.QUEUED, None)
        assert bench.queue.explain(staged.job_id).facts["staged_on"] == "w/0"
        bench.clock.advance(3)
        reply = bench.queue.finish(
            session, running.job_id, running.fence, SUCCEEDED, start=(staged.job_id, staged.fence)
        )
        assert reply.started and reply.next is None
        shown = bench.queue.get(staged.job_id)
        assert (shown.status, shown.started_at) == (Status.RUNNING, bench.clock())
        assert bench.finish(session, staged) is Status.SUCCEEDED
        assert bench.peek() == Rows(0, 0, 0, 2)

    def test_the_same_finish_again_is_answered_the_same(self, bench: Bench) -> None:
        session, running, staged = busy(bench)
        start = (staged.job_id, staged.fence)
        first = bench.queue.finish(session, running.job_id, running.fence, SUCCEEDED, start=start)
        assert bench.queue.finish(session, running.job_id, running.fence, SUCCEEDED, start=start) == first

    def test_a_staged_claim_that_is_repeated_is_still_staged(self, bench: Bench) -> None:
        bench.submit()
        session = bench.worker()
        first = bench.queue.claim(session, 3, [offer_of(staged=True)])
        assert bench.queue.claim(session, 3, [offer_of(staged=True)]) == first
        assert first[0].staged

    def test_a_staged_job_may_begin_alone_and_twice_is_legal(self, bench: Bench) -> None:
        session, _, staged = busy(bench)
        bench.queue.start(session, staged.job_id, staged.fence)
        bench.queue.start(session, staged.job_id, staged.fence)
        assert bench.queue.get(staged.job_id).status is Status.RUNNING
        with pytest.raises(StaleFence):
            bench.queue.start(bench.worker("other"), staged.job_id, staged.fence)

    def test_a_slot_that_is_free_takes_a_staged_job(self, bench: Bench) -> None:
        session, running, staged = busy(bench)
        other = bench.worker("other")
        taken = bench.claim_one(other)
        assert (taken.job_id, taken.attempt, taken.staged) == (staged.job_id, 1, False)
        assert taken.fence != staged.fence
        reply = bench.queue.finish(
            session, running.job_id, running.fence, SUCCEEDED, start=(staged.job_id, staged.fence)
        )
        assert not reply.started and reply.status is Status.SUCCEEDED
        with pytest.raises(StaleFence):
            bench.queue.start(session, staged.job_id, staged.fence)
        held = [(staged.job_id, staged.fence)]
        assert bench.queue.beat(session, held, ()).lost == frozenset(held)
        assert bench.finish(other, taken) is Status.SUCCEEDED

    def test_a_staged_job_stays_where_something_more_urgent_waits(self, bench: Bench) -> None:
        session = bench.worker()
        bench.submit()
        bench.claim_one(session)
        bench.submit(tier="free")
        staged = bench.claim_one(session, staged=True)
        bench.clock.advance(5)
        urgent = bench.submit(tier="api")
        bench.clock.advance(1)
        assert bench.claim_one(bench.worker("other")).job_id == urgent.id
        bench.queue.start(session, staged.job_id, staged.fence)

    def test_a_job_near_its_slo_is_not_staged(self, bench: Bench) -> None:
        session = bench.worker()
        bench.submit(tier="api")
        bench.clock.advance(48)
        assert bench.claim(session, staged=True) == ()
        bench.clock.advance(-1)
        assert len(bench.claim(session, staged=True)) == 1

    def test_a_staged_job_is_cancelled_at_once(self, bench: Bench) -> None:
        session, _, staged = busy(bench)
        assert bench.queue.cancel(staged.job_id).status is Status.CANCELLED
        with pytest.raises(StaleFence):
            bench.queue.start(session, staged.job_id, staged.fence)

    def test_a_staged_job_past_its_deadline_expires_rather_than_begins(self, bench: Bench) -> None:
        session = bench.worker()
        for _ in range(2):
            bench.submit(deadline=bench.clock() + 5)
        first, second = bench.claim(session, staged=True, limit=2)
        bench.clock.advance(5)
        with pytest.raises(StaleFence):
            bench.queue.start(session, first.job_id, first.fence)
        bench.queue.tend()
        assert [bench.queue.get(claim.job_id).status for claim in (first, second)] == [Status.EXPIRED] * 2
        assert bench.peek() == Rows(0, 0, 0, 2)

    def test_a_staged_job_of_a_lost_worker_goes_back_uncounted(self, bench: Bench) -> None:
        session, _, staged = busy(bench)
        bench.queue.expire_session(session.id, bench.queue.beats()[session.id])
        ends = [row for row in bench.queue.history(staged.job_id) if row.event == "attempt"]
        assert [(row.cause, row.counted) for row in ends] == [(Cause.PREEMPTED.value, False)]
        assert bench.claim_one(bench.worker("other")).job_id == staged.job_id

    def test_a_staged_job_keeps_its_credit_until_it_begins(self, bench: Bench) -> None:
        waiting(bench, 6)
        cpu, gpu = a_box(bench, "cpu", CPU), a_box(bench, "gpu", GPU)
        assert len(prepared(bench, cpu)) == 2
        staged = bench.claim_one(gpu, offer_of(stages=("generate",), plan=generates().plan, staged=True))
        assert prepared(bench, cpu) == []
        bench.queue.start(gpu, staged.job_id, staged.fence)
        assert len(prepared(bench, cpu)) == 1

    def test_a_claim_ends_a_staged_job_whose_deadline_has_passed(self, bench: Bench) -> None:
        session = bench.worker()
        bench.submit()
        bench.claim_one(session)
        bench.submit(deadline=bench.clock() + 10)
        bench.claim_one(session, staged=True)
        bench.clock.advance(11)
        assert bench.claim(bench.worker("other")) == ()
        assert bench.peek() == Rows(0, 0, 1, 1)
