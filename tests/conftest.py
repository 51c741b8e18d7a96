"""What every suite may use: a real S3 server, one for the whole run; and tests for stores that a setting names."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest

from modelrepo.testing.proxy import Proxy
from modelrepo.testing.s3_servers import SeaweedFS
from modelrepo_runtime.testing.postgres_queues import ReusedQueue
from modelrepo_runtime.testing.postgres_server import Databases, PostgresServer, given_or_started

_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class Bucket:
    """An empty bucket of the run's SeaweedFS. The test's environment points to it: `open_store(bucket.url)`."""

    name: str
    server: SeaweedFS

    @property
    def url(self) -> str:
        return f"s3://{self.name}"


@pytest.fixture(scope="session")
def seaweed_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    """The run's one SeaweedFS: the workers of pytest-xdist hold the same."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    with SeaweedFS.start(folder / "seaweedfs") as server:
        yield server


@pytest.fixture
def seaweed(seaweed_server: SeaweedFS, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """A fresh bucket, and the AWS_* settings by which this process and its children reach it."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in seaweed_server.environment().items():
        monkeypatch.setenv(name, value)
    bucket = Bucket(f"test-{os.getpid()}-{next(_numbers)}", seaweed_server)
    seaweed_server.create_bucket(bucket.name)
    yield bucket
    seaweed_server.delete_bucket(bucket.name)


@pytest.fixture
def proxy(seaweed: Bucket, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """What stands before `seaweed` and goes wrong on purpose; the test's environment points to it."""
    address = urlsplit(seaweed.server.endpoint)
    assert address.hostname is not None
    assert address.port is not None
    with Proxy(address.hostname, address.port) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        yield proxy


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Databases]:
    """The run's PostgreSQL, one for each worker of pytest-xdist; `MODELREPO_TEST_POSTGRES` names another."""
    server = given_or_started()
    yield server
    if isinstance(server, PostgresServer):
        server.stop()


@pytest.fixture(scope="session")
def _postgres_queue(postgres_server: Databases) -> ReusedQueue:
    return ReusedQueue(postgres_server)


@pytest.fixture
def postgres_url(_postgres_queue: ReusedQueue) -> Iterator[str]:
    """The URL of an empty queue on PostgreSQL: `open_queue(postgres_url)`."""
    yield _postgres_queue.url
    _postgres_queue.empty()


FULL_COUNTS = "full_counts"
NEEDS_SETTING = "needs_setting"
"""A test marked `needs_setting(NAME)` is left out unless the environment variable NAME is set, and the run says so."""

_left_out: set[str] = set()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f"{NEEDS_SETTING}(name, what): runs where this environment variable is set")
    config.addinivalue_line("markers", f"{FULL_COUNTS}: runs in `make acceptance` only, for the time it takes")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out = []
    for item in items:
        marker = item.get_closest_marker(NEEDS_SETTING)
        if marker is not None and not os.environ.get(marker.args[0]):
            left_out.append(item)
            _left_out.add(f"{marker.args[1]}: set {marker.args[0]}")
        elif item.get_closest_marker(FULL_COUNTS) and os.environ.get("MODELREPO_ACCEPTANCE") != "full":
            left_out.append(item)
            _left_out.add(f"{item.nodeid}: `make acceptance` runs it")
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):  # a worker of pytest-xdist: what it says is seen by nobody
        session.config.workeroutput["left_out"] = sorted(_left_out)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    _left_out.update(getattr(node, "workeroutput", {}).get("left_out", ()))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in sorted(_left_out):
        terminalreporter.write_line(f"not tested here: {line}")
