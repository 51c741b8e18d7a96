"""Other ways to keep jobs on the same PostgreSQL: one plain statement, procrastinate and PgQueuer."""

from __future__ import annotations

import asyncio
import time
from statistics import median
from typing import cast

import procrastinate
import psycopg
from pgqueuer import QueueManager
from pgqueuer.adapters.drivers.psycopg import PsycopgDriver
from pgqueuer.queries import Queries
from pgqueuer.types import QueueExecutionMode
from procrastinate.types import JSONValue

from modelrepo_runtime.testing.postgres_server import PostgresServer

NAIVE = """
with chosen as (
  select id from waiting order by (%s - enqueued) / slo_s desc limit %s for update skip locked
)
delete from waiting using chosen where waiting.id = chosen.id returning waiting.id
"""


def naive_p50_s(server: PostgresServer, jobs: int, rounds: int, batch: int) -> float:
    """Claim by the exact share of the SLO with one statement over one table."""
    with psycopg.connect(server.create_database(), autocommit=True) as connection:
        connection.execute("create table waiting (id bigint primary key, enqueued float8, slo_s float8)")
        connection.execute(
            "insert into waiting select n, n * 1e-4, 60 + n %% 20 from generate_series(1, %s) as n", (jobs,)
        )
        connection.execute("vacuum (analyze) waiting")
        times = []
        for _ in range(rounds):
            began = time.perf_counter()
            connection.execute(NAIVE, (1e6, batch)).fetchall()
            times.append(time.perf_counter() - began)
    return median(times)


def procrastinate_per_s(server: PostgresServer, jobs: int) -> float:
    """Run no-op tasks through one worker until none is left."""
    return asyncio.run(_procrastinate(server.create_database(), jobs))


async def _procrastinate(url: str, jobs: int) -> float:
    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=url))

    async def no_op(n: int) -> None:
        pass

    task = app.task(name="no_op")(no_op)
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        await task.batch_defer_async(*[cast("dict[str, JSONValue]", {"n": number}) for number in range(jobs)])
        began = time.perf_counter()
        await app.run_worker_async(wait=False, concurrency=10, install_signal_handlers=False, listen_notify=False)
        return jobs / (time.perf_counter() - began)


def pgqueuer_per_s(server: PostgresServer, jobs: int, batch: int) -> float:
    """Run no-op tasks through one worker until none is left."""
    return asyncio.run(_pgqueuer(server.create_database(), jobs, batch))


async def _pgqueuer(url: str, jobs: int, batch: int) -> float:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        driver = PsycopgDriver(connection)
        queries = Queries(driver)
        await queries.install()
        await queries.enqueue(["no_op"] * jobs, [None] * jobs, [0] * jobs)
        manager = QueueManager(queries)

        ran: list[float] = []

        async def no_op(_: object) -> None:
            ran.append(time.perf_counter())

        manager.entrypoint("no_op")(no_op)
        began = time.perf_counter()
        await manager.run(batch_size=batch, mode=QueueExecutionMode.drain)
        return len(ran) / (ran[-1] - began)  # it looks for more for a while after the last one
