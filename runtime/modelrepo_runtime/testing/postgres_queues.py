"""Queues on PostgreSQL for tests: made once, and emptied between tests, which is a hundred times quicker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg

from modelrepo_runtime.queue.postgres import partitions
from modelrepo_runtime.queue.postgres.connecting import connect
from modelrepo_runtime.queue.postgres.migrating import Half, migrate
from modelrepo_runtime.testing.clock import FakeClock
from modelrepo_runtime.testing.postgres_server import Databases

_TABLES = """
select relname from pg_class join pg_namespace on pg_namespace.oid = relnamespace
where nspname = current_schema() and relkind in ('r', 'p') and not relispartition and relname <> 'migration'
"""


class ReusedQueue:
    """A migrated database with partitions for today and for the days of FakeClock."""

    def __init__(self, server: Databases, known: Sequence[Half] | None = None) -> None:
        """`known`: the halves that its schema has; those of this modelrepo unless given."""
        self.url = server.create_database()
        migrate(self.url, known=known)
        with connect(self.url, {}) as connection:
            partitions.make(connection, partitions.missing_days(connection, FakeClock()()))
            self._tables = [name for (name,) in connection.execute(_TABLES).fetchall()]
            self._first = {name: rows for name in self._tables if (rows := _rows(connection, name))}

    def empty(self) -> None:
        """Make it as it was; whoever still has it open goes on with an empty queue."""
        with connect(self.url, {"lock_timeout": "10s"}) as connection:
            connection.execute("; ".join(f"delete from {name}" for name in self._tables).encode())
            for name, rows in self._first.items():
                for row in rows:
                    places = ", ".join(f"${number}" for number in range(1, len(row) + 1))
                    connection.execute(f"insert into {name} values ({places})".encode(), row)


def _rows(connection: psycopg.Connection[Any], table: str) -> list[tuple[Any, ...]]:
    return connection.execute(f"select * from {table}".encode()).fetchall()
