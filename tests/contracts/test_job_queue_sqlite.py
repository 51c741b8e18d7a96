from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from modelrepo_runtime.queue.port import JobQueue, Waiter
from modelrepo_runtime.queue.sqlite.queue import SqliteQueue
from modelrepo_runtime.testing.clock import FakeClock
from modelrepo_runtime.testing.queue_contract import JobQueueContract, Peek
from modelrepo_runtime.testing.sqlite_peek import peek_at
from modelrepo_runtime.timing import Timing


class TestSqliteQueue(JobQueueContract):
    @pytest.fixture
    def opened(self, tmp_path: Path, clock: FakeClock, timing: Timing) -> Iterator[tuple[JobQueue, Peek]]:
        path = tmp_path / "queue.db"
        with closing(SqliteQueue(path, timing, clock)) as queue:
            yield queue, peek_at(path)


class ReopenedQueue:
    """Opens the database anew for every call, as if each came from another process."""

    def __init__(self, make: Callable[[], SqliteQueue]) -> None:
        self._make = make
        self._waited_on: list[SqliteQueue] = []

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            with closing(self._make()) as queue:
                return getattr(queue, name)(*args, **options)

        return call

    def waiter(self, *args: Any, **options: Any) -> Waiter:
        self._waited_on.append(self._make())
        return self._waited_on[-1].waiter(*args, **options)

    def close(self) -> None:
        for queue in self._waited_on:
            queue.close()


class TestReopenedSqliteQueue(JobQueueContract):
    @pytest.fixture
    def opened(self, tmp_path: Path, clock: FakeClock, timing: Timing) -> Iterator[tuple[JobQueue, Peek]]:
        path = tmp_path / "queue.db"
        with closing(ReopenedQueue(lambda: SqliteQueue(path, timing, clock))) as queue:
            yield queue, peek_at(path)  # type: ignore[misc]
