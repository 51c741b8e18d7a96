"""A second try after memory ran out has its slot for itself."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from modelrepo_runtime.jobs import Cause, JobError, Status
from modelrepo_runtime.supervision.spec import ChildOutcome, JobRequest
from modelrepo_runtime.worker.alone import WAITS_FOR

from .conftest import LIMIT_S, FakeChild, succeed

if TYPE_CHECKING:
    from .conftest import Bench


class Tries:
    """The first try of each job ends by `cause`; a second one is held until it is let go."""

    def __init__(self, bench: Bench, cause: Cause) -> None:
        self.second, self.let_go = threading.Event(), threading.Event()
        self._seen, self._cause = set[str](), cause
        bench.plant.behaviour = self

    def __call__(self, child: FakeChild, request: JobRequest) -> ChildOutcome:
        if request.job_id not in self._seen:
            self._seen.add(request.job_id)
            return ChildOutcome(self._cause, error=JobError(self._cause.value, "no"))
        self.second.set()
        assert self.let_go.wait(LIMIT_S)
        return succeed(child, request)


def second_try(bench: Bench, cause: Cause) -> tuple[Tries, str]:
    """A slot in the second try of a job whose first ended so."""
    tries = Tries(bench, cause)
    bench.slot()
    bench.target("v1")
    job = bench.submit()
    while not tries.second.wait(0.02):
        bench.queue.tend()
    return tries, job


def test_nothing_loads_beside_it_and_what_is_spare_was_given_back(bench: Bench) -> None:
    tries, job = second_try(bench, Cause.OUT_OF_MEMORY)
    (slot,) = bench.slots
    assert (slot.alone, bench.dropped) == (True, ["s0"])
    bench.target("v2")
    bench.until(slot, lambda slot: slot.incoming is not None and slot.incoming[1] == WAITS_FOR)
    assert len(bench.plant.children) == 1
    tries.let_go.set()
    assert bench.done(job).status is Status.SUCCEEDED
    bench.serves(slot, "v2")
    assert not slot.alone


def test_a_try_after_another_failure_is_like_any(bench: Bench) -> None:
    tries, job = second_try(bench, Cause.EXCEPTION)
    (slot,) = bench.slots
    assert (slot.alone, bench.dropped) == (False, [])
    bench.target("v2")
    bench.until(slot, lambda slot: slot.ready is not None)
    tries.let_go.set()
    assert bench.done(job).status is Status.SUCCEEDED


def test_another_target_drops_a_swap_that_waits_for_it(bench: Bench) -> None:
    tries, job = second_try(bench, Cause.OUT_OF_MEMORY)
    (slot,) = bench.slots
    bench.target("v2")
    bench.until(slot, lambda slot: slot.incoming is not None and slot.incoming[1] == WAITS_FOR)
    bench.target("v3")
    tries.let_go.set()
    bench.serves(slot, "v3")
    assert [child.spec.version for child in bench.plant.children] == ["v1", "v3"]
    assert bench.done(job).status is Status.SUCCEEDED
