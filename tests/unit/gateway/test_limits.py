"""What a gateway bears: bodies, headers, silence, crowds, a queue that is away, its own end."""

from __future__ import annotations

import json
import logging
import resource
import socket
import threading
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from modelrepo.errors import InvalidInput, Unreachable
from modelrepo.repository import Repository
from modelrepo_runtime.gateway import serving
from modelrepo_runtime.gateway.logs import ABOUT, GatheredLines, JsonLines, note
from modelrepo_runtime.gateway.settings import GatewaySettings

from . import gateways
from .gateways import Bench


def raw(bench: Bench, data: bytes) -> bytes:
    """Send bytes and return all that comes back until the connection ends."""
    parts = urlsplit(bench.gateway.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=30) as connection:
        connection.sendall(data)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    return answer


def test_a_body_over_the_limit_is_refused_before_and_while_it_comes(quiet: Bench) -> None:
    reply = quiet.ask("POST", "/v1/jobs", b"x" * (4 << 20))
    assert (reply.status, reply.json()["error"]["code"]) == (413, "too_large")
    head = b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nAuthorization: Bearer "
    head += quiet.tokens["acme"].encode() + b"\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    chunks = (b"10000\r\n" + b"x" * 65536 + b"\r\n") * 60
    assert raw(quiet, head + chunks + b"0\r\n\r\n").startswith(b"HTTP/1.1 413 ")


def test_slow_headers_and_endless_ones_end_the_connection(repo: Repository, tmp_path: Path) -> None:
    settings = GatewaySettings(token_cache_s=0.0, header_s=0.2, header_bytes=4096)
    with gateways.bench(repo, tmp_path, settings=settings) as bench:
        assert raw(bench, b"GET /healthz HTTP/1.1\r\nHost: x\r\n") == b""
        assert raw(bench, b"") == b""
        assert b" 431 " in raw(bench, b"GET /healthz HTTP/1.1\r\nX: " + b"x" * 8192)
        assert bench.ask("GET", "/healthz", who=None).status == 200


def test_a_body_that_stops_coming_is_given_up(repo: Repository, tmp_path: Path) -> None:
    settings = GatewaySettings(token_cache_s=0.0, silence_s=0.2)
    with gateways.bench(repo, tmp_path, settings=settings) as bench:
        head = b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n"
        head += b"Authorization: Bearer " + bench.tokens["acme"].encode() + b"\r\n\r\n{"
        assert raw(bench, head).startswith(b"HTTP/1.1 408 ")


def test_one_request_too_many_is_told_to_come_again(repo: Repository, tmp_path: Path) -> None:
    settings = GatewaySettings(token_cache_s=0.0, most_requests=1)
    with gateways.bench(repo, tmp_path, settings=settings) as bench:
        job_id = bench.submit()["id"]
        with bench.stream(f"/v1/jobs/{job_id}/events") as answer:
            assert answer.readline()
            reply = bench.ask("GET", "/v1/jobs")
            assert (reply.status, reply.json()["error"]) == (
                503,
                {"code": "overloaded", "message": reply.json()["error"]["message"], "retryable": True},
            )
            assert int(reply.headers["retry-after"]) >= 1


def test_a_queue_that_is_away_is_503_and_its_address_stays_inside(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object, **__: object) -> None:
        raise Unreachable("cannot reach postgresql://boss@db.internal/queue: refused")

    monkeypatch.setattr(bench.queue, "list", away)
    monkeypatch.setattr(bench.queue, "tiers", away)
    reply = bench.ask("GET", "/v1/jobs")
    assert (reply.status, reply.json()["error"]["code"], reply.json()["error"]["retryable"]) == (
        503,
        "unreachable",
        True,
    )
    assert "retry-after" in reply.headers
    assert b"db.internal" not in reply.body
    assert bench.ask("GET", "/readyz", who=None).status == 503
    assert bench.ask("GET", "/healthz", who=None).status == 200


