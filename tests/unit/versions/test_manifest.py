from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelrepo.environments.record import EnvironmentRecord
from modelrepo.errors import Corrupt, InvalidInput, NewerFormat
from modelrepo.versions.manifest import PLAIN, CheckpointRecord, ChunkRecord, FileRecord, Manifest
from modelrepo.versions.paths import path_problem

ENVIRONMENT = EnvironmentRecord(python="3.11", requires_python=">=3.11", digest="e" * 64, pyproject_sha256="f" * 64)


def file(path: str, *chunks: bytes, mode: int = 0o644) -> FileRecord:
    records = tuple(ChunkRecord(hashlib.sha256(chunk).hexdigest(), len(chunk)) for chunk in chunks)
    whole = b"".join(chunks)
    return FileRecord(path, mode, len(whole), hashlib.sha256(whole).hexdigest(), records)


def manifest(**changes: Any) -> Manifest:
    made = Manifest(
        model="tiny",
        version="v1",
        created_at="2026-01-01T00:00:00Z",
        spec={"contract": 1, "name": "tiny", "entrypoint": "model:Model"},
        environment=ENVIRONMENT,
        code=(file("model.py", b"x"),),
        checkpoints={"weights": CheckpointRecord((file("a/b.bin", b"1", b"2"),), source={"source": "w"})},
    )
    return replace(made, **changes)


def altered(change: Mapping[str, Any]) -> bytes:
    return json.dumps({**manifest().to_json(), **change}).encode()


names = st.text(st.characters(codec="utf-8", exclude_characters="/"), min_size=1, max_size=20)
paths = st.lists(names, min_size=1, max_size=4).map("/".join).filter(lambda path: path_problem(path) is None)
chunks = st.lists(st.binary(min_size=1, max_size=8), max_size=4)
texts = st.text(st.characters(codec="utf-8"))
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=10,
)


@given(
    path=paths,
    parts=chunks,
    executable=st.booleans(),
    config=st.dictionaries(texts, values, max_size=4),
    message=st.none() | texts,
    commit=st.none() | st.text("0123456789abcdef", min_size=40, max_size=40),
)
def test_a_manifest_survives_its_bytes(
    path: str, parts: list[bytes], executable: bool, config: dict[str, Any], message: str | None, commit: str | None
) -> None:
    made = manifest(
        code=(file(path, *parts, mode=0o755 if executable else 0o644),),
        spec={"config": config},
        message=message,
        git_commit=commit,
        git_dirty=commit is not None,
    )
    data = made.to_bytes()
    read = Manifest.from_bytes(data)
    assert read == made
    assert read.to_bytes() == data
    assert read.digest == hashlib.sha256(data).hexdigest()


@given(st.text())
def test_no_path_that_leaves_its_folder_is_read(path: str) -> None:
    hostile = {**manifest().to_json(), "code": [{**file("x", b"1").to_json(), "path": path}]}
    try:
        data = json.dumps(hostile).encode()
    except UnicodeEncodeError:
        return
    if path_problem(path) is None:
        (kept,) = Manifest.from_bytes(data).code
        assert ".." not in kept.path.split("/")
        assert not kept.path.startswith("/")
    else:
        with pytest.raises(Corrupt):
            Manifest.from_bytes(data)


@pytest.mark.parametrize(
    "path", ["../x", "/etc/passwd", "a/../../x", "a//b", ".", "", "a/", "a\\b", "a\0b", "n" * 256, ".git/config"]
)
def test_hostile_paths_have_a_problem(path: str) -> None:
    assert path_problem(path) is not None


@pytest.mark.parametrize(
    "listed", [("a", "a"), ("a", "a/b"), ("a/b/c", "a/b")], ids=["twice", "file-and-folder", "folder-and-file"]
)
def test_paths_that_collide_are_refused(listed: tuple[str, str]) -> None:
    code = [file(path, b"1").to_json() for path in listed]
    with pytest.raises(Corrupt, match="twice"):
        Manifest.from_bytes(altered({"code": code}))


def test_a_newer_format_is_refused_by_name() -> None:
    with pytest.raises(NewerFormat, match="format 2"):
        Manifest.from_bytes(altered({"format": 2}))


def test_an_unknown_requirement_is_refused_by_name() -> None:
    with pytest.raises(NewerFormat, match="delta-chunks"):
        Manifest.from_bytes(altered({"requires": ["delta-chunks"]}))


def test_unknown_keys_are_ignored() -> None:
    assert Manifest.from_bytes(altered({"colour": "blue"})) == manifest()


def carried(filename: object) -> dict[str, Any]:
    return {"filename": filename, "sha256": "a" * 64, "size_bytes": 1}


@pytest.mark.parametrize(
    "change",
    [
        {"format": 0},
        {"format": "1"},
        {"model": 3},
        {"spec": 1},
        {"code": [{}]},
        {"code": None},
        {"checkpoints": {"../x": {"files": []}}},
        {"checkpoints": {"a": {"files": [], "single": True}}},
        {"code": [{**file("x", b"1").to_json(), "size_bytes": 2}]},
        {"code": [FileRecord("x", PLAIN, 2**53, "0" * 64, (ChunkRecord("0" * 64, 2**53),)).to_json()]},
        {"code": [{**file("x", b"1").to_json(), "sha256": "../../x"}]},
        {"code": [{**file("x", b"1").to_json(), "chunks": [{"sha256": "0" * 64, "size_bytes": -1}]}]},
        {"environment": {}},
        {"environment": {**manifest().environment.to_json(), "digest": "../../x"}},
        {"environment": {**manifest().environment.to_json(), "carried": [carried("../../x.whl")]}},
        {"environment": {**manifest().environment.to_json(), "carried": [carried("/x.whl")]}},
        {"environment": {**manifest().environment.to_json(), "carried": [carried(3)]}},
        {"code": [{**file("x", b"1").to_json(), "sha256": "0" * 64}]},
    ],
)
def test_what_is_no_manifest_is_corrupt(change: dict[str, Any]) -> None:
    with pytest.raises(Corrupt):
        Manifest.from_bytes(altered(change))


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000])
def test_other_bytes_are_corrupt(data: bytes) -> None:
    with pytest.raises(Corrupt):
        Manifest.from_bytes(data)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**53 + 1])
def test_numbers_without_a_canonical_form_are_refused(value: float) -> None:
    with pytest.raises(InvalidInput):
        manifest(spec={"config": {"x": value}}).to_bytes()


def test_content_is_equal_whoever_pushed_it_and_however_it_was_cut() -> None:
    other_cut = CheckpointRecord((file("a/b.bin", b"12"),), source={"source": "elsewhere"})
    other = manifest(version="v2", author="b", message="m", push="1", checkpoints={"weights": other_cut})
    assert other.content_digest() == manifest().content_digest()
    assert manifest(code=(file("model.py", b"y"),)).content_digest() != manifest().content_digest()
    assert manifest(code=(file("model.py", b"x", mode=0o755),)).content_digest() != manifest().content_digest()


def test_the_documented_manifest_is_one(request: pytest.FixtureRequest) -> None:
    text = (request.config.rootpath / "docs" / "format.md").read_text()
    shown = text.partition("### The manifest, key by key")[2].partition("```json\n")[2].partition("```")[0]
    documented = json.loads(shown)
    assert Manifest.from_bytes(shown.encode()).to_json() == documented
    assert documented.keys() == manifest().to_json().keys()
