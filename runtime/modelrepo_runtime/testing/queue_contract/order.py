"""Order: by the share of the SLO used, whatever the clock does."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from math import inf

import pytest

from modelrepo_runtime.jobs import (
    Cause,
    Outcome,
    StageNeed,
)
from modelrepo_runtime.queue.fair import NOT_TOLD_APART, UNKNOWN_ESTIMATE_S, Account, FlowClock, Share, claimed, enter
from modelrepo_runtime.queue.port import Session, Tier
from modelrepo_runtime.queue.rank import NO_PICKS, Picks, Policy
from modelrepo_runtime.queue.steps import enqueued_after
from modelrepo_runtime.testing.queue_contract.bench import TWO_STAGES, Bench, offer_of
from modelrepo_runtime.testing.reference_order import WaitingJob, reference_order

SHARES = {"a": Share(2.0), "b": Share(), NOT_TOLD_APART: Share(burst_jobs=inf)}


@dataclass
class Mirror:
    """What must wait in the queue, and in which order, by the pure rules alone."""

    bench: Bench
    policy: Policy
    left: list[WaitingJob] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    lanes: dict[tuple[str, str | None, bool], int] = field(default_factory=dict)
    clocks: dict[str, FlowClock] = field(default_factory=dict)
    accounts: dict[tuple[str, str], Account] = field(default_factory=dict)
    tiers: dict[str, Tier] = field(default_factory=dict)
    picks: Picks = NO_PICKS
    newest: float = 0.0

    def __post_init__(self) -> None:
        self.bench.queue.set_policy(self.policy)
        self.bench.queue.set_tenant("a", weight=2.0)
        self.tiers = {tier.name: tier for tier in self.bench.queue.tiers()}

    def submit(self, tier: str, tenant: str, version: str | None) -> None:
        job = self.bench.submit(tier=tier, tenant=tenant, version=version)
        account = self.accounts.get((tier, tenant), Account())
        clock = self.clocks.get(tier, FlowClock())
        place = enter(clock, account, SHARES[tenant], UNKNOWN_ESTIMATE_S, job.enqueued)
        self.accounts[tier, tenant], self.newest = place.account, job.enqueued
        lane = self.lanes.setdefault((tier, version, place.over), len(self.lanes))
        slo = (self.tiers[tier].slo_s, self.tiers[tier].allowed_miss)
        self.left.append(WaitingJob(lane, len(self.names), job.enqueued, place.tag, *slo, place.over))
        self.names.append(job.id)

    def claim(self, session: Session, limit: int) -> None:
        """Claim, compare with what sorting everything gives, and finish."""
        now = enqueued_after(self.newest, self.bench.clock())
        expected, self.picks = reference_order(self.left, now, limit, self.policy, self.picks)
        claims = self.bench.claim(session, limit=limit)
        assert [claim.job_id for claim in claims] == [self.names[job] for job in expected]
        tier_of = {lane: tier for (tier, _, _), lane in self.lanes.items()}
        waiting = {tier_of[job.lane] for job in self.left if not job.over}
        for job in [job for job in self.left if job.job in expected]:
            tier = tier_of[job.lane]
            clock, others = self.clocks.get(tier, FlowClock()), tier in waiting
            self.clocks[tier] = claimed(clock, job.tag, over=job.over, others_wait=others, now=now)
            self.left.remove(job)
        for claim in claims:
            self.bench.finish(session, claim, Outcome(Cause.SUCCEEDED, runtime_s=UNKNOWN_ESTIMATE_S))


class OrderContract:
    @pytest.mark.parametrize("policy", Policy)
    def test_jobs_go_exactly_as_sorting_all_of_them_for_every_pick_would_say(
        self, bench: Bench, policy: Policy
    ) -> None:
        rng, mirror, session = random.Random(policy), Mirror(bench, policy), bench.worker()
        for _ in range(12):
            for _ in range(rng.choice([2, 6, 15])):
                tier = rng.choice(["api", "light", "light", "free"])
                mirror.submit(tier, rng.choice(["a", "b", "b", "b", NOT_TOLD_APART]), rng.choice([None, "v1"]))
                bench.clock.advance(rng.choice([0.0, 0.5, 9.0]))
            bench.clock.advance(rng.choice([0.0, 30.0, 600.0]))
            for _ in range(rng.randint(1, 3)):
                mirror.claim(session, rng.choice([1, 2, 7]))
        while mirror.left:
            mirror.claim(session, 9)
        assert bench.peek().ready == 0

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
