"""What goes wrong around a swap at the worst moment, and what a slot does then."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from modelrepo.errors import EnvironmentFailed, Unreachable
from modelrepo_runtime.jobs import Cause, Status
from modelrepo_runtime.supervision.spec import ChildOutcome
from modelrepo_runtime.worker.footprint import Footprint
from modelrepo_runtime.worker.slot_states import SlotState
from modelrepo_runtime.worker.swap_plan import GIB, Room

if TYPE_CHECKING:
    from modelrepo_runtime.worker.slot import Slot
    from tests.unit.worker.conftest import Bench


def loads(slot: Slot, version: str) -> bool:
    return any(wanted.version == version for wanted in slot.loading.values())


def dies(bench: Bench, slot: Slot) -> None:
    """Let the child that serves die while it has nothing to do, and the next of its version hang while it loads."""
    assert slot.serving is not None
    version = slot.serving.prepared.version.version
    bench.plant.load_gates[version] = threading.Event()  # never opened
    child = bench.plant.children[-1]
    child.alive = False
    bench.until(slot, lambda slot: loads(slot, version))


@pytest.mark.parametrize("swap", ["overlap", "drain"])
def test_an_old_child_that_hangs_while_it_is_started_again_keeps_no_swap_waiting(bench: Bench, swap: str) -> None:
    bench.plant.yaml["v2"] = f"swap: {swap}\n"
    slot = bench.slot()
    bench.target("v1")
    bench.serves(slot, "v1")
    dies(bench, slot)
    bench.target("v2")
    bench.serves(slot, "v2")
    assert bench.done(bench.submit()).result["version"] == "v2"
    assert slot.report().state == "open"


@pytest.mark.parametrize("swap", ["overlap", "drain"])
def test_an_old_child_that_does_not_come_up_again_keeps_no_swap_waiting(bench: Bench, swap: str) -> None:
    bench.plant.yaml["v2"] = f"swap: {swap}\n"
    building = bench.plant.build_gates["v2"] = threading.Event()
    slot = bench.slot()
    bench.target("v1")
    bench.serves(slot, "v1")
    bench.target("v2")
    bench.until(slot, lambda slot: slot.incoming is not None and slot.incoming[1] == "building")
    bench.plant.unfit["v1"] = "broken since"
    bench.plant.children[0].alive = False
    bench.until(slot, lambda slot: slot.serving is None)
    building.set()
    bench.serves(slot, "v2")
    assert slot.report().state == "open"


def test_a_child_that_is_lost_just_before_it_makes_room_keeps_no_drain_waiting(bench: Bench) -> None:
    bench.plant.yaml["v2"] = "swap: drain\n"
    slot = bench.slot()
    bench.target("v1")
    bench.serves(slot, "v1")

    def lose() -> None:
        if slot.plan is not None:  # the plan is made: what serves will be asked to make room
            bench.plant.unfit["v1"] = "broken since"
            bench.plant.children[0].alive = False
            bench.until(slot, lambda slot: slot.serving is None)

    bench.at_edge = lose
    bench.target("v2")
    bench.serves(slot, "v2")
    assert slot.report().state == "open"


def test_a_new_child_that_dies_before_the_switch_leaves_the_old_serving(bench: Bench) -> None:
    bench.plant.gates["long"] = threading.Event()
    slot = bench.slot()
    bench.target("v1")
    job = bench.submit(gate="long")
    bench.until(slot, lambda slot: slot.held is not None)
    bench.target("v2")
    bench.until(slot, lambda slot: slot.ready is not None)
    bench.plant.children[-1].alive = False
    bench.plant.gates["long"].set()
    assert bench.done(job).result["version"] == "v1"
    bench.until(slot, lambda slot: slot.refusal is not None)
    assert slot.report().version == "v1"
    assert "was warm, and ended by itself before its first job" in str(slot.report().reason)
    bench.serves(slot, "v2")


def test_a_version_whose_environment_cannot_be_built_leaves_the_old_serving(bench: Bench) -> None:
    bench.plant.build_errors["v2"] = EnvironmentFailed("cannot install m@v2: no wheel for numpy")
    slot = bench.slot()
    bench.target("v1")
    bench.serves(slot, "v1")
    bench.target("v2")
    bench.until(slot, lambda slot: slot.refusal is not None)
    assert slot.report().reason == "cannot install m@v2: no wheel for numpy"
    assert bench.done(bench.submit()).result["version"] == "v1"
    assert len(bench.plant.children) == 1


def test_a_version_promoted_anew_is_tried_at_once(bench: Bench) -> None:
    bench.plant.load_gates["v2"] = threading.Event()
    slot = bench.slot()
    bench.target("v1")
    bench.serves(slot, "v1")
    bench.target("v2")
    bench.until(slot, lambda slot: loads(slot, "v2"))
    bench.target("v2")  # while a try is under way that will fail for the old reason
    bench.plant.unfit["v2"] = "not yet"
    tried = len(bench.plant.children)
    bench.plant.load_gates["v2"].set()
    bench.until(slot, lambda _: len(bench.plant.children) > tried)
    bench.until(slot, lambda slot: slot.report().state == SlotState.REFUSED)
    del bench.plant.unfit["v2"]
    bench.target("v2")
    assert slot.report().state == SlotState.OPEN
    bench.serves(slot, "v2")


@pytest.mark.parametrize("leaving", [True, False])
def test_a_job_that_is_claimed_while_the_slot_leaves_its_version_goes_back(
    bench: Bench, leaving: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    slot = bench.slot()
    bench.target("v1")
    bench.serves(slot, "v1")
    bench.plant.load_gates["v2"] = threading.Event()
    deliver = slot.parts.claimer.withdraw

    def withdraw(name: str) -> None:
        # A claim is on its way when the slot hears that it should take none.
        monkeypatch.undo()
        if leaving:
            slot.stopping = True
        else:
            bench.target("v2", end_running=True)
        deliver(name)

    monkeypatch.setattr(slot.parts.claimer, "withdraw", withdraw)
    job = bench.submit()
    bench.until(slot, lambda _: bool(bench.queue.history(job)))
    assert [(row.cause, row.counted) for row in bench.queue.history(job)] == [("preempted", False)]
    assert bench.plant.ran == []


def test_a_result_that_the_queue_cannot_take_is_the_models_failure(bench: Bench) -> None:
    bench.slot()
    bench.plant.behaviour = lambda child, request: ChildOutcome(Cause.SUCCEEDED, {"loss": float("nan")})
    bench.target("v1")
    job = bench.done(bench.submit())
    assert job.status is Status.FAILED
    assert job.error is not None
    assert "its result is not JSON" in job.error.message


def test_a_cordoned_slot_whose_child_hangs_while_it_restarts_takes_another_version(bench: Bench) -> None:
    slot = bench.slot()
    bench.target("v1")
    bench.serves(slot, "v1")
    bench.plant.load_gates["v1"] = threading.Event()
    bench.fails_by(Cause.EXCEPTION)
    jobs = [bench.submit() for _ in range(3)]
    bench.until(slot, lambda slot: slot.report().state == SlotState.CORDONED and loads(slot, "v1"))
    bench.succeeds()
    bench.target("v2")
    assert all(bench.done(job).result["version"] == "v2" for job in jobs)
    bench.until(slot, lambda slot: slot.report().state == "open")


def test_deaths_of_the_version_before_are_not_held_against_the_next(bench: Bench) -> None:
    slot = bench.slot()
    bench.target("v1")
    bench.serves(slot, "v1")
    slot.idle_deaths = 3
    bench.target("v2")
    bench.serves(slot, "v2")
    assert slot.idle_deaths == 0


def test_a_child_that_cannot_be_started_again_is_brought_up_anew(bench: Bench) -> None:
    slot = bench.slot()
    bench.target("v1")
    bench.serves(slot, "v1")
    bench.plant.start_errors.append(FileNotFoundError("the cache's environment is gone"))
    bench.plant.children[0].alive = False
    bench.until(slot, lambda slot: slot.serving is not None and slot.serving.child.alive)
    assert bench.plant.fetched == ["v1", "v1"]
    assert "child-lost slot=s0" in bench.log.getvalue()
    assert slot.report().state == "open"


def test_a_child_that_crashed_is_started_again_when_its_memory_is_back(bench: Bench) -> None:
    bench.plant.device = Room(80 * GIB, 80 * GIB)
    slot = bench.slot()
    bench.target("v1")
    bench.serves(slot, "v1")
    bench.plant.device = Room(20 * GIB, 80 * GIB)
    bench.done(bench.submit())
    digest = bench.plant.version("v1").digest
    bench.until(slot, lambda slot: (slot.parts.learnt.of(digest) or Footprint()).device_bytes == 60 * GIB)
    bench.plant.children[0].alive = False
    assert bench.plant.children[0].stopped.wait(20)
    assert len(bench.plant.children) == 1
    bench.plant.device = Room(80 * GIB, 80 * GIB)
    bench.until(slot, lambda slot: slot.serving is not None and slot.serving.child.alive)


def test_a_queue_that_is_away_only_delays_a_swap(bench: Bench) -> None:
    slot = bench.slot()
    bench.target("v1")
    bench.serves(slot, "v1")
    bench.fleet_errors += [Unreachable("away")] * 3
    bench.target("v2")
    bench.serves(slot, "v2")
    assert bench.fleet_errors == []
    assert "refused" not in bench.log.getvalue()
    assert "queue-unreachable error=away" in bench.log.getvalue()


def holds(bench: Bench, slot: Slot, phase: str) -> None:
    """Bring the slot into the middle of a swap from v1 to v2, and keep it there."""
    bench.plant.yaml["v2"] = "swap: drain\n" if phase.startswith("waiting for the job") else ""
    if phase == "building":
        bench.plant.build_gates["v2"] = threading.Event()
    if phase == "loading":
        bench.plant.load_gates["v2"] = threading.Event()
    if phase.startswith("waiting for its turn"):
        assert bench.session.take_turn("m", "another", 1, "1")  # the beats renew it
    bench.target("v1")
    bench.plant.gates["long"] = threading.Event()
    bench.submit(gate="long")
    bench.until(slot, lambda slot: slot.held is not None)
    bench.target("v2", share="1")
    bench.until(slot, lambda slot: str((slot.report().incoming or {}).get("phase", "")).startswith(phase))


PHASES = ["waiting for its turn", "building", "loading", "ready", "waiting for the job"]


@pytest.mark.parametrize("phase", PHASES)
def test_a_worker_leaves_from_the_middle_of_a_swap(bench: Bench, phase: str) -> None:
    slot = bench.slot()
    holds(bench, slot, phase)
    slot.leave()
    slot.abandon()
    assert bench.left()
    assert not any(child.alive for child in bench.plant.children)


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("then", ["v1", "v3"])
def test_a_swap_that_is_superseded_in_the_middle_is_dropped_there(bench: Bench, phase: str, then: str) -> None:
    slot = bench.slot()
    holds(bench, slot, phase)
    bench.session.end_turn("m", "another")
    bench.target(then, share="1")
    bench.until(slot, lambda _: "swap-dropped slot=s0 target=m@v2" in bench.log.getvalue())
    bench.plant.gates["long"].set()
    bench.until(slot, lambda slot: slot.held is None)
    bench.serves(slot, then)
    bench.until(slot, lambda slot: slot.incoming is None)
    assert slot.report().state == "open"
    assert "v2" not in [version for _, version, _ in bench.plant.ran]
    assert sum(child.alive for child in bench.plant.children) == 1
