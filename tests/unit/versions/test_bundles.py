from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from modelrepo import canonical, layout
from modelrepo.environments.interpreters import Interpreter
from modelrepo.environments.record import CarriedWheel, EnvironmentRecord
from modelrepo.errors import Corrupt, NewerFormat
from modelrepo.fetching.bundled_wheels import BundledWheels
from modelrepo.fetching.partial_file import PartialFile
from modelrepo.pushing.content import Content
from modelrepo.pushing.vendor import bundle_carried
from modelrepo.stores.faults import FaultyStore
from modelrepo.stores.memory import MemoryStore
from modelrepo.versions.bundles import Bundle, parse_bundle, read_bundle
from modelrepo.versions.manifest import ChunkRecord, FileRecord

SPEC = "contract: 1\nname: hello\nentrypoint: model:Hello\n"
PYTHON = Interpreter(Path("/usr/bin/python3"), "3.11.2", "linux_x86_64")
WHEEL = "greeting-1.0-py3-none-any.whl"


@pytest.fixture
def carrying(environment: EnvironmentRecord) -> EnvironmentRecord:
    return replace(environment, carried=(CarriedWheel(WHEEL, canonical.sha256(b"wheel"), 5),))


@pytest.fixture
def bundle(tmp_path: Path, carrying: EnvironmentRecord) -> tuple[str, bytes]:
    (tmp_path / WHEEL).write_bytes(b"wheel")
    made = bundle_carried(carrying, [tmp_path / WHEEL], PYTHON, Content())
    assert made is not None
    assert made.objects() == {canonical.sha256(b"wheel"): 5}
    return made.document()


def test_a_bundle_lies_by_environment_extra_python_and_platform(
    bundle: tuple[str, bytes], carrying: EnvironmentRecord
) -> None:
    key, data = bundle
    assert key == layout.bundle(carrying.digest, None, "cp311", "linux_x86_64", canonical.sha256(data))
    assert [record.path for record in read_bundle(key, data)] == [WHEEL]


def test_no_carried_wheel_needs_no_bundle(environment: EnvironmentRecord, store: MemoryStore) -> None:
    assert bundle_carried(environment, [], PYTHON, Content()) is None
    assert offered(store, environment) == []


def test_a_carried_wheel_is_found_by_its_bytes_whatever_the_bundle_calls_it(
    store: MemoryStore, bundle: tuple[str, bytes], carrying: EnvironmentRecord
) -> None:
    store.create(*bundle)
    renamed = replace(carrying, carried=(replace(carrying.carried[0], filename="greeting-1.0-1-py3-none-any.whl"),))
    assert offered(store, renamed) == ["greeting-1.0-1-py3-none-any.whl"]


def test_a_wheel_in_no_bundle_is_named(
    store: MemoryStore, bundle: tuple[str, bytes], carrying: EnvironmentRecord
) -> None:
    store.create(*bundle)
    other = replace(carrying, carried=(CarriedWheel("other-1.0-py3-none-any.whl", "0" * 64, 5),))
    with pytest.raises(Corrupt, match=r"other-1\.0"):
        offered(store, other)


def test_a_bundle_that_is_not_what_its_name_says_is_refused(bundle: tuple[str, bytes]) -> None:
    key, data = bundle
    with pytest.raises(Corrupt, match="other bytes"):
        read_bundle(key, data.replace(b"linux", b"macos"))


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda tree: {**tree, "format": 2}, NewerFormat),
        (lambda tree: {**tree, "wheels": [{**tree["wheels"][0], "path": "a/b.whl"}]}, Corrupt),
        (lambda tree: {**tree, "wheels": [{**tree["wheels"][0], "path": "../b.whl"}]}, Corrupt),
        (lambda tree: {**tree, "wheels": [{}]}, Corrupt),
        (lambda tree: {**tree, "wheels": 3}, Corrupt),
        (lambda tree: 3, Corrupt),
    ],
)
def test_a_hostile_bundle_is_refused(
    bundle: tuple[str, bytes], change: Callable[[dict[str, object]], object], error: type[Exception]
) -> None:
    data = json.dumps(change(json.loads(bundle[1]))).encode()
    with pytest.raises(error):
        read_bundle(f"environments/x/{canonical.sha256(data)}.json", data)


def test_a_bundle_that_cannot_be_read_is_passed_over_where_another_has_the_wheels(
    store: MemoryStore, bundle: tuple[str, bytes], carrying: EnvironmentRecord
) -> None:
    newer = json.dumps({"format": 2}).encode()
    store.create(layout.bundle(carrying.digest, None, "cp399", "moon", canonical.sha256(newer)), newer)
    with pytest.raises(NewerFormat, match="format 2"):
        offered(store, carrying)
    store.create(*bundle)
    assert offered(store, carrying) == [WHEEL]


