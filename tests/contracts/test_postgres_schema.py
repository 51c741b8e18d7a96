"""The schema on PostgreSQL: its steps, who may open what, and old code on the schema of the next step."""

from __future__ import annotations

import os
import re
import shlex
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from importlib.resources import files
from typing import Any

import pytest

from modelrepo.errors import InvalidInput, NewerFormat
from modelrepo_runtime.queue.opening import open_queue
from modelrepo_runtime.queue.port import JobQueue
from modelrepo_runtime.queue.postgres import migrating
from modelrepo_runtime.queue.postgres.connecting import connect, shown
from modelrepo_runtime.queue.postgres.migrating import Half, halves, migrate
from modelrepo_runtime.queue.postgres.queue import PostgresQueue
from modelrepo_runtime.queue.postgres.statements import numbered
from modelrepo_runtime.queue.sqlite.database import make
from modelrepo_runtime.queue.sqlite.statements import texts as sqlite_texts
from modelrepo_runtime.testing.clock import FakeClock
from modelrepo_runtime.testing.postgres_queues import ReusedQueue
from modelrepo_runtime.testing.postgres_server import Databases
from modelrepo_runtime.testing.queue_contract import JobQueueContract, Peek
from modelrepo_runtime.timing import Timing
from tests.contracts.test_job_queue_postgres import peek_at

HOME = files("modelrepo_runtime.queue.postgres")
NEWEST = max(half.number for half in halves())
NEXT_PRE = Half(
    NEWEST + 1,
    "pre",
    "next",
    "alter table job add column colour text; alter table lease add column shade text not null default 'dark';"
    "create table palette (colour text primary key); create index lease_version on lease (version)",
)
NEXT_POST = Half(NEWEST + 1, "post", "next", "drop index lease_version")
SCHEMA = """
select 'column', relname, attname, format_type(atttypid, atttypmod), attnotnull::text,
  coalesce(pg_get_expr(adbin, adrelid), '') || attidentity::text
from pg_attribute join pg_class on pg_class.oid = attrelid
  left join pg_attrdef on adrelid = attrelid and adnum = attnum
where relnamespace = current_schema()::regnamespace and relkind in ('r', 'p') and not relispartition and attnum > 0
  and relname <> 'migration'
union all
select 'index', tablename, indexname, indexdef, '', '' from pg_indexes
where schemaname = current_schema() and tablename <> 'migration' and tablename !~ '_[0-9]+$'
union all
select 'sequence', relname, '', '', '', '' from pg_class
where relnamespace = current_schema()::regnamespace and relkind = 'S'
union all
select 'options', relname, reloptions::text, '', '', '' from pg_class
where relnamespace = current_schema()::regnamespace and reloptions is not null
order by 1, 2, 3, 4
"""


@pytest.fixture
def empty_url(postgres_server: Databases) -> Iterator[str]:
    url = postgres_server.create_database()
    yield url
    postgres_server.drop_database(url)


def read(url: str, text: str) -> list[tuple[Any, ...]]:
    with connect(url, {}) as connection:
        return connection.execute(text.encode()).fetchall()


def test_the_schema_is_the_sum_of_its_migrations(empty_url: str, postgres_url: str) -> None:
    with connect(empty_url, {}) as connection:
        connection.execute((HOME / "schema.sql").read_text(encoding="utf-8").encode(), prepare=False)
    assert read(empty_url, SCHEMA) == read(postgres_url, SCHEMA)


def test_both_databases_have_the_same_tables_and_columns(postgres_url: str) -> None:
    ours: dict[str, set[str]] = {}
    for kind, table, column, *_ in read(postgres_url, SCHEMA):
        if kind == "column":
            ours.setdefault(table, set()).add(column)
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        make(connection)
        theirs = {
            table: {row[1] for row in connection.execute(f"pragma table_info({table})")}
            for (table,) in connection.execute("select name from sqlite_master where type = 'table'")
            if not table.startswith("sqlite_")
        }
    assert ours.pop("again") == ours["ready"]
    assert theirs.pop("counter") == {"name", "value"}
    assert ours == theirs


def test_every_statement_is_understood_by_the_schema(postgres_url: str) -> None:
    with closing(PostgresQueue(postgres_url)) as queue, connect(postgres_url, {}) as connection:
        catalog = queue.database.catalog
        for name, text in catalog.texts.items():
            for number, variant in enumerate((numbered(text), catalog.many(name))):
                if variant is not None:
                    prepared = connection.pgconn.prepare(f"{name}-{number}".encode(), variant.encode())
                    assert not prepared.error_message, (name, prepared.error_message)


