"""Jobs over HTTP: submitted, looked at, waited for, watched, cancelled, deleted."""

from __future__ import annotations

import json
import threading
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import pytest

from modelrepo_runtime.job_memory import JobMemory, MemoryUse
from modelrepo_runtime.jobs import Cause, Outcome, Status
from modelrepo_runtime.queue.port import Offer, SlotReport, WorkerInfo
from modelrepo_runtime.queue.relational import memory

from .gateways import Bench

KEYS = "id model version tier tenant status stage progress message created_at started_at finished_at eta queue result"


def read_event(answer: HTTPResponse) -> dict[str, str] | None:
    """Return the fields of the next event, None at the end of the stream."""
    fields: dict[str, str] = {}
    while line := answer.readline().decode():
        if line == "\n" and "data" in fields:
            return fields
        name, _, value = line.rstrip("\n").partition(": ")
        if name:
            fields[name] = value
    return None


def test_a_job_is_shown_as_the_one_job_object(bench: Bench) -> None:
    job = bench.submit(metadata={"order": 17}, tier="api")
    assert list(job) == [*KEYS.split(), "outputs", "error", "metadata"]
    assert (job["status"], job["tenant"], job["tier"], job["metadata"]) == ("queued", "acme", "api", {"order": 17})
    assert bench.ask("GET", f"/v1/jobs/{job['id']}").json()["id"] == job["id"]
    assert dict(bench.queue.get(job["id"]).inputs) == {"text": "hi", "steps": 4}


def test_the_same_key_is_the_same_job_and_another_body_is_refused(bench: Bench) -> None:
    body = {"model": "toy", "inputs": {"text": "hi"}}
    first, second = (bench.ask("POST", "/v1/jobs", body, headers={"Idempotency-Key": "order-1"}) for _ in range(2))
    assert first.status == second.status == 201
    assert first.json()["id"] == second.json()["id"]
    assert first.headers["location"] == f"/v1/jobs/{first.json()['id']}"
    other = bench.ask("POST", "/v1/jobs", {**body, "tier": "api"}, headers={"Idempotency-Key": "order-1"})
    assert (other.status, other.json()["error"]["code"]) == (422, "invalid_input")
    elsewhere = bench.ask("POST", "/v1/jobs", body, who="other", headers={"Idempotency-Key": "order-1"})
    assert elsewhere.json()["id"] != first.json()["id"]


def test_what_no_slot_has_the_memory_for_is_refused_with_both_figures(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "FRESH_S", 0.0)
    bench.submit()
    session = bench.queue.hello(WorkerInfo("w", "box", 1))
    (claim,) = bench.queue.claim(session, 1, [Offer("0", "toy", "v1", ("run",))])
    taken = JobMemory(MemoryUse(31 << 30, 80 << 30))
    bench.queue.finish(session, claim.job_id, claim.fence, Outcome(Cause.SUCCEEDED, memory=taken))
    bench.queue.tend()
    bench.queue.beat(session, (), (SlotReport("0", "open", "toy", "v1", accelerator_bytes=24 << 30),))
    reply = bench.ask("POST", "/v1/jobs", {"model": "toy", "inputs": {"text": "hi"}})
    error = reply.json()["error"]
    assert (reply.status, error["code"], error["retryable"]) == (422, "needs_larger_slot", False)
    assert "31 GiB of accelerator memory" in error["message"] and "24 GiB" in error["message"]


@pytest.mark.parametrize(
    ("body", "status", "code", "pointer"),
    [
        ({"model": "toy", "inputs": {"text": "hi", "steps": 0}}, 422, "invalid_job_input", "/inputs/steps"),
        ({"model": "toy", "inputs": {}}, 422, "invalid_job_input", "/inputs/text"),
        ({"model": "toy", "inputs": {"text": "hi"}, "colour": "red"}, 422, "invalid_request", "/colour"),
        ({"model": "toy", "inputs": [1]}, 422, "invalid_request", "/inputs"),
        ({"model": "toy", "inputs": {"text": "hi"}, "deadline": "soon"}, 422, "invalid_request", "/deadline"),
        ({"model": "toy", "inputs": {"text": "hi"}, "tier": "gold"}, 422, "invalid_input", None),
        ({"model": "toy", "inputs": {"text": "hi"}, "tenant": "other"}, 403, "not_allowed", None),
        ({"model": "none", "inputs": {}}, 404, "model_not_found", None),
        ({"model": "toy", "inputs": {"text": "hi"}, "version": "v9"}, 404, "version_not_found", None),
        ({"model": "toy\x00", "inputs": {}}, 422, "invalid_request", "/model"),
        ({"inputs": {}}, 422, "invalid_request", "/model"),
        (b'{"model": "toy", "inputs": {"text": NaN}}', 422, "invalid_request", "/inputs"),
        (b'{"model": "toy", "inputs": {"text": "\\ud800"}}', 422, "invalid_request", "/inputs"),
        (b'{"model": "toy", "metadata": ' + b"[" * 500 + b"]" * 500 + b"}", 422, "invalid_request", "/metadata"),
        (b"{", 422, "invalid_json", ""),
    ],
)
def test_what_cannot_be_is_refused_with_the_place(
    quiet: Bench, body: Any, status: int, code: str, pointer: str | None
) -> None:
    reply = quiet.ask("POST", "/v1/jobs", body, headers={"Content-Type": "application/json"})
    error = reply.json()["error"]
    assert (reply.status, error["code"], error.get("pointer")) == (status, code, pointer), error
    assert error["retryable"] is False
    assert not quiet.queue.list()


