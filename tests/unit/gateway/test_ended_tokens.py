"""What a token that ends takes with it: whoever waits on it is sent away."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from modelrepo_runtime.queue.http.calls import calls, write_arguments
from modelrepo_runtime.queue.port import Offer, Session, WorkerInfo
from modelrepo_runtime.queue.tokens import Grant, Role
from modelrepo_runtime.remote.failures import PROTOCOL, PROTOCOL_HEADER
from modelrepo_runtime.testing.gateways import Reply

from .gateways import Bench

SPOKEN = {PROTOCOL_HEADER: str(PROTOCOL)}
MANY_LINES = 1000


def poll(bench: Bench, token: str, session: Session, wait_s: float) -> Reply:
    offers = [Offer("0", "toy", "v1", ("run",))]
    told = write_arguments(calls()["claim"], {"session": session, "seq": 1, "offers": offers})
    return bench.gateway.ask("POST", "/v1/worker/claim", {**told, "wait_s": wait_s}, token=token, headers=SPOKEN)


@pytest.mark.parametrize("life_s", [None, 1.0])
def test_a_box_whose_token_ends_gets_no_job_by_a_poll_that_is_open(bench: Bench, life_s: float | None) -> None:
    _, text = bench.queue.tokens.create("own", Grant(Role.WORKER), life_s=life_s)
    session = bench.queue.hello(WorkerInfo("w", "box", 1))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(poll, bench, text, session, 45.0)
        if life_s is None:
            bench.waits("claim")
            bench.queue.tokens.revoke("own")
        reply = waiting.result(30)
    assert (reply.status, reply.json()["error"]["code"]) == (401, "unauthenticated")
    bench.submit()
    assert bench.claim().model == "toy"


def test_a_stream_of_events_ends_with_its_token(bench: Bench) -> None:
    job_id = bench.submit()["id"]
    with bench.stream(f"/v1/jobs/{job_id}/events") as answer:
        assert answer.readline()
        bench.queue.tokens.revoke("acme")
        lines = [answer.readline() for _ in range(MANY_LINES)]
    assert lines[-1] == b"" and b"job.finished" not in b"".join(lines)


def test_a_wait_for_a_job_ends_with_its_token(bench: Bench) -> None:
    job_id = bench.submit()["id"]
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(bench.ask, "GET", f"/v1/jobs/{job_id}", headers={"Prefer": "wait=45"})
        bench.waits("wait")
        bench.queue.tokens.revoke("acme")
        assert waiting.result(30).status == 401


def test_the_end_of_one_token_ends_no_other_s_wait(bench: Bench) -> None:
    bench.queue.tokens.create("twin", Grant(Role.SUBMIT, tenant="acme"))
    job_id = bench.submit()["id"]
    with bench.stream(f"/v1/jobs/{job_id}/events") as answer:
        assert answer.readline()
        bench.queue.tokens.revoke("other")
        bench.queue.tokens.revoke("twin")
        bench.finish(bench.claim())
        lines = [answer.readline() for _ in range(MANY_LINES)]
    states = [json.loads(line[6:])["status"] for line in lines if line.startswith(b"data: ")]
    assert states[-1] == "succeeded"
