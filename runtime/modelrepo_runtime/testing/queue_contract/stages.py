"""Stages: one after the other, on one version."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from modelrepo_runtime.jobs import (
    Cause,
    Outcome,
    StageNeed,
    Status,
)
from modelrepo_runtime.testing.queue_contract.bench import ONE_STAGE, SUCCEEDED, TWO_STAGES, Bench, Rows, offer_of


class StageContract:
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