def test_where_models_lie_stays_inside(quiet: Bench) -> None:
    for reply in (quiet.ask("GET", "/v1/models/tiy"), quiet.ask("POST", "/v1/jobs", {"model": "tiy", "inputs": {}})):
        assert reply.json()["error"]["code"] == "model_not_found"
        assert b"toy" in reply.body and b"://" not in reply.body


def test_a_body_that_is_not_sent_as_json_is_told_how(quiet: Bench) -> None:
    body = b'{"model": "toy", "inputs": {"text": "hi"}}'
    form = {"Content-Type": "application/x-www-form-urlencoded"}  # what curl -d says by itself
    error = quiet.ask("POST", "/v1/jobs", body, headers=form).json()["error"]
    assert error["code"] == "invalid_request" and "`Content-Type: application/json`" in error["message"]
    json = {"Content-Type": "application/json"}
    assert quiet.ask("POST", "/v1/jobs", b"[]", headers=json).json()["error"]["message"] == "the body is no JSON object"


def test_a_tenant_cannot_tell_another_s_job_from_none(bench: Bench) -> None:
    job = bench.submit("acme")
    missing = "job_00000000000000000000000v"
    for method, path in (("GET", ""), ("GET", "/events"), ("POST", "/cancel"), ("DELETE", "")):
        theirs = bench.ask(method, f"/v1/jobs/{job['id']}{path}", who="other")
        none = bench.ask(method, f"/v1/jobs/{missing}{path}", who="other")
        assert theirs.status == none.status == 404
        assert theirs.json()["error"]["message"].replace(job["id"], missing) == none.json()["error"]["message"]
    assert bench.ask("GET", "/v1/jobs", who="other").json()["jobs"] == []
    assert bench.ask("GET", "/v1/jobs?tenant=acme", who="other").json()["jobs"] == []
    assert [found["id"] for found in bench.ask("GET", "/v1/jobs", who="boss").json()["jobs"]] == [job["id"]]
    assert [found["id"] for found in bench.ask("GET", "/v1/jobs?tenant=acme", who="any").json()["jobs"]] == [job["id"]]
    assert bench.queue.get(job["id"]).status is Status.QUEUED


def test_a_list_comes_in_pages_and_by_filters(bench: Bench) -> None:
    ids = [bench.submit(tier=tier)["id"] for tier in ("api", "free", "api", "free", "api")]
    newest_first = ids[::-1]
    seen: list[str] = []
    after = ""
    while True:
        page = bench.ask("GET", f"/v1/jobs?limit=2{after}").json()
        seen += [job["id"] for job in page["jobs"]]
        if page["next"] is None:
            break
        after = f"&after={page['next']}"
    assert seen == newest_first
    assert [job["id"] for job in bench.ask("GET", "/v1/jobs?tier=free").json()["jobs"]] == [ids[3], ids[1]]
    bench.finish(bench.claim())
    assert len(bench.ask("GET", "/v1/jobs?status=succeeded").json()["jobs"]) == 1
    assert len(bench.ask("GET", "/v1/jobs?status=queued&model=toy").json()["jobs"]) == 4
    assert bench.ask("GET", "/v1/jobs?status=done").status == 422
    assert bench.ask("GET", "/v1/jobs?limit=0").status == 422
    assert bench.ask("GET", "/v1/jobs?model=%00").status == 422
    assert bench.ask("GET", "/v1/jobs?after=nope").json()["error"]["code"] == "invalid_input"


def test_a_request_waits_for_the_end_of_its_job(bench: Bench, tmp_path: Path) -> None:
    replies: list[Any] = []
    body = {"model": "toy", "inputs": {"text": "hi"}}
    asking = threading.Thread(
        target=lambda: replies.append(bench.ask("POST", "/v1/jobs", body, headers={"Prefer": "wait=30"}))
    )
    asking.start()
    waiter = bench.queue.waiter(["toy"])
    while not bench.queue.list():
        waiter.wait(0.05)
    (tmp_path / "out.png").write_bytes(b"picture")
    bench.finish(bench.claim(), {"text": "done"}, output=tmp_path / "out.png")
    asking.join()
    (reply,) = replies
    assert (reply.status, reply.headers["preference-applied"]) == (201, "wait=30")
    job = reply.json()
    assert (job["status"], job["result"]) == ("succeeded", {"text": "done"})
    (output,) = job["outputs"]
    fetched = bench.ask("GET", output["url"], who=None)
    assert (fetched.status, fetched.body, fetched.headers["content-type"]) == (200, b"picture", "image/png")
    assert fetched.headers["x-content-type-options"] == "nosniff"


