"""Files over HTTP: places, uploads, fetches, and what a tenant's URL may not reach."""

from __future__ import annotations

import hashlib
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest

from modelrepo.repository import Repository
from modelrepo_runtime.gateway.addresses import AddressRules
from modelrepo_runtime.gateway.settings import GatewaySettings
from modelrepo_runtime.gateway.signing import SECRET_KEY
from modelrepo_runtime.jobstore import JobStore
from modelrepo_runtime.testing.gateways import Reply

from . import gateways
from .gateways import Bench


def tampered(url: str, **changes: str) -> str:
    parts = urlsplit(url)
    return f"{parts.path}?{urlencode({**dict(parse_qsl(parts.query)), **changes})}"


@pytest.mark.parametrize("store", ["folder", "memory"])
def test_a_file_goes_in_by_its_url_and_comes_out_the_same(repo: Repository, tmp_path: Path, store: str) -> None:
    files = JobStore("memory://gateway-files" if store == "memory" else (tmp_path / "files").as_uri())
    data = bytes(range(256)) * 12_000
    with gateways.bench(repo, tmp_path, files=files) as bench:
        place = bench.ask("POST", "/v1/files", {"name": "data.bin"}).json()
        assert bench.ask("PUT", place["upload_url"], data, who=None).status == 204
        key = files.find_upload(place["id"])
        assert key.endswith("/data.bin")
        url, _ = bench.gateway.parts.signer.url(bench.gateway.url, "GET", key, 60)
        fetched = bench.ask("GET", url, who=None)
        assert hashlib.sha256(fetched.body).digest() == hashlib.sha256(data).digest()
        assert fetched.headers["content-length"] == str(len(data))


def test_a_signed_url_is_good_for_one_thing(quiet: Bench) -> None:
    place = quiet.ask("POST", "/v1/files").json()
    url = place["upload_url"]
    assert quiet.ask("GET", tampered(url), who=None).status == 403
    assert quiet.ask("PUT", tampered(url, expires="99999999999"), b"x", who=None).status == 403
    assert quiet.ask("PUT", tampered(url, signature="0" * 64), b"x", who=None).status == 403
    assert quiet.ask("PUT", url.replace("/uploads/", "/jobs/"), b"x", who=None).status == 403
    assert quiet.ask("PUT", "/v1/content/uploads/x", b"x", who=None).status == 422
    signer = quiet.gateway.parts.signer
    secret, _ = signer.url(quiet.gateway.url, "GET", SECRET_KEY, 60)
    assert quiet.ask("GET", secret, who=None).status == 403
    outside, _ = signer.url(quiet.gateway.url, "GET", "../repository/store.json", 60)
    assert quiet.ask("GET", outside, who=None).status in (403, 422)
    missing, _ = signer.url(quiet.gateway.url, "GET", "jobs/none", 60)
    assert quiet.ask("GET", missing, who=None).status == 404


def test_a_file_over_the_limit_is_refused_and_not_kept(repo: Repository, tmp_path: Path) -> None:
    settings = GatewaySettings(token_cache_s=0.0, file_bytes=1000)
    with gateways.bench(repo, tmp_path, settings=settings) as bench:
        place = bench.ask("POST", "/v1/files").json()
        reply = bench.ask("PUT", place["upload_url"], b"x" * 1001, who=None)
        assert (reply.status, reply.json()["error"]["code"]) == (413, "too_large")
        chunked = bench.ask("PUT", place["upload_url"], None, who=None, headers={"Content-Length": "0"})
        assert chunked.status == 204
        assert bench.ask("PUT", place["upload_url"], b"x" * 1000, who=None).status == 204


