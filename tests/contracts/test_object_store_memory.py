"""The memory store keeps the contract."""

from __future__ import annotations

import pytest

from modelrepo.stores.memory import MemoryBucket, MemoryStore
from modelrepo.testing.store_contract import ObjectStoreContract


class TestMemoryStore(ObjectStoreContract):
    @pytest.fixture(autouse=True)
    def _bucket(self) -> None:
        self.bucket = MemoryBucket()

    def open_client(self) -> MemoryStore:
        return MemoryStore("contract", self.bucket)

    def raw_write(self, key: str, data: bytes) -> None:
        self.bucket.put(key, data)

    def raw_keys(self) -> set[str]:
        return set(self.bucket.held)