def test_a_wait_whose_time_is_over_shows_the_job_as_it_is(bench: Bench) -> None:
    job = bench.submit()
    reply = bench.ask("GET", f"/v1/jobs/{job['id']}", headers={"Prefer": "respond-async, wait=0"})
    assert (reply.status, reply.json()["status"]) == (200, "queued")


def test_events_tell_every_change_and_end_with_the_job(bench: Bench) -> None:
    job = bench.submit()
    path = f"/v1/jobs/{job['id']}/events"
    told: list[dict[str, str]] = []

    def next_event(answer: HTTPResponse, kind: str) -> Any:
        event = read_event(answer)
        assert event is not None
        told.append(event)
        assert event["event"] == kind
        return json.loads(event["data"])

    with bench.stream(path) as answer:
        assert (answer.getheader("content-type") or "").startswith("text/event-stream")
        assert next_event(answer, "job.queued")["status"] == "queued"
        claim = bench.claim()
        assert next_event(answer, "job.started")["status"] == "running"
        bench.queue.progress(claim.job_id, claim.fence, 0.5, "half")
        assert next_event(answer, "job.progress")["progress"] == 0.5
        bench.finish(claim)
        assert next_event(answer, "job.finished")["status"] == "succeeded"
        assert read_event(answer) is None
    ids = [event["id"] for event in told]
    assert len(set(ids)) == 4
    with bench.stream(path, {"Last-Event-ID": ids[-1]}) as again:
        assert read_event(again) is None
    with bench.stream(path, {"Last-Event-ID": ids[0]}) as behind:
        next_event(behind, "job.finished")
    assert told[-1]["id"] == ids[-1]


def test_a_job_is_cancelled_and_deleted_with_its_files(bench: Bench) -> None:
    place = bench.ask("POST", "/v1/files", {"name": "cat.png"}).json()
    assert bench.ask("PUT", place["upload_url"], b"cat", who=None).status == 204
    job = bench.submit(inputs={"text": "hi", "image": {"file": place["id"]}})
    (key,) = bench.queue.get(job["id"]).files.values()
    assert bench.files.read(key) == b"cat"
    assert bench.ask("DELETE", f"/v1/jobs/{job['id']}", who="box").status == 403
    claim = bench.claim()
    assert bench.ask("DELETE", f"/v1/jobs/{job['id']}").json()["error"]["code"] == "conflict"
    bench.finish(claim)
    assert bench.ask("POST", f"/v1/jobs/{job['id']}/cancel").json()["status"] == "succeeded"
    waiting = bench.submit()
    assert bench.ask("POST", f"/v1/jobs/{waiting['id']}/cancel").json()["status"] == "cancelled"
    assert bench.ask("DELETE", f"/v1/jobs/{job['id']}").status == 204
    assert bench.ask("GET", f"/v1/jobs/{job['id']}").status == 404
    assert not list(bench.files.store.list("uploads/"))


def test_a_watch_ends_when_its_job_is_deleted(bench: Bench) -> None:
    job = bench.submit()
    with bench.stream(f"/v1/jobs/{job['id']}/events") as answer:
        assert read_event(answer) is not None
        bench.queue.delete(job["id"])
        assert read_event(answer) is None


def test_models_are_listed_with_their_schemas(quiet: Bench) -> None:
    models = quiet.ask("GET", "/v1/models").json()["models"]
    assert [model["name"] for model in models] == ["bare", "toy"]
    toy = quiet.ask("GET", "/v1/models/toy").json()
    assert (toy["version"], set(toy["inputs"])) == ("v1", {"text", "steps", "image"})
    assert quiet.ask("GET", "/v1/models/toy?version=v1").json() == toy
    assert quiet.ask("GET", "/v1/models/toy?version=v2").status == 404
    assert quiet.ask("GET", "/v1/models/no%2Fmodel").status == 404
    assert [model["name"] for model in quiet.ask("GET", "/v1/models", who="narrow").json()["models"]] == ["toy"]
    assert quiet.ask("GET", "/v1/models/bare", who="narrow").status == 403


def test_a_log_is_for_operators(bench: Bench) -> None:
    job = bench.submit()
    assert bench.ask("GET", f"/v1/jobs/{job['id']}/log").status == 403
    log = bench.ask("GET", f"/v1/jobs/{job['id']}/log", who="boss")
    assert (log.status, log.body) == (200, b"")
