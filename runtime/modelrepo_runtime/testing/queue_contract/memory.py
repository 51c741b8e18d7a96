"""Learnt memory: what no slot could take is refused, what some can waits for one of those."""

from __future__ import annotations

from typing import Any

import pytest

from modelrepo.errors import NeedsLargerSlot
from modelrepo_runtime.job_memory import JobMemory, MemoryNeed, MemoryRoom, MemoryUse
from modelrepo_runtime.jobs import Cause, Claim, Outcome, StageNeed, Status
from modelrepo_runtime.queue.memory_needs import NEWEST, REFUSED_FOR_S
from modelrepo_runtime.queue.port import Offer, Session, SlotReport, WorkerInfo
from modelrepo_runtime.testing.queue_contract.bench import Bench, offer_of

GIB = 1 << 30
SMALL, LARGE = 24, 80


def report(size_gib: int, model: str = "m") -> SlotReport:
    return SlotReport("0", "open", model, "v1", accelerator_bytes=size_gib * GIB, host_bytes=512 * GIB)


def slot(bench: Bench, name: str, size_gib: int) -> Session:
    """Begin a worker whose one slot has so much accelerator memory."""
    session = bench.queue.hello(WorkerInfo(name, name, 1, slots=("0",)))
    bench.queue.beat(session, (), (report(size_gib),))
    bench.clock.advance(2)
    return session


def offer(size_gib: int, **facts: Any) -> Offer:
    return offer_of(room=MemoryRoom(size_gib * GIB, 512 * GIB), **facts)


def took(peak_gib: float, size_gib: int) -> Outcome:
    use = MemoryUse(int(peak_gib * GIB), size_gib * GIB)
    return Outcome(Cause.SUCCEEDED, memory=JobMemory(use, MemoryUse(3 * GIB, 512 * GIB)))


def ran_out(size_gib: int) -> Outcome:
    return Outcome(Cause.OUT_OF_MEMORY, memory=JobMemory(MemoryUse(20 * GIB, size_gib * GIB, ran_out=True)))


def run_one(bench: Bench, peak_gib: float, size_gib: int = LARGE, **facts: Any) -> None:
    """Let a job take so much on a slot of its own, and the queue learn from it."""
    session = slot(bench, f"teacher-{size_gib}", size_gib)
    bench.submit(**facts)
    claim = bench.claim_one(session, offer(size_gib))
    bench.finish(session, claim, took(peak_gib, size_gib))
    bench.queue.tend()
    bench.queue.goodbye(session)
    bench.clock.advance(2)


def taken_by(bench: Bench, session: Session, size_gib: int, **facts: Any) -> tuple[Claim, ...]:
    bench.queue.beat(session, (), (report(size_gib),))
    return bench.claim(session, offer(size_gib, **facts))


