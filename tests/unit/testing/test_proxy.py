"""The proxy does to each request what its rules say, and passes on every other byte as it is."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from modelrepo.testing.proxy import Answer, CutAnswer, CutRequest, Hang, Proxy, Reset, Slow, Swallow

BODY = bytes(range(256)) * 1024
PATIENCE_S = 30


class Handler(BaseHTTPRequestHandler):
    """Keeps what is PUT, gives it back on GET; `heads` are the requests that reached it."""

    protocol_version = "HTTP/1.1"
    held: dict[str, bytes]
    heads: list[tuple[str, str]]

    def do_PUT(self) -> None:
        data = self._chunks() if "chunked" in self.headers.get("Transfer-Encoding", "") else self._bytes()
        self.heads.append(("PUT", self.headers["Host"]))
        if data is not None:
            self.held[self.path] = data
        self._say(b"")

    def do_GET(self) -> None:
        self.heads.append(("GET", self.headers["Host"]))
        self._say(self.held.get(self.path, b""))

    def do_HEAD(self) -> None:
        self.do_GET()

    def _bytes(self) -> bytes | None:
        size = int(self.headers["Content-Length"])
        data = self.rfile.read(size)
        return data if len(data) == size else None

    def _chunks(self) -> bytes:
        data = b""
        while size := int(self.rfile.readline(), 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return data

    def _say(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = True

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # connections are cut here on purpose


@pytest.fixture
def held() -> dict[str, bytes]:
    return {}


@pytest.fixture
def heads() -> list[tuple[str, str]]:
    return []


@pytest.fixture
def proxy(held: dict[str, bytes], heads: list[tuple[str, str]]) -> Iterator[Proxy]:
    handler = type("Bound", (Handler,), {"held": held, "heads": heads})
    server = Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        with Proxy("127.0.0.1", server.server_address[1]) as proxy:
            yield proxy
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def client(proxy: Proxy) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection(proxy.endpoint.removeprefix("http://"), timeout=PATIENCE_S)
    yield connection
    connection.close()


def ask(client: http.client.HTTPConnection, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    client.request(method, path, body)
    answer = client.getresponse()
    return answer.status, answer.read()


def test_what_no_rule_matches_is_passed_on_over_one_connection(
    proxy: Proxy, client: http.client.HTTPConnection, held: dict[str, bytes], heads: list[tuple[str, str]]
) -> None:
    assert ask(client, "PUT", "/a%20b", BODY) == (200, b"")
    assert held == {"/a%20b": BODY}
    assert ask(client, "GET", "/a%20b") == (200, BODY)
    assert ask(client, "HEAD", "/a%20b") == (200, b"")
    seen = [(one.connection, one.method, one.target, one.act) for one in proxy.requests]
    assert seen == [(1, method, "/a b", None) for method in ("PUT", "GET", "HEAD")]
    assert {host for _, host in heads} == {proxy.endpoint.removeprefix("http://")}, "what a client signs is unchanged"


def test_chunks_are_passed_on_and_the_next_request_is_found_behind_them(
    client: http.client.HTTPConnection, held: dict[str, bytes]
) -> None:
    client.request("PUT", "/chunks", iter([b"one", b"GET /x HTTP/1.1\r\n\r\n", BODY]), encode_chunked=True)
    assert client.getresponse().read() == b""
    assert held["/chunks"] == b"oneGET /x HTTP/1.1\r\n\r\n" + BODY
    assert ask(client, "GET", "/chunks") == (200, held["/chunks"])


def test_a_client_that_waits_for_100_is_told_to_go_on(proxy: Proxy, held: dict[str, bytes]) -> None:
    with connected(proxy) as raw:
        raw.sendall(b"PUT /waits HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        assert raw.recv(100).startswith(b"HTTP/1.1 100 ")
        raw.sendall(b"bytes")
        assert b"200 OK" in raw.recv(1000)
    assert held == {"/waits": b"bytes"}


def test_a_client_that_waits_for_100_gets_the_proxys_answer_in_its_place(proxy: Proxy, held: dict[str, bytes]) -> None:
    proxy.on(Answer(500, "InternalError"))
    with connected(proxy) as raw:
        raw.sendall(b"PUT /waits HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        said = everything(raw)
    assert said.startswith(b"HTTP/1.1 500 InternalError")
    assert b"Connection: close" in said
    assert held == {}


def test_the_requests_that_a_rule_matches_are_counted(proxy: Proxy, client: http.client.HTTPConnection) -> None:
    storm = proxy.on(Answer(), "GET", r"^/a", first=2, times=2)
    assert [ask(client, "GET", "/a")[0] for _ in range(5)] == [200, 503, 503, 200, 200]
    assert ask(client, "PUT", "/a", b"")[0] == 200
    assert (storm.matched, storm.struck) == (5, 2)
    proxy.on(Answer(429, "TooManyRequests"), times=None)
    status, body = ask(client, "PUT", "/b", BODY)
    assert (status, b"<Code>TooManyRequests</Code>" in body) == (429, True)
    proxy.heal()
    assert ask(client, "GET", "/b") == (200, b"")


def test_of_two_rules_the_older_wins_and_the_other_has_counted(
    proxy: Proxy, client: http.client.HTTPConnection
) -> None:
    older, younger = proxy.on(Answer(500)), proxy.on(Answer(503), times=2)
    assert [ask(client, "GET", "/a")[0] for _ in range(4)] == [500, 503, 503, 200]
    assert (older.struck, younger.struck, younger.matched) == (1, 2, 4)


def test_a_swallowed_answer_is_lost_and_the_request_is_not(
    proxy: Proxy, client: http.client.HTTPConnection, held: dict[str, bytes]
) -> None:
    proxy.on(Swallow(), "PUT")
    with pytest.raises(http.client.RemoteDisconnected):
        ask(client, "PUT", "/a", BODY)
    assert held == {"/a": BODY}
    assert ask(client, "GET", "/a") == (200, BODY)


def test_a_cut_request_does_not_reach_the_server_whole(
    proxy: Proxy, client: http.client.HTTPConnection, held: dict[str, bytes]
) -> None:
    proxy.on(CutRequest(1000), "PUT")
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError)):
        ask(client, "PUT", "/a", BODY)
    assert ask(client, "PUT", "/b", BODY) == (200, b"")
    assert held == {"/b": BODY}


def test_a_cut_answer_ends_inside_its_body(
    proxy: Proxy, client: http.client.HTTPConnection, held: dict[str, bytes]
) -> None:
    held["/a"] = BODY
    proxy.on(CutAnswer(1000), "GET")
    with pytest.raises(http.client.IncompleteRead) as caught:
        ask(client, "GET", "/a")
    assert caught.value.partial == BODY[:1000]


def test_a_slow_request_arrives_all_the_same(
    proxy: Proxy, client: http.client.HTTPConnection, held: dict[str, bytes]
) -> None:
    slow = proxy.on(Slow(latency_s=0.01, bytes_per_s=100 << 20), times=None)
    assert ask(client, "PUT", "/a", BODY) == (200, b"")
    assert ask(client, "GET", "/a") == (200, BODY)
    assert slow.struck == 2


def test_a_request_that_hangs_is_answered_by_nobody_and_ends_with_the_proxy(
    proxy: Proxy, heads: list[tuple[str, str]]
) -> None:
    hung = proxy.on(Hang())
    with connected(proxy) as raw:
        raw.sendall(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n")
        raw.settimeout(0.05)
        with pytest.raises(TimeoutError):
            raw.recv(1)
        assert (hung.struck, heads) == (1, [])
        raw.settimeout(PATIENCE_S)
        proxy.stop()
        assert raw.recv(1) == b""


def test_connections_are_counted_and_refused(proxy: Proxy, client: http.client.HTTPConnection) -> None:
    refused = proxy.on_connection(Reset(), first=2)
    hung = proxy.on_connection(Hang(), first=3)
    assert ask(client, "GET", "/a") == (200, b"")
    client.close()
    with pytest.raises(ConnectionError):
        ask(client, "GET", "/a")
    client.close()
    with connected(proxy) as raw:
        raw.sendall(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n")
        raw.settimeout(0.05)
        with pytest.raises(TimeoutError):
            raw.recv(1)
    assert ask(client, "GET", "/b") == (200, b"")
    assert (refused.struck, hung.struck) == (1, 1)
    assert [(one.connection, one.target) for one in proxy.requests] == [(1, "/a"), (4, "/b")]


def test_a_server_that_is_gone_closes_the_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    with Proxy("127.0.0.1", port) as proxy, connected(proxy) as raw:
        raw.sendall(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n")
        assert everything(raw) == b""
    proxy.stop()


def connected(proxy: Proxy) -> socket.socket:
    host, _, port = proxy.endpoint.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=PATIENCE_S)


def everything(connection: socket.socket) -> bytes:
    said = b""
    while data := connection.recv(1 << 16):
        said += data
    return said
