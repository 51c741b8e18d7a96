"""A store that reads from mirrors keeps the contract, whatever state they are in."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest

from modelrepo import layout
from modelrepo.errors import Unreachable
from modelrepo.stores.faults import Fault, faulty
from modelrepo.stores.filesystem import FilesystemStore
from modelrepo.stores.memory import MemoryBucket, MemoryStore
from modelrepo.stores.mirrored import Mirror, mirrored
from modelrepo.stores.port import ObjectStore
from modelrepo.testing.store_contract import ObjectStoreContract

DATA = b"a chunk of a checkpoint"
KEY = layout.object_(sha256(DATA).hexdigest())


def mirrors() -> list[Mirror]:
    """Return one that has failed, one that holds what it should not, and one that is empty."""
    failed = Mirror(faulty(MemoryStore("failed", MemoryBucket()), Fault(1)))
    assert failed.read(KEY, KEY[-64:]) is None
    spoilt = MemoryStore("spoilt", MemoryBucket())
    for key in (KEY, "a/b/data", "data"):
        spoilt.create(key, b"spoilt")
    return [failed, Mirror(spoilt), Mirror(MemoryStore("empty", MemoryBucket()))]


class TestMirroredMemoryStore(ObjectStoreContract):
    @pytest.fixture(autouse=True)
    def _bucket(self) -> None:
        self.bucket = MemoryBucket()

    def open_client(self) -> ObjectStore:
        return mirrored(MemoryStore("contract", self.bucket), mirrors())

    def raw_write(self, key: str, data: bytes) -> None:
        self.bucket.put(key, data)

    def raw_keys(self) -> set[str]:
        return set(self.bucket.held)

    def test_an_object_is_what_its_digest_says(self, store: ObjectStore) -> None:
        self.raw_write(KEY, DATA)
        assert store.read(KEY) == DATA


class TestMirroredFilesystemStore(ObjectStoreContract):
    @pytest.fixture(autouse=True)
    def _root(self, tmp_path: Path) -> None:
        self.root = tmp_path / "not made yet"

    def open_client(self) -> ObjectStore:
        return mirrored(FilesystemStore(self.root), mirrors())

    def raw_write(self, key: str, data: bytes) -> None:
        path = self.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def raw_keys(self) -> set[str]:
        return {str(path.relative_to(self.root)) for path in self.root.rglob("*") if path.is_file()}


def test_without_a_store_that_answers_a_mirror_is_not_enough() -> None:
    near = MemoryStore("near", MemoryBucket())
    near.create(KEY, DATA)
    store = mirrored(faulty(MemoryStore("home", MemoryBucket()), Fault(1)), [Mirror(near)])
    assert store.read(KEY) == DATA
    with pytest.raises(Unreachable):
        store.read("models/m/active.yaml")
