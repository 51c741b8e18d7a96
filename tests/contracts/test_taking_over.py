"""Taking an object over from another store of the same server, in memory and on a real S3 server."""

from __future__ import annotations

from pathlib import Path

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


def test_a_url_may_name_the_profile_that_has_endpoint_and_credentials(
    seaweed: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = seaweed.server.environment()
    config = tmp_path / "config"
    config.write_text(
        f"[profile near]\nregion = us-east-1\nendpoint_url = {told['AWS_ENDPOINT_URL']}\n"
        f"aws_access_key_id = {told['AWS_ACCESS_KEY_ID']}\naws_secret_access_key = {told['AWS_SECRET_ACCESS_KEY']}\n"
    )
    source = open_store(f"{seaweed.url}/one")
    source.create(KEY, b"bytes")
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "of another server")
    target = open_store(f"s3://near@{seaweed.name}/two")
    assert target.url == f"s3://near@{seaweed.name}/two"
    assert target.identity == source.identity
    assert take(source, target)
    assert open_store(f"s3://near@{seaweed.name}/one").read(KEY) == target.read(KEY) == b"bytes"


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
