"""The next job's inputs come while one runs."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING

from modelrepo_runtime.jobs import Claim, Fence, Status
from modelrepo_runtime.worker.pace import Pace

if TYPE_CHECKING:
    from modelrepo_runtime.worker.slot import Slot
    from tests.unit.worker.conftest import Bench

CLAIM = Claim("job_1", Fence(1, "a"), "m", "v1", "run", 0, True, 1, {}, None, "free", 0.0, 5.0, 0.0)


def running(bench: Bench, fetch_s: float = 10.0) -> tuple[Slot, str, str]:
    """A slot that runs a job behind a gate, and a job that waits; fetches are known to be slow."""
    bench.plant.gates["g"] = threading.Event()
    slot = bench.slot()
    slot.parts.attempts.pace.fetched(CLAIM, fetch_s)
    slot.parts.attempts.pace.ran(CLAIM, 1.0)
    bench.target("v1")
    first = bench.submit(gate="g")
    bench.until(slot, lambda slot: slot.held is not None)
    return slot, first, bench.submit()


def staged(bench: Bench, slot: Slot, job: str) -> bool:
    return any(held.claim.job_id == job and held.claim.staged for held in bench.session.holds())


def test_the_next_job_is_staged_before_the_end_and_begins_with_the_finish(bench: Bench) -> None:
    slot, first, second = running(bench)
    bench.until(slot, lambda slot: staged(bench, slot, second))
    assert bench.queue.get(second).status is Status.QUEUED
    bench.plant.gates["g"].set()
    assert bench.done(first).status is bench.done(second).status is Status.SUCCEEDED
    assert [row.attempt for row in bench.queue.history(second) if row.event == "attempt"] == [1]


def test_nothing_is_staged_where_inputs_come_at_once(bench: Bench) -> None:
    slot, first, second = running(bench, fetch_s=0.001)
    bench.session.tell_soon()
    assert not staged(bench, slot, second)
    bench.plant.gates["g"].set()
    assert bench.done(first).status is bench.done(second).status is Status.SUCCEEDED


def test_a_free_slot_takes_what_another_has_staged(bench: Bench) -> None:
    slot, first, second = running(bench)
    bench.until(slot, lambda slot: staged(bench, slot, second))
    other = bench.slot("s1")
    other.set_target(replace(slot.target) if slot.target else bench.target("v1"))
    assert bench.done(second).status is Status.SUCCEEDED
    assert {row.slot for row in bench.queue.history(second) if row.event == "attempt"} == {"w/s1"}
    bench.plant.gates["g"].set()
    assert bench.done(first).status is Status.SUCCEEDED


def test_a_slot_that_leaves_gives_its_staged_job_back(bench: Bench) -> None:
    slot, first, second = running(bench)
    bench.until(slot, lambda slot: staged(bench, slot, second))
    slot.leave()
    bench.plant.gates["g"].set()
    assert bench.done(first).status is Status.SUCCEEDED
    assert bench.left()
    assert bench.queue.get(second).status is Status.QUEUED
    assert not bench.session.holds()


def test_a_slot_predicts_by_progress_else_by_what_it_has_seen() -> None:
    pace = Pace()
    assert pace.rest_s(CLAIM, 5.0, None) is None
    assert pace.rest_s(CLAIM, 5.0, 0.5) == 5.0
    pace.ran(CLAIM, 10.0)
    pace.ran(CLAIM, 20.0)
    assert pace.rest_s(CLAIM, 5.0, None) == 8.0
    assert pace.rest_s(CLAIM, 50.0, None) == 0.0
    assert pace.fetch_s("m", "run") is None
