"""Dispatch credits: CPU workers bring no more into a cluster than its accelerators can take."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from modelrepo_runtime.jobs import Cause, Claim, StageNeed, Status
from modelrepo_runtime.queue.port import BeatCall, BeatReply, Offer, Session, SlotReport, WorkerInfo
from modelrepo_runtime.testing.queue_contract.bench import Bench, offer_of

PLAN = (StageNeed("prepare", "cpu", 60.0), StageNeed("generate", "gpu", 600.0), StageNeed("finish", "cpu", 60.0))
GPU = ("gpu",)
CPU = ("cpu",)


def a_box(bench: Bench, name: str, on: tuple[str, ...], cluster: str = "c", slots: int = 1, **facts: Any) -> Session:
    """Begin a session in a cluster whose slots all serve v1 unless told otherwise."""
    session = bench.queue.hello(WorkerInfo(name, f"host of {name}", 1, cluster, tuple(map(str, range(slots)))))
    report(bench, session, on, slots, **facts)
    return session


def report(bench: Bench, session: Session, on: tuple[str, ...], slots: int = 1, **facts: Any) -> None:
    told = {"state": "open", "model": "m", "version": "v1", "on": on, **facts}
    bench.queue.beat(session, (), [SlotReport(str(slot), **told) for slot in range(slots)])


def prepares(limit: int = 50, version: str = "v1") -> Offer:
    return offer_of(version=version, stages=("prepare", "finish"), plan=PLAN, limit=limit)


def generates(limit: int = 1, version: str = "v1") -> Offer:
    return offer_of(version=version, stages=("generate",), plan=PLAN, limit=limit)


def waiting(bench: Bench, count: int, **facts: Any) -> list[str]:
    return [bench.submit(stages=PLAN, **facts).id for _ in range(count)]


def prepared(bench: Bench, cpu: Session, limit: int = 50) -> list[Claim]:
    """Prepare as many jobs as the credits allow."""
    claims = list(bench.claim(cpu, prepares(limit)))
    for claim in claims:
        assert bench.finish(cpu, claim) is Status.QUEUED
    return claims


class CreditContract:
    def test_no_more_jobs_are_prepared_than_the_accelerators_can_take(self, bench: Bench) -> None:
        waiting(bench, 10)
        cpu = a_box(bench, "cpu", CPU)
        a_box(bench, "gpu", GPU, slots=2)
        assert len(bench.claim(cpu, prepares(3))) == 3
        assert len(bench.claim(cpu, prepares())) == 1
        assert bench.claim(cpu, prepares()) == ()

    def test_without_an_accelerator_slot_of_the_cluster_nothing_is_prepared(self, bench: Bench) -> None:
        waiting(bench, 2)
        cpu = a_box(bench, "cpu", CPU)
        a_box(bench, "gpu", GPU, cluster="another")
        a_box(bench, "old", GPU, version="v0")
        assert bench.claim(cpu, prepares()) == ()

    def test_a_slot_that_runs_all_stages_needs_no_credit(self, bench: Bench) -> None:
        waiting(bench, 5)
        box = a_box(bench, "box", ("cpu", "gpu"))
        assert len(bench.claim(box, replace(prepares(), stages=("prepare", "generate", "finish")))) == 5

    def test_models_without_an_accelerator_stage_need_none(self, bench: Bench) -> None:
        plan = (StageNeed("prepare", "cpu"), StageNeed("finish", "cpu"))
        for _ in range(3):
            bench.submit(stages=plan)
        offer = offer_of(stages=("prepare", "finish"), plan=plan, limit=5)
        assert len(bench.claim(a_box(bench, "cpu", CPU), offer)) == 3

    def test_an_accelerator_that_starts_gives_the_credit_back_and_finishing_takes_none(self, bench: Bench) -> None:
        waiting(bench, 6)
        cpu, gpu = a_box(bench, "cpu", CPU), a_box(bench, "gpu", GPU)
        assert len(prepared(bench, cpu)) == 2
        assert prepared(bench, cpu) == []
        claim = bench.claim_one(gpu, generates())
        assert len(prepared(bench, cpu)) == 1
        assert bench.finish(gpu, claim) is Status.QUEUED
        assert [claim.stage for claim in bench.claim(cpu, prepares())] == ["finish"]

    def test_a_claim_that_is_repeated_takes_no_second_credit(self, bench: Bench) -> None:
        waiting(bench, 6)
        cpu = a_box(bench, "cpu", CPU)
        a_box(bench, "gpu", GPU, slots=2)
        first = bench.queue.claim(cpu, 7, [prepares(1)])
        assert bench.queue.claim(cpu, 7, [prepares(1)]) == first
        assert len(bench.claim(cpu, prepares())) == 3

    def test_a_job_keeps_its_credit_when_its_cpu_worker_is_lost(self, bench: Bench) -> None:
        jobs = waiting(bench, 4)
        lost = a_box(bench, "lost", CPU)
        a_box(bench, "gpu", GPU)
        elsewhere = a_box(bench, "elsewhere", CPU, cluster="d")
        a_box(bench, "gpu2", GPU, cluster="d", slots=8)
        assert [claim.job_id for claim in bench.claim(lost, prepares())] == jobs[:2]
        assert len(bench.queue.expire_session(lost.id, bench.queue.beats()[lost.id])) == 2
        bench.clock.advance(2)
        another = a_box(bench, "another", CPU)
        report(bench, elsewhere, CPU)
        assert {claim.job_id for claim in bench.claim(another, prepares())} == set(jobs[:2])
        assert bench.claim(another, prepares()) == ()

    def test_a_job_goes_elsewhere_when_its_cluster_has_no_cpu_worker_left(self, bench: Bench) -> None:
        jobs = waiting(bench, 2)
        lost = a_box(bench, "lost", CPU)
        a_box(bench, "gpu", GPU)
        bench.claim(lost, prepares())
        bench.queue.expire_session(lost.id, bench.queue.beats()[lost.id])
        bench.clock.advance(bench.timing.lease_s + 1)
        elsewhere = a_box(bench, "elsewhere", CPU, cluster="d")
        a_box(bench, "gpu2", GPU, cluster="d")
        assert bench.claim(elsewhere, prepares()) == ()
        bench.queue.tend()
        assert {claim.job_id for claim in bench.claim(elsewhere, prepares())} == set(jobs)

    @pytest.mark.parametrize("cause", [Cause.EXCEPTION, Cause.REJECTED, Cause.LOAD_FAILED])
    def test_a_job_that_its_preparation_failed_gives_its_credit_back(self, bench: Bench, cause: Cause) -> None:
        waiting(bench, 3)
        cpu = a_box(bench, "cpu", CPU)
        a_box(bench, "gpu", GPU)
        first, _ = bench.claim(cpu, prepares())
        bench.fail(cpu, first, cause)
        assert len(bench.claim(cpu, prepares())) == 1

    def test_a_cancelled_job_gives_its_credit_back_wherever_it_is(self, bench: Bench) -> None:
        waiting(bench, 8)
        cpu = a_box(bench, "cpu", CPU)
        a_box(bench, "gpu", GPU)
        (between, _) = prepared(bench, cpu)
        bench.queue.cancel(between.job_id)
        (running,) = bench.claim(cpu, prepares())
        bench.queue.cancel(running.job_id)
        assert bench.fail(cpu, running, Cause.CANCELLED) is Status.CANCELLED
        (handed,) = bench.claim(cpu, prepares())
        bench.queue.hand_back(cpu, handed.job_id, handed.fence, Cause.PREEMPTED)
        bench.queue.cancel(handed.job_id)
        assert len(bench.claim(cpu, prepares())) == 1

    def test_a_job_past_its_deadline_gives_its_credit_back(self, bench: Bench) -> None:
        waiting(bench, 2, deadline=bench.clock() + 5)
        waiting(bench, 3)
        cpu, gpu = a_box(bench, "cpu", CPU), a_box(bench, "gpu", GPU)
        assert len(prepared(bench, cpu)) == 2
        bench.clock.advance(5)
        bench.queue.tend()
        report(bench, gpu, GPU)
        assert len(prepared(bench, cpu)) == 2

    def test_a_job_that_a_lost_accelerator_brings_back_takes_a_credit_whatever_the_limit(self, bench: Bench) -> None:
        waiting(bench, 9)
        cpu, gpu = a_box(bench, "cpu", CPU), a_box(bench, "gpu", GPU, slots=2)
        assert len(prepared(bench, cpu)) == 4
        taken = bench.claim(gpu, generates(2))
        assert len(prepared(bench, cpu)) == 2
        for claim in taken:
            bench.queue.hand_back(gpu, claim.job_id, claim.fence, Cause.PREEMPTED)
        assert prepared(bench, cpu) == []
        bench.claim(gpu, generates(2))
        assert prepared(bench, cpu) == [], "six were out, four are"
        bench.claim(gpu, generates(1))
        assert len(prepared(bench, cpu)) == 1

    def test_an_accelerator_of_another_cluster_pays_the_one_that_prepared(self, bench: Bench) -> None:
        waiting(bench, 5)
        cpu = a_box(bench, "cpu", CPU)
        a_box(bench, "gpu", GPU)
        other = a_box(bench, "other", GPU, cluster="d")
        assert len(prepared(bench, cpu)) == 2
        assert len(bench.claim(other, generates(2))) == 2
        assert len(prepared(bench, cpu)) == 2

    def test_each_version_has_credits_of_its_own(self, bench: Bench) -> None:
        waiting(bench, 9)
        cpu = a_box(bench, "cpu", CPU)
        a_box(bench, "gpu", GPU)
        a_box(bench, "new", GPU, version=None, incoming={"version": "v2", "phase": "loading"})
        a_box(bench, "newer", GPU, version=None, incoming={"version": "v3", "phase": "fetching"})
        assert len(bench.claim(cpu, prepares())) == 2
        assert len(bench.claim(cpu, prepares(version="v2"))) == 2
        assert bench.claim(cpu, prepares(version="v3")) == ()
        assert bench.queue.claim(cpu, 99, [prepares(), prepares(version="v2")]) == ()

    def test_offers_of_one_slot_are_ways_to_use_it_once(self, bench: Bench) -> None:
        waiting(bench, 9)
        cpu = a_box(bench, "cpu", CPU)
        a_box(bench, "gpu", GPU)
        a_box(bench, "new", GPU, version="v2")
        found = [bench.claim(cpu, prepares(1)), bench.claim(cpu, prepares(1))]
        seq = bench.seq = bench.seq + 1
        found.append(bench.queue.claim(cpu, seq, [prepares(1), prepares(1, "v2")]))
        assert [[claim.version for claim in claims] for claims in found] == [["v1"], ["v1"], ["v2"]]

    def test_slots_count_while_they_live_and_a_cordoned_one_wants_a_job_to_be_probed_with(self, bench: Bench) -> None:
        waiting(bench, 9)
        cpu, gpu = a_box(bench, "cpu", CPU), a_box(bench, "gpu", GPU, slots=3, state="cordoned")
        assert len(bench.claim(cpu, prepares())) == 2
        report(bench, gpu, GPU, slots=3)
        assert len(bench.claim(cpu, prepares())) == 4
        bench.clock.advance(bench.timing.lease_s + 1)
        report(bench, cpu, CPU)
        waiting(bench, 1)
        assert bench.claim(cpu, prepares()) == ()

    def test_a_job_that_begins_again_elsewhere_gives_its_credit_back(self, bench: Bench) -> None:
        waiting(bench, 3)
        cpu, gpu = a_box(bench, "cpu", CPU), a_box(bench, "gpu", GPU)
        assert len(prepared(bench, cpu)) == 2
        report(bench, gpu, GPU, version="v2")
        report(bench, cpu, CPU, version="v2")
        assert bench.queue.pinned_waiting() == (("m", "v1"),)
        assert bench.queue.restart_pinned("m", "v1") == 2
        assert len(bench.claim(cpu, prepares(version="v2"))) == 2
        report(bench, gpu, GPU)
        assert len(bench.claim(cpu, prepares())) == 1

    def test_a_beat_tells_cpu_slots_what_their_cluster_serves_and_loads(self, bench: Bench) -> None:
        a_box(bench, "gpu", GPU)
        a_box(bench, "new", GPU, incoming={"version": "v2", "phase": "fetching"})
        a_box(bench, "far", GPU, cluster="d", version="v7")
        cpu = a_box(bench, "cpu", CPU)
        told = [SlotReport("0", "open", "m", None, on=CPU)]
        assert bench.queue.beat(cpu, (), told).versions == {"m": ("v1", "v2")}
        assert bench.queue.beat(cpu, (), [SlotReport("0", "open", "m", "v1", on=GPU)]).versions == {}

    def test_beats_that_come_together_tell_each_cluster_what_it_serves_itself(self, bench: Bench) -> None:
        a_box(bench, "gpu", GPU)
        a_box(bench, "far gpu", GPU, cluster="d", version="v7")
        boxes = [a_box(bench, "cpu", CPU), a_box(bench, "far", CPU, cluster="d"), a_box(bench, "third", CPU)]
        told = [SlotReport("0", "open", "m", None, on=CPU)]
        answers = bench.queue.beat_all([BeatCall(session, (), told) for session in boxes])
        served = [answer.versions for answer in answers if isinstance(answer, BeatReply)]
        assert served == [{"m": ("v1",)}, {"m": ("v7",)}, {"m": ("v1",)}]

    def test_a_beat_tells_cpu_slots_of_versions_that_jobs_are_to_be_finished_by(self, bench: Bench) -> None:
        waiting(bench, 1)
        cpu, gpu = a_box(bench, "cpu", CPU), a_box(bench, "gpu", GPU)
        prepared(bench, cpu)
        bench.finish(gpu, bench.claim_one(gpu, generates()))
        report(bench, gpu, GPU, version="v2")
        told = [SlotReport("0", "open", "m", "v1", on=CPU)]
        assert bench.queue.beat(cpu, (), told).versions == {"m": ("v1", "v2")}
