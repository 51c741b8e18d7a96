from __future__ import annotations

import pytest

from modelrepo.errors import ObjectExists, Unreachable
from modelrepo.stores.bucket_faults import Taken, create_or_compare
from modelrepo.stores.memory import MemoryBucket, MemoryStore


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore("m", MemoryBucket())


def refuse() -> None:
    raise Taken("another request is under way")


def test_what_is_refused_and_yet_absent_is_to_be_asked_again(store: MemoryStore) -> None:
    with pytest.raises(Unreachable, match="refused as taken and yet absent") as caught:
        create_or_compare(store, "key", b"ours", refuse)
    assert caught.value.transient
    assert caught.value.status == 409


def test_what_is_refused_is_compared(store: MemoryStore) -> None:
    store.create("key", b"ours")
    create_or_compare(store, "key", b"ours", refuse)
    with pytest.raises(ObjectExists):
        create_or_compare(store, "key", b"other", refuse)
