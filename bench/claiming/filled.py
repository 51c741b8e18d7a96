"""Queues that are filled behind their back, and what is spent in their databases."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

import psycopg

from modelrepo_runtime.jobs import StageNeed
from modelrepo_runtime.queue.port import JobQueue
from modelrepo_runtime.queue.postgres import partitions
from modelrepo_runtime.queue.postgres.database import PostgresDatabase
from modelrepo_runtime.queue.postgres.migrating import migrate
from modelrepo_runtime.queue.postgres.queue import PostgresQueue
from modelrepo_runtime.queue.postgres.runner import Runner
from modelrepo_runtime.queue.relational.transaction import Transaction
from modelrepo_runtime.queue.sqlite.queue import SqliteQueue
from modelrepo_runtime.queue.sqlite.statements import SqliteStatements
from modelrepo_runtime.queue.steps import write_stages
from modelrepo_runtime.testing.postgres_server import PostgresServer
from modelrepo_runtime.timing import Timing

MODEL, STAGE = "m", "run"
STAGES = write_stages((StageNeed(STAGE),))
CHUNK = 100_000
APART_S = 1e-4
"""Between the submissions of two jobs that are filled in."""


class Filled(Protocol):
    """A queue on one model, with as many tiers as lanes."""

    queue: JobQueue
    size: int
    """Jobs that it was first filled with."""
    waiting: int

    def fill(self, jobs: int) -> None:
        """Add waiting jobs, spread over all lanes."""

    def settle(self) -> None:
        """Leave nothing over from the filling that would disturb what is measured."""

    def in_database_s(self) -> float:
        """Return the seconds that were spent in the database so far."""

    def hold_snapshot(self) -> Callable[[], None]:
        """See the queue as it is now until what is returned is called."""

    def close(self) -> None: ...


class OnPostgres:
    """See Filled."""

    def __init__(self, server: PostgresServer, lanes: int) -> None:
        self.url, self.size, self.waiting = server.create_database(), 0, 0
        migrate(self.url)
        self._sql = psycopg.connect(self.url, autocommit=True)
        self._lanes = lanes
        self._sql.execute("insert into tier select 't' || n, 60 + n, 0.1, 0 from generate_series(1, %s) as n", (lanes,))
        self._sql.execute(
            "insert into lane (model, stage, tier, version, avoid, cluster, over)"
            " select %s, %s, 't' || n, '', '', '', 0 from generate_series(1, %s) as n",
            (MODEL, STAGE, lanes),
        )
        self._database = _TimedDatabase(self.url)
        self.queue = PostgresQueue(self._database, Timing())

    def fill(self, jobs: int) -> None:
        """See Filled."""
        now = time.time()
        day = partitions.day_of(now) << partitions.DAY_SHIFT
        self._sql.execute(_FILL, (self._lanes, now, APART_S, day, jobs, MODEL, STAGES))
        self.size, self.waiting = self.size or jobs, self.waiting + jobs

    def settle(self) -> None:
        """See Filled."""
        self._sql.execute("vacuum (analyze)")
        self._sql.execute("checkpoint")

    def in_database_s(self) -> float:
        """See Filled."""
        return sum(timed.spent_s for timed in self._database.timed)

    def hold_snapshot(self) -> Callable[[], None]:
        """See Filled."""
        holder = psycopg.connect(self.url)
        holder.execute("set transaction isolation level repeatable read")
        holder.execute("select count(*) from tier")
        return holder.close

    def close(self) -> None:
        self._sql.close()
        self.queue.close()


class OnSqlite:
    """See Filled."""

    def __init__(self, path: Path, lanes: int) -> None:
        self.path, self._lanes, self.size, self.waiting = path, lanes, 0, 0
        self.queue = SqliteQueue(path, Timing.embedded())
        self._next = 1
        self._write("insert into tier (name, slo_s, allowed_miss, is_default) values (?, ?, 0.1, 0)", _tiers(lanes))
        self._write(_LANE, [(number, MODEL, STAGE, f"t{number}") for number in range(1, lanes + 1)])

    def fill(self, jobs: int) -> None:
        """See Filled."""
        now, first = time.time(), self._next
        self._next += jobs
        self.size, self.waiting = self.size or jobs, self.waiting + jobs
        for begin in range(first, self._next, CHUNK):
            count = min(CHUNK, self._next - begin)
            given = (begin, begin + count - 1, self._lanes, now + (begin - first) * APART_S, APART_S)
            self._write(_JOB, [(*given, MODEL, STAGES)])
            self._write(_PAYLOAD, [given])
            self._write(_READY, [given])

    def _write(self, text: str, rows: list[tuple[Any, ...]]) -> None:
        def work(tx: Transaction) -> None:
            assert isinstance(tx.statements, SqliteStatements)
            tx.statements.connection.executemany(text, rows)

        self.queue.database.write(work)

    def settle(self) -> None:
        """See Filled."""
        with closing(sqlite3.connect(self.path)) as connection:
            connection.execute("analyze")
            connection.execute("pragma wal_checkpoint(truncate)")

    def in_database_s(self) -> float:
        """See Filled. SQLite runs in the process: all of it is spent there."""
        return time.perf_counter()

    def hold_snapshot(self) -> Callable[[], None]:
        """See Filled."""
        holder = sqlite3.connect(self.path, isolation_level=None)
        holder.execute("begin")
        holder.execute("select count(*) from tier").fetchone()
        return holder.close

    def close(self) -> None:
        self.queue.close()


def _tiers(lanes: int) -> list[tuple[Any, ...]]:
    return [(f"t{number}", 60.0 + number) for number in range(1, lanes + 1)]


class _TimedLibpq:
    """Counts the time of a connection's calls."""

    def __init__(self, libpq: Any) -> None:
        self._libpq, self.spent_s = libpq, 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._libpq, name)

    def exec_(self, *values: Any) -> Any:
        return self._timed(self._libpq.exec_, values)

    def exec_prepared(self, *values: Any) -> Any:
        return self._timed(self._libpq.exec_prepared, values)

    def _timed(self, call: Callable[..., Any], values: tuple[Any, ...]) -> Any:
        began = time.perf_counter()
        try:
            return call(*values)
        finally:
            self.spent_s += time.perf_counter() - began


