from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest

from modelrepo.repository import Repository
from modelrepo.testing.small_versions import small_version
from modelrepo_runtime.gateway.app import assemble
from modelrepo_runtime.gateway.settings import GatewaySettings
from modelrepo_runtime.jobs import StageNeed, Submission
from modelrepo_runtime.jobstore import JobStore
from modelrepo_runtime.queue.demand import lane_demands
from modelrepo_runtime.queue.http.queue import HttpQueue
from modelrepo_runtime.queue.port import JobQueue
from modelrepo_runtime.queue.sqlite.queue import SqliteQueue
from modelrepo_runtime.queue.tokens import MemoryTokens
from modelrepo_runtime.remote.talk import Talk
from modelrepo_runtime.testing.clock import FakeClock
from modelrepo_runtime.testing.gateways import LiveGateway
from modelrepo_runtime.testing.queue_contract import JobQueueContract, Peek
from modelrepo_runtime.testing.sqlite_peek import peek_at
from modelrepo_runtime.timing import Timing


class Switched:
    """The queue of the test that runs: one gateway serves them all, one after the other."""

    def __init__(self, first: JobQueue) -> None:
        self.current = first

    def __getattr__(self, name: str) -> Any:
        return getattr(self.current, name)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Switched, str]]:
    folder = tmp_path_factory.mktemp("gateway")
    repository = Repository.init((folder / "repository").as_uri(), by="tests")
    for model in ("m", "n", "q", "other", "cold", "warm"):
        small_version(repository.store, model=model)
    with closing(SqliteQueue(folder / "queue.db")) as idle:
        behind = Switched(idle)
        files = JobStore(str(folder / "files"))
        settings = GatewaySettings(open_to_all=True, send_webhooks=False)
        queue, timing = cast(JobQueue, behind), Timing.embedded()
        parts = assemble(settings, queue, repository, files, tokens=MemoryTokens(), timing=timing)
        with LiveGateway(parts) as serving:
            yield behind, serving.url
            behind.current = idle


class TestHttpQueue(JobQueueContract):
    @pytest.fixture
    def opened(
        self, tmp_path: Path, clock: FakeClock, timing: Timing, gateway: tuple[Switched, str]
    ) -> Iterator[tuple[JobQueue, Peek]]:
        behind, url = gateway
        path, idle = tmp_path / "queue.db", behind.current
        with (
            closing(SqliteQueue(path, timing, clock)) as behind.current,
            closing(HttpQueue(Talk(url))) as queue,
        ):
            yield queue.as_queue, peek_at(path)
            behind.current = idle

    def test_what_waits_is_told_as_the_queue_itself_would(self, opened: tuple[JobQueue, Peek], gateway: Any) -> None:
        queue, _ = opened
        queue.submit(Submission("m", {}, (StageNeed("prepare", "cpu"), StageNeed("run"))))
        queue.submit(Submission("n", {}, (StageNeed("run"),)))
        with closing(HttpQueue(Talk(gateway[1]))) as far:
            told = far.demand(["m", "n", "none-such"])
        assert told == {model: lane_demands(queue.queue_report(model)) for model in ("m", "n")}
        assert [lane.on for lanes in told.values() for lane in lanes] == ["cpu", "gpu"]
