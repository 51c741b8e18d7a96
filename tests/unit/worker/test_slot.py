"""What a slot does with jobs and versions, as its two threads and the queue see it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from modelrepo.errors import Corrupt, Unreachable
from modelrepo_runtime.job_memory import MemoryRoom
from modelrepo_runtime.jobs import Cause, Status
from modelrepo_runtime.queue.relational import memory
from modelrepo_runtime.supervision.spec import ChildOutcome, JobRequest, Lacked, MemoryPeaks
from modelrepo_runtime.worker.footprint import Footprint
from modelrepo_runtime.worker.slot_states import SlotState
from modelrepo_runtime.worker.swap_plan import GIB, Room

if TYPE_CHECKING:
    from modelrepo_runtime.worker.slot import Slot
    from tests.unit.worker.conftest import Bench, FakeChild


def ready(bench: Bench) -> None:
    """Wait for the next child to become warm."""
    bench.plant.ready.get(timeout=20.0)


def takes(bench: Bench, slot: Slot, version: str, device_bytes: int) -> None:
    """Have the slot learn what a version takes, from a job of it."""
    digest = bench.plant.version(version).digest
    bench.done(bench.submit())
    bench.until(slot, lambda slot: (slot.parts.learnt.of(digest) or Footprint()).device_bytes == device_bytes)


def test_a_slot_brings_up_its_target_and_runs_jobs(bench: Bench) -> None:
    slot = bench.slot()
    bench.target("v1")
    job = bench.done(bench.submit())
    assert job.status is Status.SUCCEEDED
    assert job.result == {"version": "v1", "stage": "run"}
    report = slot.report()
    assert (report.state, report.version, report.generation, report.device) == ("open", "v1", 1, "cpu")


def test_what_jobs_took_of_a_slots_memory_is_told_and_rules_the_next(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "FRESH_S", 0.0)
    slots = [bench.slot(name, room=MemoryRoom(size * GIB, 64 * GIB)) for name, size in (("s0", 24), ("s1", 80))]

    def take_31_gib(child: FakeChild, request: JobRequest) -> ChildOutcome:
        is_small = child.spec.folder.is_relative_to(slots[0].parts.folder)
        if is_small:
            return ChildOutcome(Cause.OUT_OF_MEMORY, memory=MemoryPeaks(23 * GIB, GIB, Lacked.ACCELERATOR))
        return ChildOutcome(Cause.SUCCEEDED, memory=MemoryPeaks(31 * GIB, GIB))

    bench.plant.behaviour = take_31_gib
    bench.target("v1")
    for slot in slots:
        bench.serves(slot, "v1")
        bench.until(slot, lambda _: [each.version for each in bench.queue.fleet()[0].slots] == ["v1", "v1"])
    assert [(report.accelerator_bytes, report.host_bytes) for report in bench.reports()] == [
        (24 * GIB, 64 * GIB),
        (80 * GIB, 64 * GIB),
    ]
    assert bench.done(bench.submit()).status is Status.SUCCEEDED
    bench.queue.tend()
    ran = len(bench.plant.ran)
    jobs = [bench.submit() for _ in range(5)]
    assert [bench.done(job).status for job in jobs] == [Status.SUCCEEDED] * 5
    assert len(bench.plant.ran) == ran + 5, "none was tried on the small slot"


def test_the_old_version_serves_until_the_new_is_warm(bench: Bench) -> None:
    gate = bench.plant.load_gates["v2"] = threading.Event()
    slot = bench.slot()
    bench.target("v1")
    bench.serves(slot, "v1")
    ready(bench)
    bench.target("v2")
    bench.until(slot, lambda slot: slot.incoming is not None and slot.incoming[1] == "starting")
    assert bench.done(bench.submit()).result["version"] == "v1"
    incoming = slot.report().incoming or {}
    assert (incoming["version"], incoming["phase"]) == ("v2", "loading")
    gate.set()
    bench.serves(slot, "v2")
    assert bench.done(bench.submit()).result["version"] == "v2"
    bench.until(slot, lambda slot: slot.incoming is None)
    assert [child.alive for child in bench.plant.children] == [False, True]


def test_a_switch_waits_for_the_job_that_runs(bench: Bench) -> None:
    gate = bench.plant.gates["long"] = threading.Event()
    slot = bench.slot()
    bench.target("v1")
    long = bench.submit(gate="long")
    ready(bench)
    assert bench.plant.children[0].running.wait(20)
    bench.target("v2")
    ready(bench)
    assert slot.report().version == "v1"
    gate.set()
    assert bench.done(long).result["version"] == "v1"
    bench.serves(slot, "v2")


def test_drain_has_one_child_at_a_time(bench: Bench) -> None:
    bench.plant.yaml["v2"] = "swap: drain\n"
    slot = bench.slot()
    bench.target("v1")
    bench.serves(slot, "v1")
    bench.target("v2")
    bench.serves(slot, "v2")
    assert bench.plant.most_alive == 1
    assert bench.done(bench.submit()).result["version"] == "v2"


def test_what_does_not_fit_beside_the_old_drains(bench: Bench) -> None:
    bench.plant.device = Room(30 * GIB, 80 * GIB)
    bench.plant.yaml["v2"] = "stages: [{name: run, on: gpu, gpu_memory: 60GiB}]\n"
    slot = bench.slot()
    bench.target("v1")
    bench.serves(slot, "v1")
    bench.target("v2")
    bench.serves(slot, "v2")
    assert bench.plant.most_alive == 1
    bench.until(slot, lambda _: "mode=drain" in bench.log.getvalue())


def test_what_can_never_fit_is_refused_and_the_old_serves_on(bench: Bench) -> None:
    bench.plant.host = Room(2 * GIB, 4 * GIB)
    bench.plant.yaml["v2"] = "stages: [{name: run, host_memory: 80GiB}]\n"
    slot = bench.slot()
    bench.target("v1")
    bench.serves(slot, "v1")
    bench.target("v2")
    bench.until(slot, lambda slot: slot.refusal is not None)
    report = slot.report()
    assert (report.state, report.version) == ("refused", "v1")
    assert "more than the 4.0 GiB that this slot has" in str(report.reason)
    assert len(bench.plant.children) == 1


@pytest.mark.parametrize("swap", ["overlap", "drain"])
def test_a_version_that_does_not_load_leaves_the_old_serving(bench: Bench, swap: str) -> None:
    bench.plant.yaml["v2"] = f"swap: {swap}\n"
    bench.plant.unfit["v2"] = "m@v2 cannot start: load failed: no such layer"
    slot = bench.slot()
    bench.target("v1")
    bench.serves(slot, "v1")
    bench.target("v2")
    bench.until(slot, lambda slot: slot.refusal is not None)
    report = slot.report()
    assert (report.state, report.version, report.generation) == ("refused", "v1", 1)
    assert report.reason == "m@v2 cannot start: load failed: no such layer"
    assert str(report.next_action).startswith("see the child's log; roll back, or push a version that loads; ")
    assert report.deadline is not None
    assert bench.done(bench.submit()).result["version"] == "v1"
    bench.target("v1")
    bench.until(slot, lambda slot: slot.report().generation == 3)
    assert slot.report().state == "open"


def test_a_refused_version_is_tried_again(bench: Bench) -> None:
    bench.plant.unfit["v2"] = "not yet"
    slot = bench.slot()
    bench.target("v1")
    bench.serves(slot, "v1")
    bench.target("v2")
    bench.until(slot, lambda slot: slot.refusal is not None)
    del bench.plant.unfit["v2"]
    bench.serves(slot, "v2")
    bench.until(slot, lambda slot: slot.refusal is None)


def test_a_slot_whose_first_version_fails_says_so_and_goes_on_to_the_next(bench: Bench) -> None:
    bench.plant.unfit["v1"] = "broken"
    slot = bench.slot()
    job = bench.submit()
    bench.target("v1")
    bench.until(slot, lambda slot: slot.refusal is not None)
    assert slot.report().version is None
    assert bench.queue.get(job).status is Status.QUEUED
    bench.target("v2")
    assert bench.done(job).result["version"] == "v2"


@pytest.mark.parametrize("swap", ["overlap", "drain"])
@pytest.mark.parametrize("then", ["v1", "v3"])
def test_a_load_that_nobody_wants_any_more_is_ended(bench: Bench, swap: str, then: str) -> None:
    bench.plant.yaml["v2"] = f"swap: {swap}\n"
    bench.plant.load_gates["v2"] = threading.Event()  # never opened: it hangs
    slot = bench.slot()
    bench.target("v1")
    bench.serves(slot, "v1")
    bench.target("v2")
    bench.until(slot, lambda slot: any(wanted.version == "v2" for wanted in slot.loading.values()))
    bench.target(then)
    bench.serves(slot, then)
    bench.until(slot, lambda slot: slot.incoming is None)
    assert slot.report().state == "open"
    bench.until(slot, lambda _: "swap-dropped slot=s0 target=m@v2" in bench.log.getvalue())
    assert [child.alive for child in bench.plant.children if child.spec.version == "v2"] == [False]


def test_a_superseded_swap_is_dropped(bench: Bench) -> None:
    bench.plant.load_gates["v2"] = threading.Event()
    slot = bench.slot()
    bench.target("v1")
    bench.serves(slot, "v1")
    bench.target("v2")
    bench.until(slot, lambda slot: slot.incoming is not None and slot.incoming[1] == "starting")
    bench.target("v3")
    bench.plant.load_gates["v2"].set()
    bench.serves(slot, "v3")
    assert "v2" not in [version for _, version, _ in bench.plant.ran]
    bench.until(slot, lambda _: "swap-dropped slot=s0 target=m@v2" in bench.log.getvalue())


def test_a_generation_that_asks_for_what_runs_is_no_swap(bench: Bench) -> None:
    slot = bench.slot()
    bench.target("v1")
    bench.serves(slot, "v1")
    bench.target("v1")
    bench.until(slot, lambda slot: slot.report().generation == 2)
    assert len(bench.plant.children) == 1


def test_a_configuration_that_changes_nothing_is_no_swap(bench: Bench) -> None:
    bench.plant.yaml["v1"] = "config: {threshold: 0.5}\n"
    slot = bench.slot()
    bench.target("v1")
    bench.serves(slot, "v1")
    bench.target("v1", threshold=0.5)
    bench.until(slot, lambda slot: slot.report().generation == 2)
    assert len(bench.plant.children) == 1


def test_another_configuration_is_another_child_of_the_same_version(bench: Bench) -> None:
    bench.plant.yaml["v1"] = "config: {threshold: 0.5}\n"
    slot = bench.slot()
    bench.target("v1")
    bench.serves(slot, "v1")
    bench.target("v1", threshold=0.9)
    bench.until(slot, lambda slot: slot.report().generation == 2)
    assert [child.spec.config for child in bench.plant.children] == [{"threshold": 0.5}, {"threshold": 0.9}]


def test_a_configuration_that_the_version_does_not_declare_is_refused(bench: Bench) -> None:
    slot = bench.slot()
    bench.target("v1", threshold=0.9)
    bench.until(slot, lambda slot: slot.refusal is not None)
    assert "'threshold' is not declared" in str(slot.report().reason)


def test_bytes_other_than_published_are_refused(bench: Bench) -> None:
    bench.plant.errors["v2"] = Corrupt("m@v2: manifest is not what its digest says")
    slot = bench.slot()
    bench.target("v1")
    bench.serves(slot, "v1")
    bench.target("v2")
    bench.until(slot, lambda slot: slot.refusal is not None)
    assert slot.report().version == "v1"
    assert "push the version again" in str(slot.report().next_action)


def test_a_store_that_is_away_delays_the_swap_only(bench: Bench) -> None:
    bench.plant.errors["v2"] = Unreachable("the bucket does not answer")
    slot = bench.slot()
    bench.target("v1")
    bench.serves(slot, "v1")
    bench.target("v2")
    bench.until(slot, lambda slot: slot.refusal is not None)
    assert bench.done(bench.submit()).result["version"] == "v1"
    del bench.plant.errors["v2"]
    bench.serves(slot, "v2")


def test_stages_of_a_job_run_one_after_the_other_in_one_child(bench: Bench) -> None:
    bench.plant.yaml["v1"] = "stages: [{name: prepare, on: cpu}, {name: generate, on: gpu}]\n"
    bench.slot()
    bench.target("v1")
    job = bench.submit("prepare", "generate")
    assert bench.done(job).result["stage"] == "generate"
    assert [stage for _, _, stage in bench.plant.ran] == ["prepare", "generate"]


@pytest.mark.parametrize("cause", [Cause.CRASH, Cause.HANG])
def test_a_child_that_dies_is_started_again(bench: Bench, cause: Cause) -> None:
    slot = bench.slot()
    bench.fails_by(cause)
    bench.target("v1")
    ready(bench)
    job = bench.submit()
    ready(bench)
    bench.succeeds()
    assert bench.done(job).status is Status.SUCCEEDED
    assert slot.report().state == "open"


def test_a_child_that_dies_while_idle_is_started_again(bench: Bench) -> None:
    bench.slot()
    bench.target("v1")
    ready(bench)
    bench.plant.children[0].alive = False
    ready(bench)
    assert bench.done(bench.submit()).status is Status.SUCCEEDED


def test_a_child_that_keeps_dying_while_idle_is_given_up_for_a_while(bench: Bench) -> None:
    slot = bench.slot()
    bench.target("v1")
    for _ in range(4):
        ready(bench)
        bench.plant.children[-1].alive = False
    bench.until(slot, lambda slot: slot.refusal is not None)
    assert "ends by itself, 3 times in a row" in str(slot.report().reason)
    bench.serves(slot, "v1")


def test_three_different_jobs_in_a_row_cordon_the_slot_and_a_probe_opens_it(bench: Bench) -> None:
    slot = bench.slot()
    bench.fails_by(Cause.EXCEPTION)
    bench.target("v1")
    jobs = [bench.submit() for _ in range(3)]
    bench.until(slot, lambda slot: slot.report().state == SlotState.CORDONED)
    report = slot.report()
    assert report.reason == "3 different jobs in a row failed here, the last by exception"
    assert report.deadline is not None
    ready(bench)
    ready(bench)
    assert len({job for job, _, _ in bench.plant.ran}) == 3
    bench.succeeds()
    assert all(bench.done(job).status is Status.SUCCEEDED for job in jobs)
    bench.until(slot, lambda slot: slot.report().state == "open")
    assert "cordoned slot=s0" in bench.log.getvalue()
    assert "reopened slot=s0" in bench.log.getvalue()


def test_another_version_is_probed_at_once_in_a_cordoned_slot(bench: Bench) -> None:
    slot = bench.slot()
    bench.fails_by(Cause.EXCEPTION)
    bench.target("v1")
    for _ in range(3):
        bench.submit()
    bench.until(slot, lambda slot: slot.report().state == SlotState.CORDONED)
    bench.succeeds()
    bench.target("v2")
    bench.until(slot, lambda slot: slot.report().state == "open")


def test_a_cancelled_job_ends_its_attempt(bench: Bench) -> None:
    bench.plant.gates["long"] = threading.Event()
    slot = bench.slot()
    bench.target("v1")
    job = bench.submit(gate="long")
    ready(bench)
    assert bench.plant.children[0].running.wait(20)
    bench.queue.cancel(job)
    assert bench.done(job).status is Status.CANCELLED
    assert bench.done(bench.submit()).status is Status.SUCCEEDED
    assert slot.report().state == "open"


def test_a_lost_lease_ends_the_attempt_without_a_finish(bench: Bench) -> None:
    bench.plant.gates["long"] = threading.Event()
    bench.slot()
    bench.target("v1")
    job = bench.submit(gate="long")
    ready(bench)
    assert bench.plant.children[0].running.wait(20)
    beats = bench.queue.beats()
    session = next(iter(beats))
    for _ in range(100):
        if bench.queue.expire_session(session, bench.queue.beats()[session]):
            break
    assert bench.plant.children[0].cancelled.wait(20)
    bench.plant.gates["long"].set()
    assert bench.done(job).status is Status.SUCCEEDED
    causes = [row.cause for row in bench.queue.history(job) if row.event == "attempt"]
    assert causes == ["worker_lost", "succeeded"]


def test_leaving_finishes_the_job_that_runs_and_takes_no_other(bench: Bench) -> None:
    gate = bench.plant.gates["long"] = threading.Event()
    slot = bench.slot()
    bench.target("v1")
    job, other = bench.submit(gate="long"), bench.submit()
    ready(bench)
    assert bench.plant.children[0].running.wait(20)
    slot.leave()
    gate.set()
    assert bench.left()
    assert bench.queue.get(job).status is Status.SUCCEEDED
    assert bench.queue.get(other).status is Status.QUEUED


def test_an_abandoned_attempt_is_handed_back_uncounted(bench: Bench) -> None:
    bench.plant.gates["long"] = threading.Event()
    slot = bench.slot()
    bench.target("v1")
    job = bench.submit(gate="long")
    ready(bench)
    assert bench.plant.children[0].running.wait(20)
    slot.leave()
    slot.abandon()
    assert bench.left()
    assert bench.queue.get(job).status is Status.QUEUED
    assert [(row.cause, row.counted) for row in bench.queue.history(job) if row.event == "attempt"] == [
        ("preempted", False)
    ]


def test_leaving_ends_a_child_that_loads(bench: Bench) -> None:
    bench.plant.load_gates["v1"] = threading.Event()
    slot = bench.slot()
    bench.target("v1")
    bench.until(slot, lambda slot: slot.incoming is not None and slot.incoming[1] == "starting")
    slot.leave()
    assert bench.left()


def test_slots_of_a_model_swap_in_turns(bench: Bench) -> None:
    gate = bench.plant.load_gates["v2"] = threading.Event()
    slots = [bench.slot("s0"), bench.slot("s1")]
    bench.target("v1")
    for slot in slots:
        bench.serves(slot, "v1")
    bench.target("v2", share="1")
    waits = [slot.report().incoming for slot in slots]
    while not any("waiting for its turn" in str(shown) for shown in waits):
        waits = [slot.report().incoming for slot in slots]
    assert sum(child.spec.version == "v2" for child in bench.plant.children) <= 1
    gate.set()
    for slot in slots:
        bench.serves(slot, "v2")


def test_a_rollback_at_once_ends_attempts_of_the_version_that_is_left(bench: Bench) -> None:
    bench.plant.gates["long"] = threading.Event()
    slot = bench.slot()
    bench.target("v2")
    job = bench.submit(gate="long")
    ready(bench)
    assert bench.plant.children[0].running.wait(20)
    bench.target("v1", end_running=True)
    bench.serves(slot, "v1")
    bench.plant.gates["long"].set()
    assert bench.done(job).result["version"] == "v1"
    assert [(row.cause, row.counted) for row in bench.queue.history(job) if row.event == "attempt"] == [
        ("preempted", False),
        ("succeeded", True),
    ]


def test_stacks_are_written_on_demand(bench: Bench) -> None:
    slot = bench.slot()
    bench.target("v1")
    bench.serves(slot, "v1")
    slot.dump_stacks()
    assert bench.plant.children[0].stacks == 1


def test_memory_that_a_child_leaves_is_seen_to_come_back_before_the_next(bench: Bench) -> None:
    bench.plant.device = Room(80 * GIB, 80 * GIB)
    bench.plant.yaml["v2"] = "swap: drain\n"
    slot = bench.slot()
    bench.target("v1")
    bench.serves(slot, "v1")
    bench.plant.device = Room(20 * GIB, 80 * GIB)
    takes(bench, slot, "v1", 60 * GIB)
    bench.target("v2")
    bench.until(slot, lambda slot: slot.serving is None)
    assert len(bench.plant.children) == 1
    bench.plant.device = Room(79 * GIB, 80 * GIB)
    bench.serves(slot, "v2")


def test_what_a_version_takes_is_learnt_from_its_work(bench: Bench) -> None:
    bench.plant.device = Room(80 * GIB, 80 * GIB)
    slot = bench.slot()
    bench.target("v1")
    bench.serves(slot, "v1")
    bench.plant.device, bench.plant.rss_bytes = Room(20 * GIB, 80 * GIB), 3 * GIB
    takes(bench, slot, "v1", 60 * GIB)
    digest = bench.plant.version("v1").digest
    assert (slot.parts.learnt.of(digest) or Footprint()).host_bytes == 3 * GIB
    bench.plant.device = Room(80 * GIB, 80 * GIB)


def test_a_fault_of_the_worker_itself_gives_the_job_back(bench: Bench) -> None:
    faults = [ZeroDivisionError("a bug of ours")]

    def run(child: object, request: object) -> ChildOutcome:
        if faults:
            raise faults.pop()
        return ChildOutcome(Cause.SUCCEEDED)

    bench.slot()
    bench.plant.behaviour = run
    bench.target("v1")
    job = bench.submit()
    assert bench.done(job).status is Status.SUCCEEDED
    assert [(row.cause, row.counted) for row in bench.queue.history(job) if row.event == "attempt"] == [
        ("load_failed", False),
        ("succeeded", True),
    ]
    assert 'fault where="slot s0"' in bench.log.getvalue()


def test_what_can_never_fit_is_refused_at_the_first_start_too(bench: Bench) -> None:
    bench.plant.host = Room(2 * GIB, 4 * GIB)
    bench.plant.yaml["v1"] = "stages: [{name: run, host_memory: 80GiB}]\n"
    slot = bench.slot()
    bench.target("v1")
    bench.until(slot, lambda slot: slot.refusal is not None)
    assert bench.plant.children == []
    assert slot.report().next_action == "roll back, or push a version that this box can run"
