"""Credits as rows, looked at behind the queue's back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from modelrepo_runtime.queue.credits import CreditKey, limit
from modelrepo_runtime.queue.memory import MemoryQueue
from modelrepo_runtime.queue.relational import crediting
from modelrepo_runtime.queue.relational.transaction import Transaction
from modelrepo_runtime.testing.clock import FakeClock
from modelrepo_runtime.testing.queue_contract.bench import Bench, Rows
from modelrepo_runtime.testing.queue_contract.credits import CPU, GPU, a_box, generates, prepared, prepares, waiting
from modelrepo_runtime.timing import Timing

KEY = CreditKey("c", "m", "v1")


@pytest.fixture
def bench() -> Iterator[Bench]:
    clock, timing = FakeClock(), Timing.embedded()
    with closing(MemoryQueue("memory://credit-rows", timing, clock=clock)) as queue:
        yield Bench(queue, clock, lambda: Rows(0, 0, 0, 0), timing)


def counted(bench: Bench) -> int:
    assert isinstance(bench.queue, MemoryQueue)
    return bench.queue.database.read(lambda tx: crediting.count(tx, KEY))


def rows_of(bench: Bench) -> list[tuple[int, int]]:
    assert isinstance(bench.queue, MemoryQueue)
    found = bench.queue.database.read(lambda tx: tx.rows("credits_counted", 1e18))
    return [(row["seq"], row["held"]) for row in found]


def miscount(bench: Bench, held: int) -> None:
    def work(tx: Transaction) -> None:
        tx.run("credit_count_insert", "c", "m", "v1", 1000, held, tx.now)

    assert isinstance(bench.queue, MemoryQueue)
    bench.queue.database.write(work)


def test_the_count_is_one_row_and_moves_with_the_credits(bench: Bench) -> None:
    waiting(bench, 5)
    cpu, gpu = a_box(bench, "cpu", CPU), a_box(bench, "gpu", GPU)
    prepared(bench, cpu)
    assert (counted(bench), len(rows_of(bench))) == (2, 1)
    bench.claim(gpu, generates())
    assert (counted(bench), len(rows_of(bench))) == (1, 1)


def test_a_count_that_is_wrong_is_put_right_within_the_hour(bench: Bench) -> None:
    waiting(bench, 9)
    cpu = a_box(bench, "cpu", CPU)
    a_box(bench, "gpu", GPU)
    prepared(bench, cpu)
    miscount(bench, 77)
    bench.queue.tend()
    assert counted(bench) == 77
    bench.clock.advance(crediting.AUDITED_EVERY_S + 1)
    bench.queue.tend()
    assert (counted(bench), len(rows_of(bench))) == (2, 1)
    (event,) = bench.queue.fleet_events(kind="credits_corrected")
    assert (event.model, event.version) == ("m", "v1") and "77" in event.text


def test_a_key_that_nobody_uses_is_forgotten(bench: Bench) -> None:
    jobs = waiting(bench, 2)
    cpu = a_box(bench, "cpu", CPU)
    a_box(bench, "gpu", GPU)
    prepared(bench, cpu)
    bench.clock.advance(1)
    for job in jobs:
        bench.queue.cancel(job)
    assert rows_of(bench) != [] and counted(bench) == 0
    bench.clock.advance(crediting.AUDITED_EVERY_S + 1)
    bench.queue.tend()
    assert rows_of(bench) == []


def test_lost_accelerators_never_bring_more_than_twice_the_slots_over_the_limit(bench: Bench) -> None:
    waiting(bench, 60)
    cpu, gpu = a_box(bench, "cpu", CPU), a_box(bench, "gpu", GPU, slots=3)
    for _ in range(8):
        prepared(bench, cpu)
        taken = bench.claim(gpu, generates(3))
        prepared(bench, cpu)
        bench.queue.expire_session(gpu.id, bench.queue.beats()[gpu.id])
        assert len(taken) == 3 and counted(bench) <= limit(3) + 2 * 3
        bench.clock.advance(60)
        gpu = a_box(bench, "gpu", GPU, slots=3)
        bench.claim(cpu, prepares(1))
