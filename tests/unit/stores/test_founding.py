"""A repository is founded in a store that lets one creator win, and nowhere else unless the user says so."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from modelrepo.errors import Corrupt, NewerFormat, RepositoryNotFound, StoreNotTrusted, Unreachable
from modelrepo.stores.faults import Fault, KillNow, faulty
from modelrepo.stores.filesystem import FilesystemStore
from modelrepo.stores.founding import found, open_founded, read_only
from modelrepo.stores.memory import MemoryBucket, MemoryStore
from modelrepo.stores.opening import open_store
from modelrepo.stores.port import LocalFolders, ReadsInPieces, StoreIdentity
from modelrepo.stores.probe import probe


class Overwriting(MemoryStore):
    """A store that ignores the condition of a create, as some servers do."""

    def create(self, key: str, data: bytes) -> None:
        self.replace(key, data)


def bucket_store() -> MemoryStore:
    return MemoryStore("b", MemoryBucket())


def test_a_store_that_creates_if_absent_passes(tmp_path: Path) -> None:
    for store in (bucket_store(), FilesystemStore(tmp_path / "new")):
        result = probe(store)
        assert result.trusted
        assert result.winners == (1, 1, 1)
        assert list(store.list("")) == []


def test_a_store_that_overwrites_fails() -> None:
    result = probe(Overwriting("b", MemoryBucket()), creators=4, rounds=2)
    assert not result.trusted
    assert result.winners == (4, 4)


def test_founding_writes_two_files_once(tmp_path: Path) -> None:
    store = FilesystemStore(tmp_path / "r")
    founded = found(store)
    assert {stat.key for stat in store.list("")} == {"repository.json", "store.json"}
    assert json.loads(store.read("repository.json")) == {"format": 1, "id": founded.id}
    record = json.loads(store.read("store.json"))
    assert (record["endpoint"], record["creates_if_absent"], record["single_writer"]) == ("file", True, False)
    assert found(store).id == founded.id
    assert open_founded(store).id == founded.id
    assert open_founded(store).distrust is None
    moved = (tmp_path / "r").rename(tmp_path / "mounted elsewhere")
    assert open_founded(FilesystemStore(moved)).distrust is None


def test_many_founders_found_one_repository() -> None:
    bucket = MemoryBucket()
    start = threading.Barrier(4)

    def race(_: int) -> str:
        start.wait(30)
        return found(MemoryStore("b", bucket)).id

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(race, range(4)))) == 1


def test_founding_killed_anywhere_is_taken_up_again() -> None:
    counting = faulty(bucket_store())
    found(counting)
    for at in range(1, len(counting.operations) + 1):
        store = bucket_store()
        killed = faulty(store, Fault(at=at, moment="after", how="kill"))
        with pytest.raises(KillNow):
            found(killed)
        assert found(store).distrust is None


def test_nothing_founded_is_no_repository() -> None:
    with pytest.raises(RepositoryNotFound, match="modelrepo init"):
        open_founded(bucket_store())


def test_an_unreachable_store_is_not_taken_for_an_empty_one() -> None:
    store = bucket_store()
    found(store)
    with pytest.raises(Unreachable):
        open_founded(faulty(store, Fault(at=1)))


def test_a_store_that_fails_is_refused_and_left_empty() -> None:
    store = Overwriting("b", MemoryBucket())
    with pytest.raises(StoreNotTrusted, match="--single-writer"):
        found(store)
    assert list(store.list("")) == []


def test_a_store_that_fails_serves_a_single_writer() -> None:
    store = Overwriting("b", MemoryBucket())
    founded = found(store, single_writer=True)
    assert founded.single_writer
    founded.store.create("key", b"")
    assert open_founded(store).distrust is None
    assert not found(bucket_store(), single_writer=True).single_writer


def test_another_endpoint_is_read_only_until_adopted() -> None:
    bucket = MemoryBucket()
    found(MemoryStore("b", bucket)).store.create("key", b"1")
    other = MemoryStore("b", bucket)
    other.identity = StoreIdentity("other.example", "b")
    opened = open_founded(other)
    assert opened.store.read("key") == b"1"
    assert [stat.key for stat in opened.store.list("")] == ["key", "repository.json", "store.json"]
    writes: list[Callable[[], None]] = [
        lambda: opened.store.create("x", b""),
        lambda: opened.store.replace("key", b""),
        lambda: opened.store.delete("key"),
    ]
    for write in writes:
        with pytest.raises(StoreNotTrusted, match=r"other\.example.*--adopt"):
            write()
    with pytest.raises(StoreNotTrusted):
        found(other)
    found(other, adopt=True).store.create("x", b"")
    assert open_founded(other).distrust is None
    assert open_founded(MemoryStore("b", bucket)).distrust is not None


def test_a_store_without_a_record_is_read_only(tmp_path: Path) -> None:
    store = FilesystemStore(tmp_path)
    found(store)
    store.delete("store.json")
    opened = open_founded(store)
    assert opened.distrust is not None
    assert isinstance(opened.store, LocalFolders)
    with pytest.raises(StoreNotTrusted):
        opened.store.exchange("repository.json", b"")
    with pytest.raises(StoreNotTrusted):
        opened.store.locked("")
    assert found(store).distrust is None


@pytest.mark.parametrize("name", ["repository.json", "store.json"])
def test_newer_and_broken_files_are_refused_by_name(name: str) -> None:
    for data, error, says in (
        (b'{"format": 2}', NewerFormat, "format 2"),
        (b'{"format": 1, "requires": ["signatures"]}', NewerFormat, "signatures"),
        (b'{"format": "one"}', Corrupt, "'one'"),
        (b"[]", Corrupt, "no JSON object"),
        (b"{", Corrupt, "not JSON"),
    ):
        store = bucket_store()
        found(store)
        store.replace(name, data)
        with pytest.raises(error, match=name) as caught:
            open_founded(store)
        assert says in str(caught.value)


@pytest.mark.parametrize("name", ["repository.json", "store.json"])
def test_what_a_newer_modelrepo_founded_is_not_founded_again(name: str) -> None:
    store = bucket_store()
    found(store)
    store.replace(name, b'{"format": 2}')
    other = store.read("store.json" if name == "repository.json" else "repository.json")
    with pytest.raises(NewerFormat, match=name):
        found(store, adopt=True, single_writer=True)
    assert store.read(name) == b'{"format": 2}'
    assert store.read("store.json" if name == "repository.json" else "repository.json") == other


def test_a_lost_repository_file_is_written_again_and_the_models_stay() -> None:
    store = bucket_store()
    found(store)
    store.create("models/m/active.yaml", b"version: v1\n")
    store.delete("repository.json")
    with pytest.raises(RepositoryNotFound, match="modelrepo init"):
        open_founded(store)
    assert found(store).store.read("models/m/active.yaml") == b"version: v1\n"


def test_unknown_keys_are_ignored() -> None:
    store = bucket_store()
    founded = found(store)
    store.replace("repository.json", json.dumps({"format": 1, "id": founded.id, "new": [1]}).encode())
    assert open_founded(store).id == founded.id


def test_memory_stores_are_shared_by_name() -> None:
    found(open_store("memory://founding-test"))
    assert open_founded(open_store("memory://founding-test")).distrust is None
    with pytest.raises(RepositoryNotFound):
        open_founded(open_store("memory://founding-test-other"))


def test_a_read_only_store_reads_as_its_inner_one_does() -> None:
    class Pieces(MemoryStore):
        def read_pieces(self, key: str, start: int = 0) -> Iterator[memoryview]:
            yield memoryview(self.read(key)[start:])

    inner = Pieces("b", MemoryBucket())
    inner.create("key", b"data")
    store = read_only(inner, "moved")
    assert isinstance(store, ReadsInPieces)
    assert [bytes(piece) for piece in store.read_pieces("key", 1)] == [b"ata"]
    assert not isinstance(read_only(bucket_store(), "moved"), ReadsInPieces)
