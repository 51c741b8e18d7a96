"""Tables by day: a partition for each day of jobs, made ahead, and dropped whole when its time is over."""

from __future__ import annotations

from typing import Any

import psycopg

DAY_S = 86400.0
DAY_SHIFT = 40
"""A job's number is its day since the epoch, shifted left by so many bits, and a sequence."""
AHEAD_DAYS = 2
TABLES = {"job": "id", "payload": "job", "done": "job", "history": "job"}
"""Partitioned table -> the column that it is partitioned by."""
WAITING = ("ready", "again", "delayed", "lease")
_OF_JOBS = """
select relname from pg_attribute join pg_class on pg_class.oid = attrelid
  join pg_namespace as place on place.oid = relnamespace
where place.nspname = current_schema() and relkind = 'r' and not relispartition and attname = 'job'
  and atttypid = 'bigint'::regtype and not attisdropped
"""
"""Tables with rows of jobs that are not partitioned: those of a dropped day are deleted, also of jobs that were sent
back while it was dropped, which no claim could answer any more."""
_LOCK = "hashtext('modelrepo partitions')"
_PARTITIONS = """
select parent.relname, child.relname, inhdetachpending
from pg_class as child join pg_namespace as place on place.oid = child.relnamespace
  left join pg_inherits on inhrelid = child.oid left join pg_class as parent on parent.oid = inhparent
where child.relkind = 'r' and place.nspname = current_schema() and child.relname ~ '^(job|payload|done|history)_[0-9]+$'
"""


def day_of(at: float) -> int:
    """Return the day of a moment, counted since the epoch."""
    return int(at // DAY_S)


def missing_days(connection: psycopg.Connection[Any], now: float) -> list[int]:
    """Return the days from today on that have no partition yet."""
    wanted = range(day_of(now), day_of(now) + AHEAD_DAYS + 1)
    return sorted(set(wanted) - set(days(connection)))


def days(connection: psycopg.Connection[Any]) -> list[int]:
    """Return the days that have partitions, the oldest first."""
    found = connection.execute(_PARTITIONS).fetchall()
    return sorted(_day(name) for parent, name, leaving in found if parent == "job" and not leaving)


def make(connection: psycopg.Connection[Any], wanted: list[int]) -> None:
    """Make the partitions of these days where they are missing; nobody who reads or writes waits for it."""
    with connection.transaction():
        connection.execute(f"select pg_advisory_xact_lock({_LOCK})".encode())
        for day in sorted(set(wanted) - set(days(connection))):
            for table, column in TABLES.items():
                name, first, after = f"{table}_{day}", day << DAY_SHIFT, (day + 1) << DAY_SHIFT
                within = f"check ({column} >= {first} and {column} < {after})"
                _do(
                    connection, f"create table {name} (like {table} including defaults including constraints, {within})"
                )
                if table == "job":
                    _do(connection, f"create unique index {name}_only_name on {name} (name)")
                _do(connection, f"alter table {table} attach partition {name} for values from ({first}) to ({after})")


def drop_before(connection: psycopg.Connection[Any], before: float) -> list[int]:
    """Drop the days that had ended by `before`, but for those of which a job still waits or runs; return them.

    Nothing is done while another does it. What a drop that was broken off has left is dropped too.
    """
    taken = connection.execute(f"select pg_try_advisory_lock({_LOCK})".encode()).fetchone()
    if taken is None or not taken[0]:
        return []
    try:
        old = [row for row in connection.execute(_PARTITIONS).fetchall() if (_day(row[1]) + 1) * DAY_S <= before]
        over = sorted(day for day in {_day(row[1]) for row in old} if not _in_use(connection, day))
        for parent, name, leaving in old:
            if _day(name) not in over:
                continue
            if parent is not None:
                how = "finalize" if leaving else "concurrently"
                _do(connection, f"alter table {parent} detach partition {name} {how}")
            _do(connection, f"drop table {name}")
        for day in over:
            for table in _left_behind(connection):
                connection.execute(f"delete from {table} where job >= $1 and job < $2".encode(), _numbers(day))
        return over
    finally:
        connection.execute(f"select pg_advisory_unlock({_LOCK})".encode())


def _left_behind(connection: psycopg.Connection[Any]) -> list[str]:
    named = [name for (name,) in connection.execute(_OF_JOBS).fetchall()]
    return [name for name in named if name.rpartition("_")[0] not in TABLES]


def _in_use(connection: psycopg.Connection[Any], day: int) -> bool:
    held = " or ".join(f"exists (select 1 from {table} where job >= $1 and job < $2)" for table in WAITING)
    found = connection.execute(f"select {held}".encode(), _numbers(day)).fetchone()
    return found is not None and bool(found[0])


def _numbers(day: int) -> tuple[int, int]:
    return day << DAY_SHIFT, (day + 1) << DAY_SHIFT


def _day(name: str) -> int:
    return int(name.rpartition("_")[2])


def _do(connection: psycopg.Connection[Any], text: str) -> None:
    connection.execute(text.encode(), prepare=False)
