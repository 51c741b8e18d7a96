"""The store that fails on purpose fails where it was told to."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelrepo.errors import ObjectNotFound, Unreachable
from modelrepo.stores.faults import WRITES, Fault, KillNow, faulty
from modelrepo.stores.filesystem import FilesystemStore
from modelrepo.stores.memory import MemoryBucket, MemoryStore
from modelrepo.stores.port import LocalFolders


def test_a_fault_before_has_no_effect_and_one_after_has() -> None:
    for moment, there in (("before", False), ("after", True)):
        inner = MemoryStore("x", MemoryBucket())
        store = faulty(inner, Fault(at=2, moment=moment))  # type: ignore[arg-type]
        store.create("a", b"1")
        with pytest.raises(Unreachable, match=f"{moment} operation 2"):
            store.create("b", b"2")
        assert ("b" in [stat.key for stat in inner.list("")]) is there
        store.create("b", b"2")
        assert store.read("b") == b"2"


def test_a_lost_answer_may_be_that_nothing_is_there() -> None:
    store = faulty(MemoryStore("x", MemoryBucket()), Fault(at=1, moment="after"))
    with pytest.raises(Unreachable):
        store.read("gone")
    with pytest.raises(ObjectNotFound):
        store.read("gone")


def test_after_a_kill_nothing_has_an_effect() -> None:
    inner = MemoryStore("x", MemoryBucket())
    told: list[str] = []
    store = faulty(inner, Fault(at=1, how="kill"), on_kill=lambda: told.append("killed"))
    with pytest.raises(KillNow):
        try:
            store.create("a", b"1")
        finally:
            with pytest.raises(KillNow):
                store.create("cleanup", b"")
    assert list(inner.list("")) == []
    assert told == ["killed"]


def test_only_the_named_operations_count() -> None:
    store = faulty(MemoryStore("x", MemoryBucket()), Fault(at=2, verbs=WRITES))
    store.create("a", b"1")
    store.read("a")
    list(store.list(""))
    store.stat("a")
    store.read_range("a", 0, 1)
    with pytest.raises(Unreachable):
        store.replace("a", b"2")
    store.delete("a")
    assert [verb for verb, _ in store.operations] == [
        "create",
        "read",
        "list",
        "stat",
        "read_range",
        "replace",
        "delete",
    ]


def test_it_can_do_what_the_inner_store_can(tmp_path: Path) -> None:
    assert not isinstance(faulty(MemoryStore("x", MemoryBucket())), LocalFolders)
    inner = FilesystemStore(tmp_path)
    store = faulty(inner, Fault(at=1, verbs=frozenset({"exchange"})))
    assert isinstance(store, LocalFolders)
    assert (store.url, store.ability, store.identity) == (inner.url, inner.ability, inner.identity)
    with store.locked(""):
        with pytest.raises(Unreachable):
            store.exchange("a", b"1")
        assert store.exchange("a", b"1") is None
