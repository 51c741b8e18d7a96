"""Delivery while hashing: what is sent from memory, and what goes wrong on the way."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from modelrepo import layout
from modelrepo.clock import Clock
from modelrepo.errors import Corrupt, InvalidInput, Stopped, Unreachable
from modelrepo.publication import delivery, leases
from modelrepo.publication.delivery import Delivery, deliver
from modelrepo.pushing import hashing
from modelrepo.pushing.content import Content
from modelrepo.pushing.packing import SourceFile
from modelrepo.stores.faults import Fault, KillNow, faulty
from modelrepo.stores.memory import MemoryBucket, MemoryStore
from modelrepo.stores.port import ObjectStore
from modelrepo.testing.tensor_files import tensor_bytes
from modelrepo.versions import chunks
from modelrepo.versions.manifest import FileRecord

KIB = 1 << 10


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a file of kilobytes as many-pieced as one of gigabytes."""
    monkeypatch.setattr(chunks, "WHOLE_UP_TO_BYTES", 16 * KIB)
    monkeypatch.setattr(chunks, "PIECE_BYTES", 4 * KIB)
    monkeypatch.setattr(hashing, "BATCH_BYTES", 16 * KIB)
    monkeypatch.setattr(delivery, "IN_FLIGHT_BYTES", 32 * KIB)


class CountedFile(SourceFile):
    """Counts the bytes that are read."""

    read_bytes = 0

    def read(self, span: chunks.Span) -> bytes:
        CountedFile.read_bytes += span.size_bytes
        return SourceFile.read(self, span)

    def stream(self, span: chunks.Span) -> Iterator[memoryview]:
        raise AssertionError("what is to be sent is read into memory, once")


def files_of(folder: Path, **contents: bytes) -> list[SourceFile]:
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    return [CountedFile(name, folder / name, 0o644, len(data)) for name, data in contents.items()]


def push(
    store: ObjectStore, files: list[SourceFile], *, stop: Callable[[], bool] | None = None
) -> tuple[FileRecord, ...]:
    with Delivery(store, model="tiny", by="me", stop=stop) as carrier:
        content = Content(delivery=carrier)
        records = content.describe(files)
        objects = {chunk.sha256: chunk.size_bytes for record in records for chunk in record.chunks}
        carrier.bring(objects, content.origins)
        carrier.finish({}, lambda: "tiny@v1")
    return records


