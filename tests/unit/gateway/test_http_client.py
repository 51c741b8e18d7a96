"""The same client, through a gateway."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from inspect import signature
from pathlib import Path

import pytest

from modelrepo.errors import (
    Conflict,
    Forbidden,
    InvalidInput,
    InvalidJobInput,
    JobNotFound,
    ModelNotFound,
    Unreachable,
)
from modelrepo_runtime.client import Client
from modelrepo_runtime.http_client import HttpClient

from .gateways import Bench


@pytest.fixture
def client(bench: Bench) -> Iterator[Client]:
    with Client(bench.gateway.url, token=bench.tokens["acme"]) as made:
        yield made


def test_both_clients_have_the_same_methods() -> None:
    public = [name for name in vars(Client) if not name.startswith("_") and callable(getattr(Client, name))]
    of_the_box, of_both = {"forget", "log_of"}, {"submit", "list"}
    assert {f"_{name}" for name in of_both} <= set(vars(HttpClient)), "each sends in its own way"
    for name in set(public) - of_the_box - of_both:
        assert name in vars(HttpClient), name
        assert list(signature(getattr(Client, name)).parameters) == list(
            signature(getattr(HttpClient, name)).parameters
        ), name


def test_a_url_makes_a_client_of_a_gateway(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(Client("https://gw.example"), HttpClient)
    assert isinstance(Client(queue="http://gw.example"), HttpClient)
    monkeypatch.setenv("MODELREPO_QUEUE", bench.gateway.url)
    monkeypatch.setenv("MODELREPO_TOKEN", bench.tokens["acme"])
    with Client() as client:
        assert client.list() == ()
    assert not isinstance(Client(queue=bench.queue, files="memory://x"), HttpClient)


def test_a_job_is_submitted_with_its_file_watched_and_waited_for(bench: Bench, client: Client, tmp_path: Path) -> None:
    (tmp_path / "my cat.png").write_bytes(b"cat")
    job = client.submit("toy", {"text": "hi", "image": tmp_path / "my cat.png"}, tier="api", metadata={"order": 1})
    (key,) = bench.queue.get(job["id"]).files.values()
    assert (key.endswith("/my_cat.png"), bench.files.read(key)) == (True, b"cat")
    seen: list[str] = []
    watching = threading.Thread(target=lambda: seen.extend(each["status"] for each in client.events(job["id"])))
    waits = bench.gateway.parts.metrics.waits.labels("events")
    watching.start()
    waiter = bench.queue.waiter(["toy"])
    while waits._value.get() == 0:
        waiter.wait(0.02)
    bench.finish(bench.claim(), {"text": "done"})
    watching.join()
    assert (seen[0], seen[-1]) == ("queued", "succeeded")
    done = client.wait(job["id"])
    assert (done["status"], done["result"], done["metadata"]) == ("succeeded", {"text": "done"}, {"order": 1})
    assert client.get(job["id"])["status"] == "succeeded"
    assert [found["id"] for found in client.list(status="succeeded", limit=5)] == [job["id"]]
    client.delete(job["id"])
    with pytest.raises(JobNotFound):
        client.get(job["id"])


def test_an_event_makes_no_watch_longer_than_was_asked(bench: Bench, client: Client) -> None:
    job = client.submit("toy", {"text": "hi"})
    starts = threading.Timer(1.5, bench.claim)
    starts.start()
    began = time.monotonic()
    assert [each["status"] for each in client.events(job["id"], timeout_s=2.0)] == ["queued", "running"]
    assert time.monotonic() - began < 3.0
    starts.join()


def test_errors_are_those_of_the_embedded_client(bench: Bench, client: Client, tmp_path: Path) -> None:
    with pytest.raises(InvalidJobInput) as invalid:
        client.submit("toy", {"text": "hi", "steps": "many"})
    assert invalid.value.pointer == "/steps"
    with pytest.raises(ModelNotFound):
        client.submit("none", {})
    with pytest.raises(InvalidInput, match="tier"):
        client.submit("toy", {"text": "hi"}, tier="gold")
    with pytest.raises(InvalidJobInput, match="JSON"):
        client.submit("toy", {"text": object()})
    with pytest.raises(InvalidInput, match="cannot upload"):
        client.upload(tmp_path / "missing")
    with pytest.raises(JobNotFound):
        client.wait("job_none")
    with pytest.raises(JobNotFound):
        list(client.events("job_none"))
    job = client.submit("toy", {"text": "hi"}, idempotency_key="one")
    assert client.submit("toy", {"text": "hi"}, idempotency_key="one")["id"] == job["id"]
    with pytest.raises(InvalidInput, match="another body"):
        client.submit("toy", {"text": "ho"}, idempotency_key="one")
    bench.claim()
    with pytest.raises(Conflict):
        client.delete(job["id"])
    with Client(bench.gateway.url, token="mr_0_wrong") as nobody, pytest.raises(Forbidden):
        nobody.list()
    with Client(bench.gateway.url, token=bench.tokens["box"]) as box, pytest.raises(Forbidden, match="role"):
        box.list()
    with (
        Client(bench.gateway.url, token=bench.tokens["narrow"]) as narrow,
        pytest.raises(Conflict, match="wait already"),
    ):
        for _ in range(4):
            narrow.submit("toy", {"text": "hi"})


def test_a_gateway_that_is_away_is_unreachable(bench: Bench, client: Client) -> None:
    bench.gateway.stop()
    with pytest.raises(Unreachable):
        client.list()
    with pytest.raises(Unreachable):
        client.wait("job_1", timeout_s=0)


def test_a_list_is_read_page_by_page(bench: Bench, client: Client) -> None:
    ids = [client.submit("toy", {"text": str(number)})["id"] for number in range(3)]
    assert [job["id"] for job in client.list(limit=2)] == ids[:0:-1]
    assert len(client.list(limit=5000)) == 3


def test_models_and_their_schemas_are_told(client: Client) -> None:
    assert [model["name"] for model in client.models()] == ["bare", "toy"]
    assert set(client.schemas("toy")) == {"text", "steps", "image"}
    assert client.schemas("bare") == {}
