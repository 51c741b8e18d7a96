"""What newest attempts make of a need, and a need of a job that is to wait."""

from __future__ import annotations

import pytest

from modelrepo_runtime.job_memory import JobMemory, MemoryNeed, MemoryRoom, MemoryUse
from modelrepo_runtime.queue.lanes import Lane, Place, read_avoid, read_memory, write_constraint
from modelrepo_runtime.queue.memory_needs import (
    NEWEST,
    OLDEST_S,
    REFUSED_FOR_S,
    Admission,
    LearntMemory,
    NeedKey,
    RoomOfSlots,
    Seen,
    Window,
)

KEY = NeedKey("m", "run", "long")


def window(*uses: MemoryUse, at: float = 0.0) -> Window:
    """Return what these attempts have shown, the oldest first."""
    found = Window()
    for use in uses:
        found = found.after(Seen(at, use))
    return found


def used(peak: int, slot: int = 80) -> MemoryUse:
    return MemoryUse(peak, slot)


def lacked(slot: int) -> MemoryUse:
    return MemoryUse(slot - 4, slot, ran_out=True)


def an_admission(found: Window, *rooms: int | None, at: float = 0.0, host: Window = Window()) -> Admission:  # noqa: B008
    slots = [RoomOfSlots(MemoryRoom(room, 512)) for room in rooms]
    return Admission(at, {KEY: LearntMemory(found, host)}, {"m": slots})


@pytest.mark.parametrize(
    ("found", "need"),
    [
        (window(), 0),
        (window(used(31), used(12)), 31),
        (window(used(31), *[used(12)] * (NEWEST - 1)), 31),
        (window(used(31), *[used(12)] * NEWEST), 12),
        (window(used(72), used(43, 48)), 48),  # takes all that there is: a slot of 48 has done it
        (window(lacked(24)), 25),
        (window(lacked(24), used(31)), 31),
        (window(used(20, 24), lacked(24), used(31)), 31),  # the slot of 24 has not always done it
        (window(used(20, 24), lacked(24)), 25),
        (window(lacked(24), used(78, 80), used(44, 48)), 48),
    ],
)
def test_a_need_is_the_most_of_the_newest_unless_a_smaller_slot_has_done_it(found: Window, need: int) -> None:
    assert found.need_bytes(now=OLDEST_S - 1) == need
    assert found.need_bytes(now=OLDEST_S) == 0


@pytest.mark.parametrize(
    ("found", "refuses"),
    [
        (window(used(31)), True),
        (window(used(31), used(20, 24)), False),
        (window(lacked(24)), False),
        (window(lacked(24), lacked(24)), True),
        (window(used(20, 24), lacked(24), lacked(24)), False),
        (window(lacked(24), used(31)), True),
    ],
)
def test_others_are_refused_only_where_it_is_sure_and_for_an_hour(found: Window, refuses: bool) -> None:
    known = an_admission(found, 24)
    assert (known.refusal(KEY, "gpu") is not None) is refuses
    assert an_admission(found, 24, at=REFUSED_FOR_S).refusal(KEY, "gpu") is None
    assert an_admission(found, 24, at=REFUSED_FOR_S).constraint(KEY, "gpu") is None


def test_a_slot_that_does_not_say_what_it_has_and_one_of_another_kind_decide_nothing() -> None:
    assert an_admission(window(used(31)), 24, None).refusal(KEY, "gpu") is None
    assert an_admission(window(used(31))).refusal(KEY, "gpu") is None
    of_cpu = Admission(0, {KEY: LearntMemory(window(used(31)))}, {"m": [RoomOfSlots(MemoryRoom(24), ("cpu",))]})
    assert of_cpu.refusal(KEY, "gpu") is None and of_cpu.refusal(KEY, "cpu") is not None


def test_host_memory_is_refused_by_its_own_figures() -> None:
    refused = an_admission(window(used(31)), 80, host=window(MemoryUse(700, 1024))).refusal(KEY, "gpu")
    assert refused is not None and (refused.kind, refused.need_bytes, refused.largest_bytes) == ("host", 700, 512)


def test_jobs_are_told_apart_only_where_slots_differ_and_in_coarse_steps() -> None:
    small, large = 24_000, 80_000
    for peak in (31_001, 31_500, 31_744):
        assert an_admission(window(used(peak, large)), small, large).constraint(KEY, "gpu") == MemoryNeed(31_744)
    assert an_admission(window(used(79_900, large)), small, large).constraint(KEY, "gpu") == MemoryNeed(large)
    assert an_admission(window(used(31_001, large)), large).constraint(KEY, "gpu") is None
    assert an_admission(window(used(31_001, large)), small).constraint(KEY, "gpu") is None
    least = MemoryNeed(small + 1)
    nothing = Admission(0, {}, {"m": [RoomOfSlots(MemoryRoom(room)) for room in (small, large)]})
    found = nothing.constraint(KEY, "gpu", least)
    assert found is not None and small < found.accelerator_bytes <= small * 17 / 16


def test_what_is_learnt_is_kept_as_text() -> None:
    learnt = LearntMemory().after(1.5, JobMemory(used(31), MemoryUse(7, None))).after(2.5, JobMemory(lacked(24)))
    assert LearntMemory.from_text(learnt.to_text()) == learnt
    assert (len(learnt.accelerator.seen), len(learnt.host.seen)) == (2, 1)


@pytest.mark.parametrize("avoid", [frozenset[str](), frozenset({"slot:w/0", "box:b"})])
@pytest.mark.parametrize("need", [None, MemoryNeed(31, 0), MemoryNeed(0, 7)])
def test_a_constraint_class_is_one_text(avoid: frozenset[str], need: MemoryNeed | None) -> None:
    text = write_constraint(avoid, need)
    assert (read_avoid(text), read_memory(text)) == (avoid, need)
    assert (text == "") == (not avoid and need is None)
    lane = Lane("m", "run", "free", avoid=avoid, memory=need)
    assert Place("w", "0", "x").avoided_by(lane.avoid) == bool(avoid)
