"""Files of jobs in a bucket (moto's server): large ones in parts, and URLs by which anybody may fetch them."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from pathlib import Path

import boto3  # type: ignore[import-untyped]
import pytest
from moto.server import ThreadedMotoServer

from modelrepo_runtime import jobstore
from modelrepo_runtime.jobs import Fence, new_id
from modelrepo_runtime.jobstore import JobStore

AT = 1_700_000_000.0


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def files(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> JobStore:
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (
        ("AWS_ENDPOINT_URL", endpoint),
        ("AWS_ACCESS_KEY_ID", "testing"),
        ("AWS_SECRET_ACCESS_KEY", "testing"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ):
        monkeypatch.setenv(name, value)
    boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket="jobs")
    return JobStore("s3://jobs/files")


@pytest.mark.parametrize("size", [0, 10, 12 * 2**20])
def test_outputs_come_back_and_can_be_fetched_by_url(
    files: JobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(jobstore, "WHOLE_BYTES", 2**20)
    path = tmp_path / "out.bin"
    path.write_bytes(b"abcdefgh" * (size // 8) + b"x" * (size % 8))
    output = files.put_output("job_1", AT, Fence(1, "a"), "out", path)
    assert output.size_bytes == size
    assert files.fetch(output.key, tmp_path / "back").read_bytes() == path.read_bytes()
    url, expires_at = files.place(output.key)
    assert url is not None and expires_at is not None
    with urllib.request.urlopen(url) as answer:
        assert answer.read() == path.read_bytes()
    files.delete_job("job_1", AT)
    assert list(files._store.list("")) == []


def test_an_upload_goes_to_a_bucket_by_a_url_of_its_own(files: JobStore) -> None:
    file_id = new_id("file")
    key = files.upload_key(file_id, "cat.png")
    url = files.put_url(key, 60)
    assert url is not None
    request = urllib.request.Request(url, data=b"cat", method="PUT", headers={"Content-Type": "image/png"})
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 200
    assert files.read(files.find_upload(file_id)) == b"cat"
    files.delete(key)
