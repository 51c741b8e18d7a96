"""The queue of a fleet when its server goes away, others claim at the same time, days pass, and snapshots are held."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest

from modelrepo.errors import Unreachable
from modelrepo_runtime.jobs import Cause, Claim, Outcome, StageNeed, Status, Submission
from modelrepo_runtime.queue.opening import open_queue
from modelrepo_runtime.queue.port import JobQueue, Offer, Session, WorkerInfo
from modelrepo_runtime.queue.postgres import partitions
from modelrepo_runtime.queue.postgres.connecting import TIMEOUTS, connect
from modelrepo_runtime.queue.postgres.database import ALONE
from modelrepo_runtime.queue.postgres.hints import Hints
from modelrepo_runtime.queue.postgres.migrating import migrate
from modelrepo_runtime.queue.postgres.queue import PostgresQueue
from modelrepo_runtime.testing.clock import FakeClock
from modelrepo_runtime.testing.postgres_server import Databases, PostgresServer

DONE = Outcome(Cause.SUCCEEDED, 1)
JOBS = 60
CLAIMERS = 4


@pytest.fixture
def own_server() -> Iterator[PostgresServer]:
    """A server that may be stopped."""
    with PostgresServer.start() as server:
        yield server


@pytest.fixture
def own_url(postgres_server: Databases) -> Iterator[str]:
    """A queue whose partitions may be dropped."""
    url = postgres_server.create_database()
    migrate(url)
    yield url
    postgres_server.drop_database(url)


def submit(queue: JobQueue, key: str | None = None) -> str:
    return queue.submit(Submission("m", {"n": 1}, (StageNeed("run"),)), idempotency_key=key).id


def begin(queue: JobQueue, name: str = "w") -> Session:
    return queue.hello(WorkerInfo(name, "box", 1, slots=("0",)))


def offer(limit: int = 1) -> list[Offer]:
    return [Offer("0", "m", "v1", ("run",), limit)]


def test_a_server_that_restarts_is_unreachable_meanwhile_and_all_goes_on_afterwards(own_server: PostgresServer) -> None:
    url = own_server.create_database()
    migrate(url)
    with closing(PostgresQueue(url)) as queue, closing(PostgresQueue(url)) as other:
        job, session = submit(queue), begin(queue)
        (claim,) = queue.claim(session, 1, offer())
        waiter = other.waiter(["m"])
        own_server.halt(signal.SIGQUIT)
        with pytest.raises(Unreachable):
            queue.finish(session, job, claim.fence, DONE)
        with pytest.raises(Unreachable):
            queue.get(job)
        own_server.resume()
        assert queue.claim(session, 1, offer()) == (claim,)
        assert queue.finish(session, job, claim.fence, DONE).status is Status.SUCCEEDED
        assert other.get(job).status is Status.SUCCEEDED
        until = time.monotonic() + 30
        heard = False
        while not heard and time.monotonic() < until:  # its connection is made again, in its own time
            submit(queue)
            heard = waiter.wait(1)
        assert heard
        waiter.close()


def test_jobs_that_many_processes_claim_at_once_are_each_claimed_once(postgres_url: str) -> None:
    queues = [PostgresQueue(postgres_url) for _ in range(2)]
    ids = {submit(queues[0]) for _ in range(JOBS)}
    taken: list[str] = []
    errors: list[BaseException] = []

    def work(queue: PostgresQueue, name: str) -> None:
        try:
            session, seq = begin(queue, name), 0
            while True:
                seq += 1
                claims = queue.claim(session, seq, offer(3))
                if not claims:
                    return
                for claim in claims:
                    taken.append(claim.job_id)
                    assert queue.finish(session, claim.job_id, claim.fence, DONE).status is Status.SUCCEEDED
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(queues[n % 2], f"w{n}")) for n in range(CLAIMERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not errors
    assert sorted(taken) == sorted(ids)
    for queue in queues:
        queue.close()


def test_a_finish_and_its_repeat_that_race_get_the_same_answer(postgres_url: str) -> None:
    with closing(PostgresQueue(postgres_url)) as queue, closing(PostgresQueue(postgres_url)) as other:
        session = begin(queue)
        for seq in range(10):
            submit(queue)
            (claim,) = queue.claim(session, seq, offer())
            answers: list[object] = []

            def finish(to: JobQueue, claim: Claim = claim, answers: list[object] = answers) -> None:
                answers.append(to.finish(session, claim.job_id, claim.fence, DONE))

            threads = [threading.Thread(target=finish, args=(to,)) for to in (queue, other)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(30)
            assert len(answers) == 2 and answers[0] == answers[1]
            assert [row.event for row in queue.history(claim.job_id)] == ["attempt"]


def test_who_stops_in_the_middle_of_a_transaction_lets_go_after_a_second(postgres_url: str) -> None:
    with closing(PostgresQueue(postgres_url)) as queue, connect(postgres_url, TIMEOUTS) as stopped:
        submit(queue)
        session = begin(queue)
        stopped.execute(ALONE.encode(), prepare=False)
        assert len(queue.claim(session, 1, offer())) == 1
        with pytest.raises(psycopg.errors.IdleInTransactionSessionTimeout):
            stopped.execute("select 1")


def test_a_wake_up_reaches_waiters_of_other_processes_but_not_more_than_twenty_a_second(postgres_url: str) -> None:
    with closing(open_queue(postgres_url)) as queue, closing(open_queue(postgres_url)) as other:
        waiter = other.waiter(["m"])
        waiter.wait(0)
        submit(queue)
        assert waiter.wait(5)
        with connect(postgres_url, {}) as listening:
            listening.execute("listen modelrepo")
            began = time.monotonic()
            for _ in range(30):
                submit(queue)
            took = time.monotonic() - began
            told = list(listening.notifies(timeout=0.3))
        assert 1 <= len(told) <= 2 + (took + 0.3) / 0.05
        waiter.close()


def test_days_are_dropped_once_nothing_in_them_waits_or_runs(own_url: str) -> None:
    clock = FakeClock()
    with closing(PostgresQueue(own_url, clock=clock)) as queue:
        session = begin(queue)
        ended = submit(queue, key="k")
        (claim,) = queue.claim(session, 1, offer())
        queue.finish(session, ended, claim.fence, DONE)
        clock.advance(partitions.DAY_S)
        waits = submit(queue)
        first, second = partitions.day_of(clock()) - 1, partitions.day_of(clock())
        clock.advance(40 * partitions.DAY_S)
        recent = submit(queue)
        assert first in queue.database.drop_partitions(clock() - partitions.DAY_S)
        assert [job.id for job in queue.list()] == [recent, waits]
        with connect(own_url, {}) as connection:
            assert second in partitions.days(connection) and first not in partitions.days(connection)
            assert partitions.day_of(clock()) in partitions.days(connection)
        queue.cancel(waits)
        assert second in queue.database.drop_partitions(clock() - partitions.DAY_S)
        assert [job.id for job in queue.list()] == [recent]
        assert submit(queue, key="k") not in (ended, recent)
        assert queue.database.drop_partitions(clock() - partitions.DAY_S) == []


def test_a_job_that_is_sent_back_while_its_day_is_dropped_is_gone_with_it(
    own_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeClock()
    with closing(PostgresQueue(own_url, clock=clock)) as queue:
        session = begin(queue)
        submit(queue)
        clock.advance(40 * partitions.DAY_S)
        monkeypatch.setattr(partitions, "_in_use", lambda *_: False)  # as it was a moment before
        queue.database.drop_partitions(clock() - partitions.DAY_S)
        recent = submit(queue)
        assert [claim.job_id for claim in queue.claim(session, 1, offer())] == [recent]


def test_what_comes_back_is_found_though_younger_jobs_were_claimed_meanwhile(postgres_url: str) -> None:
    clock = FakeClock()
    with closing(PostgresQueue(postgres_url, clock=clock)) as queue:
        queue.hints = Hints(lag_s=0.0)
        session = begin(queue)
        ids = [submit(queue) for _ in range(6)]
        first, *_younger = [queue.claim(session, seq, offer())[0] for seq in range(5)]
        queue.hand_back(session, first.job_id, first.fence, Cause.PREEMPTED)
        clock.advance(120)
        assert queue.claim(session, 10, offer())[0].job_id == ids[0]
        assert queue.claim(session, 11, offer())[0].job_id == ids[5]


def test_the_sweep_finds_what_was_committed_below_a_hint(postgres_url: str) -> None:
    with closing(PostgresQueue(postgres_url)) as queue:
        queue.hints = Hints(lag_s=0.0)
        session = begin(queue)
        late, *_ = [submit(queue) for _ in range(4)]
        with connect(postgres_url, {}) as connection:  # as if its transaction were not committed yet
            row = connection.execute(
                "delete from ready where tag = (select min(tag) from ready) returning *"
            ).fetchone()
            for seq in range(2):
                queue.claim(session, seq, offer())
            assert row is not None
            connection.execute("insert into ready values ($1, $2, $3, $4, $5, $6)", row)
        queue.sweep_hints()
        assert queue.claim(session, 5, offer())[0].job_id == late
