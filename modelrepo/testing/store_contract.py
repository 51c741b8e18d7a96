"""What every ObjectStore must do. An adapter's tests inherit from the class and fill in three methods:

class TestMyStore(ObjectStoreContract):
    def open_client(self) -> ObjectStore: ...             # a further client of the one store that this test uses
    def raw_write(self, key: str, data: bytes) -> None: ...   # behind the adapter's back
    def raw_keys(self) -> set[str]: ...
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pytest

from modelrepo.errors import InvalidInput, ObjectChanged, ObjectExists, ObjectNotFound
from modelrepo.stores.port import ObjectStore

T = TypeVar("T")

BINARY = bytes(range(256)) * 5


class ObjectStoreContract(ABC):
    """The contract, as tests; each test finds an empty store."""

    races = 3
    """How often many creators race for one key; fewer where each race takes seconds."""

    @abstractmethod
    def open_client(self) -> ObjectStore:
        """Open a client of this test's store that shares nothing with the ones before."""

    @abstractmethod
    def raw_write(self, key: str, data: bytes) -> None:
        """Write an object without the adapter."""

    @abstractmethod
    def raw_keys(self) -> set[str]:
        """Return every key, and everything else that lies below the root, without the adapter."""

    @pytest.fixture
    def store(self) -> ObjectStore:
        return self.open_client()

    def test_what_was_created_is_read_back(self, store: ObjectStore) -> None:
        store.create("a/b/data", BINARY)
        assert store.read("a/b/data") == BINARY
        assert self.raw_keys() == {"a/b/data"}

    def test_what_others_wrote_is_read(self, store: ObjectStore) -> None:
        self.raw_write("a/data", BINARY)
        assert store.read("a/data") == BINARY
        assert store.stat("a/data").size_bytes == len(BINARY)
        assert [stat.key for stat in store.list("a/")] == ["a/data"]

    def test_an_empty_object_is_an_object(self, store: ObjectStore) -> None:
        store.create("empty", b"")
        assert store.read("empty") == b""
        assert store.stat("empty").size_bytes == 0
        with pytest.raises(ObjectExists):
            store.create("empty", b"not")

    def test_create_refuses_other_bytes_and_keeps_the_first(self, store: ObjectStore) -> None:
        store.create("key", b"first")
        with pytest.raises(ObjectExists) as caught:
            store.create("key", b"second")
        assert caught.value.key == "key"
        assert store.read("key") == b"first"

    def test_create_refuses_an_empty_second(self, store: ObjectStore) -> None:
        store.create("key", b"first")
        with pytest.raises(ObjectExists):
            store.create("key", b"")
        assert store.read("key") == b"first"

    def test_create_sees_what_others_wrote(self, store: ObjectStore) -> None:
        self.raw_write("key", b"theirs")
        with pytest.raises(ObjectExists):
            store.create("key", b"ours")
        assert store.read("key") == b"theirs"

    def test_the_same_bytes_count_as_created(self, store: ObjectStore) -> None:
        store.create("key", b"same")
        store.create("key", b"same")
        assert store.read("key") == b"same"

    def test_a_deleted_key_can_be_created_again(self, store: ObjectStore) -> None:
        store.create("key", b"one")
        store.delete("key")
        store.create("key", b"two")
        assert store.read("key") == b"two"

    def test_of_many_creators_one_wins(self, store: ObjectStore) -> None:
        for number in range(self.races):
            key = f"race/{number}"
            clients = [self.open_client() for _ in range(6)]
            start = threading.Barrier(len(clients))

            def create(
                pair: tuple[int, ObjectStore], *, key: str = key, start: threading.Barrier = start
            ) -> bytes | None:
                index, client = pair
                start.wait(timeout=60)
                try:
                    client.create(key, b"%d" % index)
                except ObjectExists:
                    return None
                return b"%d" % index

            won = [mark for mark in _at_once(create, list(enumerate(clients))) if mark is not None]
            assert len(won) == 1
            assert store.read(key) == won[0]

    def test_replace_writes_over_and_anew(self, store: ObjectStore) -> None:
        store.replace("key", b"one")
        store.replace("key", b"two, longer")
        assert store.read("key") == b"two, longer"
        store.replace("key", b"3")
        assert store.read("key") == b"3"

    def test_replace_with_an_etag_wants_that_etag(self, store: ObjectStore) -> None:
        store.create("key", b"one")
        first = store.stat("key").etag
        store.replace("key", b"two", if_etag=first)
        assert store.read("key") == b"two"
        with pytest.raises(ObjectChanged):
            store.replace("key", b"three", if_etag=first)
        assert store.read("key") == b"two"

    def test_replace_with_an_etag_wants_an_object(self, store: ObjectStore) -> None:
        store.create("key", b"one")
        etag = store.stat("key").etag
        store.delete("key")
        with pytest.raises(ObjectChanged):
            store.replace("key", b"two", if_etag=etag)
        with pytest.raises(ObjectNotFound):
            store.read("key")

    def test_of_many_conditional_replacers_one_wins(self, store: ObjectStore) -> None:
        store.create("key", b"start")
        etag = store.stat("key").etag
        clients = [self.open_client() for _ in range(4)]

        def replace(pair: tuple[int, ObjectStore]) -> bytes | None:
            try:
                pair[1].replace("key", b"%d" % pair[0], if_etag=etag)
            except ObjectChanged:
                return None
            return b"%d" % pair[0]

        won = [mark for mark in _at_once(replace, list(enumerate(clients))) if mark is not None]
        assert len(won) == 1
        assert store.read("key") == won[0]

    def test_a_range_is_cut_at_the_end(self, store: ObjectStore) -> None:
        store.create("key", b"0123456789")
        assert store.read_range("key", 0, 4) == b"0123"
        assert store.read_range("key", 4, 4) == b"4567"
        assert store.read_range("key", 8, 100) == b"89"
        assert store.read_range("key", 10, 5) == b""
        assert store.read_range("key", 50, 5) == b""
        assert store.read_range("key", 3, 0) == b""

    def test_what_is_absent_is_said_to_be(self, store: ObjectStore) -> None:
        store.create("folder/there", b"x")
        for key in ("gone", "folder", "folder/gone", "folder/there/below"):
            with pytest.raises(ObjectNotFound) as caught:
                store.read(key)
            assert caught.value.key == key
            with pytest.raises(ObjectNotFound):
                store.stat(key)
            with pytest.raises(ObjectNotFound):
                store.read_range(key, 0, 1)

    def test_delete_of_what_is_absent_is_no_error(self, store: ObjectStore) -> None:
        store.delete("gone")
        store.create("folder/there", b"x")
        store.delete("folder/gone")
        assert self.raw_keys() == {"folder/there"}

    def test_a_list_is_sorted_and_keeps_to_its_folder(self, store: ObjectStore) -> None:
        keys = ["a/1", "a/10", "a/2/deep/er", "a/2.x", "ab/1", "b", "a/.hidden"]
        for key in keys:
            store.create(key, key.encode())
        assert [stat.key for stat in store.list("")] == sorted(keys)
        assert [stat.key for stat in store.list("a/")] == sorted(key for key in keys if key.startswith("a/"))
        assert [stat.key for stat in store.list("a/2/")] == ["a/2/deep/er"]
        assert list(store.list("none/")) == []
        assert list(store.list("b/")) == []
        assert {stat.key: stat.size_bytes for stat in store.list("")} == {key: len(key) for key in keys}

    def test_a_list_agrees_with_stat(self, store: ObjectStore) -> None:
        store.create("a/one", b"1")
        assert list(store.list("a/")) == [store.stat("a/one")]

    def test_many_objects_are_all_listed(self, store: ObjectStore) -> None:
        for number in range(1, 41):
            self.raw_write(f"many/{number:04d}", b"")
        assert len(list(store.list("many/"))) == 40

    def test_two_clients_see_each_others_writes(self) -> None:
        one, other = self.open_client(), self.open_client()
        assert list(one.list("x/")) == []
        assert list(other.list("x/")) == []
        with pytest.raises(ObjectNotFound):
            other.read("x/a")
        one.create("x/a", b"1")
        assert [stat.key for stat in other.list("x/")] == ["x/a"]
        assert other.read("x/a") == b"1"
        before = other.stat("x/a")
        one.replace("x/a", b"longer")
        assert other.read("x/a") == b"longer"
        assert other.stat("x/a").size_bytes == 6
        assert other.stat("x/a").etag != before.etag
        with pytest.raises(ObjectExists):
            other.create("x/a", b"2")
        with pytest.raises(ObjectChanged):
            other.replace("x/a", b"2", if_etag=before.etag)
        other.delete("x/a")
        assert list(one.list("x/")) == []
        with pytest.raises(ObjectNotFound):
            one.stat("x/a")

    def test_an_etag_changes_with_the_bytes_and_not_without(self, store: ObjectStore) -> None:
        store.create("key", b"aaaa")
        first = store.stat("key")
        assert store.stat("key") == first
        self.raw_write("key", b"bbbb")
        assert store.stat("key").etag != first.etag

    def test_times_are_the_stores_and_do_not_run_back(self, store: ObjectStore) -> None:
        store.create("one", b"1")
        store.create("two", b"2")
        assert 0 < store.stat("one").modified <= store.stat("two").modified

    def test_keys_that_leave_the_root_are_refused(self, store: ObjectStore) -> None:
        for key in ("", "/etc/passwd", "../up", "a/../../up", "a//b", "a/./b", "a/", "a\\b", "a\0b"):
            with pytest.raises(InvalidInput):
                store.read(key)
            with pytest.raises(InvalidInput):
                store.create(key, b"")
            with pytest.raises(InvalidInput):
                store.replace(key, b"")
            with pytest.raises(InvalidInput):
                store.delete(key)
        for prefix in ("/", "../", "a", "a//"):
            with pytest.raises(InvalidInput):
                list(store.list(prefix))
        assert self.raw_keys() == set()

    def test_names_of_any_kind_survive(self, store: ObjectStore) -> None:
        keys = {"a+b.c_d-e", "spaces in it", "per%20cent", "hash#mark", "que?stion", "ünïcode", "models/x/.lost-1"}
        for key in keys:
            store.create(key, key.encode())
        assert {stat.key for stat in store.list("")} == keys
        for key in keys:
            assert store.read(key) == key.encode()

    def test_nothing_is_left_beside_what_was_written(self, store: ObjectStore) -> None:
        store.create("f/one", b"1")
        store.replace("f/one", b"2")
        with pytest.raises(ObjectExists):
            store.create("f/one", b"3")
        with pytest.raises(ObjectChanged):
            store.replace("f/one", b"4", if_etag="no such etag")
        assert self.raw_keys() == {"f/one"}

    def test_a_store_says_which_it_is(self, store: ObjectStore) -> None:
        assert "://" in store.url
        assert store.identity == self.open_client().identity
        assert store.ability.conditional_create
        assert store.ability.single_put_limit_bytes >= 16 * 2**20


def _at_once(call: Callable[[tuple[int, ObjectStore]], T], clients: list[tuple[int, ObjectStore]]) -> list[T]:
    with ThreadPoolExecutor(len(clients)) as pool:
        return list(pool.map(call, clients))
