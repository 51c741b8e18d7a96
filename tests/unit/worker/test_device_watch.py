"""Slots whose device is not well."""

from __future__ import annotations

import io

import pytest

from modelrepo_runtime.accelerators import FakeAccelerator, Fault, FaultKind
from modelrepo_runtime.worker.device_watch import CALM_LOOKS, DeviceWatch
from modelrepo_runtime.worker.journal import Journal

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
