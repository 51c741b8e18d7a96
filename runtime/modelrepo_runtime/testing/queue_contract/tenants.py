"""Tenants: shares of a flow, floods, and what operators set of the order."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from modelrepo.errors import InvalidInput, ModelNotFound
from modelrepo_runtime.jobs import Cause, Job, Outcome, StageNeed, Status, Submission
from modelrepo_runtime.queue.order_settings import Tenant
from modelrepo_runtime.queue.port import Offer
from modelrepo_runtime.queue.rank import Policy
from modelrepo_runtime.testing.queue_contract.bench import ONE_STAGE, TWO_STAGES, Bench, offer_of

TOOK = Outcome(Cause.SUCCEEDED, runtime_s=1.0)
"""What a job is taken to need before anything was learnt: its account stands as it was charged."""


def submit_many(bench: Bench, tenant: str, count: int, **facts: Any) -> list[str]:
    return [bench.submit(tenant=tenant, **facts).id for _ in range(count)]


def drain(bench: Bench, count: int) -> list[str]:
    """Claim and finish one job after the other; return them in the order in which they went."""
    session, served = bench.worker(), []
    for _ in range(count):
        claim = bench.claim_one(session)
        bench.finish(session, claim, TOOK)
        served.append(claim.job_id)
    return served


class TenantContract:
    def test_jobs_of_one_tenant_go_in_the_order_they_came(self, bench: Bench) -> None:
        ids = submit_many(bench, "acme", 11)
        assert drain(bench, 11) == ids

    def test_a_flood_does_not_delay_the_first_job_of_another_tenant(self, bench: Bench) -> None:
        submit_many(bench, "flood", 30)
        drain(bench, 3)
        job = bench.submit(tenant="other")
        assert drain(bench, 1) == [job.id]

    def test_a_flood_does_not_delay_another_tier(self, bench: Bench) -> None:
        submit_many(bench, "flood", 30, tier="light")
        bench.clock.advance(1700)  # the flood has used nearly all of its SLO
        drain(bench, 12)  # the 11 jobs that do not stand back, and one that does
        calm = submit_many(bench, "calm", 3, tier="api")
        assert drain(bench, 3) == calm

    def test_what_stands_back_gets_one_pick_in_ten_and_what_is_spare(self, bench: Bench) -> None:
        flood = submit_many(bench, "flood", 30)
        served = drain(bench, 12)
        assert [n for n, job in enumerate(served) if job not in flood[:11]] == [9]
        submit_many(bench, "default", 19)
        served = drain(bench, 24)
        assert [n for n, job in enumerate(served) if job in flood] == [7, 17, 21, 22, 23]

    def test_jobs_that_are_sent_at_once_are_all_charged_for(self, bench: Bench) -> None:
        one = Submission("m", {}, ONE_STAGE, tier="api", tenant="flood")
        with ThreadPoolExecutor(6) as pool:
            assert len({job.id for job in pool.map(bench.queue.submit, [one] * 24)}) == 24
        bench.clock.advance(1)
        last = bench.submit(tier="free")
        # 11 jobs do not stand back; after 9 of them one goes that does
        order = [claim.job_id for claim in bench.claim(bench.worker(), limit=25)]
        assert order.index(last.id) == 12

    def test_weights_divide_a_flow(self, bench: Bench) -> None:
        bench.queue.set_tenant("three", weight=3.0, any_burst=True)
        bench.queue.set_tenant("one", any_burst=True)
        jobs = dict.fromkeys(submit_many(bench, "three", 20), "three")
        jobs.update((job, "one") for job in submit_many(bench, "one", 20))
        session = bench.worker()
        served = [jobs[claim.job_id] for claim in bench.claim(session, limit=16)]
        assert served.count("three") == 12

    def test_a_tenant_whose_jobs_take_longer_than_thought_comes_later(self, bench: Bench) -> None:
        bench.submit()
        session = bench.worker()
        claim = bench.claim_one(session)
        bench.clock.advance(1)
        bench.finish(session, claim, TOOK)
        bench.queue.tend()  # from now on a job is thought to take a second
        slow = bench.submit(tenant="slow")
        bench.submit(tenant="quick")
        for claim in bench.claim(session, limit=2):
            bench.finish(session, claim, Outcome(Cause.SUCCEEDED, runtime_s=20.0 if claim.job_id == slow.id else 1.0))
        late, early = bench.submit(tenant="slow"), bench.submit(tenant="quick")
        assert [claim.job_id for claim in bench.claim(session, limit=2)] == [early.id, late.id]

    def test_a_cancelled_job_is_not_charged_for(self, bench: Bench) -> None:
        for name in ("a", "b"):
            bench.queue.set_tenant(name, any_burst=True)
        first = bench.submit(tenant="a")
        for job in [bench.submit(tenant="a") for _ in range(5)]:
            bench.queue.cancel(job.id)
        bench.clock.advance(7)
        later = bench.submit(tenant="b")
        again = bench.submit(tenant="a")
        assert drain(bench, 3) == [first.id, later.id, again.id]

    def test_a_job_keeps_its_place_through_stages_and_retries(self, bench: Bench) -> None:
        session = bench.worker()
        first, second = bench.submit(stages=TWO_STAGES), bench.submit(stages=TWO_STAGES)
        offer = offer_of(stages=("prepare", "generate"))
        for _ in range(2):
            claim = bench.claim_one(session, offer)
            bench.fail(session, claim, Cause.CRASH)
        bench.clock.advance(1)
        claims = bench.claim(session, offer_of(stages=("prepare", "generate"), limit=2))
        assert [claim.job_id for claim in claims] == [first.id, second.id]
        for claim in reversed(claims):
            bench.finish(session, claim)
        after = bench.claim(session, offer_of(stages=("prepare", "generate"), limit=2))
        assert [(claim.job_id, claim.stage) for claim in after] == [(first.id, "generate"), (second.id, "generate")]

    def test_those_who_stand_back_do_so_at_every_stage(self, bench: Bench) -> None:
        flood = [bench.submit(tenant="flood", tier="light", stages=TWO_STAGES).id for _ in range(13)]
        session = bench.worker()
        for claim in bench.claim(session, offer_of(stages=("prepare",), limit=13)):
            bench.finish(session, claim)
        bench.clock.advance(3600)
        calm = bench.submit(tenant="calm", tier="free", stages=(StageNeed("generate"),)).id
        order = [claim.job_id for claim in bench.claim(session, offer_of(stages=("generate",), limit=14))]
        assert set(order[:9]) == set(flood[:9]) and order[9] == flood[11]
        assert order[10:] == [flood[9], flood[10], calm, flood[12]]

    def test_tenants_can_be_set_and_are_listed_once_they_submit(self, bench: Bench) -> None:
        queue = bench.queue
        assert queue.tenants() == ()
        bench.submit(tenant="seen")
        assert queue.set_tenant("big", weight=4.0) == Tenant("big", 4.0, 10.0)
        assert queue.set_tenant("big", burst_jobs=100.0) == Tenant("big", 4.0, 100.0)
        assert queue.set_tenant("big", any_burst=True) == Tenant("big", 4.0, None)
        assert queue.tenants() == (Tenant("big", 4.0, None), Tenant("seen", 1.0, 10.0))

    def test_tenants_that_make_no_sense_are_refused(self, bench: Bench) -> None:
        for name, weight, burst in (("", 1.0, None), ("a", 0.0, None), ("a", -1.0, None), ("a", None, -1.0)):
            with pytest.raises(InvalidInput):
                bench.queue.set_tenant(name, weight=weight, burst_jobs=burst)

    def test_a_changed_policy_ranks_waiting_jobs_anew(self, bench: Bench) -> None:
        assert bench.queue.policy() is Policy.SLO_SHARE
        jobs: dict[str, Job] = {}
        for tier, waited in (("free", 1000.0), ("enterprise", 20.0), ("light", 470.0), ("api", 10.0)):
            jobs[tier] = bench.submit(tier=tier)
            bench.clock.advance(waited)
        # waited by now: free 1500 of 7200 s, enterprise 500 of 120, light 480 of 1800, api 10 of 60
        expected = {
            Policy.SLO_SHARE: "enterprise",
            Policy.STRICT: "api",
            Policy.FIFO: "free",
            Policy.LWDF_LATE: "api",
        }
        session = bench.worker()
        for policy, first in expected.items():
            bench.queue.set_policy(policy)
            assert bench.queue.policy() is policy
            claim = bench.claim_one(session)
            assert claim.job_id == jobs[first].id, policy
            bench.finish(session, claim, Outcome(Cause.PREEMPTED, counted=False))
            bench.clock.advance(0.001)

    def test_in_overload_one_pick_in_ten_goes_to_the_oldest_late_job(self, bench: Bench) -> None:
        bench.queue.set_policy(Policy.LWDF_LATE)
        late = [bench.submit(tier="api").id for _ in range(3)]
        bench.clock.advance(61)
        on_time = [bench.submit(tier="free").id for _ in range(19)]
        assert drain(bench, 22) == [*on_time[:9], late[0], *on_time[9:18], late[1], on_time[18], late[2]]

    def test_what_is_paused_is_not_given_out(self, bench: Bench) -> None:
        queue, session = bench.queue, bench.worker()
        api, free = bench.submit(tier="api"), bench.submit(tier="free")
        other = bench.submit("other", tier="api")
        queue.pause("m")
        queue.pause("m")
        assert bench.claim(session, limit=5) == ()
        assert bench.claim_one(session, model="other").job_id == other.id
        assert queue.resume("m") and not queue.resume("m")
        queue.pause(tier="api")
        assert [(pause.model, pause.tier) for pause in queue.pauses()] == [(None, "api")]
        assert bench.claim_one(session).job_id == free.id
        queue.pause()
        assert queue.resume(tier="api")
        assert bench.claim(session) == ()
        assert queue.resume()
        assert bench.claim_one(session).job_id == api.id and queue.pauses() == ()

    def test_what_runs_is_not_paused(self, bench: Bench) -> None:
        bench.submit()
        session = bench.worker()
        claim = bench.claim_one(session)
        bench.queue.pause("m")
        assert bench.finish(session, claim).ended

    def test_only_a_tier_that_there_is_can_be_paused(self, bench: Bench) -> None:
        with pytest.raises(InvalidInput, match="gold"):
            bench.queue.pause(tier="gold")

    def test_only_a_model_that_the_queue_has_seen_can_be_paused(self, bench: Bench) -> None:
        with pytest.raises(ModelNotFound, match="no model has had jobs"):
            bench.queue.pause("resnet")
        bench.submit("resnet-50")
        with pytest.raises(ModelNotFound, match="did you mean resnet-50"):
            bench.queue.pause("resnet-5")
        bench.worker(open_for="other")
        assert bench.queue.pause("other").model == "other"

    def test_the_account_of_a_tenant_goes_with_its_last_job(self, bench: Bench) -> None:
        gone, _ = bench.submit(tenant="gone"), bench.submit(tenant="stays")
        assert bench.queue.forget_accounts() == 0
        bench.queue.delete(gone.id)
        assert (bench.queue.forget_accounts(), bench.queue.forget_accounts()) == (1, 0)
        assert [tenant.name for tenant in bench.queue.tenants()] == ["stays"]
        assert bench.submit(tenant="gone").status is Status.QUEUED

    def test_a_resumed_model_wakes_its_waiters(self, bench: Bench) -> None:
        bench.submit()
        bench.queue.pause("m")
        waiter = bench.queue.waiter(["m"])
        while waiter.wait(0.0):
            pass
        bench.queue.resume("m")
        assert waiter.wait(5.0)
        waiter.close()

    def test_a_warm_model_goes_first_unless_a_cold_one_is_urgent(self, bench: Bench) -> None:
        session = bench.worker()
        cold = bench.submit("cold", tier="api")
        bench.clock.advance(40)
        warm = bench.submit("warm", tier="api")

        def offers() -> list[Offer]:
            return [offer_of("0", "cold", warm=False, limit=5), offer_of("0", "warm", limit=5)]

        assert [c.job_id for c in bench.queue.claim(session, 101, offers())] == [warm.id]
        bench.submit("warm", tier="api")
        bench.clock.advance(9)
        assert [c.job_id for c in bench.queue.claim(session, 102, offers())] == [cold.id]
