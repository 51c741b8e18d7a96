"""What every suite may use: a real S3 server, one for the whole run."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from modelrepo.testing.s3_servers import SeaweedFS

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
