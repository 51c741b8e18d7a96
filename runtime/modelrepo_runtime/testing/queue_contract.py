"""What every JobQueue must do; an adapter's tests subclass this and say how to make one.

Tests look behind the adapter's back with `Peek`: rows of jobs that wait, are leased or have ended, by other means than
the port's own.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import pytest

from modelrepo.errors import Conflict, InvalidInput, JobNotFound, StaleFence, StaleSession
from modelrepo_runtime.jobs import (
    Cause,
    Claim,
    Fence,
    Job,
    JobError,
    Outcome,
    OutputFile,
    StageNeed,
    Status,
    Submission,
)
from modelrepo_runtime.queue.port import FinishReply, JobFilter, JobQueue, Offer, Session, SlotReport, WorkerInfo
from modelrepo_runtime.queue.reaper import Reaper
from modelrepo_runtime.testing.clock import FakeClock
from modelrepo_runtime.timing import Timing

ONE_STAGE = (StageNeed("run"),)
TWO_STAGES = (StageNeed("prepare", "cpu", 60.0), StageNeed("generate", "gpu", 600.0))
SUCCEEDED = Outcome(Cause.SUCCEEDED, {"answer": 42})


@dataclass(frozen=True)
class Rows:
    """How many jobs there are in each place."""

    ready: int
    delayed: int
    leased: int
    ended: int


class Peek(Protocol):
    """Counts behind the adapter's back."""

    def __call__(self) -> Rows: ...


@dataclass
class Bench:
    """A queue under test with its clock, and short words for what tests do over and over."""

    queue: JobQueue
    clock: FakeClock
    peek: Peek
    timing: Timing
    seq: int = 0

    def submit(self, model: str = "m", **facts: Any) -> Job:
        key = facts.pop("idempotency_key", None)
        submission = Submission(model, facts.pop("inputs", {"n": 1}), facts.pop("stages", ONE_STAGE), **facts)
        return self.queue.submit(submission, idempotency_key=key)

    def worker(self, name: str = "w", host: str = "box", *, open_for: str | None = "m", slot: str = "0") -> Session:
        session = self.queue.hello(WorkerInfo(name, host, 1, slots=(slot,)))
        if open_for is not None:
            self.queue.beat(session, (), (SlotReport(slot, "open", open_for, "v1"),))
        return session

    def claim(self, session: Session, offer: Offer | None = None, **facts: Any) -> tuple[Claim, ...]:
        self.seq += 1
        return self.queue.claim(session, self.seq, [offer or offer_of(**facts)])

    def claim_one(self, session: Session, offer: Offer | None = None, **facts: Any) -> Claim:
        (claim,) = self.claim(session, offer, **facts)
        return claim

    def finish(self, session: Session, claim: Claim, outcome: Outcome = SUCCEEDED, **facts: Any) -> Status:
        return self.queue.finish(session, claim.job_id, claim.fence, outcome, **facts).status

    def fail(self, session: Session, claim: Claim, cause: Cause, **facts: Any) -> Status:
        return self.finish(session, claim, Outcome(cause, **facts))


def offer_of(slot: str = "0", model: str = "m", version: str = "v1", **facts: Any) -> Offer:
    """Return an offer for single-stage jobs unless told otherwise."""
    return Offer(slot, model, version, facts.pop("stages", ("run",)), **facts)


