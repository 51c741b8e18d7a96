"""Versions made by hand, of a few bytes: what tests of fetching and caching need of a publication, and no more."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from modelrepo import layout
from modelrepo.contract import parse_spec, spec_from_json
from modelrepo.environments.record import EnvironmentRecord
from modelrepo.stores.port import ObjectStore
from modelrepo.versions.manifest import (
    EXECUTABLE,
    PLAIN,
    CheckpointRecord,
    ChunkRecord,
    FileRecord,
    Manifest,
)
from modelrepo.versions.version import LocalVersion, Version

Files = Mapping[str, bytes]


def small_version(
    store: ObjectStore,
    version: str = "v1",
    *,
    model: str = "small",
    code: Files | None = None,
    checkpoints: Mapping[str, Files] | None = None,
    environment: str = "e" * 64,
    chunk_bytes: int = 1 << 20,
) -> Version:
    """Put the objects of a version into a store, and return the version. Code files that end in `.sh` may be run."""
    spec = parse_spec(f"contract: 1\nname: {model}\nentrypoint: model:Model\n")
    record = EnvironmentRecord(python="3.11", requires_python="", digest=environment, pyproject_sha256="f" * 64)
    code = {"model.py": f"VERSION = {version!r}\n".encode()} if code is None else code
    manifest = Manifest(
        model,
        version,
        "2026-01-01T00:00:00Z",
        spec.raw,
        record,
        tuple(_file(store, path, data, chunk_bytes) for path, data in code.items()),
        {
            name: CheckpointRecord(tuple(_file(store, path, data, chunk_bytes) for path, data in files.items()))
            for name, files in (checkpoints or {}).items()
        },
    )
    store.create(layout.manifest(model, version), manifest.to_bytes())
    return published(store, version, model)


def published(store: ObjectStore, version: str, model: str = "small") -> Version:
    """Return a version that `small_version` made, maybe in another process."""
    data = store.read(layout.manifest(model, version))
    manifest = Manifest.from_bytes(data)
    return Version(model, version, hashlib.sha256(data).hexdigest(), manifest, spec_from_json(manifest.spec))


def assert_right(local: LocalVersion) -> None:
    """Compare every byte of a version on this box, and its modes, with its manifest."""
    manifest = local.version.manifest
    for record in manifest.code:
        _assert_file(local.code / record.path, record, 0o555 if record.mode == EXECUTABLE else 0o444)
    for name in local.checkpoints:
        for record in manifest.checkpoints[name].files:
            _assert_file(local.folder / "checkpoints" / name / record.path, record, 0o444)


def _assert_file(path: Path, record: FileRecord, mode: int) -> None:
    data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    assert found == record.sha256, f"{path} has {len(data)} bytes with sha256:{found} instead of {record}"
    assert path.stat().st_mode & 0o777 == mode, path


def _file(store: ObjectStore, path: str, data: bytes, chunk_bytes: int) -> FileRecord:
    pieces = [data[start : start + chunk_bytes] for start in range(0, len(data), chunk_bytes)]
    chunks = tuple(ChunkRecord(hashlib.sha256(piece).hexdigest(), len(piece)) for piece in pieces)
    for piece, chunk in zip(pieces, chunks, strict=True):
        store.create(layout.object_(chunk.sha256), piece)
    mode = EXECUTABLE if path.endswith(".sh") else PLAIN
    return FileRecord(path, mode, len(data), hashlib.sha256(data).hexdigest(), chunks)
