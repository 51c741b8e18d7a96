"""The bucket store keeps the contract over S3 (moto's server), and says in plain words what a server refuses."""

from __future__ import annotations

import itertools
import json
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import boto3  # type: ignore[import-untyped]
import pytest
from moto.server import ThreadedMotoServer

from modelrepo.errors import Forbidden, InvalidInput, ObjectNotFound, RepositoryNotFound, StoreNotTrusted, Unreachable
from modelrepo.stores.bucket import BucketStore, open_bucket
from modelrepo.stores.bucket_faults import translate
from modelrepo.stores.founding import found, open_founded
from modelrepo.stores.memory import MemoryStore
from modelrepo.stores.opening import open_store
from modelrepo.stores.port import ObjectStore, ReadsInPieces
from modelrepo.stores.probe import probe
from modelrepo.stores.retrying import RetryingStore
from modelrepo.stores.s3_settings import S3Settings
from modelrepo.testing.proxy import Answer, Proxy
from modelrepo.testing.store_contract import ObjectStoreContract

_numbers = itertools.count()


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def environment(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return endpoint


@pytest.fixture
def bucket(environment: str) -> str:
    name = f"models-{next(_numbers)}"
    _client(environment).create_bucket(Bucket=name)
    return name


@cache
def _client(endpoint: str) -> Any:
    return boto3.Session().client("s3", endpoint_url=endpoint)


class TestS3Store(ObjectStoreContract):
    @pytest.fixture(autouse=True)
    def _bucket(self, environment: str, bucket: str) -> None:
        self.client, self.bucket = _client(environment), bucket

    def open_client(self) -> ObjectStore:
        return open_store(f"s3://{self.bucket}/some/folder")

    def raw_write(self, key: str, data: bytes) -> None:
        self.client.put_object(Bucket=self.bucket, Key=f"some/folder/{key}", Body=data)

    def raw_keys(self) -> set[str]:
        found = self.client.list_objects_v2(Bucket=self.bucket).get("Contents", [])
        return {each["Key"].removeprefix("some/folder/") for each in found}


class TestS3StoreThroughS3fs(TestS3Store):
    """What stands in where there is no build of obstore."""

    races = 1  # it makes a client for every racer, and a client costs it a third of a second

    def open_client(self) -> ObjectStore:
        return open_bucket("s3", self.bucket, "some/folder")


def test_without_obstore_s3fs_stands_in(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    identity = open_store(f"s3://{bucket}").identity
    monkeypatch.setitem(sys.modules, "obstore", None)
    monkeypatch.delitem(sys.modules, "modelrepo.stores.s3")
    store = open_store(f"s3://{bucket}")
    assert isinstance(store, RetryingStore)
    assert isinstance(store.inner, BucketStore)
    assert store.identity == identity


def test_an_object_is_read_in_small_pieces(bucket: str) -> None:
    store = open_store(f"s3://{bucket}")
    data = os.urandom(3 * 2**20 + 1)
    store.create("a", data)
    assert isinstance(store, ReadsInPieces)
    pieces = [bytes(piece) for piece in store.read_pieces("a")]
    assert b"".join(pieces) == data
    assert max(map(len, pieces)) < 2**20
    assert b"".join(map(bytes, store.read_pieces("a", 2**20))) == data[2**20 :]
    assert list(store.read_pieces("a", len(data))) == []
    with pytest.raises(ObjectNotFound):
        list(store.read_pieces("gone"))


def test_each_verb_is_one_request_that_every_server_knows(
    bucket: str, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Proxy("127.0.0.1", int(endpoint.rpartition(":")[2])) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        store = open_store(f"s3://{bucket}/x")
        store.create("a", b"1")
        store.replace("a", b"2")
        store.read("a")
        store.read_range("a", 0, 1)
        store.stat("a")
        list(store.list(""))
        store.delete("a")
        with pytest.raises(ObjectNotFound):
            store.stat("a")
        methods = [request.method for request in proxy.requests]
    assert methods == ["PUT", "PUT", "GET", "GET", "HEAD", "GET", "DELETE", "HEAD"]


def test_a_key_that_no_client_of_ours_could_write_is_named(bucket: str, environment: str) -> None:
    _client(environment).put_object(Bucket=bucket, Key="x/a//b", Body=b"")
    with pytest.raises(Unreachable, match=r"empty segment.*x/a//b") as caught:
        list(open_store(f"s3://{bucket}/x").list(""))
    assert not caught.value.transient


def test_settings_are_those_of_the_profile(
    bucket: str, endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name)
    config = tmp_path / "config"
    config.write_text(
        f"[profile far]\nregion = eu-north-1\nendpoint_url = {endpoint}\n"
        "aws_access_key_id = key\naws_secret_access_key = secret\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_PROFILE", "far")
    settings = S3Settings(bucket)
    assert (settings.endpoint_url, settings.region) == (endpoint, "eu-north-1")
    assert settings.credentials()["access_key_id"] == "key"
    assert settings.credential_source() == "config-file (profile far)"
    assert list(open_store(f"s3://{bucket}").list("")) == []


def test_without_an_endpoint_it_is_amazons(monkeypatch: pytest.MonkeyPatch, environment: str) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    for region in ("us-east-1", "eu-north-1", "cn-north-1"):
        monkeypatch.setenv("AWS_DEFAULT_REGION", region)
        assert S3Settings("bucket").endpoint == "aws"


def test_credentials_that_run_out_are_asked_for_again(
    environment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    answer = {"Version": 1, "AccessKeyId": "first", "SecretAccessKey": "x", "Expiration": "2100-01-01T00:00:00Z"}
    (tmp_path / "answer").write_text(json.dumps(answer))
    config = tmp_path / "config"
    config.write_text(f"[default]\ncredential_process = cat {tmp_path / 'answer'}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    settings = S3Settings("bucket")
    found = settings.credentials()
    assert found["access_key_id"] == "first"
    assert found["expires_at"] - datetime.now(UTC) < timedelta(minutes=10)
    assert settings.credential_source() == "custom-process (profile default)"


def test_a_repository_is_founded_and_opened(bucket: str) -> None:
    url = f"s3://{bucket}/repository"
    founded = found(open_store(url), client=lambda: open_store(url))
    assert open_founded(open_store(url)).id == founded.id
    assert open_founded(open_store(url)).distrust is None


def test_two_who_found_at_once_share_one_repository(bucket: str) -> None:
    url = f"s3://{bucket}/repository"
    with ThreadPoolExecutor(2) as pool:
        founded = list(pool.map(lambda _: found(open_store(url), client=lambda: open_store(url)), range(2)))
    assert len({each.id for each in founded}) == 1
    assert [each.distrust for each in founded] == [None, None]


def test_a_bucket_reached_elsewhere_is_read_only_until_adopted(
    bucket: str, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found(open_store(f"s3://{bucket}"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint.replace("127.0.0.1", "localhost"))
    elsewhere = open_founded(open_store(f"s3://{bucket}"))
    with pytest.raises(StoreNotTrusted, match="--adopt"):
        elsewhere.store.create("key", b"")
    with pytest.raises(StoreNotTrusted, match="localhost"):
        found(open_store(f"s3://{bucket}"))
    assert found(open_store(f"s3://{bucket}"), adopt=True).id == elsewhere.id
    open_founded(open_store(f"s3://{bucket}")).store.create("key", b"")


def test_the_root_of_a_bucket_is_a_store_too(bucket: str) -> None:
    store = open_store(f"s3://{bucket}")
    assert list(store.list("")) == []
    store.create("a/b", b"1")
    assert [stat.key for stat in store.list("")] == ["a/b"]
    assert probe(store, creators=4, rounds=1).trusted


def test_a_bucket_that_is_not_there_is_no_empty_answer(environment: str) -> None:
    store = open_store("s3://no-such-bucket/folder")
    for call in (lambda: store.read("a"), lambda: list(store.list("")), lambda: store.create("a", b"")):
        with pytest.raises(RepositoryNotFound, match="no such bucket"):
            call()


def test_a_server_that_is_not_there_is_unreachable(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    store = open_store(f"s3://{bucket}/folder")
    for call in (lambda: store.read("a"), lambda: list(store.list("")), lambda: store.create("a", b"")):
        with pytest.raises(Unreachable, match=f"s3://{bucket}/folder") as caught:
            call()
        assert not isinstance(caught.value, Forbidden)


def test_missing_credentials_are_said_to_be(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    store = open_store(f"s3://{bucket}")
    with pytest.raises(Forbidden, match="there are no credentials, neither in the environment"):
        store.read("a")


def test_a_profile_that_is_not_there_is_no_fault_of_the_network(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    with pytest.raises(Forbidden, match=r"profile \(nobody\) could not be found; correct the URL or AWS_PROFILE"):
        open_store(f"s3://nobody@{bucket}/models").read("a")


def test_refused_credentials_name_their_source(bucket: str, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Proxy("127.0.0.1", int(endpoint.rpartition(":")[2])) as proxy:
        proxy.on(Answer(403, "AccessDenied"), "PUT", times=None)
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        store = open_store(f"s3://{bucket}")
        assert list(store.list("")) == []
        with pytest.raises(Forbidden, match="environment variables AWS_ACCESS_KEY_ID") as caught:
            store.create("a", b"")
    assert f"s3://{bucket}" in str(caught.value)
    assert "AccessDenied" in str(caught.value)


def test_what_is_too_large_for_one_put_is_refused(bucket: str) -> None:
    store = open_bucket("s3", bucket, "")
    with pytest.raises(InvalidInput, match="cut it into chunks"):
        store.create("a", bytes(100 * 2**20))
    assert list(store.list("")) == []


@pytest.mark.parametrize("error", [FileExistsError("taken"), OSError(22, "taken")])
def test_a_lost_precondition_is_told_by_its_status_alone(error: OSError) -> None:
    """AWS and moto answer one way, SeaweedFS the other; both carry the 412 in their cause."""
    from botocore.exceptions import ClientError

    answer: Any = {"Error": {"Code": "PreconditionFailed"}, "ResponseMetadata": {"HTTPStatusCode": 412}}
    error.__cause__ = ClientError(answer, "PutObject")
    inner = MemoryStore("x", None)
    inner.replace("folder/a", b"theirs")

    class Filesystem:
        def pipe_file(self, path: str, data: bytes, **condition: Any) -> None:
            raise error

        def cat_file(self, path: str) -> bytes:
            return inner.read(path.removeprefix("bucket/"))

    from modelrepo.errors import ObjectChanged, ObjectExists

    store = BucketStore("s3", "bucket", "folder", Filesystem())
    with pytest.raises(ObjectExists):
        store.create("a", b"ours")
    store.create("a", b"theirs")
    with pytest.raises(ObjectChanged):
        store.replace("a", b"ours", if_etag="x")
    assert type(translate(error, verb="read", key="a", url="s3://bucket", credentials=str)) is Unreachable


def test_the_options_that_two_clients_need_are_set(environment: str) -> None:
    store = open_bucket("s3", "some-bucket", "")
    other = open_bucket("s3", "some-bucket", "")
    assert store._filesystem is not other._filesystem
    assert store._filesystem.dircache.use_listings_cache is False
