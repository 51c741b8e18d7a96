"""Who may take a lane's jobs."""

from __future__ import annotations

from modelrepo_runtime.queue.lanes import Lane, LiveSlot, Place, admits

HERE, THERE = Place("w1", "0", "box1"), Place("w2", "0", "box2")


def test_nobody_looks_at_the_fleet_for_a_slot_that_no_job_avoids() -> None:
    def fleet() -> list[LiveSlot]:
        raise AssertionError("thousands of slots were read for nothing")

    assert admits(Lane("m", "run", "free"), HERE, fleet)
    assert admits(Lane("m", "run", "free", avoid=frozenset({"slot:w2/0"})), HERE, fleet)


def test_a_slot_that_jobs_avoid_takes_them_only_where_no_other_may() -> None:
    avoided = Lane("m", "run", "free", avoid=frozenset({"slot:w1/0"}))
    assert admits(avoided, HERE, lambda: [LiveSlot(HERE, "open", "m", "v1")])
    assert not admits(avoided, HERE, lambda: [LiveSlot(HERE, "open", "m", "v1"), LiveSlot(THERE, "open", "m", "v1")])