class _TimedDatabase(PostgresDatabase):
    """Measures what is spent in the server and on the way to it."""

    def __init__(self, url: str) -> None:
        self.timed: list[_TimedLibpq] = []
        super().__init__(url)

    def _open(self) -> Runner:
        runner = super()._open()
        timed = _TimedLibpq(runner._libpq)
        runner._libpq = timed  # type: ignore[assignment]
        self.timed.append(timed)
        return runner


_NUMBERED = """
with recursive numbers (n) as (values (?1) union all select n + 1 from numbers where n < ?2),
  numbered (n, lane, at) as (select n, n % ?3 + 1, ?4 + (n - ?1) * ?5 from numbers)
"""
_JOB = f"""
insert into job (id, name, model, tier, tenant, created, enqueued, stages, metadata, tag) {_NUMBERED}
select n, 'job_' || n, ?6, 't' || lane, 'default', at, at, ?7, '{{}}', at from numbered
"""
_LANE = "insert into lane (id, model, stage, tier, version, avoid, cluster, over) values (?, ?, ?, ?, '', '', '', 0)"
_PAYLOAD = f"""insert into payload (job, inputs, files) {_NUMBERED} select n, '{{"n": 1}}', '{{}}' from numbered"""
_READY = f"""
insert into ready (lane, tag, job, enqueued, stage_index, attempt) {_NUMBERED}
select lane, at, n, at, 0, 1 from numbered order by lane, at
"""
_FILL = """
with asked as materialized (
  select %s::bigint as lanes, %s::double precision as now, %s::double precision as apart, %s::bigint as day,
    (select min(id) from lane) as first
), numbered as materialized (
  select day | nextval('job_number') as id, n, now + n * apart as at, n %% lanes as place, first
  from asked, generate_series(1, %s) as n
), jobs as (
  insert into job (id, name, model, tier, tenant, created, enqueued, stages, metadata, tag)
  select id, 'job_' || id, %s, 't' || (place + 1), 'default', at, at, %s, '{}', at from numbered
), payloads as (
  insert into payload (job, inputs, files) select id, '{"n": 1}', '{}' from numbered
)
insert into ready (lane, tag, job, enqueued, stage_index, attempt) select first + place, at, id, at, 0, 1 from numbered
"""
