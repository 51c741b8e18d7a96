"""Swaps in place, memory that must come back, turns to fetch, and swaps that are halted for everybody."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from modelrepo.errors import Corrupt, EnvironmentFailed, HostNeedUnmet, SecretMissing
from modelrepo_runtime.queue.port import SlotReport, WorkerInfo
from modelrepo_runtime.queue.swaps import Swap
from modelrepo_runtime.queue.turns import fetch_kind
from modelrepo_runtime.worker import device_memory
from modelrepo_runtime.worker.footprint import Footprint
from modelrepo_runtime.worker.session import WorkerSession
from modelrepo_runtime.worker.slot_states import SlotState
from modelrepo_runtime.worker.swap_plan import GIB, Room
from tests.unit.worker.conftest import TIMING, Bench

if TYPE_CHECKING:
    from modelrepo_runtime.worker.slot import Slot


def inplace(bench: Bench) -> Slot:
    """A slot that serves v1, of a model that can take v2 up in place, and asks for that."""
    bench.plant.yaml["v2"] = "swap: inplace\n"
    bench.plant.reloading.add("v1")
    slot = bench.slot()
    bench.target("v1")
    bench.serves(slot, "v1")
    return slot


def says(bench: Bench, slot: Slot, text: str) -> None:
    bench.until(slot, lambda _: text in bench.log.getvalue())


def test_a_child_takes_another_version_up_in_place(bench: Bench) -> None:
    slot = inplace(bench)
    bench.target("v2")
    bench.serves(slot, "v2")
    assert bench.done(bench.submit()).result["version"] == "v2"
    assert (bench.plant.reloaded, len(bench.plant.children)) == ([("v1", "v2")], 1)
    says(bench, slot, "mode=inplace")
    report = slot.report()
    assert (report.state, report.version, "reload_s" in (report.phases or {})) == ("open", "v2", True)


def test_a_reload_waits_for_the_job_that_runs(bench: Bench) -> None:
    gate = bench.plant.gates["long"] = threading.Event()
    slot = inplace(bench)
    job = bench.submit(gate="long")
    bench.until(slot, lambda slot: slot.held is not None)
    bench.target("v2")
    bench.until(slot, lambda slot: slot.incoming is not None and slot.incoming[1] == "waiting for the job that runs")
    assert bench.plant.reloaded == []
    gate.set()
    assert bench.done(job).result["version"] == "v1"
    bench.serves(slot, "v2")


def test_a_reload_that_fails_leaves_the_same_child_serving_the_old(bench: Bench) -> None:
    slot = inplace(bench)
    bench.plant.unfit["v2"] = "v2 did not reload: a layer is missing; v1 serves on"
    bench.target("v2")
    bench.until(slot, lambda slot: slot.refusal is not None)
    report = slot.report()
    assert (report.state, report.version, report.generation) == ("refused", "v1", 1)
    assert report.reason == "v2 did not reload: a layer is missing; v1 serves on"
    assert bench.done(bench.submit()).result["version"] == "v1"
    assert len(bench.plant.children) == 1
    assert "reload-taken-back slot=s0" in bench.log.getvalue()


def test_a_child_that_finds_no_way_back_is_started_anew_with_the_old(bench: Bench) -> None:
    slot = inplace(bench)
    bench.plant.unfit["v2"] = "v2 did not reload; and v1 did not reload"
    bench.plant.no_way_back.add("v2")
    bench.target("v2")
    bench.until(slot, lambda slot: slot.refusal is not None)
    assert bench.done(bench.submit()).result["version"] == "v1"
    assert [child.alive for child in bench.plant.children] == [False, True]
    assert slot.report().state == "refused"


def test_a_slot_whose_old_version_does_not_come_back_says_so(bench: Bench) -> None:
    slot = inplace(bench)
    bench.plant.unfit |= {"v2": "v2 did not reload", "v1": "v1 does not load any more"}
    bench.plant.no_way_back.add("v2")
    bench.target("v2")
    bench.until(slot, lambda slot: slot.refusal is not None)
    report = slot.report()
    assert (report.state, report.version) == ("refused", None)
    assert "v2 did not reload; and m@v1 did not come back: v1 does not load any more" in str(report.reason)


@pytest.mark.parametrize(
    ("yaml", "reloads", "reason"),
    [
        ("swap: inplace\n", False, "the model has no method reload"),
        ("swap: inplace\nenv: {A: b}\n", True, "its entrypoint, stages or env are others"),
    ],
)
def test_what_cannot_be_done_in_place_is_planned_as_ever(bench: Bench, yaml: str, reloads: bool, reason: str) -> None:
    slot = inplace(bench)
    bench.plant.yaml["v2"] = yaml
    if not reloads:
        bench.plant.children[0].reloads = False
    gate = bench.plant.load_gates["v2"] = threading.Event()
    bench.target("v2")
    bench.until(slot, lambda slot: slot.plan is not None)
    told = slot.report().plan
    gate.set()
    assert told is not None and told.startswith("overlap: inplace is not possible: ") and reason in told
    bench.serves(slot, "v2")
    assert bench.plant.reloaded == []


def memory(bench: Bench, slot: Slot, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have v1 hold 60 of 80 GiB, of which nothing comes back."""
    monkeypatch.setattr(device_memory, "MEMORY_RETURNS_S", 0.0)
    bench.plant.device = Room(20 * GIB, 80 * GIB)
    digest = bench.plant.version("v1").digest
    bench.done(bench.submit())
    bench.until(slot, lambda slot: (slot.parts.learnt.of(digest) or Footprint()).device_bytes == 60 * GIB)


