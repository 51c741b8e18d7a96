"""Adapters over HTTP: what a submission may name, whose it is, and what workers are told."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from modelrepo.errors import InvalidAdapter
from modelrepo.repository import Repository
from modelrepo_runtime.client import Client
from modelrepo_runtime.gateway.addresses import AddressRules
from modelrepo_runtime.testing.gateways import Reply

from . import gateways
from .gateways import Bench

DATA = b"weights"
DIGEST = hashlib.sha256(DATA).hexdigest()


def submit(bench: Bench, *adapters: Any, who: str = "acme") -> Reply:
    return bench.ask("POST", "/v1/jobs", {"model": "bare", "inputs": {}, "adapters": list(adapters)}, who=who)


def upload(bench: Bench, who: str = "acme", data: bytes = DATA) -> str:
    place = bench.ask("POST", "/v1/files", {"name": "style.safetensors"}, who=who).json()
    assert bench.ask("PUT", place["upload_url"], data, who=None).status == 204
    return str(place["id"])


def test_an_upload_and_what_the_team_publishes_reach_the_worker(bench: Bench, repo: Repository, tmp_path: Path) -> None:
    (tmp_path / "style.bin").write_bytes(b"published")
    record = repo.adapters.push("style", tmp_path / "style.bin", version="t1")
    file_id = upload(bench)
    for told in ({"file": file_id, "weight": 0.5}, {"file": file_id, "sha256": DIGEST, "weight": 0.5}):
        reply = submit(bench, told, {"ref": record.ref})
        assert reply.status == 201, reply.body
        first, second = bench.claim("bare").adapters
        assert (first.name, first.sha256, first.size_bytes) == ("style.safetensors", DIGEST, len(DATA))
        assert (first.weight, first.owner, first.ref) == (0.5, "acme", None)
        assert first.key is not None and bench.files.read(first.key) == DATA
        assert (second.ref, second.sha256, second.weight, second.owner) == (record.ref, record.sha256, 1.0, "")


@pytest.mark.parametrize(
    ("told", "pointer"),
    [
        ({}, "/adapters/0"),
        ({"file": "f", "ref": "a@v1"}, "/adapters/0"),
        ({"url": "https://a.example/x"}, "/adapters/0/sha256"),
        ({"url": "https://a.example/x", "sha256": "abc"}, "/adapters/0/sha256"),
        ({"file": "file_none"}, "/adapters/0/file"),
        ({"ref": "nothing@v1"}, "/adapters/0/ref"),
        ({"ref": "nothing"}, "/adapters/0/ref"),
        ({"ref": "a@v1", "weight": "much"}, "/adapters/0/weight"),
        ({"ref": "a@v1", "weight": 1e300}, "/adapters/0/weight"),
        ({"ref": "a@v1", "scale": 1}, "/adapters/0/scale"),
        ({"url": "https://127.0.0.1/x", "sha256": DIGEST}, "/adapters/0/url"),
        ({"url": "http://example.com/x", "sha256": DIGEST}, "/adapters/0/url"),
        ({"url": "file:///etc/passwd", "sha256": DIGEST}, "/adapters/0/url"),
    ],
)
def test_what_is_not_possible_is_refused_with_its_place(bench: Bench, told: dict[str, Any], pointer: str) -> None:
    reply = submit(bench, told)
    assert (reply.status, reply.json()["error"]["pointer"]) == (422, pointer), reply.body


def test_more_than_eight_are_refused(bench: Bench) -> None:
    file_id = upload(bench)
    assert submit(bench, *[{"file": file_id}] * 8).status == 201
    reply = submit(bench, *[{"file": file_id}] * 9)
    assert (reply.status, reply.json()["error"]["pointer"]) == (422, "/adapters")


def test_another_tenant_s_upload_is_refused_as_if_there_were_none(bench: Bench) -> None:
    file_id = upload(bench)
    assert [submit(bench, {"file": file_id}, who=who).status for who in ("acme", "any")] == [201, 201]
    missing = submit(bench, {"file": "file_none"}, who="other")
    for told in ({"file": file_id}, {"file": file_id, "sha256": DIGEST}):
        reply = submit(bench, told, who="other")
        assert (reply.status, reply.body.decode().replace(file_id, "file_none")) == (422, missing.body.decode())


def test_an_empty_upload_and_a_wrong_digest_of_a_file_at_hand_are_refused(bench: Bench, tmp_path: Path) -> None:
    assert submit(bench, {"file": upload(bench, data=b"")}).status == 422
    path = tmp_path / "style.safetensors"
    path.write_bytes(DATA)
    with Client(bench.gateway.url, token=bench.tokens["acme"]) as client:
        job = client.submit("bare", adapters=[{"file": path, "weight": 2}])
        with pytest.raises(InvalidAdapter) as refused:
            client.submit("bare", adapters=[{"file": path, "ref": "a@v1"}])
    assert refused.value.pointer == "/adapters/0"
    (adapter,) = bench.queue.get(job["id"]).adapters
    assert (adapter.name, adapter.sha256, adapter.weight) == ("style.safetensors", DIGEST, 2.0)


def test_a_job_s_key_stands_for_its_adapters_too(bench: Bench) -> None:
    file_id, headers = upload(bench), {"Idempotency-Key": "k"}

    def ask(weight: float) -> Reply:
        body = {"model": "bare", "adapters": [{"file": file_id, "weight": weight}]}
        return bench.ask("POST", "/v1/jobs", body, headers=headers)

    assert ask(1.0).json()["id"] == ask(1.0).json()["id"]
    assert ask(0.5).status == 422


@contextmanager
def serving(data: bytes) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/loras/style.safetensors?signature=x"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_url_is_fetched_at_once_held_to_its_digest_and_kept_with_the_job(repo: Repository, tmp_path: Path) -> None:
    rules = AddressRules(frozenset({"127.0.0.1"}))
    with gateways.bench(repo, tmp_path, rules=rules) as bench, serving(DATA) as url:
        refused = submit(bench, {"url": url, "sha256": "f" * 64})
        assert (refused.status, refused.json()["error"]["pointer"]) == (422, "/adapters/0/sha256")
        assert DIGEST in refused.json()["error"]["message"]
        assert not list(bench.files.store.list("jobs/"))
        job = submit(bench, {"url": url, "sha256": DIGEST}).json()
        (adapter,) = bench.claim("bare").adapters
        assert (adapter.name, adapter.sha256, adapter.owner) == ("style.safetensors", DIGEST, "acme")
        assert adapter.key is not None and job["id"] in adapter.key and bench.files.read(adapter.key) == DATA


def test_a_submission_that_is_no_job_leaves_no_adapter_behind(repo: Repository, tmp_path: Path) -> None:
    rules = AddressRules(frozenset({"127.0.0.1"}))
    with gateways.bench(repo, tmp_path, rules=rules) as bench, serving(DATA) as url:
        told = {"url": url, "sha256": DIGEST}
        body = {"model": "bare", "adapters": [told]}
        first = bench.ask("POST", "/v1/jobs", body, headers={"Idempotency-Key": "k"}).json()
        assert bench.ask("POST", "/v1/jobs", body, headers={"Idempotency-Key": "k"}).json()["id"] == first["id"]
        assert submit(bench, told, {"ref": "nothing@v1"}).status == 422
        (kept,) = bench.files.store.list("jobs/")
        assert first["id"] in kept.key
        assert bench.ask("DELETE", f"/v1/jobs/{first['id']}").status == 204
        assert not list(bench.files.store.list("jobs/"))
