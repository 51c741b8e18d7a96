"""Slots whose device is not well."""

from __future__ import annotations

import io
import threading

import pytest

from modelrepo_runtime.accelerators import FakeAccelerator, Fault, FaultKind
from modelrepo_runtime.jobs import Cause, Status
from modelrepo_runtime.worker.device_watch import CALM_LOOKS, DeviceWatch
from modelrepo_runtime.worker.journal import Journal

from .conftest import LIMIT_S, Bench

LOST = Fault(FaultKind.LOST, "it is gone")
HOT = Fault(FaultKind.THERMAL, "so hot that it slows itself down: 95 degrees C")


class Box:
    """Two slots, the second one of two devices, and what was heard of them."""

    def __init__(self) -> None:
        self.accelerator = FakeAccelerator([1 << 30] * 3)
        devices = self.accelerator.probe()
        self.said = io.StringIO()
        self.heard: list[str] = []
        self.watch = DeviceWatch(
            self.accelerator,
            {"a": devices[:1], "b": devices[1:]},
            Journal(self.said),
            fell_sick=lambda slot: self.heard.append(f"{slot} fell sick"),
            changed=lambda slot: self.heard.append(f"{slot} changed"),
        )


@pytest.fixture
def box() -> Box:
    return Box()


def test_devices_that_are_well_change_nothing(box: Box) -> None:
    box.watch.look()
    assert (box.watch.cordon("a"), box.watch.cordon("b"), box.heard) == (None, None, [])


def test_a_fault_that_lasts_takes_its_slot_out_until_somebody_has_seen_to_it(box: Box) -> None:
    box.accelerator.fail(2, LOST)
    box.watch.look()
    box.accelerator.fail(2)
    box.watch.look()
    assert box.watch.cordon("a") is None
    assert "cuda:2 is not well: it is gone" in str(box.watch.cordon("b"))
    assert box.watch.is_broken("b")
    assert box.heard == ["b fell sick"]
    box.watch.forget("b")
    box.watch.look()
    assert box.watch.cordon("b") is None
    assert "device-sick" in box.said.getvalue()


def test_one_that_is_forgotten_and_still_there_is_seen_again(box: Box) -> None:
    box.accelerator.fail(0, LOST)
    box.watch.look()
    box.watch.forget("a")
    box.accelerator.fail(0, LOST)
    box.watch.look()
    assert box.heard == ["a fell sick"] * 2


def test_heat_passes_by_itself_once_it_has_been_away_for_a_while(box: Box) -> None:
    box.accelerator.fail(0, HOT)
    box.watch.look()
    assert "once it has cooled down" in str(box.watch.cordon("a"))
    assert not box.watch.is_broken("a")
    box.accelerator.fail(0)
    for _ in range(CALM_LOOKS - 1):
        box.watch.look()
        assert box.watch.cordon("a") is not None
    box.watch.look()
    assert box.watch.cordon("a") is None
    assert box.heard == ["a changed", "a changed"]


def test_heat_that_comes_back_begins_the_wait_anew(box: Box) -> None:
    box.accelerator.fail(0, HOT)
    box.watch.look()
    box.accelerator.fail(0)
    box.watch.look()
    box.accelerator.fail(0, HOT)
    box.watch.look()
    box.accelerator.fail(0)
    for _ in range(CALM_LOOKS - 1):
        box.watch.look()
    assert box.watch.cordon("a") is not None


def test_heat_that_turns_into_worse_takes_the_slot_out(box: Box) -> None:
    box.accelerator.fail(0, HOT)
    box.watch.look()
    box.accelerator.fail(0, HOT, LOST)
    box.watch.look()
    assert box.watch.is_broken("a")
    assert box.heard == ["a changed", "a fell sick"]


def watching(bench: Bench) -> tuple[FakeAccelerator, DeviceWatch]:
    """Give the bench's slot a device, and have it watched as a worker does."""
    accelerator = FakeAccelerator([1 << 30])

    def fell_sick(name: str) -> None:
        bench.slots[0].abandon()
        bench.slots[0].look_again()

    watch = DeviceWatch(
        accelerator,
        {"s0": accelerator.probe()},
        bench.journal,
        fell_sick=fell_sick,
        changed=lambda name: bench.slots[0].look_again(),
    )
    bench.cordon, bench.broken, bench.look_at = watch.cordon, watch.is_broken, watch.look_at
    return accelerator, watch


def attempts(bench: Bench, job: str) -> list[tuple[str | None, bool]]:
    return [(row.cause, row.counted) for row in bench.queue.history(job) if row.event == "attempt"]


def test_a_job_that_runs_on_a_device_which_breaks_is_handed_back_and_nothing_starts_there(bench: Bench) -> None:
    accelerator, watch = watching(bench)
    bench.plant.gates["long"] = threading.Event()
    slot = bench.slot()
    bench.target("v1")
    job = bench.submit(gate="long")
    child = bench.plant.ready.get(timeout=LIMIT_S)
    assert child.running.wait(LIMIT_S)
    accelerator.fail(0, LOST)
    watch.look()
    bench.until(slot, lambda slot: slot.held is None)
    assert bench.queue.get(job).status is Status.QUEUED
    assert attempts(bench, job) == [("preempted", False)]
    report = slot.report()
    assert report.state == "cordoned"
    assert "it is gone" in str(report.reason)
    bench.target("v2")  # a swap to another version is not tried either
    assert bench.plant.ready.empty()
    bench.plant.gates["long"].set()
    watch.forget("s0")
    accelerator.fail(0)
    slot.look_again()
    bench.serves(slot, "v2")
    assert bench.done(job).status is Status.SUCCEEDED


def test_a_crash_that_the_device_is_to_blame_for_counts_against_nobody(bench: Bench) -> None:
    accelerator, _ = watching(bench)
    slot = bench.slot()
    bench.target("v1")
    bench.serves(slot, "v1")
    bench.fails_by(Cause.CRASH)
    accelerator.fail(0, LOST)
    job = bench.submit()
    bench.until(slot, lambda slot: slot.report().state == "cordoned")
    bench.until(slot, lambda slot: slot.held is None)
    assert attempts(bench, job) == [("preempted", False)]
    assert "device-blamed" in bench.log.getvalue()


def test_a_crash_on_a_device_that_is_well_counts_as_ever(bench: Bench) -> None:
    watching(bench)
    slot = bench.slot()
    bench.target("v1")
    bench.serves(slot, "v1")
    bench.fails_by(Cause.CRASH)
    job = bench.submit()
    bench.until(slot, lambda slot: ("crash", True) in attempts(bench, job))
