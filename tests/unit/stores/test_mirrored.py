from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from modelrepo import layout
from modelrepo.errors import Forbidden, ObjectNotFound, Unreachable
from modelrepo.stores.faults import Fault, faulty
from modelrepo.stores.filesystem import FilesystemStore
from modelrepo.stores.memory import MemoryBucket, MemoryStore
from modelrepo.stores.mirrored import (
    FIRST_REST_S,
    LARGEST_BYTES,
    LONGEST_REST_S,
    PATIENCE_S,
    SLOWEST_BYTES_PER_S,
    Mirror,
    mirrored,
    open_mirrors,
)
from modelrepo.stores.port import LocalFolders, ObjectStore


class Bench:
    """A repository's store with one object, a mirror of it, a clock that is turned by hand, and what was said."""

    def __init__(self) -> None:
        self.data = b"weights"
        self.key = layout.object_(sha256(self.data).hexdigest())
        self.home, self.near = MemoryStore("home", MemoryBucket()), MemoryStore("near", MemoryBucket())
        self.home.create(self.key, self.data)
        self.near.create(self.key, self.data)
        self.near.create(layout.REPOSITORY, b"{}")
        self.seconds, self.said = 0.0, list[str]()
        self.broken: Exception | None = None
        self.takes_s = 0.0
        self.before: Callable[[], None] = lambda: None
        self.seen = faulty(self.near, before=self._asked)
        self.seen_home = faulty(self.home)
        self.store = mirrored(self.seen_home, [self.mirror(self.seen)])

    def mirror(self, store: ObjectStore) -> Mirror:
        return Mirror(store, tell=self.said.append, clock=lambda: self.seconds)

    def _asked(self, verb: str, key: str) -> None:
        self.before()
        self.seconds += self.takes_s
        if self.broken is not None:
            raise self.broken

    def asked_mirror(self) -> int:
        """Return how often the mirror was asked since the last time."""
        count = len(self.seen.operations)
        self.seen.operations.clear()
        return count


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_an_object_comes_from_the_mirror(bench: Bench) -> None:
    assert bench.store.read(bench.key) == bench.data
    assert bench.seen.operations == [("read", bench.key)]
    assert not bench.seen_home.operations
    assert not bench.said


def test_what_the_mirror_lacks_comes_from_home_and_is_no_news(bench: Bench) -> None:
    bench.near.delete(bench.key)
    for _ in range(3):
        assert bench.store.read(bench.key) == bench.data
    assert bench.asked_mirror() == 3 + 1  # once, whether a repository is there at all
    assert not bench.said
    with pytest.raises(ObjectNotFound, match="memory://home"):
        bench.store.read(layout.object_("0" * 64))


def test_a_mirror_that_holds_no_repository_is_said_to_once(bench: Bench) -> None:
    bench.near.delete(bench.key)
    bench.near.delete(layout.REPOSITORY)
    for _ in range(3):
        assert bench.store.read(bench.key) == bench.data
    assert len(bench.said) == 1
    assert "memory://near holds no repository" in bench.said[0]


@pytest.mark.parametrize("found", [b"", b"weight", b"WEIGHTS", b"weights and more"])
def test_what_the_mirror_has_spoilt_is_said_and_comes_from_home(bench: Bench, found: bytes) -> None:
    bench.near.replace(bench.key, found)
    assert bench.store.read(bench.key) == bench.data
    assert len(bench.said) == 1
    assert bench.key in bench.said[0] and "memory://near" in bench.said[0]
    assert bench.near.read(bench.key) == found


def test_only_whole_objects_are_looked_for_in_a_mirror_and_nothing_is_written_there(bench: Bench) -> None:
    store = bench.store
    store.create("models/m/active.yaml", b"one")
    store.replace("models/m/active.yaml", b"two")
    assert store.read("models/m/active.yaml") == b"two"
    assert store.read_range(bench.key, 1, 3) == b"eig"
    assert store.stat(bench.key).size_bytes == 7
    assert [stat.key for stat in store.list("models/")] == ["models/m/active.yaml"]
    store.delete("models/m/active.yaml")
    new = b"new"
    store.create(layout.object_(sha256(new).hexdigest()), new)
    assert not bench.seen.operations
    assert [stat.key for stat in bench.near.list("")] == [bench.key, layout.REPOSITORY]


@pytest.mark.parametrize("error", [Unreachable("gone away"), Forbidden("not you")])
def test_a_mirror_that_fails_is_left_alone_for_a_while_and_that_is_said_once(bench: Bench, error: Exception) -> None:
    bench.broken = error
    for _ in range(100):
        assert bench.store.read(bench.key) == bench.data
    assert bench.asked_mirror() == 1
    assert len(bench.said) == 1
    assert str(error) in bench.said[0]
    bench.seconds += FIRST_REST_S
    for _ in range(100):
        assert bench.store.read(bench.key) == bench.data
    assert bench.asked_mirror() == 1
    assert len(bench.said) == 1