def test_a_fault_of_ours_shows_no_traceback(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(bench.queue, "list", broken)
    reply = bench.ask("GET", "/v1/jobs", headers={"X-Request-Id": "mine-1"})
    assert (reply.status, reply.json()["error"]["code"]) == (500, "internal")
    assert b"secret" not in reply.body
    assert b"Traceback" not in reply.body
    assert reply.headers["x-request-id"] == "mine-1"


def test_paths_and_methods_that_are_none_are_answered_alike(quiet: Bench) -> None:
    for method, path, status, code in (
        ("GET", "/v2/jobs", 404, "not_found"),
        ("GET", "/v1/jobs/", 404, "not_found"),
        ("PATCH", "/v1/jobs", 405, "method_not_allowed"),
    ):
        reply = quiet.ask(method, path)
        assert (reply.status, reply.json()["error"]["code"]) == (status, code)


def test_an_end_answers_long_waits_and_loses_nothing(bench: Bench) -> None:
    job = bench.submit()
    replies = []
    waiting = threading.Thread(
        target=lambda: replies.append(bench.ask("GET", f"/v1/jobs/{job['id']}", headers={"Prefer": "wait=40"}))
    )
    with bench.stream(f"/v1/jobs/{job['id']}/events") as answer:
        assert answer.readline()
        waits = bench.gateway.parts.metrics.waits.labels("wait")
        waiting.start()
        waiter = bench.queue.waiter(["toy"])
        while waits._value.get() == 0:
            waiter.wait(0.02)
        bench.gateway.stop()
        while answer.readline():
            pass
    waiting.join()
    assert [(reply.status, reply.json()["status"]) for reply in replies] == [(200, "queued")]


def test_metrics_are_counted_under_their_routes(bench: Bench) -> None:
    job = bench.submit(tier="api")
    bench.ask("GET", f"/v1/jobs/{job['id']}")
    bench.ask("GET", "/v1/jobs/none")
    text = bench.ask("GET", "/metrics", who="boss").body.decode()
    assert 'modelrepo_gateway_requests_total{method="GET",route="/v1/jobs/{job_id}",status="200"} 1.0' in text
    assert 'modelrepo_gateway_refusals_total{code="job_not_found"} 1.0' in text
    assert 'modelrepo_gateway_submissions_total{model="toy",tier="api"} 1.0' in text
    assert job["id"] not in text


def test_a_log_line_is_json_and_says_whose_it_is() -> None:
    about: dict[str, object] = {"request": "r1"}
    token = ABOUT.set(about)
    try:
        note(job="job_1", attempt=2, nothing=None)
        record = logging.LogRecord("modelrepo_runtime.gateway.x", logging.INFO, "", 1, "%s went", ("it",), None)
        record.facts = {"ms": 3}
        line = json.loads(JsonLines().format(record))
    finally:
        ABOUT.reset(token)
    assert line == {
        "at": line["at"],
        "level": "info",
        "from": "gateway.x",
        "message": "it went",
        "request": "r1",
        "job": "job_1",
        "attempt": 2,
        "ms": 3,
    }


def test_too_few_descriptors_are_refused_with_the_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 4096))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: given.append(limits))
    with pytest.raises(InvalidInput, match=r"need 12512 open files, and this box allows 4096.*--max-connections 3584"):
        serving.raise_descriptors(12_000)
    assert serving.raise_descriptors(1000) == 1512
    assert given == [(1512, 4096)]


def test_a_port_that_is_taken_is_said(quiet: Bench) -> None:
    port = urlsplit(quiet.gateway.url).port or 0
    with pytest.raises(Exception, match=f"cannot listen on 127.0.0.1:{port}"):
        serving.listen(serving.Place(port=port))
    with pytest.raises(InvalidInput, match="an address of this box"):
        serving.listen(serving.Place(host="no such host"))


def test_lines_are_written_whole_in_order_and_to_the_last(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as stream:
        lines = GatheredLines(stream)
        lines.setFormatter(JsonLines())
        logger = logging.Logger("gateway")
        logger.addHandler(lines)
        for number in range(500):
            logger.info("line %d", number)
        logger.info("no number: %d", "five")
        lines.close()
    written = [json.loads(line)["message"] for line in (tmp_path / "log").read_text().splitlines()]
    assert written == [f"line {number}" for number in range(500)]