class MemoryContract:
    def test_what_no_slot_could_take_is_refused_with_both_figures(self, bench: Bench) -> None:
        run_one(bench, 31, size="long")
        slot(bench, "small", SMALL)
        with pytest.raises(NeedsLargerSlot, match=r"31 GiB of accelerator memory.* has 24 GiB") as refused:
            bench.submit(size="long")
        assert (refused.value.needed_bytes, refused.value.largest_bytes) == (31 * GIB, SMALL * GIB)
        assert bench.submit(size="short").status is Status.QUEUED
        assert bench.submit("other", size="long").status is Status.QUEUED

    def test_a_later_stage_that_fits_nowhere_is_refused_as_well(self, bench: Bench) -> None:
        stages = (StageNeed("prepare", "cpu"), StageNeed("run"))
        run_one(bench, 31)
        slot(bench, "small", SMALL)
        with pytest.raises(NeedsLargerSlot, match="stage run needs"):
            bench.submit(stages=stages)

    def test_where_no_slot_is_known_or_one_does_not_say_all_are_admitted(self, bench: Bench) -> None:
        run_one(bench, 31)
        first = bench.submit()
        session = bench.worker()
        bench.clock.advance(2)
        bench.submit()
        assert bench.claim_one(session).job_id == first.id

    def test_a_job_waits_for_a_slot_that_can_take_it(self, bench: Bench) -> None:
        run_one(bench, 31, size="long")
        small, large = slot(bench, "small", SMALL), slot(bench, "large", LARGE)
        long, short = bench.submit(size="long"), bench.submit(size="short")
        told = bench.queue.explain(long.id)
        assert told.facts["slots"] == ["large/0"] and told.facts["slots_too_small"] == ["small/0"]
        assert any(
            "needs 31 GiB of accelerator memory" in line
            and "1 slot too small, with 24 GiB" in line
            and "it waits for the 1 slot that has it" in line
            for line in told.lines
        ), told.lines
        assert [claim.job_id for claim in taken_by(bench, small, SMALL, limit=5)] == [short.id]
        assert [claim.job_id for claim in taken_by(bench, large, LARGE, limit=5)] == [long.id]

    def test_a_worker_is_told_why_it_may_not_take_it(self, bench: Bench) -> None:
        run_one(bench, 31)
        slot(bench, "small", SMALL)
        slot(bench, "large", LARGE)
        bench.submit()
        (told,) = bench.queue.explain_worker("small").facts["slots"]
        (hindered,) = told["may_not_take"]
        assert hindered["hindrance"] == "memory" and hindered["needs"]["accelerator_bytes"] == 31 * GIB
        (lane,) = bench.queue.queue_report().lanes
        assert lane.needs == MemoryNeed(31 * GIB)

    def test_once_all_large_slots_are_gone_it_says_what_it_waits_for(self, bench: Bench) -> None:
        run_one(bench, 31)
        slot(bench, "small", SMALL)
        large = slot(bench, "large", LARGE)
        job = bench.submit()
        bench.queue.goodbye(large)
        told = bench.queue.explain(job.id)
        assert told.facts["waits_for"] == "a slot with 31 GiB of accelerator memory"
        assert told.facts["hindrance"] == "memory"

    def test_nothing_is_told_apart_where_every_slot_has_it(self, bench: Bench) -> None:
        run_one(bench, 20)
        slot(bench, "small", SMALL)
        slot(bench, "large", LARGE)
        bench.submit(size=None)
        (lane,) = bench.queue.queue_report().lanes
        assert lane.needs is None

    def test_a_later_stage_waits_for_its_own_need(self, bench: Bench) -> None:
        run_one(bench, 31, stages=(StageNeed("run"),))
        small, large = slot(bench, "small", SMALL), slot(bench, "large", LARGE)
        job = bench.submit(stages=(StageNeed("prepare", "cpu"), StageNeed("run")))
        first = bench.claim_one(small, offer(SMALL, stages=("prepare", "run")))
        reply = bench.queue.finish(small, job.id, first.fence, took(1, SMALL), then=offer(SMALL, stages=("run",)))
        assert reply.next is None
        assert taken_by(bench, small, SMALL, stages=("run",)) == ()
        (second,) = taken_by(bench, large, LARGE, stages=("run",))
        assert (second.job_id, second.stage) == (job.id, "run")

    def test_a_need_comes_down_again(self, bench: Bench) -> None:
        run_one(bench, 31)
        for _ in range(NEWEST):
            run_one(bench, 12)
        small = slot(bench, "small", SMALL)
        job = bench.submit()
        assert bench.claim_one(small, offer(SMALL)).job_id == job.id

    def test_what_a_smaller_slot_has_done_another_may(self, bench: Bench) -> None:
        run_one(bench, 23, SMALL)
        run_one(bench, 78, LARGE)
        small = slot(bench, "small", SMALL)
        slot(bench, "large", LARGE)
        job = bench.submit()
        assert bench.claim_one(small, offer(SMALL)).job_id == job.id

    def test_an_hour_later_one_is_let_in_and_measured_anew(self, bench: Bench) -> None:
        run_one(bench, 31)
        bench.clock.advance(REFUSED_FOR_S)
        small = slot(bench, "small", SMALL)
        job = bench.submit()
        assert bench.claim_one(small, offer(SMALL)).job_id == job.id

    def test_a_job_that_ran_out_goes_on_where_there_is_more(self, bench: Bench) -> None:
        small, large = slot(bench, "small", SMALL), slot(bench, "large", LARGE)
        slot(bench, "twin", SMALL)
        bench.submit()
        claim = bench.claim_one(small, offer(SMALL))
        assert bench.finish(small, claim, ran_out(SMALL)) is Status.QUEUED
        bench.clock.advance(bench.timing.retry_delay_s(1) + 0.1)
        twin = slot(bench, "twin", SMALL)
        assert taken_by(bench, twin, SMALL) == ()
        (again,) = taken_by(bench, large, LARGE)
        assert (again.job_id, again.attempt) == (claim.job_id, 2)

    def test_one_that_ran_out_goes_elsewhere_where_no_slot_has_more(self, bench: Bench) -> None:
        small, twin = slot(bench, "small", SMALL), slot(bench, "twin", SMALL)
        job = bench.submit()
        assert bench.finish(small, bench.claim_one(small, offer(SMALL)), ran_out(SMALL)) is Status.QUEUED
        bench.queue.tend()
        bench.clock.advance(bench.timing.retry_delay_s(1) + 0.1)
        assert bench.submit(tier="api").status is Status.QUEUED, "one end refuses nobody"
        bench.queue.cancel(bench.submit().id)
        assert job.id in [claim.job_id for claim in taken_by(bench, twin, SMALL, limit=5)]

    def test_two_ends_for_want_of_memory_refuse_the_next_of_that_size(self, bench: Bench) -> None:
        small, twin = slot(bench, "small", SMALL), slot(bench, "twin", SMALL)
        bench.submit(size="long")
        bench.finish(small, bench.claim_one(small, offer(SMALL)), ran_out(SMALL))
        bench.clock.advance(bench.timing.retry_delay_s(1) + 0.1)
        (again,) = taken_by(bench, twin, SMALL)
        assert bench.finish(twin, again, ran_out(SMALL)) is Status.FAILED
        bench.queue.tend()
        bench.clock.advance(2)
        bench.queue.beat(small, (), (report(SMALL),))
        with pytest.raises(NeedsLargerSlot):
            bench.submit(size="long")
        assert bench.submit(size="short").status is Status.QUEUED
        large = slot(bench, "large", LARGE)
        job = bench.submit(size="long")
        assert [claim.job_id for claim in taken_by(bench, large, LARGE, limit=1)] != []
        assert job.status is Status.QUEUED

    def test_a_job_that_failed_on_the_only_slot_that_can_take_it_goes_back_there(self, bench: Bench) -> None:
        run_one(bench, 31)
        small, large = slot(bench, "small", SMALL), slot(bench, "large", LARGE)
        job = bench.submit()
        bench.fail(large, bench.claim_one(large, offer(LARGE)), Cause.EXCEPTION)
        bench.clock.advance(bench.timing.retry_delay_s(1) + 0.1)
        assert taken_by(bench, small, SMALL) == ()
        (again,) = taken_by(bench, large, LARGE)
        assert bench.fail(large, again, Cause.EXCEPTION) is Status.FAILED
        assert bench.queue.retry([job.id]) == (job.id,)
        assert taken_by(bench, small, SMALL) == ()
        assert len(taken_by(bench, large, LARGE)) == 1

    def test_a_staged_job_is_not_taken_back_for_a_slot_that_is_too_small(self, bench: Bench) -> None:
        run_one(bench, 31)
        small, large = slot(bench, "small", SMALL), slot(bench, "large", LARGE)
        job = bench.submit()
        claim = bench.claim_one(large, offer(LARGE, staged=True))
        assert taken_by(bench, small, SMALL) == ()
        bench.queue.start(large, job.id, claim.fence)
        assert bench.queue.get(job.id).status is Status.RUNNING