def test_the_rest_doubles_up_to_a_limit_and_starts_anew_after_it_was_in_order(bench: Bench) -> None:
    bench.broken = Unreachable("gone away")
    rests = []
    for _ in range(8):
        bench.store.read(bench.key)
        assert bench.asked_mirror() == 1
        begun = bench.seconds
        while not bench.asked_mirror():
            bench.seconds += 1
            bench.store.read(bench.key)
            assert bench.seconds < begun + 2 * LONGEST_REST_S
        rests.append(bench.seconds - begun)
        bench.seconds += LONGEST_REST_S
    assert rests[0] == FIRST_REST_S
    assert max(rests) <= LONGEST_REST_S
    bench.broken = None
    bench.store.read(bench.key)
    assert bench.said[1:] == ["object mirror memory://near is in order again"]
    bench.broken = Unreachable("gone away again")
    bench.store.read(bench.key)
    bench.asked_mirror()
    bench.seconds += FIRST_REST_S
    bench.store.read(bench.key)
    assert bench.asked_mirror() == 1


def test_one_caller_tries_a_failing_mirror_while_the_others_go_home(bench: Bench) -> None:
    bench.broken = Unreachable("gone away")
    bench.store.read(bench.key)
    bench.asked_mirror()
    bench.seconds += FIRST_REST_S
    trying, may_end = threading.Event(), threading.Event()

    def wait() -> None:
        trying.set()
        assert may_end.wait(30)

    bench.before, bench.broken = wait, None
    first = threading.Thread(target=bench.store.read, args=(bench.key,))
    first.start()
    assert trying.wait(30)
    for _ in range(5):
        assert bench.store.read(bench.key) == bench.data  # would wait for ever at the mirror
    assert bench.asked_mirror() == 1
    may_end.set()
    first.join()
    bench.before = lambda: None
    bench.store.read(bench.key)
    assert bench.asked_mirror() == 1


def test_a_call_that_was_under_way_when_the_mirror_failed_does_not_clear_it(bench: Bench) -> None:
    begun, may_end = threading.Event(), threading.Event()

    def wait() -> None:
        bench.before = lambda: None
        begun.set()
        assert may_end.wait(30)

    bench.before = wait
    slow = threading.Thread(target=bench.store.read, args=(bench.key,))
    slow.start()
    assert begun.wait(30)
    bench.broken = Unreachable("gone away")
    bench.store.read(bench.key)
    bench.broken = None
    may_end.set()
    slow.join()
    bench.asked_mirror()
    bench.store.read(bench.key)
    assert bench.asked_mirror() == 0
    assert len(bench.said) == 1


def test_a_mirror_that_is_slow_is_left_alone_though_its_bytes_are_used(bench: Bench) -> None:
    bench.takes_s = PATIENCE_S + len(bench.data) / SLOWEST_BYTES_PER_S
    assert bench.store.read(bench.key) == bench.data
    assert not bench.said
    bench.takes_s += 0.1
    assert bench.store.read(bench.key) == bench.data
    assert not bench.seen_home.operations
    assert "took 5 s for 7 bytes" in bench.said[0]
    bench.asked_mirror()
    bench.store.read(bench.key)
    assert bench.asked_mirror() == 0


class Dripping(MemoryStore):
    """A store whose objects come byte by byte and never end."""

    def __init__(self, bench: Bench, piece: bytes) -> None:
        super().__init__("dripping", MemoryBucket())
        self.bench, self.piece, self.given = bench, piece, 0

    def read_pieces(self, key: str, start: int = 0) -> Iterator[memoryview]:
        while True:
            self.bench.seconds += 1.0
            self.given += len(self.piece)
            yield memoryview(self.piece)


def test_a_mirror_that_drips_is_given_up_in_the_middle(bench: Bench) -> None:
    dripping = Dripping(bench, b"w")
    assert mirrored(bench.seen_home, [bench.mirror(dripping)]).read(bench.key) == bench.data
    assert dripping.given == PATIENCE_S + 2
    assert "took 6 s for 6 bytes" in bench.said[0]


def test_a_mirror_without_an_end_is_given_up(bench: Bench) -> None:
    endless = Dripping(bench, bytes(LARGEST_BYTES // 4))
    assert mirrored(bench.seen_home, [bench.mirror(endless)]).read(bench.key) == bench.data
    assert endless.given == LARGEST_BYTES + LARGEST_BYTES // 4
    assert "more than" in bench.said[0]


def test_mirrors_are_asked_in_their_order(bench: Bench) -> None:
    nearest = faulty(MemoryStore("nearest", MemoryBucket()), Fault(1))
    store = mirrored(bench.seen_home, [bench.mirror(nearest), bench.mirror(bench.seen)])
    assert store.read(bench.key) == bench.data
    assert (len(nearest.operations), len(bench.seen.operations), len(bench.seen_home.operations)) == (1, 1, 0)


def test_a_mirrored_store_can_do_what_the_store_can(tmp_path: Path, bench: Bench) -> None:
    local = FilesystemStore(tmp_path)
    assert mirrored(local, ()) is local
    store = mirrored(local, [bench.mirror(bench.near)])
    assert isinstance(store, LocalFolders)
    assert not isinstance(bench.store, LocalFolders)
    assert (store.url, store.ability, store.identity) == (local.url, local.ability, local.identity)
    with store.locked("models/m/"):
        store.create("models/m/active.yaml", b"one")
        assert store.exchange("models/m/active.yaml", b"two") == b"one"


def test_mirrors_are_opened_without_a_look(tmp_path: Path) -> None:
    (mirror,) = open_mirrors([str(tmp_path / "nothing")], lambda line: None)
    assert mirror.url.endswith("/nothing")
    assert mirror.read(layout.object_("0" * 64), "0" * 64) is None
