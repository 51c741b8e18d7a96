"""Attempts: how often, where, and what becomes of a job then."""

from __future__ import annotations

import pytest

from modelrepo.errors import Conflict, JobNotFound
from modelrepo_runtime.jobs import (
    Cause,
    JobError,
    StageNeed,
    Status,
)
from modelrepo_runtime.queue.port import JobFilter, Session, SlotReport
from modelrepo_runtime.testing.queue_contract.bench import TWO_STAGES, Bench, offer_of


class AttemptContract:
    @pytest.mark.parametrize(
        ("cause", "tries"),
        [
            (Cause.EXCEPTION, 2),
            (Cause.RETRY, 2),
            (Cause.OUT_OF_MEMORY, 2),
            (Cause.CRASH, 3),
            (Cause.HANG, 3),
            (Cause.WORKER_LOST, 3),
        ],
    )
    def test_a_cause_has_its_number_of_tries(self, bench: Bench, cause: Cause, tries: int) -> None:
        job, session = bench.submit(), bench.worker()
        for number in range(1, tries + 1):
            bench.clock.advance(60)
            claim = bench.claim_one(session)
            assert claim.attempt == number
            assert bench.fail(session, claim, cause) is (Status.FAILED if number == tries else Status.QUEUED)
        failed = bench.queue.get(job.id)
        assert failed.error is not None and failed.error.code == cause.value

    def test_exception_and_a_request_to_retry_share_their_tries(self, bench: Bench) -> None:
        bench.submit()
        session = bench.worker()
        bench.fail(session, bench.claim_one(session), Cause.EXCEPTION)
        bench.clock.advance(60)
        assert bench.fail(session, bench.claim_one(session), Cause.RETRY) is Status.FAILED

    @pytest.mark.parametrize("cause", [Cause.LOAD_FAILED, Cause.PREEMPTED])
    def test_what_is_not_the_jobs_fault_has_no_limit(self, bench: Bench, cause: Cause) -> None:
        bench.submit()
        session = bench.worker()
        for _ in range(12):
            bench.clock.advance(60)
            assert bench.fail(session, bench.claim_one(session), cause) is Status.QUEUED

    def test_retries_wait_longer_each_time(self, bench: Bench) -> None:
        bench.submit()
        session = bench.worker()
        bench.fail(session, bench.claim_one(session), Cause.CRASH)
        bench.clock.advance(0.9)
        assert bench.claim(session) == ()
        bench.clock.advance(0.1)
        bench.fail(session, bench.claim_one(session), Cause.HANG)
        bench.clock.advance(9.9)
        assert bench.claim(session) == ()
        bench.clock.advance(0.1)
        assert len(bench.claim(session)) == 1

    def test_a_retry_is_not_put_off_by_a_clock_that_went_back(self, bench: Bench) -> None:
        bench.submit()
        session = bench.worker()
        bench.fail(session, bench.claim_one(session), Cause.CRASH)
        bench.clock.advance(-3600)
        assert bench.claim_one(session).attempt == 2

    def test_a_rejection_ends_the_job_with_its_code(self, bench: Bench) -> None:
        job, session = bench.submit(), bench.worker()
        error = JobError("nsfw", "not this one")
        assert bench.fail(session, bench.claim_one(session), Cause.REJECTED, error=error) is Status.REJECTED
        assert bench.queue.get(job.id).error == error

    def test_uncounted_attempts_do_not_use_up_tries(self, bench: Bench) -> None:
        bench.submit()
        session = bench.worker()
        for _ in range(5):
            claim = bench.claim_one(session)
            assert bench.queue.hand_back(session, claim.job_id, claim.fence, Cause.PREEMPTED) is Status.QUEUED
        for _ in range(5):
            bench.fail(session, bench.claim_one(session), Cause.EXCEPTION, counted=False)
            bench.clock.advance(60)
        assert bench.fail(session, bench.claim_one(session), Cause.EXCEPTION) is Status.QUEUED

    def test_a_retry_goes_to_another_slot_while_one_lives(self, bench: Bench) -> None:
        bench.submit()
        bad, good = bench.worker("bad"), bench.worker("good")
        bench.fail(bad, bench.claim_one(bad), Cause.EXCEPTION)
        bench.clock.advance(1)
        assert bench.claim(bad) == ()
        assert bench.claim_one(good).attempt == 2

    def test_the_same_slot_takes_it_where_no_other_lives(self, bench: Bench) -> None:
        bench.submit()
        bad = bench.worker("bad")
        bench.worker("good")
        bench.fail(bad, bench.claim_one(bad), Cause.EXCEPTION)
        bench.clock.advance(bench.timing.lease_s + 1)
        bench.queue.beat(bad, (), (SlotReport("0", "open", "m", "v1"),))
        assert bench.claim_one(bad).attempt == 2

    def test_who_fell_silent_is_not_alive_because_the_clock_went_back(self, bench: Bench) -> None:
        bench.submit()
        bad = bench.worker("bad")
        bench.worker("gone")
        bench.fail(bad, bench.claim_one(bad), Cause.EXCEPTION)
        bench.clock.advance(1)
        assert bench.claim(bad) == ()
        bench.clock.advance(-3600)
        bench.queue.beat(bad, (), (SlotReport("0", "open", "m", "v1"),))
        assert bench.claim_one(bad).attempt == 2
        assert [report.info.name for report in bench.queue.fleet() if report.last_beat_age_s > 3000] == ["gone"]

    @pytest.mark.parametrize("stages_done", [0, 1])
    def test_a_job_keeps_away_from_where_it_failed_at_every_stage(self, bench: Bench, stages_done: int) -> None:
        bench.submit(stages=(StageNeed("one"), StageNeed("two"), StageNeed("three")))
        offer = offer_of(stages=("one", "two", "three"))
        bad, good = bench.worker("bad"), bench.worker("good")
        for _ in range(stages_done):
            bench.finish(bad, bench.claim_one(bad, offer))
        bench.fail(bad, bench.claim_one(bad, offer), Cause.CRASH)
        bench.clock.advance(1)
        for stage in ("one", "two", "three")[stages_done:]:
            assert bench.claim(bad, offer) == (), stage
            claim = bench.claim_one(good, offer)
            assert claim.stage == stage
            bench.finish(good, claim)

    @pytest.mark.parametrize(
        "report",
        [
            SlotReport("0", "cordoned", "m", "v1"),
            SlotReport("0", "refused", "m", "v1"),
            SlotReport("0", "open", "other", "v1"),
        ],
    )
    def test_a_slot_that_may_not_take_it_does_not_keep_it_waiting(self, bench: Bench, report: SlotReport) -> None:
        bench.submit()
        bad, other = bench.worker("bad"), bench.worker("other")
        bench.queue.beat(other, (), (report,))
        bench.fail(bad, bench.claim_one(bad), Cause.EXCEPTION)
        bench.clock.advance(1)
        assert len(bench.claim(bad)) == 1

    def test_after_a_lost_worker_another_box_goes_first(self, bench: Bench) -> None:
        bench.submit()
        gone, twin, far = bench.worker("a", "one"), bench.worker("b", "one"), bench.worker("c", "two")
        bench.claim_one(gone)
        bench.queue.expire_session(gone.id, bench.queue.beats()[gone.id])
        bench.clock.advance(1)
        assert bench.claim(twin) == ()
        assert bench.claim_one(far).attempt == 2

    def test_dead_letters_go_back_with_fresh_tries(self, bench: Bench) -> None:
        job, session = bench.submit(stages=TWO_STAGES), bench.worker()
        both = ("prepare", "generate")
        bench.finish(session, bench.claim_one(session, stages=both))
        for _ in range(2):
            bench.fail(session, bench.claim_one(session, stages=both), Cause.EXCEPTION)
            bench.clock.advance(60)
        assert bench.queue.get(job.id).status is Status.FAILED
        assert bench.queue.retry([job.id], dry_run=True) == (job.id,)
        assert bench.queue.retry([job.id]) == (job.id,)
        again = bench.queue.get(job.id)
        assert (again.status, again.stage, again.enqueued, again.error) == (
            Status.QUEUED,
            "prepare",
            job.enqueued,
            None,
        )
        assert bench.fail(session, bench.claim_one(session, stages=both), Cause.EXCEPTION) is Status.QUEUED

    def test_only_failed_jobs_can_be_sent_back(self, bench: Bench) -> None:
        job = bench.submit()
        with pytest.raises(Conflict, match="queued"):
            bench.queue.retry([job.id])
        with pytest.raises(JobNotFound):
            bench.queue.retry(["job_nope"])

    def test_quarantined_jobs_stay_unless_forced(self, bench: Bench) -> None:
        lost, failed, session = bench.submit(), bench.submit("n"), bench.worker()
        for _ in range(3):
            error = JobError("worker_lost", "gone")
            bench.fail(session, bench.claim_one(session), Cause.WORKER_LOST, error=error)
            bench.clock.advance(60)
        for _ in range(2):
            bench.fail(session, bench.claim_one(session, model="n"), Cause.EXCEPTION)
            bench.clock.advance(60)
        assert bench.queue.get(lost.id).error == JobError("worker_lost", "gone")
        assert bench.queue.retry(JobFilter(), dry_run=True) == (failed.id,)
        assert bench.queue.retry(JobFilter(limit=1), force=True, dry_run=True) == (failed.id,)
        newest = self._quarantined(bench, session)
        assert bench.queue.retry(JobFilter(limit=1), dry_run=True) == (failed.id,)
        assert bench.queue.retry([newest]) == (newest,)
        assert bench.queue.retry(JobFilter(model="m")) == ()
        assert bench.queue.retry(JobFilter(model="m"), force=True) == (lost.id,)
        assert bench.queue.retry(JobFilter(older_than_s=10)) == (failed.id,)

    def _quarantined(self, bench: Bench, session: Session) -> str:
        job = bench.submit("q")
        for _ in range(3):
            lost = JobError("worker_lost", "gone")
            bench.fail(session, bench.claim_one(session, model="q"), Cause.WORKER_LOST, error=lost)
            bench.clock.advance(60)
        return job.id
