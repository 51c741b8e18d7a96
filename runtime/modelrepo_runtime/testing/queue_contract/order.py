"""Order: by the share of the SLO used, whatever the clock does."""

from __future__ import annotations

import pytest

from modelrepo_runtime.jobs import (
    Cause,
    StageNeed,
)
from modelrepo_runtime.testing.queue_contract.bench import TWO_STAGES, Bench, offer_of


class OrderContract:
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
