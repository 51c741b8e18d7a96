"""Several jobs in one call: which go together, and what one of them does to the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelrepo_runtime.jobs import Cause, JobError, Status
from modelrepo_runtime.supervision.spec import ChildOutcome, JobRequest

if TYPE_CHECKING:
    from tests.unit.worker.conftest import Bench, FakeChild


def batches_of(bench: Bench, most: int, wait: str = "1ms") -> None:
    bench.plant.yaml["v1"] = f"stages: [{{name: run, max_batch: {most}, batch_wait: {wait}}}]\n"


def blames_the_bad(child: FakeChild, request: JobRequest) -> ChildOutcome:
    if request.inputs.get("bad"):
        return ChildOutcome(Cause.EXCEPTION, error=JobError("exception", "a bad one"))
    return ChildOutcome(Cause.SUCCEEDED, child.spec.version)


def test_jobs_that_wait_go_together(bench: Bench) -> None:
    batches_of(bench, 3)
    jobs = [bench.submit() for _ in range(4)]
    bench.slot()
    bench.target("v1")
    assert [bench.done(job).status for job in jobs] == [Status.SUCCEEDED] * 4
    assert bench.plant.batches == [jobs[:3]]


def test_a_batch_waits_to_be_filled(bench: Bench) -> None:
    batches_of(bench, 2, wait="20s")
    slot = bench.slot()
    bench.target("v1")
    first = bench.submit()
    bench.until(slot, lambda slot: slot.using is not None)
    second = bench.submit()
    assert bench.done(first).status is bench.done(second).status is Status.SUCCEEDED
    assert bench.plant.batches == [[first, second]]


def test_a_batch_that_nobody_fills_runs_when_its_wait_is_over(bench: Bench) -> None:
    batches_of(bench, 8, wait="50ms")
    bench.slot()
    bench.target("v1")
    assert bench.done(bench.submit()).status is Status.SUCCEEDED
    assert bench.plant.batches == []


def test_one_bad_job_does_not_take_the_others_with_it(bench: Bench) -> None:
    batches_of(bench, 3)
    bench.plant.behaviour = blames_the_bad
    good, bad, other = bench.submit(), bench.submit(bad=True), bench.submit()
    bench.slot()
    bench.target("v1")
    assert [bench.done(job).status for job in (good, bad, other)] == [
        Status.SUCCEEDED,
        Status.FAILED,
        Status.SUCCEEDED,
    ]
    assert bench.plant.batches == [[good, bad, other]], "the second try was alone"
    assert [row.attempt for row in bench.queue.history(good) if row.event == "attempt"] == [1]
    assert [row.attempt for row in bench.queue.history(bad) if row.event == "attempt"] == [1, 2]


def test_a_crash_of_a_batch_is_counted_against_none_and_each_is_tried_alone(bench: Bench) -> None:
    batches_of(bench, 2)
    crashes = [True]

    def crash_once(child: FakeChild, _: JobRequest) -> ChildOutcome:
        if crashes:
            child.alive = False
            return ChildOutcome(Cause.CRASH, error=JobError("crash", "as told"))
        return ChildOutcome(Cause.SUCCEEDED)

    def crash_both(child: FakeChild, request: JobRequest) -> ChildOutcome:
        outcome = crash_once(child, request)
        bench.plant.behaviour = crash_last
        return outcome

    def crash_last(child: FakeChild, request: JobRequest) -> ChildOutcome:
        outcome = crash_once(child, request)
        crashes.clear()
        return outcome

    bench.plant.behaviour = crash_both
    jobs = [bench.submit(), bench.submit()]
    bench.slot()
    bench.target("v1")
    assert [bench.done(job).status for job in jobs] == [Status.SUCCEEDED] * 2
    ends = [[(row.cause, row.counted) for row in bench.queue.history(job) if row.event == "attempt"] for job in jobs]
    assert ends == [[("crash", False), ("succeeded", True)]] * 2
    assert bench.plant.batches == [jobs]
