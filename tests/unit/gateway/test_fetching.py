"""Fetching what a tenant's URL names."""

from __future__ import annotations

import select
import ssl
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from modelrepo.errors import InvalidInput, Unreachable
from modelrepo_runtime.gateway.addresses import AddressRefused, AddressRules
from modelrepo_runtime.gateway.fetching import Fetcher, FetchLimits, file_name
from modelrepo_runtime.testing.https_server import serving

LIMITS = FetchLimits(size_bytes=1000, silence_s=5.0)


MOST_DRIPS = 600


def drip(handler: BaseHTTPRequestHandler, begun: bytes, drop: bytes) -> None:
    """Send a little, again and again, until the client has gone."""
    with suppress(OSError):
        handler.wfile.write(begun)
        for _ in range(MOST_DRIPS):
            handler.wfile.write(drop)
            select.select([handler.connection], [], [], 0.1)
    handler.close_connection = True


def answer(handler: BaseHTTPRequestHandler) -> None:
    path = handler.path.partition("?")[0]
    if path.startswith("/drips"):
        head = b"HTTP/1.1 200 OK\r\n"
        drip(handler, head + b"X: " if path == "/drips-head" else head + b"\r\n", b"x")
        return
    places = {
        "/hop": "/cat.png",
        "/loop": "/loop",
        "/inside": "https://127.0.0.1:1/x",
        "/metadata": "http://169.254.169.254/latest",
        "/port": "https://localhost:1/x",
        "/plain": handler.headers["Host"].join(("http://", "/cat.png")),
        "/user": "https://a@" + handler.headers["Host"] + "/cat.png",
        "/empty": "",
    }
    if path in places:
        handler.send_response(302)
        handler.send_header("Location", places[path])
        handler.end_headers()
        return
    handler.send_response(404 if path == "/missing" else 200)
    body = b"x" * 1001 if path in ("/large", "/unsaid") else b"picture"
    handler.send_header("Content-Type", "image/png; charset=none")
    if path != "/unsaid":
        handler.send_header("Content-Length", str(len(body) + (10 if path == "/torn" else 0)))
    handler.end_headers()
    handler.wfile.write(body)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, ssl.SSLContext]]:
    with serving(tmp_path_factory.mktemp("tls"), answer) as made:
        yield made


@pytest.fixture
def fetch(server: tuple[int, ssl.SSLContext], tmp_path: Path) -> Callable[[str], bytes]:
    port, tls = server
    fetcher = Fetcher(AddressRules(frozenset({"localhost"})), LIMITS, tls)
    return lambda path: fetcher.fetch(f"https://localhost:{port}{path}", tmp_path).path.read_bytes()


def test_a_file_is_fetched_also_through_a_redirection_to_the_same_host(fetch: Callable[[str], bytes]) -> None:
    assert fetch("/cat.png?size=1") == b"picture"
    assert fetch("/hop") == b"picture"


@pytest.mark.parametrize("path", ["/inside", "/metadata", "/port", "/plain", "/user", "/empty"])
def test_a_redirection_to_elsewhere_is_refused(fetch: Callable[[str], bytes], path: str) -> None:
    with pytest.raises(AddressRefused, match="only the same host"):
        fetch(path)


@pytest.mark.parametrize("path", ["/large", "/unsaid"])
def test_a_file_over_the_limit_is_given_up(fetch: Callable[[str], bytes], path: str) -> None:
    with pytest.raises(InvalidInput, match="larger than 1000 bytes"):
        fetch(path)


def test_what_is_no_file_is_said(fetch: Callable[[str], bytes]) -> None:
    with pytest.raises(InvalidInput, match="answers 404"):
        fetch("/missing")
    with pytest.raises(InvalidInput, match="more than 5 times"):
        fetch("/loop")
    with pytest.raises(Unreachable, match="10 bytes are missing"):
        fetch("/torn")


@pytest.mark.parametrize("path", ["/drips-head", "/drips-body"])
def test_no_server_holds_a_fetch_longer_than_its_time(
    server: tuple[int, ssl.SSLContext], tmp_path: Path, path: str
) -> None:
    port, tls = server
    limits = FetchLimits(silence_s=60.0, total_s=1.0)
    fetcher = Fetcher(AddressRules(frozenset({"localhost"})), limits, tls)
    with pytest.raises(Unreachable, match="not whole after 1 s; upload the file"):
        fetcher.fetch(f"https://localhost:{port}{path}", tmp_path)


def test_a_certificate_that_is_not_the_host_s_is_no_answer(server: tuple[int, ssl.SSLContext], tmp_path: Path) -> None:
    port, tls = server
    rules = AddressRules(frozenset({"other.example"}), lambda host, _: ["127.0.0.1"])
    with pytest.raises(Unreachable, match="certificate"):
        Fetcher(rules, LIMITS, tls).fetch(f"https://other.example:{port}/cat.png", tmp_path)
    with pytest.raises(Unreachable, match="certificate"):
        Fetcher(AddressRules(frozenset({"localhost"})), LIMITS).fetch(f"https://localhost:{port}/cat.png", tmp_path)


def test_a_fetched_file_has_a_plain_name() -> None:
    assert file_name("https://x/a/cat.png?x=1") == "cat.png"
    assert file_name("https://x/a/..%2F..%2Fetc%2Fpasswd") == "passwd"
    assert file_name("https://x/") == "file"
    assert file_name("https://x/...") == "file"
    assert file_name("https://x/%00%E2%82%AC.png") == "__.png"
