"""The queue's rules over an SQLite database that is nowhere but in memory: no file, no sync, no other process."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from modelrepo_runtime.queue.memory.news import MemoryWaiter, News
from modelrepo_runtime.queue.port import Waiter
from modelrepo_runtime.queue.relational.queue import RelationalQueue
from modelrepo_runtime.queue.relational.transaction import Answer, Refused, Snapshot, Transaction
from modelrepo_runtime.queue.sqlite.database import make
from modelrepo_runtime.queue.sqlite.statements import SqliteStatements
from modelrepo_runtime.timing import Timing


class MemoryQueue(RelationalQueue):
    """See JobQueue. Nothing outlives the process."""

    def __init__(
        self, url: str = "memory://", timing: Timing | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self.database = MemoryDatabase(url, clock)
        super().__init__(self.database, timing or Timing.embedded())

    def close(self) -> None:
        """See JobQueue. The jobs stay while somebody holds the queue."""


class MemoryDatabase:
    """See Database. One connection, used by one thread at a time."""

    def __init__(self, url: str, clock: Callable[[], float]) -> None:
        self.url = url
        self.clock = clock
        self.connection = sqlite3.connect(
            ":memory:", isolation_level=None, check_same_thread=False, cached_statements=256
        )
        make(self.connection)
        self._statements = SqliteStatements(self.connection)
        self._lock = threading.RLock()
        self._news = News()

    def write(
        self,
        work: Callable[[Transaction], Answer | Refused[Any]],
        *,
        alone: bool = True,  # noqa: ARG002
        model: str | None = None,  # noqa: ARG002
    ) -> Answer:
        """See Database."""
        with self._lock:
            transaction = Transaction(self._statements, self.clock())
            self.connection.execute("begin")
            try:
                answer = work(transaction)
                transaction.end()
            except BaseException:
                self.connection.execute("rollback")
                raise
            self.connection.execute("commit")
        self._news.tell(*transaction.ready_models, *transaction.changed_jobs)
        if isinstance(answer, Refused):
            raise answer.error
        return answer

    def read(self, work: Callable[[Snapshot], Answer]) -> Answer:
        """See Database."""
        with self._lock:
            return work(Snapshot(self._statements, self.clock()))

    def waiter(self, models: Sequence[str], jobs: Sequence[str], poll_s: float) -> Waiter:
        """See Database."""
        return MemoryWaiter(self._news, (*models, *jobs), poll_s)

    def close(self) -> None:
        """See Database."""
        with self._lock:
            self.connection.close()


_queues: dict[str, MemoryQueue] = {}
_queues_lock = threading.Lock()


def memory_queue(url: str, timing: Timing | None = None) -> MemoryQueue:
    """Return the queue of this name, which all of this process share; the first caller's timing holds."""
    with _queues_lock:
        if url not in _queues:
            _queues[url] = MemoryQueue(url, timing)
        return _queues[url]
