"""What an attempt's measured memory makes of what the queue is told."""

from __future__ import annotations

import pytest

from modelrepo_runtime.job_memory import JobMemory, MemoryNeed, MemoryRoom, MemoryUse, shown_need
from modelrepo_runtime.jobs import Cause
from modelrepo_runtime.supervision.spec import ChildOutcome, Lacked, MemoryPeaks
from modelrepo_runtime.worker.measured import memory_of

ROOM = MemoryRoom(24, 64)


def test_a_job_that_succeeded_is_told_with_what_its_slot_has() -> None:
    told = memory_of(ChildOutcome(Cause.SUCCEEDED, memory=MemoryPeaks(20, 7)), ROOM)
    assert told == JobMemory(MemoryUse(20, 24), MemoryUse(7, 64))
    assert shown_need(told) == MemoryNeed()


@pytest.mark.parametrize(
    ("lacked", "peaks", "need"),
    [
        (Lacked.ACCELERATOR, (20, 7), MemoryNeed(25, 0)),
        (Lacked.ACCELERATOR, (None, None), MemoryNeed(25, 0)),
        (Lacked.HOST, (20, 7), MemoryNeed(0, 65)),
        (None, (20, 7), MemoryNeed()),
    ],
)
def test_one_that_ran_out_needs_more_than_its_slot_has(
    lacked: Lacked | None, peaks: tuple[int | None, int | None], need: MemoryNeed
) -> None:
    told = memory_of(ChildOutcome(Cause.OUT_OF_MEMORY, memory=MemoryPeaks(*peaks, lacked)), ROOM)
    assert shown_need(told) == need
    assert (told is None) == (lacked is None)


def test_other_ends_and_what_was_not_measured_tell_nothing() -> None:
    assert memory_of(ChildOutcome(Cause.EXCEPTION, memory=MemoryPeaks(20, 7)), ROOM) is None
    assert memory_of(ChildOutcome(Cause.SUCCEEDED), ROOM) is None
