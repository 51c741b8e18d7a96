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
            records = queue._state.jobs.values()
            return Rows(
                ready=sum(record.ready for record in records),
                delayed=sum(record.due is not None for record in records),
                leased=sum(record.lease is not None for record in records),
                ended=sum(record.status is not None for record in records),
            )

        yield queue, peek
