"""Credits on PostgreSQL while everybody claims, finishes, hands back and cancels at once."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from contextlib import closing, suppress

import psycopg

from modelrepo.errors import ModelRepoError
from modelrepo_runtime.jobs import Cause, Outcome, Submission
from modelrepo_runtime.queue.credits import limit
from modelrepo_runtime.queue.port import JobQueue, Session, SlotReport, WorkerInfo
from modelrepo_runtime.queue.postgres.queue import PostgresQueue
from modelrepo_runtime.testing.queue_contract.bench import SUCCEEDED, offer_of
from modelrepo_runtime.testing.queue_contract.credits import CPU, GPU, PLAN
from modelrepo_runtime.timing import Timing

ROUNDS = 20
SLOTS = 4


def a_box(queue: JobQueue, name: str, on: tuple[str, ...]) -> Session:
    session = queue.hello(WorkerInfo(name, name, 1, "c", tuple(map(str, range(SLOTS)))))
    slots = SLOTS if on == GPU else 1
    queue.beat(session, (), [SlotReport(str(slot), "open", "m", "v1", on=on) for slot in range(slots)])
    return session


def prepare(queue: JobQueue, number: int, _: random.Random) -> None:
    session = a_box(queue, f"cpu{number}", CPU)
    offer = offer_of(stages=("prepare", "finish"), plan=PLAN, limit=2)
    for turn in range(ROUNDS):
        for claim in queue.claim(session, turn, [offer]):
            queue.finish(session, claim.job_id, claim.fence, SUCCEEDED)


def generate(queue: JobQueue, number: int, lots: random.Random) -> None:
    session = a_box(queue, f"gpu{number}", GPU)
    offer = offer_of(stages=("generate",), plan=PLAN, limit=2)
    for turn in range(ROUNDS):
        for claim in queue.claim(session, turn, [offer]):
            if lots.random() < 0.3:
                queue.hand_back(session, claim.job_id, claim.fence, Cause.PREEMPTED)
            else:
                queue.finish(session, claim.job_id, claim.fence, Outcome(Cause.SUCCEEDED))


def cancel(queue: JobQueue, number: int, lots: random.Random) -> None:
    for _turn in range(ROUNDS):
        jobs = queue.list()
        with suppress(ModelRepoError):
            queue.cancel(lots.choice([job.id for job in jobs]))
        queue.submit(Submission("m", {"by": number}, PLAN))


def test_counts_agree_with_rows_and_the_limit_holds(postgres_url: str) -> None:
    timing, faults = Timing(), list[BaseException]()
    with closing(PostgresQueue(postgres_url, timing)) as queue, psycopg.connect(postgres_url, autocommit=True) as look:
        for number in range(100):
            queue.submit(Submission("m", {"n": number}, PLAN))

        def run(work: Callable[[JobQueue, int, random.Random], None], number: int) -> None:
            try:
                with closing(PostgresQueue(postgres_url, timing)) as own:
                    work(own, number, random.Random(number))
            except BaseException as error:
                faults.append(error)

        works = [prepare, prepare, generate, generate, cancel]
        threads = [threading.Thread(target=run, args=(work, number)) for number, work in enumerate(works)]
        for thread in threads:
            thread.start()
        most = 0
        while any(thread.is_alive() for thread in threads):
            row = look.execute("select count(*) from credit").fetchone()
            most = max(most, row[0] if row else 0)
            threads[0].join(0.01)
        assert not faults, faults
        assert 0 < most <= limit(2 * SLOTS) + 2 * 2 * SLOTS
        rows = look.execute("select count(*) from credit").fetchone()
        counts = look.execute("select held from credit_count order by seq desc").fetchall()
        assert rows is not None and [count[0] for count in counts] == [rows[0]]
