"""Ends without a result, and what is shown on the way: cancel, deadline, deletion, progress."""

from __future__ import annotations

import pytest

from modelrepo.errors import Conflict, JobNotFound, StaleFence
from modelrepo_runtime.jobs import (
    Adapter,
    Cause,
    Fence,
    Status,
)
from modelrepo_runtime.queue.port import JobFilter
from modelrepo_runtime.testing.queue_contract.bench import SUCCEEDED, TWO_STAGES, Bench, Rows, offer_of


class EndingContract:
    def test_a_waiting_job_is_cancelled_at_once(self, bench: Bench) -> None:
        job = bench.submit()
        assert bench.queue.cancel(job.id).status is Status.CANCELLED
        assert bench.claim(bench.worker()) == ()
        assert bench.queue.cancel(job.id).status is Status.CANCELLED
        assert bench.peek() == Rows(0, 0, 0, 1)

    def test_a_delayed_job_is_cancelled_at_once(self, bench: Bench) -> None:
        job, session = bench.submit(), bench.worker()
        bench.fail(session, bench.claim_one(session), Cause.CRASH)
        assert bench.queue.cancel(job.id).status is Status.CANCELLED
        bench.clock.advance(60)
        assert bench.claim(session) == ()
        assert bench.peek() == Rows(0, 0, 0, 1)

    def test_a_job_between_two_stages_is_cancelled_at_once(self, bench: Bench) -> None:
        job, session = bench.submit(stages=TWO_STAGES), bench.worker()
        bench.finish(session, bench.claim_one(session, stages=("prepare",)))
        cancelled = bench.queue.cancel(job.id)
        assert (cancelled.status, cancelled.version) == (Status.CANCELLED, "v1")
        assert bench.claim(session, stages=("generate",)) == ()
        assert bench.peek() == Rows(0, 0, 0, 1)

    def test_a_job_that_is_cancelled_in_one_stage_does_not_begin_the_next(self, bench: Bench) -> None:
        job, session = bench.submit(stages=TWO_STAGES), bench.worker()
        offer = offer_of(stages=("prepare", "generate"))
        claim = bench.claim_one(session, offer)
        bench.queue.cancel(job.id)
        reply = bench.queue.finish(session, job.id, claim.fence, SUCCEEDED, then=offer)
        assert (reply.status, reply.next) == (Status.CANCELLED, None)

    @pytest.mark.parametrize("way", ["goodbye", "unanswered", "lost"])
    def test_a_cancelled_job_ends_however_its_lease_comes_back(self, bench: Bench, way: str) -> None:
        job, session = bench.submit(), bench.worker()
        bench.claim_one(session)
        bench.queue.cancel(job.id)
        if way == "goodbye":
            bench.queue.goodbye(session)
        elif way == "lost":
            bench.queue.expire_session(session.id, bench.queue.beats()[session.id])
        else:
            for _ in range(4):
                bench.clock.advance(bench.timing.beat_s)
                bench.queue.beat(session, (), ())
        assert bench.queue.get(job.id).status is Status.CANCELLED

    @pytest.mark.parametrize("cause", [Cause.CANCELLED, Cause.SUCCEEDED, Cause.CRASH, Cause.PREEMPTED])
    def test_a_running_job_ends_cancelled_whatever_its_worker_says(self, bench: Bench, cause: Cause) -> None:
        job, session = bench.submit(), bench.worker()
        claim = bench.claim_one(session)
        marked = bench.queue.cancel(job.id)
        assert (marked.status, marked.cancel_requested) == (Status.RUNNING, True)
        reply = bench.queue.beat(session, [(job.id, claim.fence)], ())
        assert reply.cancelled == {job.id} and not reply.lost
        assert bench.fail(session, claim, cause) is Status.CANCELLED
        ended = bench.queue.get(job.id)
        assert (ended.status, ended.result, ended.cancel_requested) == (Status.CANCELLED, None, False)

    def test_a_cancelled_job_of_a_lost_worker_ends_cancelled(self, bench: Bench) -> None:
        job, session = bench.submit(), bench.worker()
        bench.claim_one(session)
        bench.queue.cancel(job.id)
        bench.queue.expire_session(session.id, bench.queue.beats()[session.id])
        assert bench.queue.get(job.id).status is Status.CANCELLED

    def test_a_waiting_job_expires_at_its_deadline(self, bench: Bench) -> None:
        job = bench.submit(deadline=bench.clock() + 5)
        bench.clock.advance(5)
        assert bench.claim(bench.worker()) == ()
        expired = bench.queue.get(job.id)
        assert expired.status is Status.EXPIRED and expired.error is not None and expired.error.code == "expired"

    def test_a_job_past_its_deadline_is_shown_expired_without_any_worker(self, bench: Bench) -> None:
        job = bench.submit(deadline=bench.clock() + 5)
        bench.clock.advance(6)
        assert bench.queue.get(job.id).status is Status.EXPIRED

    def test_a_job_expires_at_its_deadline_wherever_it_waits(self, bench: Bench) -> None:
        deadline = bench.clock() + 5
        between = bench.submit(stages=TWO_STAGES, deadline=deadline)
        session = bench.worker()
        bench.finish(session, bench.claim_one(session, stages=("prepare",)))
        delayed, failed = bench.submit(deadline=deadline), bench.submit("n", deadline=deadline)
        for _ in range(2):
            bench.clock.advance(1)
            bench.fail(session, bench.claim_one(session, model="n"), Cause.EXCEPTION)
            bench.fail(session, bench.claim_one(session), Cause.HANG)
            bench.clock.advance(1)
        bench.clock.advance(5)
        bench.queue.tend()
        bench.queue.retry([failed.id])
        bench.queue.tend()
        for job in (between, delayed, failed):
            assert bench.queue.get(job.id).status is Status.EXPIRED
        assert bench.peek() == Rows(0, 0, 0, 3)
        assert bench.queue.get(between.id).version == "v1"

    def test_a_running_job_may_pass_its_deadline_but_is_not_tried_again(self, bench: Bench) -> None:
        slow, broken = bench.submit(deadline=bench.clock() + 5), bench.submit(deadline=bench.clock() + 5)
        session = bench.worker()
        first, second = bench.claim(session, limit=2)
        bench.clock.advance(6)
        bench.queue.tend()
        assert bench.finish(session, first) is Status.SUCCEEDED
        assert bench.fail(session, second, Cause.CRASH) is Status.EXPIRED
        assert bench.queue.get(slow.id).status is Status.SUCCEEDED
        assert bench.queue.get(broken.id).status is Status.EXPIRED

    def test_progress_is_shown_and_needs_the_fence(self, bench: Bench) -> None:
        job, session = bench.submit(), bench.worker()
        claim = bench.claim_one(session)
        bench.queue.progress(job.id, claim.fence, 0.4, "step 16/40")
        shown = bench.queue.get(job.id)
        assert (shown.progress, shown.message) == (0.4, "step 16/40")
        for said, shown_as in ((7.0, 1.0), (-1.0, 0.0), (float("nan"), None)):
            bench.queue.progress(job.id, claim.fence, said, "half a \ud800 pair")
            shown = bench.queue.get(job.id)
            assert (shown.progress, shown.message) == (shown_as, "half a ? pair")
        with pytest.raises(StaleFence):
            bench.queue.progress(job.id, Fence(claim.fence.number, "x"), 0.5, None)
        bench.fail(session, claim, Cause.CRASH)
        assert bench.queue.get(job.id).progress is None
        with pytest.raises(StaleFence):
            bench.queue.progress(job.id, claim.fence, 0.5, None)

    def test_a_deleted_job_is_gone_with_its_key(self, bench: Bench) -> None:
        shared = bench.submit(adapters=(Adapter("a", "a" * 64, 1, key="uploads/1"),))
        job = bench.submit(files={"a": "uploads/1", "b": "uploads/2"}, idempotency_key="k")
        deleted = bench.queue.delete(job.id)
        assert (deleted.job_id, deleted.created_at, deleted.files) == (job.id, job.created_at, ("uploads/2",))
        with pytest.raises(JobNotFound):
            bench.queue.get(job.id)
        assert bench.submit(idempotency_key="k").id != job.id
        assert bench.queue.delete(shared.id).files == ("uploads/1",)
        assert bench.peek().ready == 1

    def test_a_running_job_cannot_be_deleted_an_ended_one_can(self, bench: Bench) -> None:
        job, session = bench.submit(), bench.worker()
        claim = bench.claim_one(session)
        with pytest.raises(Conflict, match="cancel it first"):
            bench.queue.delete(job.id)
        bench.finish(session, claim)
        bench.queue.delete(job.id)
        assert bench.peek() == Rows(0, 0, 0, 0)
        with pytest.raises(StaleFence):
            bench.finish(session, claim)

    def test_jobs_are_listed_newest_first_by_what_they_have_in_common(self, bench: Bench) -> None:
        session = bench.worker()
        first = bench.submit(tier="api", tenant="acme")
        bench.clock.advance(10)
        running, last = bench.submit("n"), bench.submit()
        bench.claim_one(session, model="n")
        bench.finish(session, bench.claim_one(session))
        wanted: list[tuple[JobFilter, list[str]]] = [
            (JobFilter(), [last.id, running.id, first.id]),
            (JobFilter(limit=1), [last.id]),
            (JobFilter(model="m"), [last.id, first.id]),
            (JobFilter(tier="api"), [first.id]),
            (JobFilter(tenant="acme"), [first.id]),
            (JobFilter(status=Status.QUEUED), [last.id]),
            (JobFilter(status=Status.RUNNING), [running.id]),
            (JobFilter(status=Status.SUCCEEDED), [first.id]),
            (JobFilter(older_than_s=10), [first.id]),
            (JobFilter(ended=True), [first.id]),
            (JobFilter(ended=False), [last.id, running.id]),
        ]
        for where, ids in wanted:
            assert [job.id for job in bench.queue.list(where)] == ids
