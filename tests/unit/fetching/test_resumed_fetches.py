"""What an interrupted fetch had verified is not read from the repository a second time."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelrepo import layout
from modelrepo.errors import Corrupt, NoSpace, Stopped, Unreachable
from modelrepo.fetching.disk import READ_ONLY, Disk
from modelrepo.fetching.fetcher import THREADS, Fetcher, Target
from modelrepo.stores.faults import Fault, FaultyStore, KillNow
from modelrepo.stores.filesystem import FilesystemStore
from modelrepo.stores.memory import MemoryBucket, MemoryStore
from modelrepo.testing.fragile_disk import FragileDisk, PowerCut
from modelrepo.versions.manifest import ChunkRecord, FileRecord

CHUNKS = [bytes([number]) * (1000 + number) for number in range(12)]


def record(chunks: list[bytes], path: str = "w.bin") -> FileRecord:
    data = b"".join(chunks)
    return FileRecord(
        path,
        0o644,
        len(data),
        hashlib.sha256(data).hexdigest(),
        tuple(ChunkRecord(hashlib.sha256(chunk).hexdigest(), len(chunk)) for chunk in chunks),
    )


@pytest.fixture
def store() -> MemoryStore:
    store = MemoryStore("fetch", MemoryBucket())
    for chunk in CHUNKS:
        store.create(layout.object_(hashlib.sha256(chunk).hexdigest()), chunk)
    return store


@pytest.fixture
def target(tmp_path: Path) -> Target:
    return Target(record(CHUNKS), tmp_path / "partial", READ_ONLY, tmp_path / "journal")


def fetch(store: MemoryStore | FaultyStore, target: Target, disk: Disk | None = None) -> list[str]:
    """Fetch, and return the keys that were read."""
    counted = FaultyStore(store) if isinstance(store, MemoryStore) else store
    Fetcher(counted, disk or Disk(), what="m@v1", total_bytes=target.record.size_bytes).fetch([target])
    return [key for _, key in counted.operations]


def journalled(target: Target) -> set[int]:
    assert target.journal is not None
    return {int(line) for line in target.journal.read_text().split()}


@pytest.mark.parametrize("at", range(1, len(CHUNKS) + 1))
@pytest.mark.parametrize("how", ["fail", "kill"])
def test_no_verified_chunk_is_read_twice(store: MemoryStore, target: Target, at: int, how: str) -> None:
    first = FaultyStore(store, Fault(at, how="kill" if how == "kill" else "fail"))
    with pytest.raises((Unreachable, KillNow)):
        fetch(first, target)
    verified = {layout.object_(target.record.chunks[number].sha256) for number in journalled(target)}
    again = fetch(store, target)
    assert not verified & set(again)
    assert max(Counter(again).values(), default=1) == 1
    assert target.path.read_bytes() == b"".join(CHUNKS)
    assert target.path.stat().st_mode & 0o777 == READ_ONLY
    assert target.journal is not None
    assert not target.journal.exists()


def test_a_file_that_was_whole_is_only_looked_at(store: MemoryStore, target: Target) -> None:
    assert len(fetch(store, target)) == len(CHUNKS)
    assert fetch(store, target) == []
    assert target.path.stat().st_mode & 0o777 == READ_ONLY


def test_the_journal_is_not_believed(store: MemoryStore, target: Target) -> None:
    """After a power cut it may name chunks whose bytes were never written."""
    assert target.journal is not None
    target.path.write_bytes(b"".join(CHUNKS[:3]) + bytes(5000))
    target.journal.write_text("\n0\n1\n2\n3\n4\n99\nnonsense\n7")
    assert len(fetch(store, target)) == len(CHUNKS) - 3
    assert target.path.read_bytes() == b"".join(CHUNKS)


def test_what_another_file_left_behind_does_no_harm(store: MemoryStore, target: Target) -> None:
    assert target.journal is not None
    target.path.write_bytes(b"x" * 10 * target.record.size_bytes)
    target.journal.write_text("".join(f"\n{number}" for number in range(len(CHUNKS))))
    fetch(store, target)
    assert target.path.read_bytes() == b"".join(CHUNKS)


def test_nothing_is_written_through_a_link_in_its_place(store: MemoryStore, target: Target, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"mine")
    target.path.symlink_to(elsewhere)
    with pytest.raises(OSError, match="symbolic links"):
        fetch(store, target)
    assert elsewhere.read_bytes() == b"mine"


def test_power_may_go_at_any_change(store: MemoryStore, tmp_path: Path) -> None:
    whole = b"".join(CHUNKS)
    at, cut = 1, True
    while cut:
        folder = tmp_path / str(at)
        folder.mkdir()
        target = Target(record(CHUNKS), folder / "partial", READ_ONLY, folder / "journal")
        disk = FragileDisk(tmp_path / "attic", at)
        try:
            fetch(store, target, disk)
            cut = False
        except PowerCut:
            disk.lose_power()
        fetch(store, target)
        assert target.path.read_bytes() == whole
        at += 1
    assert at > len(CHUNKS)


def test_a_disk_without_room_is_said_before_the_first_byte(store: MemoryStore, tmp_path: Path) -> None:
    chunk = b"z" * (16 << 20)
    large = Target(record([chunk, b"end"]), tmp_path / "partial", READ_ONLY, tmp_path / "journal")

    class Full(Disk):
        def allocate(self, fd: int, size_bytes: int) -> None:
            raise NoSpace(f"no room for {size_bytes}")

    counted = FaultyStore(store)
    with pytest.raises(NoSpace, match="no room for 16777219"):
        fetch(counted, large, Full())
    assert counted.operations == []


class Pieces(MemoryStore):
    """Reads in pieces of 100 bytes, and counts how many were asked for."""

    def __init__(self, bucket: MemoryBucket) -> None:
        super().__init__("pieces", bucket)
        self.given = 0
        self.guard = threading.Lock()

    def read_pieces(self, key: str, start: int = 0) -> Iterator[memoryview]:
        data = memoryview(self.read(key))
        for at in range(start, len(data), 100):
            with self.guard:
                self.given += 1
            yield data[at : at + 100]


def pieces_of(store: MemoryStore) -> Pieces:
    return Pieces(store._bucket)


def test_pieces_become_the_file(store: MemoryStore, target: Target) -> None:
    Fetcher(pieces_of(store), Disk(), what="m@v1", total_bytes=0).fetch([target])
    assert target.path.read_bytes() == b"".join(CHUNKS)


def test_a_stop_ends_a_chunk_in_its_middle(store: MemoryStore, tmp_path: Path) -> None:
    chunk = b"y" * 1_000_000
    pieces = pieces_of(store)
    pieces.create(layout.object_(hashlib.sha256(chunk).hexdigest()), chunk)
    target = Target(record([chunk]), tmp_path / "partial", READ_ONLY, tmp_path / "journal")
    fetcher = Fetcher(pieces, Disk(), what="m@v1", total_bytes=0, stop=lambda: pieces.given >= 5)
    with pytest.raises(Stopped):
        fetcher.fetch([target])
    assert pieces.given < 10


@pytest.mark.parametrize("spoilt", [b"", b"x" * 1000, bytes(999), bytes(1000) + b"more", b"x" * 100_000])
def test_a_spoilt_chunk_is_named_and_not_written_down(store: MemoryStore, target: Target, spoilt: bytes) -> None:
    digest = target.record.chunks[0].sha256
    store.replace(layout.object_(digest), spoilt)
    with pytest.raises(Corrupt, match=f"{digest} of w.bin") as caught:
        Fetcher(pieces_of(store), Disk(), what="m@v1", total_bytes=0).fetch([target])
    assert "push the version again" in str(caught.value)
    assert 0 not in journalled(target)


def test_a_local_store_reads_in_pieces_too(target: Target, tmp_path: Path) -> None:
    local = FilesystemStore(tmp_path / "store")
    for chunk in CHUNKS:
        local.create(layout.object_(hashlib.sha256(chunk).hexdigest()), chunk)
    Fetcher(local, Disk(), what="m@v1", total_bytes=0).fetch([target])
    assert target.path.read_bytes() == b"".join(CHUNKS)


def test_a_fetch_that_fails_keeps_no_file_open(store: MemoryStore, tmp_path: Path) -> None:
    def descriptors() -> set[str]:
        return {str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()}

    targets = [
        Target(record(CHUNKS, f"{number}.bin"), tmp_path / f"{number}", READ_ONLY, tmp_path / f"{number}.journal")
        for number in range(40)
    ]
    with pytest.raises(Unreachable):
        Fetcher(FaultyStore(store, Fault(5)), Disk(), what="m@v1", total_bytes=0).fetch(targets)
    assert not [name for name in descriptors() if name.startswith(str(tmp_path))]


class Counting(Disk):
    """Counts the files that are open at once."""

    def __init__(self) -> None:
        self.open = self.most = 0
        self.guard = threading.Lock()

    def create(self, path: Path) -> int:
        with self.guard:
            self.open += 1
            self.most = max(self.most, self.open)
        return super().create(path)

    def seal(self, fd: int, mode: int) -> None:
        super().seal(fd, mode)
        with self.guard:
            self.open -= 1


def test_of_many_files_in_chunks_only_those_are_open_whose_chunks_are_under_way(
    store: MemoryStore, tmp_path: Path
) -> None:
    targets = [Target(record(CHUNKS[:2], f"{number}.bin"), tmp_path / f"{number}", READ_ONLY) for number in range(400)]
    disk = Counting()
    Fetcher(store, disk, what="m@v1", total_bytes=0).fetch(targets)
    assert disk.open == 0
    assert disk.most <= 2 * THREADS
