from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from modelrepo.repository import Repository
from modelrepo_runtime.jobstore import JobStore
from modelrepo_runtime.queue.http.queue import HttpQueue
from modelrepo_runtime.queue.port import JobQueue
from modelrepo_runtime.queue.sqlite.queue import SqliteQueue
from modelrepo_runtime.testing.clock import FakeClock
from modelrepo_runtime.testing.http_gateway import Serving, worker_app
from modelrepo_runtime.testing.queue_contract import JobQueueContract, Peek
from modelrepo_runtime.testing.sqlite_peek import peek_at
from modelrepo_runtime.timing import Timing


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    return Repository.init(tmp_path_factory.mktemp("repository").as_uri(), by="tests")


class TestHttpQueue(JobQueueContract):
    @pytest.fixture
    def opened(
        self, tmp_path: Path, clock: FakeClock, timing: Timing, repository: Repository
    ) -> Iterator[tuple[JobQueue, Peek]]:
        path = tmp_path / "queue.db"
        with closing(SqliteQueue(path, timing, clock)) as behind:
            app = worker_app(behind, repository, JobStore(str(tmp_path / "files")), timing)
            with Serving(app) as serving, closing(HttpQueue(serving.url)) as queue:
                yield queue.as_queue, peek_at(path)
