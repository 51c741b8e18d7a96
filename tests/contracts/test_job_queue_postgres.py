"""The queue of a fleet keeps the contract on a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest

from modelrepo_runtime.queue.port import JobQueue
from modelrepo_runtime.queue.postgres.feeding import Feeding
from modelrepo_runtime.queue.postgres.hints import Hints
from modelrepo_runtime.queue.postgres.queue import PostgresQueue
from modelrepo_runtime.testing.clock import FakeClock
from modelrepo_runtime.testing.queue_contract import JobQueueContract, Peek, Rows
from modelrepo_runtime.timing import Timing

COUNTS = """
select (select count(*) from ready), (select count(*) from delayed),
  (select count(*) from lease), (select count(*) from done)
"""


def peek_at(url: str) -> Peek:
    def peek() -> Rows:
        with psycopg.connect(url) as connection:
            counts = connection.execute(COUNTS).fetchone()
        assert counts is not None
        return Rows(*counts)

    return peek


class TestPostgresQueue(JobQueueContract):
    @pytest.fixture
    def opened(self, postgres_url: str, clock: FakeClock, timing: Timing) -> Iterator[tuple[JobQueue, Peek]]:
        with closing(PostgresQueue(postgres_url, timing, clock)) as queue:
            queue.hints = Hints(lag_s=0.0)  # so that claims begin where the last one saw the first row
            queue.feeding = Feeding(kept_s=0.0)
            yield queue, peek_at(postgres_url)
