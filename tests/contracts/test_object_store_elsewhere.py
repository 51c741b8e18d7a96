"""The bucket store keeps the contract on Google's and Azure's buckets, where the environment names one.

MODELREPO_TEST_GS_URL=gs://BUCKET/FOLDER and MODELREPO_TEST_AZ_URL=az://CONTAINER/FOLDER, with credentials as gcsfs and
adlfs find them. Every test works in a folder of its own below it, and removes it.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator

import pytest

from modelrepo.stores.bucket import BucketStore, open_bucket
from modelrepo.stores.opening import open_store
from modelrepo.stores.port import ObjectStore
from modelrepo.stores.probe import probe
from modelrepo.testing.store_contract import ObjectStoreContract


class ConfiguredStore(ObjectStoreContract):
    """Raw access is the adapter's file system, without the adapter."""

    setting: str

    @pytest.fixture(autouse=True)
    def _folder(self) -> Iterator[None]:
        self.url = f"{os.environ[self.setting].rstrip('/')}/{secrets.token_hex(8)}"
        scheme, _, path = self.url.partition("://")
        bucket, _, folder = path.partition("/")
        self.raw: BucketStore = open_bucket(scheme, bucket, folder)
        yield
        for stat in list(self.raw.list("")):
            self.raw.delete(stat.key)

    def open_client(self) -> ObjectStore:
        return open_store(self.url)

    def raw_write(self, key: str, data: bytes) -> None:
        self.raw._filesystem.pipe_file(self.raw._path(key), data)

    def raw_keys(self) -> set[str]:
        return {path.removeprefix(self.raw._root) for path in self.raw._filesystem.find(self.raw._root)}

    def test_it_creates_if_absent(self) -> None:
        assert probe(open_store(self.url), client=lambda: open_store(self.url)).trusted


@pytest.mark.needs_setting("MODELREPO_TEST_GS_URL", "gs://")
class TestGoogleStore(ConfiguredStore):
    setting = "MODELREPO_TEST_GS_URL"


@pytest.mark.needs_setting("MODELREPO_TEST_AZ_URL", "az://")
class TestAzureStore(ConfiguredStore):
    setting = "MODELREPO_TEST_AZ_URL"
