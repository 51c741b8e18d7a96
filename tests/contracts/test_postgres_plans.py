"""How PostgreSQL plans on a table that it thinks is empty, while somebody still sees what was deleted from it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest

from modelrepo_runtime.queue.postgres.connecting import PLANNING, connect
from modelrepo_runtime.queue.postgres.database import PostgresDatabase
from modelrepo_runtime.queue.postgres.statements import numbered

ROWS = 2_000
FILL = (
    "insert into lease (fence, token, job, session, seq, slot, box, stage, stage_index, attempt, version, claimed)"
    " select n, 't', n, 's', n, '0', 'b', 'run', 0, 1, 'v', 0 from generate_series(1, %s) as n",
    "insert into ready (lane, tag, job, enqueued, stage_index, attempt)"
    " select 1, n, n, n, 0, 1 from generate_series(1, %s) as n",
    "insert into beat (session, number, at) select 's', n, 0 from generate_series(1, %s) as n",
)
FENCE = re.escape("Index Cond: (fence = ANY ($1))")
WHOLE_KEY = r"Index Cond: \(\(lane = \S+\) AND \((tag|enqueued) = \S+\) AND \(job = \S+\)"
TABLES = ("lease", "ready", "beat")


@pytest.fixture
def url(postgres_url: str) -> Iterator[str]:
    """A queue whose tables are empty, and thought to be, but for a snapshot that sees what they had."""
    with connect(postgres_url, {}) as admin, psycopg.connect(postgres_url) as holder:
        for statement in FILL:
            admin.execute(statement.replace("%s", str(ROWS)))
        holder.execute("set transaction isolation level repeatable read")
        holder.execute("select count(*) from lease")
        for table in TABLES:
            admin.execute(f"delete from {table}")
            admin.execute(f"vacuum (analyze) {table}")
        thought = admin.execute("select reltuples, relpages from pg_class where relname = 'lease'").fetchone()
        assert thought is not None
        assert thought[0] == 0 and thought[1] > 0, "nothing is left to be passed over"
        yield postgres_url
    with connect(postgres_url, {}) as admin:
        for table in TABLES:
            admin.execute(f"vacuum (analyze) {table}")


def statement(texts: Any, name: str, tail: str = "") -> str:
    return numbered(f"{texts[name]} {tail}")


@pytest.mark.parametrize(
    ("name", "tail", "sought"),
    [
        ("lease_view", "where lease.fence = any(?) order by lease.fence + 0", FENCE),
        (
            "lease_view",
            "where lease.fence = any(?) order by lease.fence + 0 for update of lease",
            FENCE,
        ),
        (
            "lease_view",
            "where lease.session = any(?) order by lease.fence + 0",
            re.escape("Index Cond: (session = ANY ($1))"),
        ),
        ("lease_delete_many", "", FENCE),
        ("ready_delete_many", "", WHOLE_KEY),
        ("ready_delete", "", WHOLE_KEY),
        ("ready_withdraw", "", WHOLE_KEY),
        ("beats_move", "", re.escape("Index Cond: (session = wanted.session)")),
    ],
)
def test_rows_are_sought_and_what_is_deleted_is_not_passed(url: str, name: str, tail: str, sought: str) -> None:
    with closing(PostgresDatabase(url)) as database, connect(url, PLANNING) as connection:
        catalog = database.catalog
        text = catalog.many("lease_delete") if name == "lease_delete_many" else statement(catalog.texts, name, tail)
        plan = [row[0] for row in connection.execute(f"explain (generic_plan, costs off) {text}").fetchall()]
    scans = [place for place, line in enumerate(plan) if re.search(r"Index.* Scan .*on (lease|ready|beat)", line)]
    conditions = [plan[place + 1] for place in scans]
    assert conditions, plan
    assert all(re.search(sought, condition) for condition in conditions), plan


def test_who_reads_much_is_not_cut_off_between_two_statements(postgres_url: str) -> None:
    with closing(PostgresDatabase(postgres_url)) as database:
        shown = {"shown_limit": "select current_setting('idle_in_transaction_session_timeout') as limit"}
        database.catalog.texts = {**database.catalog.texts, **shown}
        assert database.read(lambda tx: tx.rows("shown_limit"))[0]["limit"] == "1min"