def test_a_file_is_its_tenant_s_and_to_others_there_is_none(bench: Bench) -> None:
    def submit(who: str, file_id: str, **told: str) -> Reply:
        inputs = {"text": "hi", "image": {"file": file_id}}
        return bench.ask("POST", "/v1/jobs", {"model": "toy", "inputs": inputs, **told}, who=who)

    def told(reply: Reply, file_id: str) -> tuple[int, str]:
        return reply.status, reply.body.decode().replace(file_id, "ID")

    missing = told(submit("other", "file_none"), "file_none")
    assert missing[0] == 422
    for owner, friends, strangers in (("acme", ("acme", "narrow", "any", "boss"), ("other",)),
                                      ("any", ("any", "boss"), ("acme", "other"))):  # fmt: skip
        place = bench.ask("POST", "/v1/files", {"name": "cat.png"}, who=owner).json()
        assert bench.ask("PUT", place["upload_url"], b"x", who=None).status == 204
        for who in strangers:
            assert told(submit(who, place["id"]), place["id"]) == missing
        tenant = {"tenant": "other"} if owner == "any" else {}
        assert [submit(who, place["id"], tier="api", **tenant).status for who in friends] == [201] * len(friends)
        kind, mark, number = place["id"].split("_")
        for forged in (
            f"{kind}_{number}",
            f"{kind}_{'0' * len(mark)}_{number}",
            f"{kind}__{number}",
            f"{kind}_é_{number}",
        ):
            assert told(submit("acme", forged), forged) == missing


def test_names_of_files_are_plain(quiet: Bench) -> None:
    for name in ("../up", "a/b", ".hidden", "", "x" * 101, "a\x00b", "ü"):
        reply = quiet.ask("POST", "/v1/files", {"name": name})
        assert (reply.status, reply.json()["error"]["pointer"]) == (422, "/name"), name


def test_an_input_may_name_no_file_that_was_not_uploaded(quiet: Bench) -> None:
    for file_id in ("file_00000000000000000000000v", "../../x", "", "file_" + "u" * 24):
        inputs = {"text": "hi", "image": {"file": file_id}}
        reply = quiet.ask("POST", "/v1/jobs", {"model": "toy", "inputs": inputs})
        assert (reply.status, reply.json()["error"]["pointer"]) == (422, "/inputs/image"), file_id
    for path in ("/etc/passwd", "file:///etc/passwd", "http://example.com/x"):
        reply = quiet.ask("POST", "/v1/jobs", {"model": "toy", "inputs": {"text": "hi", "image": path}})
        assert (reply.status, reply.json()["error"]["pointer"]) == (422, "/inputs/image"), path


@pytest.mark.parametrize(
    ("name", "size", "told"), [("a.txt", 2_000_000, "at most 1MB"), ("a.pdf", 3, "application/pdf")]
)
def test_an_uploaded_file_is_held_to_what_the_model_takes(quiet: Bench, name: str, size: int, told: str) -> None:
    place = quiet.ask("POST", "/v1/files", {"name": name}).json()
    assert quiet.ask("PUT", place["upload_url"], b"x" * size, who=None).status == 204
    inputs = {"text": "hi", "image": {"file": place["id"]}}
    reply = quiet.ask("POST", "/v1/jobs", {"model": "toy", "inputs": inputs})
    error = reply.json()["error"]
    assert (reply.status, error["code"], error["pointer"]) == (422, "invalid_job_input", "/inputs/image")
    assert told in error["message"] and not quiet.queue.list()


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "2130706433", "localhost", "100.64.0.1", "[::ffff:10.0.0.1]"])
def test_an_input_s_url_may_not_lead_inside(quiet: Bench, host: str) -> None:
    inputs = {"text": "hi", "image": f"https://{host}:{urlsplit(quiet.gateway.url).port}/metrics"}
    reply = quiet.ask("POST", "/v1/jobs", {"model": "toy", "inputs": inputs})
    assert (reply.status, reply.json()["error"]["pointer"]) == (422, "/inputs/image")
    assert not quiet.queue.list()
    assert not list(quiet.files.store.list("jobs/"))


def test_a_webhook_s_url_may_not_lead_inside(repo: Repository, tmp_path: Path) -> None:
    inside = {"inside.example": ["10.1.1.1"], "outside.example": ["8.8.8.8"]}
    rules = AddressRules(resolve=lambda host, port: inside[host])
    with gateways.bench(repo, tmp_path, rules=rules) as bench:
        secret = "whsec_" + "c2VjcmV0" * 6
        hook = {"url": "https://inside.example/hook", "secret": secret}
        reply = bench.ask("POST", "/v1/jobs", {"model": "toy", "inputs": {"text": "hi"}, "webhook": hook})
        assert (reply.status, reply.json()["error"]["code"]) == (422, "invalid_input")
        assert not bench.queue.list()
        bench.submit(webhook={"url": "https://outside.example/hook", "secret": secret})