def contents(length: int, seed: int = 1) -> bytes:
    return b"".join(hashlib.sha256(f"{seed}.{number}".encode()).digest() for number in range(length // 32))


def read_back(store: MemoryStore, record: FileRecord) -> bytes:
    return b"".join(store.read(layout.object_(chunk.sha256)) for chunk in record.chunks)


def test_bytes_are_read_once_to_be_hashed_and_sent(tmp_path: Path) -> None:
    store, large, small = MemoryStore("once", MemoryBucket()), contents(200 * KIB), contents(1 * KIB, 2)
    files = files_of(tmp_path, large=large, small=small, empty=b"")
    CountedFile.read_bytes = 0
    records = push(store, files)
    assert CountedFile.read_bytes == len(large) + len(small)
    assert [read_back(store, record) for record in records] == [large, small, b""]
    assert [record.sha256 for record in records] == [hashlib.sha256(data).hexdigest() for data in (large, small, b"")]
    assert records == Content().describe(
        [SourceFile(file.path, file.file, file.mode, file.size_bytes) for file in files]
    )


def test_each_batch_is_leased_before_it_is_looked_at_and_again_before_the_next(tmp_path: Path) -> None:
    store = faulty(MemoryStore("leased", MemoryBucket()))
    with Delivery(store, model="tiny", by="me") as carrier:
        Content(delivery=carrier).describe(files_of(tmp_path, large=contents(64 * KIB)))
        carrier.finish({}, lambda: "tiny@v1")
    leased: set[str] = set()
    for verb, key in store.operations:
        if key.startswith(layout.PUSHES):
            leased |= set(leases.read_digests(key, store.inner.read(key)))
        elif key.startswith(layout.OBJECTS):
            assert key.rpartition("/")[2] in leased, f"{verb} before its lease"
    assert sum(1 for verb, key in store.operations if key.startswith(layout.PUSHES)) == 4
    assert sum(1 for verb, key in store.operations if (verb, key) == ("list", layout.PRUNES)) == 4


def test_the_same_bytes_twice_are_sent_once(tmp_path: Path) -> None:
    store = faulty(MemoryStore("twice", MemoryBucket()))
    same = contents(4 * KIB) * 20
    records = push(store, files_of(tmp_path, one=same, two=same, three=contents(4 * KIB)))
    created = [key for verb, key in store.operations if verb == "create" and key.startswith(layout.OBJECTS)]
    assert len(created) == len(set(created)) == len({chunk.sha256 for record in records for chunk in record.chunks})


def test_what_the_repository_has_is_not_sent(tmp_path: Path) -> None:
    bucket = MemoryBucket()
    data = contents(100 * KIB)
    push(MemoryStore("there", bucket), files_of(tmp_path, w=data))
    again = faulty(MemoryStore("there", bucket))
    push(again, files_of(tmp_path, w=data))
    assert not [key for verb, key in again.operations if verb == "create" and key.startswith(layout.OBJECTS)]


def test_no_more_is_in_memory_than_is_allowed(tmp_path: Path) -> None:
    guard, most = threading.Lock(), 0
    held: dict[str, int] = {}

    class Slow(MemoryStore):
        def create(self, key: str, data: bytes) -> None:
            nonlocal most
            if key.startswith(layout.OBJECTS):
                with guard:
                    held[key] = len(data)
                    most = max(most, sum(held.values()))
                super().create(key, data)
                with guard:
                    held.pop(key)
            else:
                super().create(key, data)

    push(Slow("slow", MemoryBucket()), files_of(tmp_path, w=contents(400 * KIB)))
    assert 4 * KIB <= most <= 32 * KIB


def test_a_file_that_changes_while_it_is_sent_ends_the_push(tmp_path: Path) -> None:
    files = files_of(tmp_path, w=contents(100 * KIB))

    class Changing(MemoryStore):
        def create(self, key: str, data: bytes) -> None:
            super().create(key, data)
            if key.startswith(layout.OBJECTS):
                with (tmp_path / "w").open("r+b") as stream:
                    stream.write(b"other")

    with pytest.raises(InvalidInput, match="changed while"):
        push(Changing("changing", MemoryBucket()), files)


def test_a_file_that_vanishes_or_shrinks_ends_the_push(tmp_path: Path) -> None:
    files = files_of(tmp_path, w=contents(100 * KIB))
    (tmp_path / "w").write_bytes(b"short")
    with pytest.raises(InvalidInput, match="changed its size"):
        push(MemoryStore("shrunk", MemoryBucket()), files)
    (tmp_path / "w").unlink()
    with pytest.raises(InvalidInput, match="vanished"):
        push(MemoryStore("gone", MemoryBucket()), files)


def test_a_push_killed_anywhere_while_it_hashes_is_taken_up_again(tmp_path: Path) -> None:
    files = files_of(tmp_path, w=contents(100 * KIB), x=contents(3 * KIB, 3))
    counted = faulty(MemoryStore("counted", MemoryBucket()))
    push(counted, files)
    for at in range(1, len(counted.operations) + 1, 3):
        inner = MemoryStore(f"killed-{at}", MemoryBucket())
        with pytest.raises(KillNow):
            push(faulty(inner, Fault(at, "after", how="kill")), files)
        before = {stat.key for stat in inner.list(layout.OBJECTS)}
        again = faulty(inner)
        records = push(again, files)
        created = {key for verb, key in again.operations if verb == "create" and key.startswith(layout.OBJECTS)}
        assert not created & before
        assert read_back(inner, records[0]) == contents(100 * KIB)


def test_a_store_that_stops_answering_ends_the_push_rather_than_hanging_it(tmp_path: Path) -> None:
    files = files_of(tmp_path, w=contents(400 * KIB))
    counted = faulty(MemoryStore("answering", MemoryBucket()))
    push(counted, files)
    for at in range(1, len(counted.operations), 17):
        failing = faulty(MemoryStore(f"failing-{at}", MemoryBucket()), Fault(at))
        with pytest.raises(Unreachable):
            push(failing, files)


def test_a_push_stops_when_it_is_asked_to(tmp_path: Path) -> None:
    asked = threading.Event()

    class Asking(MemoryStore):
        def create(self, key: str, data: bytes) -> None:
            super().create(key, data)
            if key.startswith(layout.OBJECTS):
                asked.set()

    with pytest.raises(Stopped):
        push(Asking("asking", MemoryBucket()), files_of(tmp_path, w=contents(400 * KIB)), stop=asked.is_set)


def test_an_object_that_holds_other_bytes_is_named(tmp_path: Path) -> None:
    store, data = MemoryStore("other", MemoryBucket()), contents(4 * KIB)
    store.create(layout.object_(hashlib.sha256(data).hexdigest()), b"?")
    with pytest.raises(Corrupt, match="delete objects/"):
        push(store, files_of(tmp_path, w=data))


def test_progress_ends_at_its_total(tmp_path: Path) -> None:
    told: list[tuple[str, int, int | None]] = []
    data = contents(100 * KIB)
    store = MemoryStore("told", MemoryBucket())
    with Delivery(store, model="tiny", by="me", progress=lambda *each: told.append(each)) as carrier:
        Content(delivery=carrier).describe(files_of(tmp_path, w=data))
        carrier.finish({}, lambda: "tiny@v1")
    assert {(phase, total) for phase, _, total in told} == {("send", len(data))}
    done = [each[1] for each in told]
    assert done == sorted(done)
    assert done[-1] == len(data)


def test_a_tensor_file_is_cut_at_its_tensors_on_its_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "OWN_CHUNKS_FROM_BYTES", 1 * KIB)
    store = MemoryStore("tensors", MemoryBucket())
    data = tensor_bytes({"a": contents(5 * KIB), "b": contents(2 * KIB, 2), "c": contents(10 * KIB, 3)})
    (tmp_path / "m.safetensors").write_bytes(data)
    (record,) = push(store, [SourceFile("m.safetensors", tmp_path / "m.safetensors", 0o644, len(data))])
    header = len(data) - 17 * KIB
    assert [chunk.size_bytes // KIB for chunk in record.chunks[1:]] == [4, 1, 2, 4, 4, 2]
    assert record.chunks[0].size_bytes == header
    assert read_back(store, record) == data


def test_documents_come_after_objects_and_before_the_publication(tmp_path: Path) -> None:
    store = faulty(MemoryStore("documents", MemoryBucket()))
    content = Content()
    (record,) = content.describe([SourceFile("w", _written(tmp_path / "w", contents(KIB)), 0o644, KIB)])
    key = layout.bundle("e" * 64, None, "cp311", "linux", "d" * 64)
    done = deliver(
        store,
        model="tiny",
        by="me",
        objects={record.sha256: KIB},
        origins=content.origins,
        documents={key: b"{}"},
        publish=lambda: len(store.operations),
    )
    creations = [key for verb, key in store.operations if verb == "create" and not key.startswith(layout.PUSHES)]
    assert creations[:2] == [layout.object_(record.sha256), key]
    assert (done.new_bytes, done.reused_bytes, dict(done.sent)) == (KIB, 0, {record.sha256: KIB})
    assert ("create", key) in store.operations[: done.result]


def _written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_a_thousand_small_files_cost_two_requests_each_and_a_few(tmp_path: Path) -> None:
    store = faulty(MemoryStore("many", MemoryBucket()))
    files = files_of(tmp_path, **{f"shard-{number:04}": contents(32, number) for number in range(400)})
    push(store, files)
    assert len(store.operations) <= 2 * len(files) + 10
    again = faulty(store.inner)
    push(again, files)
    assert len(again.operations) <= 2 * len(files) + 10, "one look before the publication, one after it"


def test_a_push_that_hashes_for_long_renews_the_lease_of_all_that_it_has_brought(tmp_path: Path) -> None:
    store, seconds = MemoryStore("long", MemoryBucket()), 0.0
    files = files_of(tmp_path, one=contents(KIB), two=contents(KIB, 2))
    content = Content()
    one, two = (record.sha256 for record in content.describe([_plain(file) for file in files]))
    with Delivery(store, model="tiny", by="me", clock=Clock(now=lambda: seconds, monotonic=lambda: seconds)) as carrier:
        carrier.bring({one: KIB}, content.origins)
        seconds = leases.GRACE_S / 2 + 1
        carrier.bring({two: KIB}, content.origins)
        held = {frozenset(leases.read_digests(stat.key, store.read(stat.key))) for stat in store.list(layout.PUSHES)}
        assert held == {frozenset({one}), frozenset({two}), frozenset({one, two})}
        carrier.finish({}, lambda: "tiny@v1")


def _plain(file: SourceFile) -> SourceFile:
    return SourceFile(file.path, file.file, file.mode, file.size_bytes)
