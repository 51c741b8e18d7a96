"""Claims and finishes: each job once, each answer again."""

from __future__ import annotations

import pytest

from modelrepo.errors import InvalidInput, StaleFence, StaleSession
from modelrepo_runtime.jobs import (
    Cause,
    Fence,
    Outcome,
    OutputFile,
    StageNeed,
    Status,
)
from modelrepo_runtime.queue.port import FinishReply
from modelrepo_runtime.testing.queue_contract.bench import SUCCEEDED, Bench, Rows, offer_of


class ClaimContract:
    def test_a_claim_carries_all_that_a_worker_needs(self, bench: Bench) -> None:
        job = bench.submit(
            inputs={"n": 7}, tier="api", files={"image": "uploads/x"}, stages=(StageNeed("run", "gpu", 5.0),)
        )
        claim = bench.claim_one(bench.worker(), slot="0", version="v3")
        assert (claim.job_id, claim.model, claim.version, claim.stage, claim.slot) == (job.id, "m", "v3", "run", "0")
        assert (claim.stage_index, claim.last_stage, claim.attempt, claim.timeout_s) == (0, True, 1, 5.0)
        assert claim.adapters == ()
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