def test_views_have_the_columns_that_they_have_on_sqlite(postgres_url: str) -> None:
    with (
        closing(PostgresQueue(postgres_url)) as queue,
        connect(postgres_url, {}) as ours,
        closing(sqlite3.connect(":memory:", isolation_level=None)) as theirs,
    ):
        make(theirs)
        for name in ("job_view", "jobs_to_claim", "failed_jobs", "pinned_pairs", "lane_heads"):
            own = "lane_heads_from" if name == "lane_heads" else name
            assert not ours.pgconn.prepare(
                own.encode(), numbered(queue.database.catalog.texts[own]).encode()
            ).error_message
            described = ours.pgconn.describe_prepared(own.encode())
            columns = [(described.fname(number) or b"").decode() for number in range(described.nfields)]
            marks = [int(mark or 0) for mark in re.findall(r"\?(\d*)", sqlite_texts()[name])]
            values = [0] * (max(marks) or len(marks) if marks else 0)
            wanted = [column[0] for column in theirs.execute(sqlite_texts()[name], values).description]
            assert columns == wanted or (name == "lane_heads" and set(wanted) <= set(columns)), name


def test_an_empty_database_is_refused_with_what_to_do(empty_url: str) -> None:
    with pytest.raises(InvalidInput, match=r"holds no queue yet") as refused:
        open_queue(empty_url)
    told = str(refused.value).split("`")[1]
    assert shlex.split(told) == ["modelrepo", "queue", "migrate", "--queue", shown(empty_url)]


def test_a_schema_that_lacks_a_pre_half_is_refused(postgres_url: str) -> None:
    with connect(postgres_url, {}) as connection:
        with pytest.raises(InvalidInput, match=f"without {NEWEST + 1:04}_next.*modelrepo queue migrate"):
            migrating.check(connection, postgres_url, (*halves(), NEXT_PRE))


def test_migrating_twice_runs_nothing_twice(empty_url: str) -> None:
    assert migrate(empty_url) == tuple(f"{half.number:04}_{half.name}.{half.half}" for half in halves())
    assert migrate(empty_url) == ()
    assert migrate(empty_url, post=True) == ()
    with closing(open_queue(empty_url)) as queue:
        assert [tier.name for tier in queue.tiers()] == ["api", "enterprise", "unlimited", "light", "free"]


def test_two_that_migrate_at_once_wait_for_each_other(empty_url: str) -> None:
    ran: list[tuple[str, ...]] = []
    threads = [threading.Thread(target=lambda: ran.append(migrate(empty_url))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(len, ran)) == [0, len(halves())]


def test_a_migration_that_fails_changes_nothing(empty_url: str) -> None:
    migrate(empty_url)
    before = read(empty_url, SCHEMA)
    broken = Half(NEWEST + 1, "pre", "broken", "create table half (n int); select 1 / 0")
    with pytest.raises(InvalidInput):
        migrate(empty_url, known=(*halves(), broken))
    assert read(empty_url, SCHEMA) == before


def test_the_post_half_waits_until_it_is_asked_for(empty_url: str) -> None:
    migrate(empty_url)
    known = (*halves(), NEXT_PRE, NEXT_POST)
    assert migrate(empty_url, known=known) == (f"{NEWEST + 1:04}_next.pre",)
    with closing(open_queue(empty_url)):
        pass  # the code before it goes on
    later = Half(NEWEST + 2, "pre", "later", "select 1")
    with pytest.raises(InvalidInput, match="the post half of step"):
        migrate(empty_url, known=(*known, later))
    assert migrate(empty_url, post=True, known=known) == (f"{NEWEST + 1:04}_next.post",)
    with pytest.raises(NewerFormat, match="upgrade modelrepo"):
        open_queue(empty_url)
    with pytest.raises(NewerFormat):
        migrate(empty_url)


def test_a_schema_two_steps_ahead_is_refused(empty_url: str) -> None:
    migrate(empty_url)
    migrate(empty_url, known=(*halves(), NEXT_PRE, Half(NEWEST + 2, "pre", "later", "select 1")))
    with pytest.raises(NewerFormat):
        open_queue(empty_url)


@pytest.fixture(scope="module")
def ahead(postgres_server: Databases) -> Iterator[ReusedQueue]:
    queue = ReusedQueue(postgres_server, (*halves(), NEXT_PRE))
    yield queue
    postgres_server.drop_database(queue.url)


REDUCED = os.environ.get("MODELREPO_ACCEPTANCE") != "full"
PARTS = ("ClaimContract", "SubmissionContract", "StageContract")


class TestThisCodeUnderTheNextPreHalf(JobQueueContract):
    """What gateways of this version do while those of the next one are being started."""

    @pytest.fixture
    def opened(self, ahead: ReusedQueue, clock: FakeClock, timing: Timing) -> Iterator[tuple[JobQueue, Peek]]:
        with closing(PostgresQueue(ahead.url, timing, clock)) as queue:
            yield queue, peek_at(ahead.url)
        ahead.empty()


if REDUCED:
    for part in JobQueueContract.__mro__[1:]:
        for name in vars(part):
            if name.startswith("test_") and part.__name__ not in PARTS:
                setattr(TestThisCodeUnderTheNextPreHalf, name, None)


def test_a_password_is_not_shown(postgres_url: str) -> None:
    with closing(open_queue(postgres_url.replace("user=modelrepo", "user=modelrepo&password=secret"))) as queue:
        assert "secret" not in queue.url
