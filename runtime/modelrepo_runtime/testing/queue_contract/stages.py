"""Stages: one after the other, on one version."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from modelrepo_runtime.jobs import (
    Cause,
    Outcome,
    OutputFile,
    StageNeed,
    Status,
)
from modelrepo_runtime.queue.orders import OrderDone
from modelrepo_runtime.queue.port import SlotReport
from modelrepo_runtime.testing.queue_contract.bench import ONE_STAGE, SUCCEEDED, TWO_STAGES, Bench, Rows, offer_of
from modelrepo_runtime.testing.queue_contract.credits import CPU, GPU, a_box, generates, prepared, report, waiting

BOUND = Outcome(Cause.SUCCEEDED, cluster_bound=True)


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

    def test_the_next_stage_of_a_paused_model_waits(self, bench: Bench) -> None:
        bench.submit(stages=TWO_STAGES)
        session, offer = bench.worker(), offer_of(stages=("prepare", "generate"))
        claim = bench.claim_one(session, offer)
        bench.queue.pause("m")
        reply = bench.queue.finish(session, claim.job_id, claim.fence, SUCCEEDED, then=offer)
        assert (reply.status, reply.next) == (Status.QUEUED, None)
        assert bench.claim(session, offer) == ()
        bench.queue.resume("m")
        assert bench.claim_one(session, offer).stage == "generate"

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

    def test_a_stage_is_told_what_those_before_it_handed_over(self, bench: Bench) -> None:
        bench.submit(stages=(*TWO_STAGES, StageNeed("finish", "cpu")))
        session, offer = bench.worker(), offer_of(stages=("prepare", "generate", "finish"))
        files = (OutputFile("latents", "jobs/d/j/1-a/handover/latents", 7, "application/octet-stream"),)
        first = bench.claim_one(session, offer)
        assert first.handover == ()
        reply = bench.queue.finish(
            session, first.job_id, first.fence, Outcome(Cause.SUCCEEDED, handover=files), then=offer
        )
        assert reply.next is not None and reply.next.handover == files
        bench.fail(session, reply.next, Cause.EXCEPTION)
        bench.clock.advance(1)
        again = bench.claim_one(session, offer)
        assert again.handover == files
        bench.finish(session, again, Outcome(Cause.SUCCEEDED))
        assert bench.claim_one(session, offer).handover == ()

    def test_what_lies_in_a_clusters_storage_is_gone_on_with_in_that_cluster(self, bench: Bench) -> None:
        waiting(bench, 1)
        cpu, gpu = a_box(bench, "cpu", CPU), a_box(bench, "gpu", GPU)
        far = a_box(bench, "far", GPU, cluster="d")
        bench.finish(cpu, bench.claim_one(cpu, limit=1, stages=("prepare",), plan=generates().plan), BOUND)
        assert bench.claim(far, generates()) == ()
        claim = bench.claim_one(gpu, generates())
        bench.queue.hand_back(gpu, claim.job_id, claim.fence, Cause.PREEMPTED)
        assert bench.claim(far, generates()) == ()
        assert bench.claim_one(gpu, generates()).stage == "generate"

    def test_a_job_that_is_bound_to_a_cluster_without_its_version_begins_again(self, bench: Bench) -> None:
        waiting(bench, 2)
        cpu, gpu = a_box(bench, "cpu", CPU), a_box(bench, "gpu", GPU)
        a_box(bench, "far", GPU, cluster="d")
        bound = bench.claim_one(cpu, limit=1, stages=("prepare",), plan=generates().plan)
        bench.finish(cpu, bound, BOUND)
        (free,) = prepared(bench, cpu)
        assert bench.queue.pinned_waiting() == ()
        report(bench, gpu, GPU, version="v2")
        assert bench.queue.pinned_waiting() == (("m", "v1"),)
        assert bench.queue.restart_pinned("m", "v1") == 1
        assert bench.queue.get(bound.job_id).stage == "prepare"
        assert bench.queue.get(free.job_id).stage == "generate"

    def test_slots_on_the_cpu_do_not_serve_an_accelerator_stage(self, bench: Bench) -> None:
        waiting(bench, 2)
        cpu, gpu = a_box(bench, "cpu", CPU), a_box(bench, "gpu", GPU)
        prepared(bench, cpu)
        bench.fail(gpu, bench.claim_one(gpu, generates()), Cause.EXCEPTION)
        bench.clock.advance(2)
        again = bench.claim_one(gpu, generates())
        assert again.attempt == 2, "nobody else could take it"
        bench.queue.hand_back(gpu, again.job_id, again.fence, Cause.PREEMPTED)
        report(bench, gpu, GPU, version="v2")
        report(bench, cpu, CPU, version="v2", also=("v1",))
        assert bench.queue.pinned_waiting() == (("m", "v1"),)

    def test_after_two_restarts_one_slot_is_asked_to_serve_the_version(self, bench: Bench) -> None:
        waiting(bench, 1)
        cpu, gpu = a_box(bench, "cpu", CPU), a_box(bench, "gpu", GPU)
        for version in ("v1", "v2", "v3"):
            report(bench, gpu, GPU, version=version)
            bench.finish(cpu, bench.claim_one(cpu, version=version, stages=("prepare",), plan=generates().plan))
            report(bench, gpu, GPU, version="v9")
            assert bench.queue.pinned_waiting() == (("m", version),)
            assert bench.queue.restart_pinned("m", version) == (0 if version == "v3" else 1)
        told = SlotReport("0", "open", "m", "v9", on=GPU)
        (order,) = bench.queue.beat(gpu, (), [told]).orders
        assert (order.verb, order.slot, order.argument) == ("assign", "0", "m@v3")
        assert bench.queue.restart_pinned("m", "v3") == 0
        assert len(bench.queue.beat(gpu, (), [told]).orders) == 1
        report(bench, gpu, GPU, version="v3")
        assert bench.queue.pinned_waiting() == ()
        bench.finish(gpu, bench.claim_one(gpu, generates(version="v3")))
        bench.finish(cpu, bench.claim_one(cpu, version="v3", stages=("finish",), plan=generates().plan))
        bench.queue.tend()
        (released,) = bench.queue.beat(gpu, (), [told]).orders
        assert (released.verb, released.argument) == ("assign", "m")

    def test_a_slot_that_refuses_a_version_is_not_asked_again_but_another_is(self, bench: Bench) -> None:
        waiting(bench, 1)
        cpu, first = a_box(bench, "cpu", CPU), a_box(bench, "gpu-1", GPU)
        for version in ("v1", "v2", "v3"):
            report(bench, first, GPU, version=version)
            bench.finish(cpu, bench.claim_one(cpu, version=version, stages=("prepare",), plan=generates().plan))
            report(bench, first, GPU, version="v9")
            bench.queue.restart_pinned("m", version)
        told = SlotReport("0", "open", "m", "v9", on=GPU)
        (order,) = bench.queue.beat(first, (), [told]).orders
        bench.queue.confirm_orders(first, [OrderDone(order.id, "v3 is deleted", refused=True)])
        bench.queue.restart_pinned("m", "v3")
        assert bench.queue.beat(first, (), [told]).orders == ()
        second = a_box(bench, "gpu-2", GPU)
        report(bench, second, GPU, version="v9")
        bench.queue.restart_pinned("m", "v3")
        assert bench.queue.beat(first, (), [told]).orders == ()
        (order,) = bench.queue.beat(second, (), [told]).orders
        assert (order.verb, order.argument) == ("assign", "m@v3")
