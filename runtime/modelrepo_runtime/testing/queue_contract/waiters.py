"""Waiters: woken by what concerns them."""

from __future__ import annotations

import threading

from modelrepo_runtime.testing.queue_contract.bench import Bench


class WaiterContract:
    def test_a_waiter_is_woken_by_a_ready_job_of_its_model(self, bench: Bench) -> None:
        waiter = bench.queue.waiter(["m"])
        bench.submit("other")
        assert not waiter.wait(0.01)
        bench.submit()
        assert waiter.wait(5)
        assert not waiter.wait(0.01)
        waiter.close()
        waiter.close()

    def test_a_waiter_is_woken_when_its_job_changes(self, bench: Bench) -> None:
        job, session = bench.submit(), bench.worker()
        waiter = bench.queue.waiter(jobs=[job.id])
        claim = bench.claim_one(session)
        assert waiter.wait(5)
        bench.queue.progress(job.id, claim.fence, 0.5, None)
        assert waiter.wait(5)
        bench.finish(session, claim)
        assert waiter.wait(5)
        waiter.close()

    def test_a_waiter_can_be_woken_by_hand_and_gives_up_after_the_poll_interval(self, bench: Bench) -> None:
        waiter = bench.queue.waiter(["m"])
        threading.Timer(0.01, waiter.wake).start()
        assert waiter.wait(5) or waiter.wait(5)
        assert not waiter.wait(60)
        waiter.close()