def test_a_slot_takes_no_job_until_the_old_versions_memory_is_back(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.plant.device = Room(80 * GIB, 80 * GIB)
    bench.plant.yaml["v2"] = "stages: [{name: run, on: gpu, gpu_memory: 10GiB}]\n"
    slot = bench.slot()
    bench.target("v1")
    bench.serves(slot, "v1")
    memory(bench, slot, monkeypatch)
    bench.target("v2")
    bench.until(slot, lambda slot: slot.report().state == SlotState.CORDONED)
    report = slot.report()
    assert report.version == "v2"
    assert "device memory was not returned" in str(report.reason) and "20.0 GiB are free" in str(report.reason)
    assert "see which process holds the device" in str(report.next_action)
    assert "memory-not-returned slot=s0" in bench.log.getvalue()
    bench.until(slot, lambda slot: slot.incoming is None)
    job = bench.submit()
    assert bench.plant.ran[-1][0] != job
    bench.plant.device = Room(80 * GIB, 80 * GIB)
    assert bench.done(job).result["version"] == "v2"
    assert slot.report().state == "open"
    assert "memory-returned slot=s0" in bench.log.getvalue()


def test_what_the_new_version_takes_is_not_taken_for_the_olds(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.plant.device = Room(80 * GIB, 80 * GIB)
    bench.plant.yaml["v2"] = "stages: [{name: run, on: gpu, gpu_memory: 15GiB}]\n"
    slot = bench.slot()
    bench.target("v1")
    bench.serves(slot, "v1")
    memory(bench, slot, monkeypatch)
    gate = bench.plant.load_gates["v2"] = threading.Event()
    bench.target("v2")
    bench.until(slot, lambda slot: bool(slot.loading))
    monkeypatch.setattr(device_memory, "MEMORY_RETURNS_S", 20.0)
    bench.plant.device = Room(62 * GIB, 80 * GIB)  # the old has gone, and the new has grown to what it promised
    gate.set()
    bench.serves(slot, "v2")
    bench.until(slot, lambda slot: slot.incoming is None)
    assert slot.report().state == "open"


def test_a_drain_whose_memory_does_not_come_back_brings_the_old_back(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.plant.device = Room(80 * GIB, 80 * GIB)
    bench.plant.yaml["v2"] = "swap: drain\n"
    slot = bench.slot()
    bench.target("v1")
    bench.serves(slot, "v1")
    memory(bench, slot, monkeypatch)
    bench.target("v2")
    bench.until(slot, lambda slot: slot.refusal is not None)
    report = slot.report()
    assert (report.state, report.version) == ("refused", "v1")
    assert "device memory was not returned" in str(report.reason)
    assert [child.spec.version for child in bench.plant.children if child.alive] == ["v1"]
    assert bench.queue.fleet_events(kind="swap_halted") == ()


def test_a_turn_that_is_lost_while_the_job_ran_gives_the_child_back(bench: Bench) -> None:
    gate = bench.plant.gates["long"] = threading.Event()
    bench.plant.yaml["v2"] = "swap: drain\n"
    slot = bench.slot()
    bench.target("v1")
    bench.serves(slot, "v1")
    job = bench.submit(gate="long")
    bench.until(slot, lambda slot: slot.held is not None)
    bench.target("v2")
    bench.until(slot, lambda slot: slot.incoming is not None and slot.incoming[1] == "waiting for the job that runs")
    bench.queue.end_turn("m", "w/s0")
    gate.set()
    assert bench.done(job).result["version"] == "v1"
    says(bench, slot, "swap-dropped slot=s0 target=m@v2")
    bench.serves(slot, "v2")
    assert [child.spec.version for child in bench.plant.children] == ["v1", "v2"]


@pytest.fixture
def another(bench: Bench) -> Iterator[WorkerSession]:
    """Another box, which fetches for the model."""
    session = WorkerSession(bench.queue, WorkerInfo("another", "another", 2), TIMING, list, bench.journal)
    session.start()
    assert session.take_fetch_turn("m", "s0", 1)
    yield session
    session.stop()


def test_a_box_waits_for_its_turn_to_fetch_and_its_slots_share_it(bench: Bench, another: WorkerSession) -> None:
    slots = [bench.slot("s0"), bench.slot("s1")]
    gate = bench.plant.build_gates["v1"] = threading.Event()
    bench.target("v1", boxes=1)
    for slot in slots:
        bench.until(slot, lambda slot: "turn to fetch" in str((slot.report().incoming or {}).get("phase")))
    assert bench.plant.fetched == []
    another.end_fetch_turn("m", "s0")
    for slot in slots:
        bench.until(slot, lambda slot: slot.incoming is not None and slot.incoming[1] == "building")
    assert not another.take_fetch_turn("m", "s0", 1)
    gate.set()
    for slot in slots:
        bench.serves(slot, "v1")
    assert another.take_fetch_turn("m", "s0", 1)


@pytest.mark.usefixtures("another")
def test_what_is_here_is_served_without_a_turn_to_fetch(bench: Bench) -> None:
    bench.plant.here.add("v1")
    slot = bench.slot()
    bench.target("v1", boxes=1)
    bench.serves(slot, "v1")


@pytest.mark.usefixtures("another")
def test_a_fetch_that_waits_for_its_turn_is_dropped_with_its_target(bench: Bench) -> None:
    bench.plant.here.add("v2")
    slot = bench.slot()
    bench.target("v1", boxes=1)
    bench.until(slot, lambda slot: "turn to fetch" in str((slot.report().incoming or {}).get("phase")))
    bench.target("v2", boxes=1)
    bench.serves(slot, "v2")
    assert "swap-dropped slot=s0 target=m@v1" in bench.log.getvalue()
    bench.target("v3", boxes=1)
    bench.until(slot, lambda slot: "turn to fetch" in str((slot.report().incoming or {}).get("phase")))
    slot.leave()
    assert bench.left()
    assert "v1" not in bench.plant.fetched and "v3" not in bench.plant.fetched


def test_a_version_is_fetched_before_the_slot_waits_for_its_turn_to_swap(bench: Bench) -> None:
    slot = bench.slot()
    bench.target("v1")
    bench.serves(slot, "v1")
    assert bench.session.take_turn("m", "another", 1, "1")
    bench.target("v2", share="1")
    bench.until(slot, lambda slot: "waiting for its turn (" in str((slot.report().incoming or {}).get("phase")))
    assert bench.plant.fetched == ["v1", "v2"]
    assert bench.queue.take_turn("m", "another", 0, "1", TIMING.turn_s, fetch_kind("local")), "it fetches no more"
    bench.session.end_turn("m", "another")
    bench.serves(slot, "v2")


def refusing(bench: Bench, generation: int) -> Swap:
    """Have slots of two other workers refuse v2."""
    swap = Swap("m", "v2", bench.plant.version("v2").digest, generation)
    for worker in ("x", "y"):
        session = bench.queue.hello(WorkerInfo(worker, worker, 1, slots=("0",)))
        bench.queue.beat(session, (), [SlotReport("0", "open", "m", "v1")])
        assert not bench.queue.refuse_swap(swap, worker, "0", "no such layer")
    return swap


def test_the_third_refusal_halts_the_swap_for_slots_that_have_not_begun_it(bench: Bench) -> None:
    slots = [bench.slot("s0"), bench.slot("s1")]
    bench.target("v1")
    for slot in slots:
        bench.serves(slot, "v1")
    swap = refusing(bench, bench.generation + 1)
    bench.plant.unfit["v2"] = "m@v2 cannot start: load failed: no such layer"
    bench.target("v2", share="1")
    for slot in slots:
        bench.until(slot, lambda slot: slot.refusal is not None)
    assert sum(child.spec.version == "v2" for child in bench.plant.children) == 1, "the other has not tried"
    halted = [slot.report() for slot in slots if "is halted" in str(slot.report().reason)]
    assert len(halted) == 1 and (halted[0].state, halted[0].version) == ("refused", "v1")
    assert "the swap to m@v2 is halted: x/0, y/0, w/s" in str(halted[0].reason)
    assert "`modelrepo promote m@v2 --retry`" in str(halted[0].next_action)
    assert bench.queue.halt_of(swap) is not None
    del bench.plant.unfit["v2"]
    bench.target("v2", share="1")  # as `promote --retry` has it
    for slot in slots:
        bench.serves(slot, "v2")


def test_a_slot_that_serves_nothing_tries_a_version_that_is_halted(bench: Bench) -> None:
    swap = refusing(bench, 1)
    assert bench.queue.refuse_swap(swap, "z", "0", "no such layer")
    slot = bench.slot()
    bench.target("v2")
    bench.serves(slot, "v2")


@pytest.mark.parametrize(
    ("error", "counts"),
    [
        (EnvironmentFailed("no wheel"), True),
        (Corrupt("other bytes"), True),
        (SecretMissing("no HF_TOKEN"), False),
        (HostNeedUnmet("no ffmpeg"), False),
        (OSError("an odd disk"), False),
    ],
)
def test_only_what_is_the_versions_own_fault_counts(bench: Bench, error: Exception, counts: bool) -> None:
    slot = bench.slot()
    bench.target("v1")
    bench.serves(slot, "v1")
    swap = refusing(bench, 2)
    bench.plant.build_errors["v2"] = error
    bench.target("v2")
    bench.until(slot, lambda slot: slot.refusal is not None)
    bench.until(slot, lambda slot: slot.incoming is None)
    assert (bench.queue.halt_of(swap) is not None) == counts


def test_a_version_that_comes_up_after_all_is_counted_no_more(bench: Bench) -> None:
    slot = bench.slot()
    bench.target("v1")
    bench.serves(slot, "v1")
    bench.plant.unfit["v2"] = "not yet"
    bench.target("v2")
    bench.until(slot, lambda slot: slot.refusal is not None)
    del bench.plant.unfit["v2"]
    bench.serves(slot, "v2")
    bench.until(slot, lambda slot: slot.incoming is None)
    swap = refusing(bench, 2)
    assert bench.queue.halt_of(swap) is None
