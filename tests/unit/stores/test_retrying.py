"""What is asked again, how often, how soon; and what becomes of writes whose answer was lost."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import pytest

from modelrepo.clock import Clock
from modelrepo.errors import Forbidden, ObjectChanged, ObjectExists, ObjectNotFound, Unreachable
from modelrepo.promotion import Promotions
from modelrepo.publication.delivery import asked_again
from modelrepo.publication.leases import REQUEST_TIMEOUT_S
from modelrepo.stores.bucket_faults import translate
from modelrepo.stores.faults import Fault, FaultyStore
from modelrepo.stores.filesystem import FilesystemStore
from modelrepo.stores.memory import MemoryBucket, MemoryStore
from modelrepo.stores.opening import open_store
from modelrepo.stores.port import LocalFolders, ReadsInPieces, TakesOver
from modelrepo.stores.retrying import IMPATIENT, Patience, RetryingStore, retrying
from modelrepo.versions.catalogue import Catalogue


@dataclass
class Wait:
    """A clock that only pauses move, and that remembers them."""

    now: float = 0.0
    pauses: list[float] = field(default_factory=list)
    request_s: float = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


def over(
    *faults: Fault, patience: Patience | None = None, wait: Wait | None = None, draw: float = 1.0, answered: bool = True
) -> tuple[RetryingStore, FaultyStore]:
    """A retrying store over a faulty one in memory; `answered`: it has answered before."""
    wait = wait or Wait()

    def take(_verb: str, _key: str) -> None:
        wait.now += wait.request_s

    inner = FaultyStore(MemoryStore("x", MemoryBucket()), *faults, before=take)
    store = retrying(inner, patience or Patience(), monotonic=wait.monotonic, sleep=wait.sleep, draw=lambda: draw)
    store._has_answered = answered
    return store, inner


def refused(first: int, last: int) -> list[Fault]:
    return [Fault(at, "after") for at in range(first, last + 1)]


def test_pauses_double_up_to_a_limit_and_are_a_random_share_of_it() -> None:
    for draw in (1.0, 0.25, 0.0):
        wait = Wait()
        store, _ = over(*refused(1, 8), wait=wait, draw=draw)
        store.create("key", b"data")
        assert wait.pauses == [draw * limit for limit in (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0)]


def test_tries_are_bounded_and_the_message_counts_them() -> None:
    store, inner = over(*refused(1, 100), draw=0.0)
    with pytest.raises(Unreachable, match=r"tried 12 times"):
        store.read("key")
    assert len(inner.operations) == 12


def test_what_was_asked_again_in_vain_is_not_worth_more_tries_to_those_above() -> None:
    wait = Wait()
    store, inner = over(*refused(1, 100), wait=wait)
    with pytest.raises(Unreachable) as caught:
        asked_again(lambda: store.create("key", b"data"), Clock(sleep=wait.sleep))
    assert not caught.value.transient
    promotions = Promotions(store, Catalogue(store), by="me", sleep=wait.sleep)
    with pytest.raises(Unreachable):
        promotions.block("m", "v1")
    assert wait.now <= 2 * Patience().total_s
    assert len(inner.operations) <= 2 * Patience().tries


def test_the_time_is_bounded() -> None:
    wait = Wait(request_s=4.0)
    store, inner = over(*refused(1, 100), wait=wait, draw=0.0)
    with pytest.raises(Unreachable):
        store.read("key")
    assert wait.now == 32.0
    assert len(inner.operations) == 8


def test_one_long_time_out_is_not_the_end() -> None:
    wait = Wait(request_s=60.0)
    store, inner = over(*refused(1, 2), wait=wait)
    with pytest.raises(ObjectNotFound):
        store.read("key")
    assert len(inner.operations) == 3


def test_a_store_that_has_never_answered_is_given_up_soon() -> None:
    store, inner = over(*refused(1, 100), answered=False)
    with pytest.raises(Unreachable, match="tried 3 times"):
        store.read("key")
    assert len(inner.operations) == 3


def test_a_store_that_is_busy_from_the_first_is_not_given_up_soon() -> None:
    calls = []

    class Busy(MemoryStore):
        def read(self, key: str) -> bytes:
            calls.append(key)
            raise Unreachable("SlowDown", status=503)

    with pytest.raises(Unreachable, match="tried 12 times") as caught:
        retrying(Busy("x", MemoryBucket()), sleep=Wait().sleep).read("key")
    assert caught.value.status == 503
    assert len(calls) == 12


def test_a_refusal_counts_as_an_answer() -> None:
    store, inner = over(*refused(2, 7), answered=False)
    with pytest.raises(ObjectNotFound):
        store.read("key")
    with pytest.raises(ObjectNotFound):
        store.read("key")
    assert len(inner.operations) == 8


def test_the_impatient_ask_once() -> None:
    store, inner = over(Fault(1), patience=IMPATIENT)
    with pytest.raises(Unreachable, match=r"before operation 1$"):
        store.read("key")
    assert len(inner.operations) == 1


def test_what_is_an_answer_is_not_asked_for_again() -> None:
    store, inner = over()
    store.create("key", b"one")
    with pytest.raises(ObjectExists):
        store.create("key", b"two")
    with pytest.raises(ObjectChanged):
        store.replace("key", b"two", if_etag="other")
    with pytest.raises(ObjectNotFound):
        store.stat("other")
    assert [verb for verb, _ in inner.operations] == ["create", "create", "replace", "read", "stat"]


@pytest.mark.parametrize("error", [Forbidden("no"), Unreachable("bad request", transient=False)])
def test_what_would_be_refused_again_is_not_asked_again(error: Unreachable) -> None:
    calls = []

    class Refusing(MemoryStore):
        def read(self, key: str) -> bytes:
            calls.append(key)
            raise error

    with pytest.raises(Unreachable) as caught:
        retrying(Refusing("x", MemoryBucket())).read("key")
    assert caught.value is error
    assert calls == ["key"]


def test_a_creation_whose_answer_was_lost_is_ours() -> None:
    store, inner = over(Fault(1, "after"))
    store.create("key", b"ours")
    assert inner.inner.read("key") == b"ours"


def test_a_creation_that_another_won_in_between_is_lost() -> None:
    store, inner = over(Fault(1))
    inner.inner.create("key", b"theirs")
    with pytest.raises(ObjectExists):
        store.create("key", b"ours")
    assert inner.inner.read("key") == b"theirs"


def test_a_replacement_whose_answer_was_lost_is_ours() -> None:
    store, inner = over(Fault(1, "after", verbs=frozenset({"replace"})), Fault(1, verbs=frozenset({"read"})))
    store.create("key", b"one")
    store.replace("key", b"two", if_etag=store.stat("key").etag)
    assert inner.inner.read("key") == b"two"


def test_a_replacement_that_the_client_has_repeated_by_itself_is_ours() -> None:
    class Repeating(MemoryStore):
        def replace(self, key: str, data: bytes, *, if_etag: str | None = None) -> None:
            super().replace(key, data, if_etag=if_etag)
            super().replace(key, data, if_etag=if_etag)

    inner = Repeating("x", MemoryBucket())
    inner.create("key", b"one")
    retrying(inner).replace("key", b"two", if_etag=inner.stat("key").etag)
    assert inner.read("key") == b"two"


def test_a_replacement_that_another_won_in_between_is_lost() -> None:
    store, inner = over(Fault(1, verbs=frozenset({"replace"})))
    store.create("key", b"one")
    etag = store.stat("key").etag
    inner.inner.replace("key", b"theirs")
    with pytest.raises(ObjectChanged):
        store.replace("key", b"ours", if_etag=etag)
    assert inner.inner.read("key") == b"theirs"


def test_a_replacement_of_what_was_deleted_in_between_is_lost() -> None:
    store, inner = over(Fault(1, verbs=frozenset({"replace"})))
    store.create("key", b"one")
    etag = store.stat("key").etag
    inner.inner.delete("key")
    with pytest.raises(ObjectChanged):
        store.replace("key", b"ours", if_etag=etag)


def test_a_listing_that_breaks_off_is_made_again_whole() -> None:
    class Breaking(MemoryStore):
        broken = False

        def list(self, prefix: str):  # type: ignore[no-untyped-def]
            for number, stat in enumerate(super().list(prefix)):
                if number == 1 and not self.broken:
                    self.broken = True
                    raise Unreachable("cut off")
                yield stat

    inner = Breaking("x", MemoryBucket())
    for key in ("a", "b", "c"):
        inner.create(key, b"")
    store = retrying(inner, sleep=Wait().sleep)
    assert [stat.key for stat in store.list("")] == ["a", "b", "c"]


def test_a_delete_is_over_by_the_time_that_prune_counts_on() -> None:
    wait = Wait(request_s=70.0)  # connecting and reading, both at their time-outs
    store, inner = over(*refused(1, 100), wait=wait)
    with pytest.raises(Unreachable):
        store.delete("key")
    assert len(inner.operations) == 1
    assert store.patience.delete_s + 70.0 <= REQUEST_TIMEOUT_S


def test_a_delete_is_asked_again_soon() -> None:
    store, inner = over(Fault(1), Fault(2, "after"))
    store.delete("key")
    assert len(inner.operations) == 3


def test_further_abilities_are_kept(tmp_path: Path) -> None:
    local = retrying(FilesystemStore(tmp_path))
    assert isinstance(local, LocalFolders)
    with local.locked("folder/"):
        assert local.exchange("folder/key", b"one") is None
    assert local.read("folder/key") == b"one"
    memory = retrying(MemoryStore("x", MemoryBucket()))
    assert isinstance(memory, TakesOver)
    assert not isinstance(memory, LocalFolders)


def test_a_further_ability_that_may_be_repeated_is_asked_again() -> None:
    class Putting(MemoryStore):
        puts = 0

        def put_file(self, key: str, path: Path) -> None:
            self.puts += 1
            if self.puts == 1:
                raise Unreachable("cut off")
            self.replace(key, path.read_bytes())

    inner = Putting("x", MemoryBucket())
    store = retrying(inner, sleep=Wait().sleep)
    store.put_file("key", Path(__file__))  # type: ignore[attr-defined]
    assert inner.puts == 2


class Breaking(MemoryStore):
    """Reads in pieces of two bytes, and breaks off behind each second one."""

    broken = 0

    def read_pieces(self, key: str, start: int = 0) -> Iterator[memoryview]:
        data = self.read(key)
        for number, at in enumerate(range(start, len(data), 2)):
            if number == 2:
                self.broken += 1
                raise Unreachable("cut off")
            yield memoryview(data[at : at + 2])


def test_a_read_in_pieces_goes_on_where_it_broke_off() -> None:
    inner = Breaking("x", MemoryBucket())
    inner.create("key", b"0123456789abcdef")
    store = retrying(inner, sleep=Wait().sleep)
    assert isinstance(store, ReadsInPieces)
    assert b"".join(store.read_pieces("key")) == b"0123456789abcdef"
    assert inner.broken == 3
    assert b"".join(store.read_pieces("key", 3)) == b"3456789abcdef"
    with pytest.raises(ObjectNotFound):
        list(store.read_pieces("gone"))
    assert not isinstance(retrying(MemoryStore("x", MemoryBucket())), ReadsInPieces)


def test_buckets_are_asked_again_and_nothing_else(tmp_path: Path) -> None:
    assert isinstance(open_store("s3://bucket/folder"), RetryingStore)
    assert not isinstance(open_store(str(tmp_path)), RetryingStore)
    assert not isinstance(open_store("memory://not-retried"), RetryingStore)


@pytest.mark.parametrize(
    ("status", "code", "transient"),
    [
        *((status, "", True) for status in (408, 429, 500, 502, 503, 504)),
        *((400, code, True) for code in ("RequestTimeout", "IncompleteBody", "BadDigest")),
        (503, "SlowDown", True),
        (400, "InvalidArgument", False),
        (405, "MethodNotAllowed", False),
        (501, "NotImplemented", False),
    ],
)
def test_the_answer_says_whether_it_may_be_asked_again(status: int, code: str, transient: bool) -> None:
    class Answer(Exception):
        response: ClassVar = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}

    error = translate(Answer(), verb="read", key="a", url="s3://bucket", credentials=str)
    assert isinstance(error, Unreachable)
    assert (error.transient, error.status) == (transient, status)


def test_no_answer_at_all_may_be_asked_again_and_a_refusal_may_not() -> None:
    error = translate(ConnectionResetError("reset"), verb="read", key="a", url="s3://bucket", credentials=str)
    assert isinstance(error, Unreachable)
    assert error.transient
    assert error.status is None
    assert not Forbidden("no").transient
    assert not pickle.loads(pickle.dumps(Unreachable("x", transient=False))).transient
