"""The JobQueue of a fleet, on PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable

from modelrepo_runtime.queue.postgres.database import PostgresDatabase
from modelrepo_runtime.queue.relational.queue import RelationalQueue
from modelrepo_runtime.timing import Timing


class PostgresQueue(RelationalQueue):
    """See JobQueue. Any number of processes may open the same database; `modelrepo queue migrate` makes it."""

    def __init__(self, url: str, timing: Timing | None = None, clock: Callable[[], float] | None = None) -> None:
        self.database = PostgresDatabase(url, clock)
        super().__init__(self.database, timing or Timing())
