"""PostgreSQL while users cancel and delete, boxes swap and senders deliver: nobody stops the queue, all is exact."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress

import psycopg
import pytest

from modelrepo.errors import Conflict, JobNotFound
from modelrepo_runtime.jobs import Cause, Outcome, Status, Submission, Webhook
from modelrepo_runtime.queue.orders import OrderDone, OrderDraft, Verb
from modelrepo_runtime.queue.port import JobQueue, WorkerInfo
from modelrepo_runtime.queue.postgres.queue import PostgresQueue
from modelrepo_runtime.testing.queue_contract.bench import SUCCEEDED, TWO_STAGES, offer_of
from modelrepo_runtime.timing import Timing

ROUNDS = 15
HOOK = Webhook("https://example.com/hook", "whsec_" + "A" * 32)


@contextmanager
def somebody_shares(url: str) -> Iterator[None]:
    """Hold the queue's lock as every claim and finish does, in a transaction that goes on."""
    with psycopg.connect(url) as connection:
        connection.execute(f"select pg_advisory_xact_lock_shared({0x6D720000}, 0)")
        yield


def test_ordinary_calls_wait_for_no_other(postgres_url: str) -> None:
    with closing(PostgresQueue(postgres_url, Timing())) as queue:
        session = queue.hello(WorkerInfo("w", "box", 1, slots=("0",)))
        (order,) = queue.give_orders([OrderDraft("w", Verb.RESTART)])
        jobs = [queue.submit(Submission("m", {}, TWO_STAGES, webhook=HOOK)).id for _ in range(3)]
        (claim,) = queue.claim(session, 0, [offer_of(stages=("prepare",))])
        with somebody_shares(postgres_url):
            assert queue.cancel(jobs[1]).status is Status.CANCELLED
            assert queue.cancel(claim.job_id).cancel_requested
            queue.delete(jobs[1])
            queue.delete(jobs[2])
            assert queue.take_turn("m", "a", 1, "1", 10.0) and queue.renew_turn("m", "a", 10.0)
            queue.end_turn("m", "a")
            queue.confirm_orders(session, [OrderDone(order.order.id)])
            (delivery,) = queue.take_deliveries("sender", 10)
            assert queue.drop_deliveries(delivery.job.id, "gone") == 1
        assert queue.finish(session, claim.job_id, claim.fence, SUCCEEDED).status is Status.CANCELLED


def test_a_finish_that_waits_for_a_cancellation_heeds_it(postgres_url: str) -> None:
    with ExitStack() as stack:
        queue = stack.enter_context(closing(PostgresQueue(postgres_url, Timing())))
        look = stack.enter_context(psycopg.connect(postgres_url, autocommit=True))
        queue.submit(Submission("m", {}, TWO_STAGES))
        session = queue.hello(WorkerInfo("w", "box", 1))
        (claim,) = queue.claim(session, 0, [offer_of(stages=("prepare",))])
        cancelling = stack.enter_context(psycopg.connect(postgres_url))  # as `cancel`, short of its commit
        cancelling.execute("update lease set cancelled = 1")
        found: list[Status] = []
        finish = threading.Thread(
            target=lambda: found.append(queue.finish(session, claim.job_id, claim.fence, SUCCEEDED).status)
        )
        finish.start()
        waits = "select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
        while finish.is_alive() and look.execute(waits).fetchone() is None:
            finish.join(0.01)
        cancelling.commit()
        finish.join(30)
        assert found == [Status.CANCELLED]


def work(queue: JobQueue, number: int, lots: random.Random) -> None:
    session = queue.hello(WorkerInfo(f"w{number}", f"box{number}", 1))
    offer = offer_of(stages=("prepare", "generate"), limit=3)
    for turn in range(ROUNDS):
        for claim in queue.claim(session, turn, [offer]):
            cause = lots.choice([Cause.SUCCEEDED, Cause.SUCCEEDED, Cause.PREEMPTED])
            outcome = Outcome(cause, counted=cause is Cause.SUCCEEDED)
            then = offer if lots.random() < 0.5 else None
            reply = queue.finish(session, claim.job_id, claim.fence, outcome, then=then)
            if reply.next is not None:
                queue.finish(session, reply.next.job_id, reply.next.fence, SUCCEEDED)


def end_jobs(queue: JobQueue, number: int, lots: random.Random) -> None:
    for _turn in range(ROUNDS):
        names = [job.id for job in queue.list()]
        with suppress(JobNotFound, Conflict):
            (queue.cancel if number % 2 else queue.delete)(lots.choice(names))
        queue.submit(Submission("m", {"by": number}, TWO_STAGES))


CONSISTENT = {
    "no job both waits, runs or has ended": """
        select job from (select job from ready union all select job from delayed union all select job from lease
          union all select job from done) as places group by job having count(*) > 1""",
    "every job is somewhere": """
        select id from job where not exists (select 1 from ready where job = job.id)
          and not exists (select 1 from delayed where delayed.job = job.id)
          and not exists (select 1 from lease where lease.job = job.id)
          and not exists (select 1 from done where done.job = job.id)""",
    "nothing waits without its job": """
        select job from (select job from ready union all select job from delayed union all select job from lease)
          as places where not exists (select 1 from job where job.id = places.job)""",
    "no mark is left of what has ended": "select job from cancel join done using (job)",
}


def test_jobs_are_in_one_place_whoever_claims_finishes_cancels_and_deletes(postgres_url: str) -> None:
    timing, faults = Timing(), list[BaseException]()
    with closing(PostgresQueue(postgres_url, timing)) as queue:
        for number in range(40):
            queue.submit(Submission("m", {"n": number}, TWO_STAGES))

        def run(act: Callable[[JobQueue, int, random.Random], None], number: int) -> None:
            try:
                with closing(PostgresQueue(postgres_url, timing)) as own:
                    act(own, number, random.Random(number))
            except BaseException as error:
                faults.append(error)

        acts = [work, work, end_jobs, end_jobs]
        threads = [threading.Thread(target=run, args=(act, number)) for number, act in enumerate(acts)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not faults, faults
    with psycopg.connect(postgres_url) as look:
        for promise, broken in CONSISTENT.items():
            assert look.execute(broken.encode()).fetchall() == [], promise


@pytest.mark.parametrize("limit", [1, 3])
def test_no_more_slots_than_allowed_have_a_turn(postgres_url: str, limit: int) -> None:
    with ExitStack() as stack:
        queues = [stack.enter_context(closing(PostgresQueue(postgres_url, Timing()))) for _ in range(6)]
        got: list[int] = []

        def ask(number: int) -> None:
            if queues[number].take_turn("m", f"s{number}", 6, str(limit), 60.0):
                got.append(number)

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(got) == limit
