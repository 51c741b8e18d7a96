"""Taking an object over from another store of the same server, in memory and on a real S3 server."""

from __future__ import annotations

import pytest

from modelrepo.stores.memory import MemoryBucket, MemoryStore
from modelrepo.stores.opening import open_store
from modelrepo.stores.port import ObjectStore, TakesOver
from tests.conftest import Bucket

Pair = tuple[ObjectStore, ObjectStore]
KEY = "objects/sha256/ab/abcdef"


@pytest.fixture(params=["memory", "seaweed", "one bucket"])
def pair(request: pytest.FixtureRequest) -> Pair:
    """A source and a target."""
    if request.param == "memory":
        return MemoryStore("from", MemoryBucket()), MemoryStore("to", MemoryBucket())
    bucket: Bucket = request.getfixturevalue("seaweed")
    if request.param == "seaweed":
        return open_store(bucket.url), open_store(f"{bucket.url}/deep/er")
    return open_store(f"{bucket.url}/a b+c"), open_store(f"{bucket.url}/d%20é")


def take(source: ObjectStore, target: ObjectStore, etag: str | None = None) -> bool:
    assert isinstance(target, TakesOver)
    assert target.reaches(source)
    return target.take_over(source, KEY, source.stat(KEY).etag if etag is None else etag)


@pytest.mark.parametrize("size_bytes", [1, 16 << 10, (17 << 20) + 1])
def test_the_same_bytes_arrive(pair: Pair, size_bytes: int) -> None:
    source, target = pair
    data = bytes(range(256)) * (size_bytes // 256 + 1)
    source.create(KEY, data[:size_bytes])
    assert take(source, target)
    assert target.read(KEY) == data[:size_bytes]


def test_what_is_there_is_left_alone(pair: Pair) -> None:
    source, target = pair
    source.create(KEY, b"ours")
    target.create(KEY, b"theirs")
    assert not take(source, target)
    assert target.read(KEY) == b"theirs"


def test_an_object_that_has_changed_is_not_taken(pair: Pair) -> None:
    source, target = pair
    source.create(KEY, b"seen")
    etag = source.stat(KEY).etag
    source.replace(KEY, b"other")
    assert not take(source, target, etag)
    assert not list(target.list(""))


def test_what_the_server_cannot_do_is_left_to_others(pair: Pair) -> None:
    source, target = pair
    assert not take(source, target, "0" * 32)
    assert isinstance(target, TakesOver)
    assert not target.reaches(open_store("/tmp"))
