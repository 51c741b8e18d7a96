"""What is read of a long queue, and what outlives its job."""

from __future__ import annotations

from contextlib import closing

import pytest

from modelrepo.errors import InvalidInput
from modelrepo_runtime.jobs import StageNeed, Submission
from modelrepo_runtime.queue.memory import MemoryQueue
from modelrepo_runtime.queue.port import Offer, WorkerInfo
from modelrepo_runtime.queue.relational import forecasting
from modelrepo_runtime.queue.relational.transaction import Transaction
from modelrepo_runtime.queue.tokens import Grant, Role
from modelrepo_runtime.testing.clock import FakeClock


def submit(queue: MemoryQueue, clock: FakeClock, number: int, tenant: str = "default") -> list[str]:
    names = []
    for _ in range(number):
        names.append(queue.submit(Submission("m", {}, (StageNeed("run"),), tenant=tenant)).id)
        clock.advance(1)
    return names


def test_a_long_lane_is_counted_to_a_limit_and_then_estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecasting, "COUNTED_TO", 10)
    clock = FakeClock()
    with closing(MemoryQueue("memory://long-lane", clock=clock)) as queue:
        submit(queue, clock, 10)
        (lane,) = queue.queue_report().lanes
        assert (lane.waiting, lane.more_than) == (10, None)
        submit(queue, clock, 31)
        (lane,) = queue.queue_report().lanes
        assert (lane.waiting, lane.more_than) == (40, 10)


def test_a_row_whose_job_is_gone_is_left_out_of_a_claim() -> None:
    clock = FakeClock()
    with closing(MemoryQueue("memory://gone-job", clock=clock)) as queue:
        gone, there = submit(queue, clock, 2)

        def forget(tx: Transaction) -> None:
            number = tx.only("job_row", gone)["id"]
            tx.run("payload_delete", number)
            tx.run("job_delete", number)

        queue.database.write(forget)
        session = queue.hello(WorkerInfo("w", "box", 1))
        offers = [Offer("0", "m", "v1", ("run",), 2)]
        assert [claim.job_id for claim in queue.claim(session, 0, offers)] == [there]
        assert queue.claim(session, 1, offers) == ()


def test_waiting_jobs_of_a_tenant_are_counted_whatever_has_ended_before_them() -> None:
    clock = FakeClock()
    with closing(MemoryQueue("memory://tenant-room", clock=clock)) as queue:
        assert queue.tokens.waiting("acme", 9) == 0
        for name in submit(queue, clock, 3, "acme"):
            queue.cancel(name)
        assert queue.tokens.waiting("acme", 9) == 0
        submit(queue, clock, 1, "other")
        submit(queue, clock, 2, "acme")
        assert (queue.tokens.waiting("acme", 9), queue.tokens.waiting("other", 9)) == (2, 1)


def test_a_token_is_only_made_for_tiers_that_there_are() -> None:
    with closing(MemoryQueue("memory://token-tiers")) as queue:
        with pytest.raises(InvalidInput, match="did you mean free"):
            queue.tokens.create("shop", Grant(Role.SUBMIT, "acme", ("fre",)))
        assert queue.tokens.all() == ()
