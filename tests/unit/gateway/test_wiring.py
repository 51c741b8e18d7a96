"""What runs beside the requests: lost jobs come back, webhooks are posted, boxes are answered."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from modelrepo.repository import Repository
from modelrepo_runtime.gateway.settings import GatewaySettings
from modelrepo_runtime.jobs import Cause, Outcome, Status
from modelrepo_runtime.queue.opening import open_queue
from modelrepo_runtime.queue.port import Offer, WorkerInfo
from modelrepo_runtime.timing import Timing

from . import gateways


@contextmanager
def receiver() -> Iterator[tuple[str, SimpleQueue[Any]]]:
    """A receiver of webhooks on loopback: its URL, and what came."""
    came: SimpleQueue[Any] = SimpleQueue()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(204)
            self.end_headers()
            came.put(json.loads(body))

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://localhost:{server.server_address[1]}/hook", came
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_gateway_posts_the_webhooks_of_its_jobs(repo: Repository, tmp_path: Path) -> None:
    settings = GatewaySettings(allow_url_hosts=frozenset({"localhost"}), public_url="https://gw.example")
    with receiver() as (url, came), gateways.bench(repo, tmp_path, settings=settings) as bench:
        job = bench.submit(webhook={"url": url, "secret": "whsec_" + "c2VjcmV0" * 6})
        (tmp_path / "out.png").write_bytes(b"picture")
        bench.finish(bench.claim(), {"text": "done"}, output=tmp_path / "out.png")
        events = [came.get(timeout=30)]
        while events[-1]["type"] != "job.finished":
            events.append(came.get(timeout=30))
    told = events[-1]["data"]
    assert (told["id"], told["status"], told["result"]) == (job["id"], "succeeded", {"text": "done"})
    assert told["outputs"][0]["url"].startswith("https://gw.example/v1/content/jobs/")


def test_a_gateway_takes_jobs_back_from_workers_that_are_gone(repo: Repository, tmp_path: Path) -> None:
    timing = Timing.embedded().scaled(0.02)
    with gateways.bench(repo, tmp_path, timing=timing) as bench:
        job = bench.submit()
        bench.claim()
        assert bench.queue.get(job["id"]).status is Status.RUNNING
        waiter = bench.queue.waiter(["toy"])
        for _ in range(1000):
            if bench.queue.get(job["id"]).status is Status.QUEUED:
                break
            waiter.wait(0.05)
        assert bench.queue.get(job["id"]).status is Status.QUEUED


def test_a_box_is_answered_beside_clients(quiet: gateways.Bench) -> None:
    reply = quiet.ask("GET", "/v1/worker/welcome", who="box", headers={"Modelrepo-Protocol": "1"})
    assert reply.status == 200, reply.body
    assert quiet.ask("GET", "/v1/worker/welcome", who="acme", headers={"Modelrepo-Protocol": "1"}).status == 403


def test_the_log_names_job_and_attempt_of_what_boxes_do(
    bench: gateways.Bench, caplog: pytest.LogCaptureFixture
) -> None:
    job = bench.submit(tier="api")
    with (
        caplog.at_level("INFO", "modelrepo_runtime.gateway"),
        closing(open_queue(bench.gateway.url, token=bench.tokens["box"])) as queue,
    ):
        session = queue.hello(WorkerInfo("w", "box", 1))
        (claim,) = queue.claim(session, 0, [Offer("0", "toy", "v1", ("run",))])
        queue.finish(session, claim.job_id, claim.fence, Outcome(Cause.SUCCEEDED))
    lines = [(record.getMessage(), getattr(record, "facts", {})) for record in caplog.records]
    attempt = {"job": job["id"], "attempt": str(claim.fence)}
    told = {message: facts for message, facts in lines if facts.get("job") == job["id"]}
    assert set(told) == {"claimed", "ended"}
    assert all(attempt.items() <= facts.items() for facts in told.values())
    assert told["ended"]["cause"] == "succeeded"
