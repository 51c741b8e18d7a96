from __future__ import annotations

from collections.abc import Iterator

import pytest

from modelrepo_runtime.queue.memory import MemoryQueue
from modelrepo_runtime.queue.port import JobQueue
from modelrepo_runtime.testing.clock import FakeClock
from modelrepo_runtime.testing.queue_contract import JobQueueContract, Peek, Rows
from modelrepo_runtime.timing import Timing


class TestMemoryQueue(JobQueueContract):
    @pytest.fixture
    def opened(self, clock: FakeClock, timing: Timing) -> Iterator[tuple[JobQueue, Peek]]:
        queue = MemoryQueue("memory://test", timing, clock)

        def peek() -> Rows:
            tables = ("ready", "delayed", "lease", "done")
            return Rows(*(queue.database.connection.execute(f"select count(*) from {t}").fetchone()[0] for t in tables))

        yield queue, peek
