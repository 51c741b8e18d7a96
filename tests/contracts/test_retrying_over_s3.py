"""What a real client makes of a bad network is asked again, and a write whose answer was lost is known for ours."""

from __future__ import annotations

from typing import Protocol

import pytest

from modelrepo.errors import ObjectChanged, ObjectExists
from modelrepo.stores.opening import open_store
from modelrepo.stores.port import ObjectStore
from modelrepo.testing.proxy import Act, Answer, CutAnswer, CutRequest, Proxy, Reset, Swallow
from modelrepo.testing.s3_servers import SeaweedFS

DATA = bytes(range(256)) * 512


class Bucket(Protocol):
    """What the fixture `seaweed` gives."""

    url: str
    server: SeaweedFS


@pytest.fixture
def store(proxy: Proxy, seaweed: Bucket) -> ObjectStore:
    """A store that has answered already."""
    store = open_store(f"{seaweed.url}/folder")
    store.create("key", DATA)
    return store


FAULTS: list[Act] = [
    *(Answer(500, "InternalError"), Answer(503, "SlowDown"), Answer(429, "TooManyRequests")),
    *(Answer(400, "RequestTimeout"), Reset(), Swallow(), CutAnswer(1000)),
]


@pytest.mark.parametrize("act", FAULTS, ids=repr)
def test_a_read_is_asked_again(store: ObjectStore, proxy: Proxy, act: Act) -> None:
    rule = proxy.on(act, "GET", "/folder/key$", times=2)
    assert store.read("key") == DATA
    assert rule.struck == 2
    ranged = proxy.on(act, "GET", "/folder/key$")
    assert store.read_range("key", 1000, 5000) == DATA[1000:6000]
    assert ranged.struck == 1


def test_a_listing_and_a_look_are_asked_again(store: ObjectStore, proxy: Proxy) -> None:
    rules = [proxy.on(Answer(503), "GET", "list-type"), proxy.on(Swallow(), "HEAD", "/folder/key$")]
    assert [stat.key for stat in store.list("")] == ["key"]
    assert store.stat("key").size_bytes == len(DATA)
    assert [rule.struck for rule in rules] == [1, 1]


@pytest.mark.parametrize("act", [Swallow(), Answer(503), CutRequest(1000), Reset()], ids=lambda act: type(act).__name__)
def test_writes_happen_once_whatever_became_of_their_answers(store: ObjectStore, proxy: Proxy, act: Act) -> None:
    rule = proxy.on(act, "PUT", "/folder/new$")
    store.create("new", DATA)
    assert rule.struck == 1
    with pytest.raises(ObjectExists):
        store.create("new", b"other")

    etag = store.stat("new").etag
    rule = proxy.on(act, "PUT", "/folder/new$")
    store.replace("new", b"second", if_etag=etag)
    assert rule.struck == 1
    with pytest.raises(ObjectChanged):
        store.replace("new", b"third", if_etag=etag)
    assert store.read("new") == b"second"

    rule = proxy.on(act, "DELETE|POST", r"/folder/new$|[?&]delete\b")
    store.delete("new")
    assert rule.struck == 1
    assert [stat.key for stat in store.list("")] == ["key"]
