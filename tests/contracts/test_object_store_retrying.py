"""The retrying store keeps the contract, over a store that answers and over one that often does not."""

from __future__ import annotations

import pytest

from modelrepo.stores.faults import Fault, faulty
from modelrepo.stores.memory import MemoryBucket, MemoryStore
from modelrepo.stores.port import ObjectStore
from modelrepo.stores.retrying import retrying
from modelrepo.testing.store_contract import ObjectStoreContract


class TestRetryingStore(ObjectStoreContract):
    @pytest.fixture(autouse=True)
    def _bucket(self) -> None:
        self.bucket = MemoryBucket()

    def open_client(self) -> ObjectStore:
        return retrying(MemoryStore("contract", self.bucket), sleep=no_pause)

    def raw_write(self, key: str, data: bytes) -> None:
        self.bucket.put(key, data)

    def raw_keys(self) -> set[str]:
        return set(self.bucket.held)


class TestRetryingStoreOverRefusedRequests(TestRetryingStore):
    """Every second request is refused before it does anything."""

    def open_client(self) -> ObjectStore:
        faults = [Fault(at) for at in range(1, 400, 2)]
        return retrying(faulty(MemoryStore("contract", self.bucket), *faults), sleep=no_pause)


class TestRetryingStoreOverLostAnswers(TestRetryingStore):
    """Of three requests the first takes effect but is not answered, and the second is refused."""

    def open_client(self) -> ObjectStore:
        faults = [Fault(at, "after" if at % 3 == 1 else "before") for at in range(1, 400) if at % 3 != 0]
        return retrying(faulty(MemoryStore("contract", self.bucket), *faults), sleep=no_pause)


def no_pause(_seconds: float) -> None:
    """Stand for a pause."""