def test_the_most_complete_bundle_of_this_box_comes_first_and_others_join_it(
    store: MemoryStore, environment: EnvironmentRecord
) -> None:
    here, there = ("cp311", "linux_x86_64"), ("cp311", "macosx_14_0_arm64")
    for extra, (python, platform), letters in (
        ("rocm", there, "abcd"),
        (None, here, "ab"),
        ("cpu", here, "b"),
        ("cpu", here, "bc"),
    ):
        wheels = tuple(wheel(f"{name}-1-py3-none-any.whl", f"{name}{extra}") for name in letters)
        store.create(*Bundle(environment.digest, extra, python, platform, wheels).document())
    source = BundledWheels(store, environment, "hello@v1")
    sizes = [(one.extra, len(one.wheels)) for one in source.bundles("cpu", PYTHON)]
    assert sizes == [("cpu", 2), ("cpu", 1), (None, 2), ("rocm", 4)]
    names = [one.filename[0] for one in source.offered("cpu", PYTHON)]
    assert (names[:2], sorted(set(names))) == (["b", "c"], ["a", "b", "c", "d"])


def test_a_wheel_that_was_built_counts_where_it_was_built_only(
    store: MemoryStore, environment: EnvironmentRecord
) -> None:
    wheels = (wheel("a-1-py3-none-any.whl", "a"), wheel("b-1-py3-none-any.whl", "b"))
    bundle = Bundle(environment.digest, None, "cp311", "linux_x86_64", wheels, {wheels[1].path: "c" * 64})
    key, data = bundle.document()
    assert parse_bundle(key, data) == bundle
    store.create(key, data)
    source = BundledWheels(store, environment, "hello@v1")
    assert [one.built_from for one in source.offered(None, PYTHON)] == [None, "c" * 64]
    assert [one.built_from for one in source.offered(None, replace(PYTHON, platform="linux_aarch64"))] == [None]


def test_a_wheel_with_a_flipped_byte_is_refused_by_name_and_digest(
    store: MemoryStore, bundle: tuple[str, bytes], carrying: EnvironmentRecord, tmp_path: Path
) -> None:
    store.create(*bundle)
    digest = canonical.sha256(b"wheel")
    store.create(layout.object_(digest), b"wheex")
    source = BundledWheels(store, carrying, "hello@v1")
    (tmp_path / "brought").mkdir()
    with pytest.raises(Corrupt, match=WHEEL) as caught:
        source.bring(source.offered(None, PYTHON), tmp_path / "brought")
    assert digest in str(caught.value)


def wheel(name: str, content: str) -> FileRecord:
    digest = canonical.sha256(content.encode())
    return FileRecord(name, 0o644, len(content), digest, (ChunkRecord(digest, len(content)),))


def offered(store: MemoryStore, environment: EnvironmentRecord) -> list[str]:
    return [one.filename for one in BundledWheels(store, environment, "hello@v1").offered(None, PYTHON)]


def test_a_wheel_whose_fetch_was_interrupted_is_gone_on_with(
    store: MemoryStore, environment: EnvironmentRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = [b"a" * 100, b"b" * 100, b"c" * 100]
    chunks = tuple(ChunkRecord(canonical.sha256(part), len(part)) for part in parts)
    whole = FileRecord(WHEEL, 0o644, 300, canonical.sha256(b"".join(parts)), chunks)
    key, data = Bundle(environment.digest, None, "cp311", "linux_x86_64", (whole,)).document()
    store.create(key, data)
    for chunk, part in zip(chunks[:2], parts, strict=False):
        store.create(layout.object_(chunk.sha256), part)
    noted, note = threading.Semaphore(0), PartialFile.note

    def note_and_tell(file: PartialFile, index: int) -> None:
        note(file, index)
        noted.release()

    def last(_verb: str, key: str) -> None:
        if key == layout.object_(chunks[2].sha256):
            assert all(noted.acquire(timeout=60) for _ in chunks[:2])

    monkeypatch.setattr(PartialFile, "note", note_and_tell)
    source = BundledWheels(FaultyStore(store, before=last), environment, "hello@v1")
    wheels = source.offered(None, PYTHON)
    with pytest.raises(Corrupt, match="is missing"):
        source.bring(wheels, tmp_path)
    store.create(layout.object_(chunks[2].sha256), parts[2])
    counted = FaultyStore(store)
    BundledWheels(counted, environment, "hello@v1").bring(wheels, tmp_path)
    assert (tmp_path / WHEEL).read_bytes() == b"".join(parts)
    fetched = {key for verb, key in counted.operations if key.startswith(layout.OBJECTS)}
    assert fetched == {layout.object_(chunks[2].sha256)}