class JobQueueContract:
    """Subclass it and give it a fixture `opened`: a queue on this clock and timing, and how to look behind it."""

    @pytest.fixture
    def clock(self) -> FakeClock:
        return FakeClock()

    @pytest.fixture
    def timing(self) -> Timing:
        return Timing.embedded()

    @pytest.fixture
    def opened(self, clock: FakeClock, timing: Timing) -> Iterator[tuple[JobQueue, Peek]]:
        raise NotImplementedError

    @pytest.fixture
    def bench(self, opened: tuple[JobQueue, Peek], clock: FakeClock, timing: Timing) -> Bench:
        return Bench(opened[0], clock, opened[1], timing)

    # Submission.

    def test_a_submitted_job_waits_in_the_default_tier(self, bench: Bench) -> None:
        job = bench.submit(metadata={"k": "v"}, inputs={"prompt": "ä"})
        assert (job.status, job.tier, job.position, job.slo_share) == (Status.QUEUED, "free", 0, 0.0)
        assert bench.queue.get(job.id) == job
        assert job.inputs == {"prompt": "ä"} and job.metadata == {"k": "v"} and job.stage == "run"
        assert bench.peek() == Rows(ready=1, delayed=0, leased=0, ended=0)

    def test_an_unknown_job_is_not_found(self, bench: Bench) -> None:
        for call in (bench.queue.get, bench.queue.cancel, bench.queue.delete, bench.queue.explain):
            with pytest.raises(JobNotFound, match="job_nope"):
                call("job_nope")
            with pytest.raises(JobNotFound):
                call("\udc80")

    def test_a_submission_that_cannot_be_kept_changes_nothing(self, bench: Bench) -> None:
        for facts in (
            {"tier": "gold"},
            {"stages": ()},
            {"inputs": {"x": float("nan")}},
            {"inputs": {"x": "a" * 2**20}},
            {"deadline": float("inf")},
            {"tenant": "\udc80"},
            {"idempotency_key": "\udc80"},
        ):
            with pytest.raises(InvalidInput):
                bench.submit(**facts)
        assert bench.peek() == Rows(0, 0, 0, 0)

    def test_the_same_key_gives_the_same_job(self, bench: Bench) -> None:
        first = bench.submit(idempotency_key="k")
        again = bench.submit(idempotency_key="k")
        other_tenant = bench.submit(idempotency_key="k", tenant="other")
        assert first.id == again.id != other_tenant.id
        assert bench.peek().ready == 2

    def test_a_key_that_comes_with_another_body_is_refused(self, bench: Bench) -> None:
        bench.submit(idempotency_key="k")
        with pytest.raises(InvalidInput, match="'k'"):
            bench.submit(idempotency_key="k", inputs={"n": 2})
        assert bench.peek().ready == 1

    def test_a_chosen_id_is_kept_and_cannot_be_used_twice(self, bench: Bench) -> None:
        assert bench.submit(job_id="job_mine").id == "job_mine"
        with pytest.raises(Conflict, match="job_mine"):
            bench.submit(job_id="job_mine")

    # Claims and finishes.

    def test_a_claim_carries_all_that_a_worker_needs(self, bench: Bench) -> None:
        job = bench.submit(
            inputs={"n": 7}, tier="api", files={"image": "uploads/x"}, stages=(StageNeed("run", "gpu", 5.0),)
        )
        claim = bench.claim_one(bench.worker(), slot="0", version="v3")
        assert (claim.job_id, claim.model, claim.version, claim.stage, claim.slot) == (job.id, "m", "v3", "run", "0")
        assert (claim.stage_index, claim.last_stage, claim.attempt, claim.timeout_s) == (0, True, 1, 5.0)
        assert (claim.inputs, claim.files, claim.tier) == ({"n": 7}, {"image": "uploads/x"}, "api")
        assert (claim.enqueued, claim.created_at, claim.previous) == (job.enqueued, job.created_at, None)
        assert bench.peek() == Rows(0, 0, 1, 0)
        running = bench.queue.get(job.id)
        assert (running.status, running.version, running.attempt) == (Status.RUNNING, "v3", 1)
        assert running.started_at == bench.clock() and running.position is None

    def test_a_finished_job_shows_its_result(self, bench: Bench) -> None:
        job, session = bench.submit(), bench.worker()
        claim = bench.claim_one(session)
        bench.clock.advance(3)
        output = OutputFile("video", "jobs/d/j/1-a/video.mp4", 10, "video/mp4")
        outcome = Outcome(Cause.SUCCEEDED, {"frames": 2}, (output,), log_key="log", runtime_s=3.0)
        assert bench.finish(session, claim, outcome) is Status.SUCCEEDED
        done = bench.queue.get(job.id)
        assert (done.status, done.result, done.outputs, done.log_key) == (
            Status.SUCCEEDED,
            {"frames": 2},
            (output,),
            "log",
        )
        assert (done.progress, done.started_at, done.finished_at) == (1.0, bench.clock() - 3, bench.clock())
        assert bench.peek() == Rows(0, 0, 0, 1)

    def test_nothing_is_claimed_twice_and_nothing_out_of_nothing(self, bench: Bench) -> None:
        bench.submit()
        session = bench.worker()
        assert len(bench.claim(session)) == 1
        assert bench.claim(session) == ()

    def test_the_same_claim_again_returns_the_same_leases(self, bench: Bench) -> None:
        for _ in range(3):
            bench.submit()
        session = bench.worker()
        first = bench.queue.claim(session, 7, [offer_of(limit=2)])
        assert bench.queue.claim(session, 7, [offer_of(limit=2)]) == first
        bench.finish(session, first[0])
        assert bench.queue.claim(session, 7, [offer_of(limit=2)]) == first[1:]
        assert len(bench.queue.claim(session, 8, [offer_of(limit=2)])) == 1

    def test_offers_of_many_slots_are_filled_in_one_call(self, bench: Bench) -> None:
        for model in ("m", "m", "n"):
            bench.submit(model)
        offers = [offer_of("0"), offer_of("1"), offer_of("2", "n"), offer_of("3")]
        claims = bench.queue.claim(bench.worker(), 1, offers)
        assert [(claim.slot, claim.model) for claim in claims] == [("0", "m"), ("1", "m"), ("2", "n")]
        assert len({claim.fence.number for claim in claims}) == 3

    def test_only_jobs_that_fit_the_offer_are_claimed(self, bench: Bench) -> None:
        bench.submit("other")
        bench.submit(version="v9")
        bench.submit(stages=(StageNeed("prepare"),))
        assert bench.claim(bench.worker(), limit=10) == ()
        assert len(bench.claim(bench.worker(), version="v9", limit=10)) == 1

    def test_a_claim_needs_a_session(self, bench: Bench) -> None:
        bench.submit()
        session = bench.worker()
        bench.queue.goodbye(session)
        with pytest.raises(StaleSession):
            bench.claim(session)
        with pytest.raises(StaleSession):
            bench.queue.beat(session, (), ())

    def test_fence_numbers_only_grow(self, bench: Bench) -> None:
        session, seen = bench.worker(), []
        for _ in range(5):
            job = bench.submit()
            claim = bench.claim_one(session)
            seen.append(claim.fence)
            bench.finish(session, claim)
            bench.queue.delete(job.id)
        assert sorted({fence.number for fence in seen}) == [fence.number for fence in seen]
        assert len({fence.token for fence in seen}) == 5

    def test_a_repeated_finish_gets_the_first_answer(self, bench: Bench) -> None:
        bench.submit()
        session = bench.worker()
        claim = bench.claim_one(session)
        replies = {bench.queue.finish(session, claim.job_id, claim.fence, SUCCEEDED) for _ in range(3)}
        assert {reply.status for reply in replies} == {Status.SUCCEEDED}
        events = [row.event for row in bench.queue.history(claim.job_id)]
        assert events == ["attempt"]

    def test_a_repeated_failure_gets_the_first_answer_while_the_job_waits_again(self, bench: Bench) -> None:
        bench.submit()
        session = bench.worker()
        claim = bench.claim_one(session)
        assert bench.fail(session, claim, Cause.CRASH) is Status.QUEUED
        assert bench.fail(session, claim, Cause.CRASH) is Status.QUEUED
        assert bench.peek() == Rows(0, 1, 0, 0)

    @pytest.mark.parametrize("what", ["token", "number", "other outcome", "other job", "after the end"])
    def test_a_finish_that_does_not_hold_the_lease_changes_nothing(self, bench: Bench, what: str) -> None:
        job, other, session = bench.submit(), bench.submit(), bench.worker()
        claim, _ = bench.claim(session, limit=2)
        fence, job_id, outcome = claim.fence, job.id, SUCCEEDED
        if what == "token":
            fence = Fence(fence.number, "0" * 16)
        elif what == "number":
            fence = Fence(fence.number + 100, fence.token)
        elif what == "other job":
            job_id = other.id
        else:
            bench.finish(session, claim)
            outcome = Outcome(Cause.SUCCEEDED, {"answer": 43})
        before = (bench.queue.get(job.id), bench.queue.get(other.id), bench.peek())
        with pytest.raises(StaleFence):
            bench.queue.finish(session, job_id, fence, outcome)
        assert (bench.queue.get(job.id), bench.queue.get(other.id), bench.peek()) == before
        assert [row.event for row in bench.queue.history(job_id)][-1] == "refused"

    def test_a_result_that_is_no_json_or_too_large_is_refused(self, bench: Bench) -> None:
        bench.submit()
        session = bench.worker()
        claim = bench.claim_one(session)
        for result in (float("inf"), {1, 2}, "a" * (256 * 1024 + 1)):
            with pytest.raises(InvalidInput):
                bench.finish(session, claim, Outcome(Cause.SUCCEEDED, result))
        assert bench.finish(session, claim) is Status.SUCCEEDED

    def test_many_finishes_each_get_their_own_answer(self, bench: Bench) -> None:
        for _ in range(3):
            bench.submit()
        session = bench.worker()
        one, two, three = bench.claim(session, limit=3)
        ends = [
            (one.job_id, one.fence, SUCCEEDED),
            (two.job_id, Fence(two.fence.number, "x"), SUCCEEDED),
            (three.job_id, three.fence, Outcome(Cause.CRASH)),
            (one.job_id, one.fence, SUCCEEDED),
        ]
        done, refused, again, repeated = bench.queue.finish_all(session, ends)
        assert repeated == done
        assert isinstance(refused, StaleFence)
        assert isinstance(done, FinishReply) and done.status is Status.SUCCEEDED
        assert isinstance(again, FinishReply) and again.status is Status.QUEUED
        assert bench.peek() == Rows(0, 1, 1, 1)

    # Stages.

    def test_stages_follow_each_other_and_hand_on_what_they_returned(self, bench: Bench) -> None:
        job, session = bench.submit(stages=TWO_STAGES), bench.worker()
        offer = offer_of(stages=("prepare", "generate"))
        first = bench.claim_one(session, offer)
        assert (first.stage, first.last_stage, first.timeout_s) == ("prepare", False, 60.0)
        assert bench.finish(session, first, Outcome(Cause.SUCCEEDED, [1, 2])) is Status.QUEUED
        between = bench.queue.get(job.id)
        assert (between.status, between.stage, between.version) == (Status.QUEUED, "generate", "v1")
        second = bench.claim_one(session, offer)
        assert (second.stage, second.stage_index, second.last_stage) == ("generate", 1, True)
        assert (second.previous, second.timeout_s, second.enqueued) == ([1, 2], 600.0, first.enqueued)
        assert bench.finish(session, second) is Status.SUCCEEDED
        assert bench.queue.get(job.id).started_at == job.created_at

    def test_a_finish_can_claim_the_next_stage_at_once(self, bench: Bench) -> None:
        bench.submit(stages=TWO_STAGES)
        session, offer = bench.worker(), offer_of(stages=("prepare", "generate"))
        claim = bench.claim_one(session, offer)
        reply = bench.queue.finish(session, claim.job_id, claim.fence, SUCCEEDED, then=offer)
        assert reply.status is Status.QUEUED and reply.next is not None
        assert (reply.next.stage, reply.next.previous) == ("generate", {"answer": 42})
        assert bench.queue.finish(session, claim.job_id, claim.fence, SUCCEEDED, then=offer) == reply
        assert bench.peek() == Rows(0, 0, 1, 0)
        assert bench.finish(session, reply.next) is Status.SUCCEEDED

    @pytest.mark.parametrize("facts", [{"version": "v2"}, {"model": "n"}, {"stages": ("prepare",)}])
    def test_the_next_stage_waits_where_the_offer_does_not_fit(self, bench: Bench, facts: dict[str, Any]) -> None:
        bench.submit(stages=TWO_STAGES)
        session, offer = bench.worker(), offer_of(stages=("prepare", "generate"))
        claim = bench.claim_one(session, offer)
        then = replace(offer, **facts)
        assert bench.queue.finish(session, claim.job_id, claim.fence, SUCCEEDED, then=then).next is None
        assert bench.peek() == Rows(1, 0, 0, 0)

    def test_a_job_keeps_the_version_of_its_first_stage(self, bench: Bench) -> None:
        bench.submit(stages=TWO_STAGES)
        session = bench.worker()
        both = ("prepare", "generate")
        bench.finish(session, bench.claim_one(session, stages=both, version="v1"))
        assert bench.claim(session, stages=both, version="v2") == ()
        assert bench.claim_one(session, stages=both, version="v1").stage == "generate"

    def test_a_failed_first_stage_may_be_tried_again_by_another_version(self, bench: Bench) -> None:
        bench.submit()
        session = bench.worker()
        bench.fail(session, bench.claim_one(session, version="v2"), Cause.CRASH)
        bench.clock.advance(1)
        assert bench.claim_one(session, version="v1").attempt == 2

    def test_a_job_follows_the_plan_of_the_version_that_starts_it(self, bench: Bench) -> None:
        job, session = bench.submit(stages=ONE_STAGE), bench.worker()
        offer = offer_of(version="v2", stages=("prepare", "generate"), plan=TWO_STAGES)
        first = bench.claim_one(session, offer)
        assert (first.stage, first.last_stage) == ("prepare", False)
        bench.finish(session, first)
        assert bench.queue.get(job.id).stage == "generate"
        second = bench.claim_one(session, offer)
        assert (second.stage, second.last_stage, second.timeout_s) == ("generate", True, 600.0)

    def test_a_job_that_asked_for_a_version_keeps_its_own_plan(self, bench: Bench) -> None:
        bench.submit(version="v2")
        offer = offer_of(version="v2", stages=("run",), plan=(StageNeed("run", timeout_s=1.0),))
        assert bench.claim_one(bench.worker(), offer).timeout_s == 3600.0

    def test_a_finish_does_not_claim_the_next_stage_where_the_job_failed_while_another_may(self, bench: Bench) -> None:
        bench.submit(stages=TWO_STAGES)
        offer = offer_of(stages=("prepare", "generate"))
        bad = bench.worker("bad")
        bench.fail(bad, bench.claim_one(bad, offer), Cause.CRASH)
        bench.clock.advance(1)
        again = bench.claim_one(bad, offer)
        other = bench.worker("other")
        assert bench.queue.finish(bad, again.job_id, again.fence, SUCCEEDED, then=offer).next is None
        assert bench.claim(bad, offer) == ()
        assert bench.claim_one(other, offer).stage == "generate"

    # Order.

    def test_the_job_that_used_the_largest_share_of_its_slo_goes_first(self, bench: Bench) -> None:
        free = bench.submit(tier="free")
        bench.clock.advance(3600)
        light = bench.submit(tier="light")
        bench.clock.advance(900.5)
        api = bench.submit(tier="api")
        bench.clock.advance(37)
        session = bench.worker()
        # shares by now: free 4537.5/7200 = 0.630, light 937.5/1800 = 0.521, api 37/60 = 0.617
        assert [claim.job_id for claim in bench.claim(session, limit=3)] == [free.id, api.id, light.id]

    def test_a_changed_slo_ranks_waiting_jobs_anew(self, bench: Bench) -> None:
        free, api = bench.submit(tier="free"), bench.submit(tier="api")
        bench.clock.advance(30)
        bench.queue.set_tier("free", slo_s=10)
        assert bench.queue.get(api.id).position == 1
        assert bench.claim_one(bench.worker()).job_id == free.id

    def test_jobs_of_a_tier_go_in_the_order_they_came(self, bench: Bench) -> None:
        ids = [bench.submit().id for _ in range(30)]
        assert [claim.job_id for claim in bench.claim(bench.worker(), limit=30)] == ids

    def test_jobs_go_in_the_order_they_came_though_the_clock_went_back(self, bench: Bench) -> None:
        ids = [bench.submit(tier="api").id, bench.submit(tier="free").id]
        bench.clock.advance(50)
        ids.append(bench.submit(tier="api").id)
        bench.clock.advance(-3600)
        ids.append(bench.submit(tier="api").id)
        last = bench.queue.get(ids[-1])
        assert (last.position, last.slo_share) == (3, 0.0)
        claims = bench.claim(bench.worker(), limit=4)
        assert [claim.job_id for claim in claims] == [ids[0], ids[1], ids[2], ids[3]]
        assert [claim.enqueued for claim in claims] == sorted(claim.enqueued for claim in claims)

    def test_a_wait_ends_when_the_accelerator_stage_starts(self, bench: Bench) -> None:
        job, session = bench.submit(stages=TWO_STAGES, tier="api"), bench.worker()
        offer = offer_of(stages=("prepare", "generate"))
        bench.clock.advance(6)
        first = bench.claim_one(session, offer)
        bench.clock.advance(6)
        assert bench.queue.get(job.id).slo_share == pytest.approx(0.2)
        bench.finish(session, first)
        bench.clock.advance(6)
        second = bench.claim_one(session, offer)
        bench.clock.advance(60)
        assert bench.queue.get(job.id).slo_share == pytest.approx(0.3)
        bench.fail(session, second, Cause.CRASH)
        bench.clock.advance(60)
        bench.claim_one(session, offer)
        assert bench.queue.get(job.id).slo_share == pytest.approx(0.3)

    def test_a_wait_without_an_accelerator_ends_with_the_first_stage(self, bench: Bench) -> None:
        stages = (StageNeed("prepare", "cpu"), StageNeed("generate", "cpu"))
        job = bench.submit(stages=stages, tier="api")
        bench.clock.advance(6)
        bench.claim_one(bench.worker(), stages=("prepare",))
        bench.clock.advance(60)
        assert bench.queue.get(job.id).slo_share == pytest.approx(0.1)

    def test_a_retried_job_keeps_its_clock(self, bench: Bench) -> None:
        job, session = bench.submit(), bench.worker()
        bench.fail(session, bench.claim_one(session), Cause.CRASH)
        bench.clock.advance(1)
        bench.submit()
        claim = bench.claim_one(session)
        assert (claim.job_id, claim.enqueued) == (job.id, job.created_at)

    def test_a_position_counts_the_jobs_that_would_go_before(self, bench: Bench) -> None:
        for _ in range(3):
            bench.submit(tier="free")
            bench.clock.advance(1)
        bench.submit("other", tier="api")
        job = bench.submit(tier="light")
        assert bench.queue.get(job.id).position == 3
        bench.clock.advance(600)
        assert bench.queue.get(job.id).position == 0

    # Attempts.

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

    # Cancel, deadline, deletion, progress.

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
        shared = bench.submit(files={"a": "uploads/1"})
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

    # Sessions, beats, the reaper.

    def test_a_beat_tells_what_was_lost(self, bench: Bench) -> None:
        bench.submit()
        session = bench.worker()
        claim = bench.claim_one(session)
        bench.queue.expire_session(session.id, bench.queue.beats()[session.id])
        reply = bench.queue.beat(session, [(claim.job_id, claim.fence)], ())
        assert reply.lost == {(claim.job_id, claim.fence)}
        with pytest.raises(StaleFence):
            bench.finish(session, claim)

    def test_a_claim_whose_answer_was_lost_goes_back_uncounted(self, bench: Bench) -> None:
        job, session = bench.submit(), bench.worker()
        bench.claim_one(session)
        for beat in range(4):
            assert bench.queue.get(job.id).status is Status.RUNNING, beat
            bench.clock.advance(bench.timing.beat_s * 0.9)
            bench.queue.beat(session, (), ())
        assert bench.queue.get(job.id).status is Status.QUEUED
        assert [(row.event, row.counted) for row in bench.queue.history(job.id)] == [("unanswered", False)]

    def test_a_lost_claim_goes_back_though_the_clock_went_back(self, bench: Bench) -> None:
        job, session = bench.submit(), bench.worker()
        bench.claim_one(session)
        bench.clock.advance(-3600)
        for _ in range(2):
            assert bench.queue.get(job.id).status is Status.RUNNING
            bench.queue.beat(session, (), ())
        assert bench.queue.get(job.id).status is Status.QUEUED

    def test_a_finish_after_the_lease_went_back_unanswered_is_refused(self, bench: Bench) -> None:
        job, session = bench.submit(), bench.worker()
        claim = bench.claim_one(session)
        for _ in range(4):
            bench.clock.advance(bench.timing.beat_s)
            bench.queue.beat(session, (), ())
        with pytest.raises(StaleFence):
            bench.finish(session, claim)
        assert bench.claim_one(session).attempt == 2
        assert bench.queue.get(job.id).status is Status.RUNNING

    def test_a_lease_that_beats_name_again_is_kept(self, bench: Bench) -> None:
        job, session = bench.submit(), bench.worker()
        claim = bench.claim_one(session)
        for number in range(10):
            bench.clock.advance(bench.timing.beat_s)
            bench.queue.beat(session, [(job.id, claim.fence)] if number % 2 else (), ())
        assert bench.queue.get(job.id).status is Status.RUNNING

    def test_goodbye_gives_back_what_is_held(self, bench: Bench) -> None:
        job, session = bench.submit(), bench.worker()
        bench.claim_one(session)
        bench.queue.goodbye(session)
        assert bench.queue.get(job.id).status is Status.QUEUED
        assert bench.queue.fleet() == ()
        bench.queue.goodbye(session)

    def test_the_fleet_shows_sessions_and_what_their_slots_say(self, bench: Bench) -> None:
        session = bench.queue.hello(WorkerInfo("w", "box", 17, "c", ("0", "1")))
        reports = (
            SlotReport("0", "open", "m", "v1", "d", 3, {"version": "v2", "phase": "loading"}, plan="overlap: fits"),
            SlotReport("1", "refused", reason="no GPU", deadline=5.0, next_action="attach one", phases={"load_s": 1.0}),
        )
        bench.queue.beat(session, (), reports)
        bench.clock.advance(2)
        (worker,) = bench.queue.fleet()
        assert worker.info == WorkerInfo("w", "box", 17, "c", ("0", "1"))
        assert (worker.session, worker.last_beat_age_s, worker.slots) == (session.id, 2.0, reports)

    def test_a_new_life_of_a_silent_worker_replaces_the_old(self, bench: Bench) -> None:
        bench.worker("w")
        bench.clock.advance(bench.timing.lease_s + 1)
        session = bench.worker("w")
        assert [report.session for report in bench.queue.fleet()] == [session.id]

    def test_the_reaper_takes_jobs_back_after_one_lease_of_silence(self, bench: Bench) -> None:
        job, session = bench.submit(), bench.worker()
        bench.claim_one(session)
        reaper = Reaper(bench.queue, bench.timing, bench.clock)
        looks = 0
        while not (reaped := reaper.look()):
            looks += 1
            assert looks < 20
            bench.clock.advance(bench.timing.beat_s)
        assert [(found.job_id, found.session, found.status) for found in reaped] == [
            (job.id, session.id, Status.QUEUED)
        ]
        assert looks == bench.timing.lease_s / bench.timing.beat_s
        assert reaper.look() == ()

    def test_the_reaper_spares_a_worker_that_beats(self, bench: Bench) -> None:
        bench.submit()
        session = bench.worker()
        claim = bench.claim_one(session)
        reaper = Reaper(bench.queue, bench.timing, bench.clock)
        for _ in range(20):
            bench.clock.advance(bench.timing.beat_s)
            bench.queue.beat(session, [(claim.job_id, claim.fence)], ())
            assert reaper.look() == ()

    def test_the_reaper_begins_anew_after_a_gap_of_its_own(self, bench: Bench) -> None:
        bench.submit()
        bench.claim_one(bench.worker())
        reaper = Reaper(bench.queue, bench.timing, bench.clock)
        for _ in range(3):
            reaper.look()
            bench.clock.advance(bench.timing.lease_s * 10)
        assert reaper.look() == ()

    def test_a_beat_that_moved_meanwhile_saves_the_session(self, bench: Bench) -> None:
        bench.submit()
        session = bench.worker()
        claim = bench.claim_one(session)
        seen = bench.queue.beats()[session.id]
        bench.queue.beat(session, [(claim.job_id, claim.fence)], ())
        assert bench.queue.expire_session(session.id, seen) == ()
        assert bench.finish(session, claim) is Status.SUCCEEDED

    def test_a_job_whose_version_is_served_nowhere_begins_again_at_most_twice(self, bench: Bench) -> None:
        job, session = bench.submit(stages=TWO_STAGES), bench.worker()
        both, reaper = ("prepare", "generate"), Reaper(bench.queue, bench.timing, bench.clock)
        for version in ("v1", "v2"):
            bench.finish(session, bench.claim_one(session, stages=both, version=version))
            self._let_a_lease_pass(bench, reaper, session, "v9")
            again = bench.queue.get(job.id)
            assert (again.status, again.stage, again.version) == (Status.QUEUED, "prepare", None)
        bench.finish(session, bench.claim_one(session, stages=both, version="v3"))
        self._let_a_lease_pass(bench, reaper, session, "v9")
        assert bench.queue.get(job.id).stage == "generate"
        words = " ".join(bench.queue.explain(job.id).lines)
        assert "v3" in words and "2 of at most 2" in words

    @pytest.mark.parametrize("incoming", [None, {"version": "v1", "phase": "loading"}])
    def test_a_job_waits_for_a_version_that_is_served_or_loading(self, bench: Bench, incoming: Any) -> None:
        job, session = bench.submit(stages=TWO_STAGES), bench.worker()
        bench.finish(session, bench.claim_one(session, stages=("prepare",)))
        version = "v2" if incoming else "v1"
        self._let_a_lease_pass(
            bench, Reaper(bench.queue, bench.timing, bench.clock), session, version, incoming=incoming
        )
        assert bench.queue.get(job.id).stage == "generate"

    def _let_a_lease_pass(
        self, bench: Bench, reaper: Reaper, session: Session, version: str, incoming: Any = None
    ) -> None:
        for _ in range(int(bench.timing.lease_s / bench.timing.beat_s) + 2):
            bench.queue.beat(session, (), (SlotReport("0", "open", "m", version, incoming=incoming),))
            reaper.look()
            bench.clock.advance(bench.timing.beat_s)

    # Turns, tiers, explanations.

    def test_turns_are_limited_renewed_and_run_out(self, bench: Bench) -> None:
        queue = bench.queue
        assert queue.take_turn("m", "a", 4, "50%", 10) and queue.take_turn("m", "b", 4, "50%", 10)
        assert not queue.take_turn("m", "c", 4, "50%", 10)
        assert queue.take_turn("m", "a", 4, "50%", 10) and queue.take_turn("n", "c", 4, "10%", 10)
        bench.clock.advance(6)
        assert queue.renew_turn("m", "b", 10)
        bench.clock.advance(5)
        assert not queue.renew_turn("m", "a", 10)
        assert queue.take_turn("m", "c", 4, "2", 10)
        queue.end_turn("m", "b")
        queue.end_turn("m", "b")
        assert queue.take_turn("m", "d", 4, "2", 10)

    def test_a_turn_does_not_last_because_the_clock_went_back(self, bench: Bench) -> None:
        assert bench.queue.take_turn("m", "crashed", 1, "1", 10)
        bench.clock.advance(-3600)
        assert bench.queue.take_turn("m", "next", 1, "1", 10)

    @pytest.mark.parametrize("share", ["1%", "0", "10%", "1"])
    def test_at_least_one_slot_may_always_swap(self, bench: Bench, share: str) -> None:
        assert bench.queue.take_turn("m", "a", 5, share, 10)
        assert not bench.queue.take_turn("m", "b", 5, share, 10)

    def test_tiers_can_be_added_changed_and_made_the_default(self, bench: Bench) -> None:
        queue = bench.queue
        assert [(tier.name, tier.slo_s, tier.default) for tier in queue.tiers()] == [
            ("api", 60, False),
            ("enterprise", 120, False),
            ("unlimited", 600, False),
            ("light", 1800, False),
            ("free", 7200, True),
        ]
        assert queue.set_tier("gold", slo_s=5).name == "gold"
        assert queue.set_tier("gold", allowed_miss=0.5).slo_s == 5
        queue.set_default_tier("gold")
        assert [tier.name for tier in queue.tiers() if tier.default] == ["gold"]
        assert bench.submit().tier == "gold"

    def test_tiers_that_make_no_sense_are_refused(self, bench: Bench) -> None:
        for name, slo_s, miss in (("new", None, None), ("api", 0.0, None), ("api", 5.0, 1.0), ("a b", 5.0, None)):
            with pytest.raises(InvalidInput):
                bench.queue.set_tier(name, slo_s=slo_s, allowed_miss=miss)
        with pytest.raises(InvalidInput, match="gold"):
            bench.queue.set_default_tier("gold")

    def test_an_explanation_says_what_a_job_waits_for(self, bench: Bench) -> None:
        job = bench.submit(tier="api")
        bench.clock.advance(30)
        said = bench.queue.explain(job.id)
        words = " ".join(said.lines)
        assert "No live worker serves m" in words and "50%" in words and "stage run, tier api" in words
        assert said.facts["waits_for"] and said.facts["slo_share"] == 0.5
        session = bench.worker("w")
        assert "1 live slots may take it: w/0" in " ".join(bench.queue.explain(job.id).lines)
        bench.queue.beat(session, (), (SlotReport("0", "cordoned", "m", "v1"),))
        assert "cordoned" in " ".join(bench.queue.explain(job.id).lines)
        pinned = bench.submit(version="v7")
        bench.queue.beat(session, (), (SlotReport("0", "open", "m", "v1"),))
        assert "needs version v7" in " ".join(bench.queue.explain(pinned.id).lines)

    def test_an_explanation_says_what_went_wrong_before(self, bench: Bench) -> None:
        job, session = bench.submit(), bench.worker()
        claim = bench.claim_one(session)
        assert "Runs stage run as version v1 on w/0" in " ".join(bench.queue.explain(job.id).lines)
        bench.fail(session, claim, Cause.CRASH)
        words = " ".join(bench.queue.explain(job.id).lines)
        assert "delayed until" in words and "ended by crash" in words and "slot:w/0" in words

    # Waiters.

    def test_a_waiter_is_woken_by_a_ready_job_of_its_model(self, bench: Bench) -> None:
        waiter = bench.queue.waiter(["m"])
        bench.submit("other")
        assert not waiter.wait(0.01)
        bench.submit()
        assert waiter.wait(5)
        assert not waiter.wait(0.01)
        waiter.close()
        waiter.close()

    def test_a_waiter_is_woken_when_its_job_changes(self, bench: Bench) -> None:
        job, session = bench.submit(), bench.worker()
        waiter = bench.queue.waiter(jobs=[job.id])
        claim = bench.claim_one(session)
        assert waiter.wait(5)
        bench.queue.progress(job.id, claim.fence, 0.5, None)
        assert waiter.wait(5)
        bench.finish(session, claim)
        assert waiter.wait(5)
        waiter.close()

    def test_a_waiter_can_be_woken_by_hand_and_gives_up_after_the_poll_interval(self, bench: Bench) -> None:
        waiter = bench.queue.waiter(["m"])
        threading.Timer(0.01, waiter.wake).start()
        assert waiter.wait(5) or waiter.wait(5)
        assert not waiter.wait(60)
        waiter.close()
