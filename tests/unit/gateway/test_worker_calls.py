"""What a gateway takes from boxes: their cluster, the models that they name, and what its errors tell them."""

from __future__ import annotations

import threading

import pytest

from modelrepo.errors import Forbidden, ModelRepoError, NotFound, Unreachable
from modelrepo_runtime.queue.http.calls import calls, write_arguments
from modelrepo_runtime.queue.port import Offer, WorkerInfo
from modelrepo_runtime.remote.failures import PROTOCOL, PROTOCOL_HEADER
from modelrepo_runtime.testing.gateways import Reply

from .gateways import Bench

SPOKEN = {PROTOCOL_HEADER: str(PROTOCOL)}


def call(bench: Bench, name: str, /, who: str = "box", **arguments: object) -> Reply:
    found = calls()[name]
    return bench.ask("POST", found.path, write_arguments(found, arguments), who=who, headers=SPOKEN)


@pytest.mark.parametrize(("said", "status"), [("c1", 200), ("local", 200), ("west", 403)])
def test_a_box_says_no_other_cluster_than_its_token_s(quiet: Bench, said: str, status: int) -> None:
    reply = call(quiet, "hello", info=WorkerInfo(f"w-{said}", "box", 1, said))
    assert reply.status == status
    if status == 403:
        message = reply.json()["error"]["message"]
        assert "token box is for cluster 'c1'" in message and "--cluster west" in message
    else:
        (worker,) = [each for each in quiet.queue.fleet() if each.info.name == f"w-{said}"]
        assert worker.info.cluster == "c1"


@pytest.mark.parametrize("model", ["none-such", "../up", "x" * 500])
def test_a_claim_for_a_model_that_is_nowhere_is_refused_and_costs_nothing(quiet: Bench, model: str) -> None:
    session = quiet.queue.hello(WorkerInfo("w-nowhere", "box", 1))
    reply = call(quiet, "claim", session=session, seq=1, offers=[Offer("0", model, "v1", ("run",))])
    assert (reply.status, reply.json()["error"]["code"]) == (404, "model_not_found")
    assert not [thread.name for thread in threading.enumerate() if thread.name == f"wakes {model}"]


def test_a_model_that_nobody_knew_of_is_found_when_a_box_names_it(quiet: Bench) -> None:
    session = quiet.queue.hello(WorkerInfo("w-bare", "box", 1))
    assert call(quiet, "claim", session=session, seq=1, offers=[Offer("0", "bare", "v1", ("run",))]).status == 200


def test_models_that_are_nowhere_stand_still(quiet: Bench) -> None:
    reply = quiet.ask("POST", "/v1/worker/standing", {"models": ["none-such", "toy"]}, who="box", headers=SPOKEN)
    assert reply.json()["none-such"] == {"waiting": 0, "slots": 0}
    reply = quiet.ask("POST", "/v1/worker/targets", {"models": ["none-such", "../x"]}, who="box", headers=SPOKEN)
    assert (reply.status, reply.json()) == (200, {})


def test_a_box_is_told_what_waits_lane_by_lane(bench: Bench) -> None:
    bench.submit()
    reply = bench.ask("POST", "/v1/worker/demand", {"models": ["none-such", "toy"]}, who="box", headers=SPOKEN)
    assert reply.status == 200
    (lane,) = reply.json()["toy"]
    assert (lane["on"], lane["cluster"], lane["avoid"], lane["waiting"]) == ("gpu", None, [], 1)
    assert 0 <= lane["share"] < 1
    assert "none-such" not in reply.json()


@pytest.mark.parametrize("who", ["box", "boss"])
@pytest.mark.parametrize(
    "error",
    [
        Unreachable("cannot reach postgresql://boss:secret@db.internal:5432/queue: refused"),
        Unreachable('connection to server at "db.internal", port 5432 failed'),
        Forbidden("cannot read s3://models/x at db.internal?key=secret: its credentials are refused"),
        NotFound("no row in postgresql://boss:secret@db.internal/queue; start anew"),
        ModelRepoError("the queue postgresql://boss:secret@db.internal/queue is odd"),
    ],
)
def test_where_the_database_is_stays_in_the_log(
    bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: ModelRepoError,
    who: str,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(bench.queue, "hello", fail)
    reply = call(bench, "hello", who, info=WorkerInfo("w", "box", 1))
    told = reply.json()["error"]
    assert reply.status >= 400 and "secret" not in reply.body.decode()
    if isinstance(error, Unreachable):
        assert "db.internal" not in reply.body.decode() and "unreachable" in told["kinds"]
        assert str(error) in caplog.text
