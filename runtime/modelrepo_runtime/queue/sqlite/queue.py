"""The JobQueue of one box, on SQLite."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from modelrepo.errors import Unreachable
from modelrepo_runtime.queue.address import sqlite_url
from modelrepo_runtime.queue.port import Waiter
from modelrepo_runtime.queue.relational.queue import RelationalQueue
from modelrepo_runtime.queue.relational.transaction import Answer, Refused, Snapshot, Transaction
from modelrepo_runtime.queue.sqlite.database import connect, identity, refuse_network, translated
from modelrepo_runtime.queue.sqlite.statements import SqliteStatements
from modelrepo_runtime.queue.sqlite.wake import SocketWaiter, WakeFolder
from modelrepo_runtime.queue.sqlite.writer import Writer
from modelrepo_runtime.timing import Timing


class SqliteQueue(RelationalQueue):
    """See JobQueue. Any number of processes of one box may open the same file."""

    def __init__(self, path: Path, timing: Timing | None = None, clock: Callable[[], float] = time.time) -> None:
        self.database = SqliteDatabase(path, clock)
        self.path = self.database.path
        super().__init__(self.database, timing or Timing.embedded())


class SqliteDatabase:
    """See Database."""

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        self.path = path.resolve()  # a link and its file would have a turnstile each
        self.url = sqlite_url(path)
        self.clock = clock
        with ExitStack() as undo, translated(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            refuse_network(self.path)
            self.wakes = WakeFolder(self.path)
            undo.callback(self.wakes.close)
            self.writer = Writer(self.path, clock, self.wakes)
            undo.callback(self.writer.close)
            self.reader, self._read_from = connect(self.path), identity(self.path)
            undo.pop_all()
        self._reading = threading.Lock()
        self._closed = False

    def write(
        self,
        work: Callable[[Transaction], Answer | Refused[Any]],
        *,
        alone: bool = True,  # noqa: ARG002
        model: str | None = None,  # noqa: ARG002
    ) -> Answer:
        """See Database."""
        return self.writer.run(work)

    def read(self, work: Callable[[Snapshot], Answer]) -> Answer:
        """See Database."""
        with self._reading, translated(self.path):
            reader = self._fresh_reader()
            reader.execute("begin")
            try:
                return work(Snapshot(SqliteStatements(reader), self.clock()))
            finally:
                reader.execute("commit")

    def _fresh_reader(self) -> sqlite3.Connection:
        if self._closed:
            raise Unreachable(f"queue {self.path} is closed")
        if identity(self.path) != self._read_from:
            self.writer.follow()
            self.reader.close()
            self.reader, self._read_from = connect(self.path), identity(self.path)
        return self.reader

    def waiter(self, models: Sequence[str], jobs: Sequence[str], poll_s: float) -> Waiter:
        """See Database."""
        return SocketWaiter(self.wakes, models, jobs, poll_s)

    def close(self) -> None:
        """See Database."""
        with self._reading:
            if self._closed:
                return
            self._closed = True
            self.reader.close()
        self.writer.close()
        self.wakes.close()
