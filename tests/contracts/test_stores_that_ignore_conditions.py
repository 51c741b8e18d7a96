"""An S3 server that takes every conditional write, as some do: it is found out, and refused."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import boto3  # type: ignore[import-untyped]
import pytest
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

from modelrepo.errors import StoreNotTrusted
from modelrepo.repository import Repository
from modelrepo.stores.opening import open_store


class Unconditional:
    """A WSGI application before moto's that hides the conditions of every request."""

    def __init__(self) -> None:
        self.inner = DomainDispatcherApplication(create_backend_app)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        for name in ("HTTP_IF_NONE_MATCH", "HTTP_IF_MATCH"):
            environ.pop(name, None)
        answer: Iterable[bytes] = self.inner(environ, start_response)
        return answer


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    server = make_server("127.0.0.1", 0, Unconditional(), threaded=True, request_handler=MotoRequestHandler)
    thread = threading.Thread(target=server.serve_forever, name="unconditional", daemon=True)
    thread.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    boto3.Session().client("s3").create_bucket(Bucket="unconditional")
    yield "s3://unconditional/models"
    server.shutdown()
    server.server_close()
    thread.join()


def test_it_is_refused_and_taken_for_a_single_writer(url: str) -> None:
    with pytest.raises(StoreNotTrusted, match="pass --single-writer if never two will write at once"):
        Repository.init(url)
    assert list(open_store(url).list("")) == []
    repository = Repository.init(url, single_writer=True)
    assert repository.single_writer
    record = json.loads(repository.store.read("store.json"))
    assert (record["creates_if_absent"], record["single_writer"]) == (False, True)
    assert max(record["probe"]["winners"]) > 1
    repository.store.create("key", b"data")
    assert Repository.open(url).distrust is None
    assert Repository.init(url).id == repository.id
