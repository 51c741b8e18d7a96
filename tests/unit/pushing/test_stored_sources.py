"""Checkpoints that come from a bucket: read once, known again by size and etag."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest

from modelrepo.contract import load_spec
from modelrepo.environments.record import EnvironmentRecord
from modelrepo.errors import InvalidCheckpoint, InvalidInput
from modelrepo.publication.delivery import Delivery
from modelrepo.publication.publish import finish, publish
from modelrepo.pushing import stored_sources
from modelrepo.pushing.content import Content
from modelrepo.pushing.drafting import draft, look, pack
from modelrepo.stores.faults import FaultyStore, faulty
from modelrepo.stores.memory import MemoryBucket, MemoryStore
from modelrepo.stores.port import ObjectStore
from modelrepo.versions import chunks
from modelrepo.versions.manifest import Manifest

MakeFolder = Callable[..., Path]
SPEC = "checkpoints: {w: 's3://weights/w'}\n"
KIB = 1 << 10


class Buckets:
    """Stands for every bucket there is: a store for each URL, and what was asked of it."""

    def __init__(self) -> None:
        self.opened: dict[str, FaultyStore] = {}
        self._buckets: defaultdict[str, MemoryBucket] = defaultdict(MemoryBucket)

    def open(self, url: str) -> ObjectStore:
        self.opened[url] = faulty(self.inner(url))
        return self.opened[url]

    def inner(self, url: str) -> MemoryStore:
        return MemoryStore(url, self._buckets[url])

    def reads(self) -> set[str]:
        """Return the keys whose bytes were read since this was last asked."""
        found = {key for store in self.opened.values() for verb, key in store.operations if verb.startswith("read")}
        self.opened.clear()
        return found


@pytest.fixture
def buckets(monkeypatch: pytest.MonkeyPatch) -> Buckets:
    opened = Buckets()
    monkeypatch.setattr(stored_sources, "open_store", opened.open)
    monkeypatch.setattr(chunks, "WHOLE_UP_TO_BYTES", 16 * KIB)
    monkeypatch.setattr(chunks, "PIECE_BYTES", 4 * KIB)
    weights = opened.inner("s3://weights/w")
    weights.create("a.bin", b"a" * 30 * KIB)
    weights.create("sub/b.bin", b"b" * KIB)
    weights.create("sub/readme.md", b"words")
    return opened


def nowhere(reference: str) -> Manifest:
    raise AssertionError(f"nobody should look for {reference}")


@pytest.fixture
def push(store: MemoryStore, make_folder: MakeFolder, environment: EnvironmentRecord) -> Callable[..., Manifest]:
    def make(spec: str = SPEC, *, earlier: tuple[Manifest, ...] = ()) -> Manifest:
        folder = make_folder(spec=spec)
        found = look(folder, load_spec(folder), nowhere, earlier=lambda: earlier)
        return publish(store, draft(folder, pack(found), environment, at="now")).manifest

    return make


def test_files_of_a_bucket_are_packed_with_what_they_resolved_to(
    store: MemoryStore, buckets: Buckets, push: Callable[..., Manifest]
) -> None:
    record = push().checkpoints["w"]
    assert [(file.path, file.size_bytes, len(file.chunks)) for file in record.files] == [
        ("a.bin", 30 * KIB, 8),
        ("sub/b.bin", KIB, 1),
        ("sub/readme.md", 5, 1),
    ]
    assert not record.single
    assert record.source is not None
    assert record.source["source"] == "s3://weights/w"
    etag = buckets.inner("s3://weights/w").stat("a.bin").etag
    assert record.source["files"]["a.bin"] == {"size_bytes": 30 * KIB, "etag": etag}
    assert Manifest.from_bytes(push().to_bytes()).checkpoints["w"] == record


def test_what_is_known_by_size_and_etag_is_not_read_again(buckets: Buckets, push: Callable[..., Manifest]) -> None:
    first = push()
    assert buckets.reads() == {"a.bin", "sub/b.bin", "sub/readme.md"}
    assert push(earlier=(first,)).checkpoints == first.checkpoints
    assert buckets.reads() == set()
    weights = buckets.inner("s3://weights/w")
    weights.replace("sub/b.bin", b"c" * KIB)
    second = push(earlier=(first,))
    assert buckets.reads() == {"sub/b.bin"}
    assert second.checkpoints["w"].files[0] == first.checkpoints["w"].files[0]
    assert second.checkpoints["w"].files[1] != first.checkpoints["w"].files[1]


def test_another_bucket_is_not_taken_for_this_one(buckets: Buckets, push: Callable[..., Manifest]) -> None:
    first = push()
    other = buckets.inner("s3://other/w")
    other.create("a.bin", b"a" * 30 * KIB)
    buckets.reads()
    push("checkpoints: {w: 's3://other/w'}\n", earlier=(first,))
    assert buckets.reads() == {"a.bin"}


def test_patterns_choose_among_the_files_of_a_bucket(buckets: Buckets, push: Callable[..., Manifest]) -> None:
    spec = 'checkpoints: {w: {source: "s3://weights/w/", include: ["*.bin"], exclude: ["a*"]}}\n'
    assert [file.path for file in push(spec).checkpoints["w"].files] == ["sub/b.bin"]
    with pytest.raises(InvalidCheckpoint, match="leave none of the 3 files"):
        push('checkpoints: {w: {source: "s3://weights/w", include: ["*.pt"]}}\n')


def test_one_object_is_one_file(buckets: Buckets, push: Callable[..., Manifest]) -> None:
    record = push("checkpoints: {w: 's3://weights/w/a.bin'}\n").checkpoints["w"]
    assert record.single
    assert [file.path for file in record.files] == ["a.bin"]


@pytest.mark.parametrize("url", ["s3://weights/nothing", "s3://weights/w/nothing.bin"])
def test_what_is_not_in_the_bucket_is_said(buckets: Buckets, push: Callable[..., Manifest], url: str) -> None:
    with pytest.raises(InvalidCheckpoint, match=f"'w' is missing: {url} holds nothing"):
        push(f"checkpoints: {{w: '{url}'}}\n")


def test_weights_without_bytes_are_refused(buckets: Buckets, push: Callable[..., Manifest]) -> None:
    buckets.inner("s3://empty/w").create("a.bin", b"")
    with pytest.raises(InvalidCheckpoint, match="is empty"):
        push("checkpoints: {w: 's3://empty/w'}\n")


@pytest.mark.parametrize("change", ["replace", "delete"])
def test_an_object_that_changes_while_it_is_read_ends_the_push(
    store: MemoryStore, make_folder: MakeFolder, environment: EnvironmentRecord, buckets: Buckets, change: str
) -> None:
    folder = make_folder(spec=SPEC)
    found = look(folder, load_spec(folder), nowhere)
    weights = buckets.inner("s3://weights/w")

    class Meanwhile(MemoryStore):
        def create(self, key: str, data: bytes) -> None:
            super().create(key, data)
            if key.startswith("objects/"):
                weights.replace("a.bin", b"z" * 30 * KIB) if change == "replace" else weights.delete("a.bin")

    target = Meanwhile("versions", store._bucket)
    with (
        pytest.raises(InvalidInput, match=r"s3://weights/w/a\.bin changed while it was being pushed"),
        Delivery(target, model="tiny", by="me") as delivery,
    ):
        packed = pack(found, Content(delivery=delivery))
        finish(delivery, target, draft(folder, packed, environment, at="now"), version=None, clock=delivery._clock)
    assert not list(store.list("models/"))


def test_a_bucket_can_be_brought_to_this_box_for_a_trial(
    tmp_path: Path, make_folder: MakeFolder, buckets: Buckets
) -> None:
    folder = make_folder(spec=SPEC)
    checkpoint = look(folder, load_spec(folder), nowhere).checkpoints["w"]
    assert isinstance(checkpoint, stored_sources.StoredCheckpoint)
    target = stored_sources.download(checkpoint, tmp_path / "here")
    assert (target / "a.bin").read_bytes() == b"a" * 30 * KIB
    assert (target / "sub" / "readme.md").read_bytes() == b"words"
    buckets.inner("s3://weights/w").replace("a.bin", b"short")
    with pytest.raises(InvalidInput, match="changed"):
        stored_sources.download(checkpoint, tmp_path / "again")
