"""A store whose listings may be behind, and are not, keeps the contract."""

from __future__ import annotations

import pytest

from modelrepo.stores.lagging import Lag, LaggingStore
from modelrepo.stores.memory import MemoryBucket, MemoryStore
from modelrepo.testing.store_contract import ObjectStoreContract


class TestLaggingStore(ObjectStoreContract):
    @pytest.fixture(autouse=True)
    def _bucket(self) -> None:
        self.bucket = MemoryBucket()
        self.lag = Lag(lambda: 0.0, lambda: -1.0, 60.0)

    def open_client(self) -> LaggingStore:
        return LaggingStore(MemoryStore("contract", self.bucket), self.lag)

    def raw_write(self, key: str, data: bytes) -> None:
        self.bucket.put(key, data)

    def raw_keys(self) -> set[str]:
        return set(self.bucket.held)
