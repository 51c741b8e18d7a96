"""The bucket store keeps the contract over a real S3 server."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from functools import cache
from typing import Any

import boto3  # type: ignore[import-untyped]
import pytest

from modelrepo.stores.founding import found, open_founded
from modelrepo.stores.opening import open_store
from modelrepo.stores.port import ObjectStore
from modelrepo.testing.s3_servers import SeaweedFS
from modelrepo.testing.store_contract import ObjectStoreContract

BUCKET = "contract"
_numbers = itertools.count()


@pytest.fixture(scope="module")
def bucket(seaweed_server: SeaweedFS, worker_id: str) -> Iterator[str]:
    """One bucket for the module: a fresh folder in it is as empty, and quicker."""
    name = f"{BUCKET}-{worker_id}"
    seaweed_server.create_bucket(name)
    yield name
    seaweed_server.delete_bucket(name)


@pytest.fixture
def folder(bucket: str, seaweed_server: SeaweedFS, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty folder of the bucket; the test's environment points to the server."""
    for name, value in seaweed_server.environment().items():
        monkeypatch.setenv(name, value)
    return f"folder-{next(_numbers)}"


@cache
def raw_client(endpoint: str) -> Any:
    """A client of a session of its own: the default one remembers the credentials of the first test that used it."""
    return boto3.Session().client("s3", endpoint_url=endpoint)


class TestSeaweedStore(ObjectStoreContract):
    races = 1  # the losers of a race wait in steps of a second for its lock

    @pytest.fixture(autouse=True)
    def _folder(self, bucket: str, folder: str, seaweed_server: SeaweedFS) -> None:
        self.bucket, self.folder = bucket, folder
        self.client: Any = boto3.Session().client("s3", endpoint_url=seaweed_server.endpoint)

    def open_client(self) -> ObjectStore:
        return open_store(f"s3://{self.bucket}/{self.folder}")

    def raw_write(self, key: str, data: bytes) -> None:
        self.client.put_object(Bucket=self.bucket, Key=f"{self.folder}/{key}", Body=data)

    def raw_keys(self) -> set[str]:
        found = self.client.list_objects_v2(Bucket=self.bucket, Prefix=f"{self.folder}/").get("Contents", [])
        return {each["Key"].removeprefix(f"{self.folder}/") for each in found}


def test_a_repository_is_founded_and_opened(bucket: str, folder: str) -> None:
    url = f"s3://{bucket}/{folder}"
    founded = found(open_store(url), client=lambda: open_store(url))
    assert open_founded(open_store(url)).id == founded.id
    assert open_founded(open_store(url)).distrust is None
    assert json.loads(open_store(url).read("store.json"))["probe"] == {"creators": 8, "winners": [1, 1, 1]}
    assert sorted(each.key for each in open_store(url).list("")) == ["repository.json", "store.json"]
