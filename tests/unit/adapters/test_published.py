"""Adapters that a repository publishes: immutable, numbered, and read again piece by piece."""

from __future__ import annotations

import hashlib
from pathlib import Path
from uuid import uuid4

import pytest

from modelrepo import layout
from modelrepo.adapters import published, record
from modelrepo.adapters.published import Adapters
from modelrepo.adapters.record import AdapterRecord
from modelrepo.errors import (
    Corrupt,
    InvalidInput,
    InvalidName,
    InvalidReference,
    NewerFormat,
    NotFound,
    ObjectExists,
    Stopped,
    StoreNotTrusted,
    VersionExists,
)
from modelrepo.stores.memory import MemoryStore


def trusted(_: str) -> None: ...


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore(f"memory://{uuid4().hex}")


@pytest.fixture
def adapters(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> Adapters:
    for module in (published, record):
        monkeypatch.setattr(module, "PIECE_BYTES", 4)
    return Adapters(store, "ann@box", trusted)


def a_file(folder: Path, data: bytes = b"0123456789", name: str = "style.safetensors") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def test_what_is_pushed_is_found_and_read_again(adapters: Adapters, tmp_path: Path) -> None:
    done = adapters.push("style", a_file(tmp_path), message="first")
    assert (done.ref, done.file, done.size_bytes, done.message) == ("style@v1", "style.safetensors", 10, "first")
    assert done.sha256 == hashlib.sha256(b"0123456789").hexdigest() and done.author == "ann@box"
    assert adapters.find("style@v1") == done and adapters.list() == [done]
    assert list(adapters.read(done.ref, done.sha256, done.size_bytes)) == [b"0123", b"4567", b"89"]


def test_each_push_of_other_bytes_is_the_next_version_and_the_same_bytes_are_published_once(
    adapters: Adapters, tmp_path: Path
) -> None:
    first = adapters.push("style", a_file(tmp_path))
    second = adapters.push("style", a_file(tmp_path, b"other"))
    assert (first.version, second.version) == ("v1", "v2")
    assert adapters.push("style", a_file(tmp_path)) == first
    assert adapters.push("style", a_file(tmp_path), version="best").ref == "style@best"
    assert [one.version for one in adapters.list("style")] == ["best", "v1", "v2"]


def test_a_version_is_never_changed(adapters: Adapters, tmp_path: Path) -> None:
    done = adapters.push("style", a_file(tmp_path), version="one")
    assert adapters.push("style", a_file(tmp_path), version="one") == done
    with pytest.raises(VersionExists, match="'one' with other bytes"):
        adapters.push("style", a_file(tmp_path, b"other"), version="one")
    assert adapters.find("style@one") == done


def test_who_loses_the_race_for_a_number_takes_the_next(
    adapters: Adapters, store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = store.create

    def beaten(key: str, data: bytes) -> None:
        if key == layout.adapter("style", "v1"):
            raise ObjectExists("somebody was faster", key=key)
        create(key, data)

    monkeypatch.setattr(store, "create", beaten)
    assert adapters.push("style", a_file(tmp_path)).version == "v2"


def test_a_push_that_was_stopped_shows_nothing_and_goes_on(
    adapters: Adapters, store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = iter([False, True])
    with pytest.raises(Stopped, match="goes on"):
        adapters.push("style", a_file(tmp_path), stop=lambda: next(asked))
    assert adapters.list() == []
    create, sent = store.create, list[str]()

    def counted(key: str, data: bytes) -> None:
        sent.append(key)
        create(key, data)

    monkeypatch.setattr(store, "create", counted)
    done = adapters.push("style", a_file(tmp_path))
    pieces = [layout.adapter_piece("style", done.sha256, number) for number in (1, 2)]
    assert sent == [*pieces, layout.adapter("style", "v1")]


def test_a_file_that_changes_while_it_is_read_spoils_nothing(
    adapters: Adapters, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = a_file(tmp_path)
    measured = published._measured

    def then_changed(file: Path) -> object:
        found = measured(file)
        file.write_bytes(b"01x3456789")
        return found

    monkeypatch.setattr(published, "_measured", then_changed)
    with pytest.raises(InvalidInput, match="was changed while it was read"):
        adapters.push("style", path)
    monkeypatch.undo()
    assert adapters.list() == []


def test_what_cannot_be_published_is_refused(adapters: Adapters, store: MemoryStore, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="is empty"):
        adapters.push("style", a_file(tmp_path, b""))
    with pytest.raises(InvalidInput, match="No such file"):
        adapters.push("style", tmp_path / "nothing")
    with pytest.raises(InvalidName):
        adapters.push("Style", a_file(tmp_path))
    with pytest.raises(InvalidName):
        adapters.push("style", a_file(tmp_path), version="latest")

    def distrust(verb: str) -> None:
        raise StoreNotTrusted(f"cannot {verb}")

    with pytest.raises(StoreNotTrusted):
        Adapters(store, "ann", distrust).push("style", a_file(tmp_path))
    assert list(store.list("")) == []


def test_a_reference_names_a_version_and_what_is_near_is_told(adapters: Adapters, tmp_path: Path) -> None:
    adapters.push("style", a_file(tmp_path))
    with pytest.raises(NotFound, match="style has v1"):
        adapters.find("style@v2")
    with pytest.raises(NotFound, match="did you mean 'style'"):
        adapters.find("stile@v1")
    with pytest.raises(NotFound, match="modelrepo adapter push"):
        adapters.find("else@v1")
    for text in ("style", "style@"):
        with pytest.raises(InvalidReference, match="style@VERSION"):
            adapters.find(text)


@pytest.mark.parametrize("change", [{"sha256": "x"}, {"size_bytes": 0}, {"name": "other"}, {"file": None}])
def test_a_document_that_is_damaged_is_said_to_be(
    adapters: Adapters, store: MemoryStore, tmp_path: Path, change: dict[str, object]
) -> None:
    import json

    done = adapters.push("style", a_file(tmp_path))
    key = layout.adapter("style", "v1")
    store.replace(key, json.dumps({**json.loads(done.to_bytes()), **change}).encode())
    with pytest.raises(Corrupt, match="style"):
        adapters.find("style@v1")


def test_a_newer_format_is_refused_by_name() -> None:
    with pytest.raises(NewerFormat):
        AdapterRecord.from_bytes(b'{"format": 99}', "adapters/a/versions/v1.json")
    for data in (b"[]", b"{"):
        with pytest.raises(Corrupt):
            AdapterRecord.from_bytes(data, "adapters/a/versions/v1.json")
